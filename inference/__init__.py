"""Nabz inference."""
