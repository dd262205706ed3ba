"""What is wrong with a FHIR request, in FHIR's words: a list of issues that becomes an OperationOutcome.

Knows no HTTP and no resource. Diagnostics say where and what was expected, never what was found: it may be a patient's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from inference.errors import ServiceError

Severity = Literal["fatal", "error", "warning", "information"]
MOST_ISSUES = 20
_TOKEN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,39}", re.ASCII)


class Issue(NamedTuple):
    """One line of an OperationOutcome. `code` is of FHIR's issue-type value set; `expression` a FHIRPath, or empty."""

    severity: Severity
    code: str
    diagnostics: str
    expression: str = ""


class FhirError(ServiceError):
    """A FHIR request that cannot be carried out; nothing of it was stored."""

    def __init__(self, issues: Iterable[Issue]) -> None:
        self.issues = tuple(issues)[:MOST_ISSUES]
        super().__init__("; ".join(f"{issue.expression}: {issue.diagnostics}".removeprefix(": ") for issue in self.issues))


def problem(code: str, diagnostics: str, expression: str = "") -> FhirError:
    """A problem of one issue."""
    return FhirError([Issue("error", code, diagnostics, expression)])


def token(text: object) -> str | None:
    """`text` when it can only be a code or a name of a field: short, ASCII, no spaces. Else None: it may be a patient's words."""
    return text if isinstance(text, str) and _TOKEN.fullmatch(text) else None


def operation_outcome(issues: Iterable[Issue]) -> dict[str, Any]:
    """The issues as an OperationOutcome resource."""
    return {"resourceType": "OperationOutcome", "issue": [_as_json(issue) for issue in issues]}


def _as_json(issue: Issue) -> dict[str, Any]:
    line: dict[str, Any] = {"severity": issue.severity, "code": issue.code, "diagnostics": issue.diagnostics}
    return {**line, "expression": [issue.expression]} if issue.expression else line
