"""Nabz training: data to signed bundles. Nothing here is needed to score a case."""
