"""One assessment as CDS Hooks cards. Pure: formats what was decided, and suggests what the client may do about it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from inference.assessment import Assessment
from inference.service.fhir_codes import LEVEL_SYSTEM, OVERRIDE_SYSTEM, URGENCY, priority_of

SUMMARY_LENGTH: Final = 139  # the specification asks for less than 140
Indicator = Literal["critical", "warning", "info"]
_INDICATOR: Mapping[int, Indicator] = {1: "critical", 2: "critical", 3: "warning", 4: "info", 5: "info"}
_SOURCE: Final = {"label": "Nabz triage: decision support, not a medical device"}
_OVERRIDES: Final = [
    {"code": code, "system": OVERRIDE_SYSTEM, "display": display}
    for code, display in (
        ("seen", "I have seen the patient"),
        ("treated", "Already being treated for this"),
        ("wrong-data", "The recorded data are wrong or old"),
        ("disagree", "I judge it differently"),
    )
]
_MARKDOWN = str.maketrans({char: f"\\{char}" for char in "\\`*_{}[]<>()#+!|"})


def cards_for(assessment: Assessment, draft: Mapping[str, Any] | None, review: Sequence[str]) -> list[dict[str, Any]]:
    """The card of one assessment; for a drafted ServiceRequest with too low a priority, with the suggestion to raise it.

    No card for a patient of whom nothing could be read, unless a referral is being drafted.
    """
    if assessment.scored_by == "nothing" and draft is None:
        return []
    card: dict[str, Any] = {
        "uuid": str(uuid.uuid4()),
        "summary": _summary(assessment),
        "indicator": _INDICATOR[assessment.level],
        "detail": _detail(assessment, review),
        "source": {
            **_SOURCE,
            "topic": {"system": LEVEL_SYSTEM, "code": str(assessment.level), "display": assessment.level_name},
        },
        "overrideReasons": _OVERRIDES,
    }
    suggested = _raised(draft, assessment.level) if draft is not None else None
    return [{**card, "suggestions": [suggested], "selectionBehavior": "at-most-one"} if suggested else card]


def _summary(assessment: Assessment) -> str:
    text = f"Level {assessment.level} {assessment.level_name}"
    supports = [
        *assessment.red_flags,
        *(reason.text for reason in assessment.reasons if reason.kind in ("rule", "referrer", "model", "policy")),
    ]
    if supports:
        text += f": {supports[0]}"
    return text if len(text) <= SUMMARY_LENGTH else text[: SUMMARY_LENGTH - 1] + "…"


def _detail(assessment: Assessment, review: Sequence[str]) -> str:
    """Markdown; what stands in it is escaped, because reasons may quote what was sent."""
    groups = {
        "Red flags": list(assessment.red_flags),
        "Why": [one.text for one in assessment.reasons if one.kind in ("rule", "referrer", "model", "policy")],
        "Possible": [f"{one.name_en} {100 * one.probability:.0f} %" for one in assessment.differential[:3]],
        "Not known": [one.text for one in assessment.reasons if one.kind == "could_change"],
        "To check": list(dict.fromkeys([*assessment.review.why, *review])),
    }
    blocks = [
        "\n".join([f"**{name}**", "", *(f"- {line.translate(_MARKDOWN)}" for line in lines)]) for name, lines in groups.items() if lines
    ]
    return "\n\n".join([*blocks, f"_{assessment.notice}_"])


def _raised(draft: Mapping[str, Any], level: int) -> dict[str, Any] | None:
    """The suggestion to raise the draft's priority to the level's; None where it is high enough."""
    own = draft.get("priority", "routine")
    wanted = priority_of(level, own)
    if URGENCY[wanted] <= URGENCY[own]:
        return None
    label = f"Raise the priority to {wanted}"
    action = {"type": "update", "description": f"{label} (now {own})", "resource": {**draft, "priority": wanted}}
    return {"label": label, "uuid": str(uuid.uuid4()), "isRecommended": True, "actions": [action]}
