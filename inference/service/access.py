"""Who may do what: one table, and whose referrals a caller sees.

It knows no HTTP, no token and no database. A route asks `require` first; then it asks `require_sight` for each
referral it is about to show or change, so that a foreign referral and a missing one look the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

from inference.errors import NotAllowedError, NotFoundError
from inference.service.callers import Role, Who

Action = Literal[
    "assess",
    "ask",
    "referral.create",
    "referral.read",
    "referral.update",
    "worklist.read",
    "events.read",
    "claim",
    "release",
    "complete",
    "override",
    "note",
    "agree",
    "impression",
    "dashboard.read",
    "fhir.read",
    "fhir.write",
    "cds.call",
    "cds.feedback",
    "metrics.read",
    "models.reload",
    "audit.read",
    "retention.run",
    "retention.erase",
    "webhooks.manage",
]
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)

_CLINIC: Final[frozenset[Role]] = frozenset({"clinic"})
_CLINICIAN: Final[frozenset[Role]] = frozenset({"clinician"})
_ADMIN: Final[frozenset[Role]] = frozenset({"admin"})
_CARE: Final[frozenset[Role]] = _CLINIC | _CLINICIAN
_SCORING: Final[frozenset[Role]] = frozenset({"clinic", "clinician", "data_scientist"})

ALLOWED: Final[Mapping[Action, frozenset[Role]]] = {
    "assess": _SCORING,
    "ask": _SCORING,
    "referral.create": _CLINIC,
    "referral.read": _CARE,
    "referral.update": _CARE,
    "worklist.read": _CARE,
    "events.read": _CARE,
    "claim": _CLINICIAN,
    "release": _CLINICIAN,
    "complete": _CLINICIAN,
    "override": _CLINICIAN,
    "note": _CLINICIAN,
    "agree": _CLINICIAN,
    "impression": _CLINICIAN,
    "dashboard.read": frozenset({"clinician", "data_scientist", "admin"}),
    "fhir.read": _CARE,
    "fhir.write": _CLINIC,
    "cds.call": _CLINICIAN,
    "cds.feedback": _CLINICIAN,
    "metrics.read": frozenset({"data_scientist", "admin"}),
    "models.reload": _ADMIN,
    "audit.read": _ADMIN,
    "retention.run": _ADMIN,
    "retention.erase": _ADMIN,
    "webhooks.manage": _ADMIN,
}

NO_SUCH_REFERRAL: Final = "there is no referral of that id for this caller: check the id, and that it is your clinic's"


def require(who: Who, action: Action) -> None:
    """Nothing when the caller's role may do this; NotAllowedError otherwise."""
    if who.role not in ALLOWED[action]:
        allowed = " or ".join(sorted(ALLOWED[action]))
        raise NotAllowedError(f"the role {who.role} may not do {action}: sign in as {allowed}")


def sees(who: Who, clinic: str | None) -> bool:
    """Whether the caller may see a referral of this clinic.

    A clinic sees its own, a clinician every one; data scientists and admins see no referral's content.
    """
    if who.role == "clinic":
        return who.clinic is not None and who.clinic == clinic
    return who.role == "clinician"


def require_sight(who: Who, clinic: str | None) -> None:
    """Nothing when the caller sees this clinic's referrals; NotFoundError otherwise, in the words used for a missing one."""
    if not sees(who, clinic):
        raise NotFoundError(NO_SUCH_REFERRAL)
