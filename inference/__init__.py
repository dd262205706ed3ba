"""Nabz inference: cases in, ranked assessments out. `load_models`, `Triage`, `read_case` and `read_cases` are the doors."""

from __future__ import annotations

from inference.assessment import Assessment
from inference.case import Case, CaseReading, Photo, Vitals, read_case
from inference.casefile import read_cases
from inference.errors import BundleError, CaseError, DataError, ExportError, NabzError, PhotoError, PolicyError
from inference.models import Models, load_models
from inference.policy import Policy, load_policy
from inference.triage import Triage

__all__ = [
    "Assessment",
    "BundleError",
    "Case",
    "CaseError",
    "CaseReading",
    "DataError",
    "ExportError",
    "Models",
    "NabzError",
    "Photo",
    "PhotoError",
    "Policy",
    "PolicyError",
    "Triage",
    "Vitals",
    "load_models",
    "load_policy",
    "read_case",
    "read_cases",
]
