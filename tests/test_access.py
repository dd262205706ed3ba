"""Tests of who may do what: the whole table, action by action, and whose referrals a caller sees."""

from __future__ import annotations

import pytest

from inference.errors import NotAllowedError, NotFoundError
from inference.service.access import ACTIONS, ALLOWED, require, require_sight, sees
from inference.service.callers import ROLES, Who

# C clinic · D clinician (doctor) · S data scientist · A admin
EXPECTED = {
    "assess": "CDS",
    "ask": "CDS",
    "referral.create": "C",
    "referral.read": "CD",
    "referral.update": "CD",
    "worklist.read": "CD",
    "events.read": "CD",
    "claim": "D",
    "release": "D",
    "complete": "D",
    "override": "D",
    "note": "D",
    "agree": "D",
    "impression": "D",
    "dashboard.read": "DSA",
    "fhir.read": "CD",
    "fhir.write": "C",
    "cds.call": "D",
    "cds.feedback": "D",
    "metrics.read": "SA",
    "models.reload": "A",
    "audit.read": "A",
    "retention.run": "A",
    "retention.erase": "A",
    "webhooks.manage": "A",
}
LETTERS = {"clinic": "C", "clinician": "D", "data_scientist": "S", "admin": "A"}


def caller(role: str) -> Who:
    """A caller of this role; a clinic of the role clinic."""
    return Who("somebody", role, "mithi" if role == "clinic" else None)


def test_the_table_names_every_action_and_no_other():
    """An action without a row would be forbidden to nobody by design."""
    assert set(ALLOWED) == set(ACTIONS) == set(EXPECTED)
    assert set(LETTERS) == set(ROLES)


@pytest.mark.parametrize("action", EXPECTED)
@pytest.mark.parametrize("role", ROLES)
def test_every_action_is_allowed_to_exactly_the_roles_of_the_table(action, role):
    """A role in the row passes; any other is told which roles may."""
    if LETTERS[role] in EXPECTED[action]:
        require(caller(role), action)
    else:
        with pytest.raises(NotAllowedError, match=rf"^the role {role} may not do {action}: sign in as "):
            require(caller(role), action)


@pytest.mark.parametrize(
    ("who", "clinic", "seen"),
    [
        (Who("a", "clinic", "mithi"), "mithi", True),
        (Who("a", "clinic", "mithi"), "islamkot", False),
        (Who("a", "clinic", "mithi"), None, False),
        (Who("a", "clinic", None), None, False),
        (Who("a", "clinician"), "mithi", True),
        (Who("a", "clinician"), None, True),
        (Who("a", "data_scientist"), "mithi", False),
        (Who("a", "admin"), "mithi", False),
    ],
)
def test_a_clinic_sees_its_own_and_a_clinician_every_referral(who, clinic, seen):
    """Data scientists and admins see no referral; a foreign one looks like a missing one."""
    assert sees(who, clinic) is seen
    if seen:
        require_sight(who, clinic)
    else:
        with pytest.raises(NotFoundError, match=r"^there is no referral of that id for this caller"):
            require_sight(who, clinic)
