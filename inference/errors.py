"""Every error that Nabz raises on purpose, in one tree.

Messages say what was wrong, what was found, what was expected and what to do next. They name case ids and
files, never a patient's name, words or pixels. Nothing here knows about exit codes or HTTP.

    NabzError
    ├── CaseError     a case, or a file of cases, cannot be read
    ├── PhotoError    a photo is missing, broken, too large or of a kind that is not accepted
    ├── BundleError   a model bundle is missing, altered, unsigned or not safe to run
    ├── PolicyError   a policy or settings file cannot be used
    ├── DataError     training data or the catalogue are not as their format says
    └── ExportError   an exported model disagrees with the model that it came from
"""

from __future__ import annotations


class NabzError(Exception):
    """Base of every error that Nabz raises on purpose; its text is meant for the person who called."""


class CaseError(NabzError):
    """A case, or a whole file of cases, cannot be read."""


class PhotoError(NabzError):
    """A photo is missing, broken, too large or of a kind that is not accepted."""


class BundleError(NabzError):
    """A model bundle is missing, altered, unsigned or not safe to run."""


class PolicyError(NabzError):
    """A policy or settings file cannot be used."""


class DataError(NabzError):
    """Training data or the catalogue are not as their format says."""


class ExportError(NabzError):
    """An exported model disagrees with the model that it came from, or cannot be exported."""
