"""Every error that Nabz raises on purpose, in one tree.

Messages say what was wrong, what was found, what was expected and what to do next. They name case ids and
files, never a patient's name, words or pixels. Nothing here knows about exit codes or HTTP.

    NabzError
    ├── CaseError     a case, or a file of cases, cannot be read
    ├── PhotoError    a photo is missing, broken, too large or of a kind that is not accepted
    ├── BundleError   a model bundle is missing, altered, unsigned or not safe to run
    ├── PolicyError   a policy or settings file cannot be used
    ├── DataError     training data or the catalogue are not as their format says
    ├── ExportError   an exported model disagrees with the model that it came from
    ├── PromotionError  the live bundle of a task cannot be switched
    ├── TrackingError the experiment store cannot be used
    └── ServiceError  the service cannot do what was asked
        ├── MalformedError        the request cannot be parsed
        ├── UnauthenticatedError  no token, or one that cannot be trusted
        ├── NotAllowedError       the caller's role may not do this
        ├── NotFoundError         there is nothing of that name for this caller
        ├── ConflictError         somebody else holds it, or it is in another state
        ├── UnprocessableError    understood, but it cannot be right
        ├── TooLargeError         more bytes than are accepted
        ├── WrongTypeError        a content type that is not accepted here
        ├── BusyError             this caller sends too fast
        ├── OverloadedError       the service has more work than it can hold
        └── StorageError          nothing was stored
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


class TrackingError(NabzError):
    """The store of experiments and registered models cannot be reached, read or written."""


class PromotionError(NabzError):
    """The live bundle of a task cannot be switched; the one that is live stays."""


class ServiceError(NabzError):
    """The service cannot do what was asked; nothing was changed."""


class MalformedError(ServiceError):
    """The request cannot be parsed."""


class UnauthenticatedError(ServiceError):
    """There is no token, or one that cannot be trusted."""


class NotAllowedError(ServiceError):
    """The caller's role may not do this."""


class NotFoundError(ServiceError):
    """There is nothing of that name for this caller: missing and foreign look the same."""


class ConflictError(ServiceError):
    """Somebody else holds it, or it is in another state."""


class UnprocessableError(ServiceError):
    """The request was understood, but it cannot be right."""


class TooLargeError(ServiceError):
    """More bytes than are accepted."""


class WrongTypeError(ServiceError):
    """A content type that is not accepted here."""


class BusyError(ServiceError):
    """This caller sends too fast; `retry_after_seconds` says when to come back."""

    def __init__(self, message: str, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class OverloadedError(ServiceError):
    """The service has more work than it can hold; `retry_after_seconds` says when to come back."""

    def __init__(self, message: str, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class StorageError(ServiceError):
    """The store cannot be reached or written; nothing was stored."""
