"""The page of one case: red flags first, then the level and why, what is measured and what is not, how sure, and what to do.

With "first impression first" the machine's opinion is not even sent before the clinician has recorded their own.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from inference.assessment import Assessment
from inference.case import Case, CaseReading
from inference.errors import NabzError, NotFoundError
from inference.questions import Question
from inference.service import store
from inference.service.access import NO_SUCH_REFERRAL
from inference.service.caller_check import WHO
from inference.service.callers import Who
from inference.service.parts import Parts
from inference.service.web.case_view import bundle_limits, calibration_rate, condition_lines, finding_lines, photo_lines, vital_lines
from inference.service.web.language import N_
from inference.service.web.overrides import PastOverride, similar_overrides
from inference.service.web.render import page_of, render
from inference.service.web.vocabulary import OUTCOMES

_ID: Final = re.compile(r"r-[0-9a-f]{32}")
_ASKED = 5
_NOTHING_TYPED: Final = dict.fromkeys(("action", "level", "reason", "text", "outcome", "note"), "")
SAID: Final = {
    "claimed": N_("You hold this case."),
    "noted": N_("The note is kept."),
    "agreed": N_("Your agreement is on record."),
    "overridden": N_("Your level is in force."),
    "impression": N_("Your first impression is on record; here is the machine's opinion."),
}


def referral_id(request: Request) -> str:
    """The id in the address. Raises NotFoundError for what can be none."""
    id_: str = request.path_params["id"]
    if not _ID.fullmatch(id_):
        raise NotFoundError(NO_SUCH_REFERRAL)
    return id_


async def show_case(request: Request) -> Response:
    """Everything that a clinician decides by."""
    return await case_answer(request, said=SAID.get(request.query_params.get("said", ""), ""))


async def case_answer(request: Request, *, said: str = "", problem: str = "", typed: Any = None, status: int = 200) -> Response:
    """The page; with `problem`, why the form on it was refused, and `typed`, what was in that form."""
    page, id_, who = page_of(request), referral_id(request), request.scope[WHO]
    parts = page.parts
    full = await parts.referrals.read(who, id_)
    assessment = Assessment.model_validate(full["assessment"]) if full["assessment"] else None
    case = Case.model_validate(full["case"]) if full["case"] is not None else None
    is_hidden = page.preferences.first_impression and page.may("impression") and not _has_impression(full, who)
    shown = None if is_hidden else assessment
    models = parts.scorer.models
    return render(
        page,
        "case.html",
        status,
        full=full,
        case=case,
        assessment=shown,
        is_hidden=is_hidden,
        red_flags=assessment.red_flags if assessment else (),
        vitals=vital_lines(case, assessment) if case and assessment else [],
        news2=assessment.news2 if assessment else None,
        observed=calibration_rate(shown) if shown else None,
        conditions=condition_lines(shown, models) if shown else [],
        largest_certain_set=parts.policy.differential.largest_set_that_raises,
        photos=photo_lines(case, shown, full["photos"]) if case else [],
        lesion_names={label.name: (label.name_en, label.name_ur) for label in models.lesions.label_names} if models.lesions else {},
        malignancy_threshold=models.lesions.malignancy_threshold if models.lesions else None,
        has_heat_map=models.lesions is not None and models.lesions.has_heat_map,
        findings=finding_lines(assessment.findings, models) if assessment else [],
        questions=await _open_questions(parts, case, full) if shown and case else [],
        changes=_changes(full, models) if shown else None,
        overrides=await _overrides(parts, who, id_, shown) if shown and page.may("override") else [],
        limits=bundle_limits(models),
        wait_minutes=_waited(full, parts.clock()),
        cap_minutes=parts.policy.levels[full["level"]].cap_minutes,
        is_mine=full["holder"] == who.subject,
        outcomes=OUTCOMES,
        said=said,
        problem=problem,
        typed={**_NOTHING_TYPED, **(typed or {})},
    )


def _has_impression(full: dict[str, Any], who: Who) -> bool:
    return any(event["kind"] == store.IMPRESSION and event["actor"] == who.subject for event in full["history"])


def _waited(full: dict[str, Any], now: datetime) -> float:
    return max(((full["completed_at"] or now) - full["received_at"]).total_seconds() / 60, 0)


async def _open_questions(parts: Parts, case: Case, full: dict[str, Any]) -> list[Question]:
    """The missing answers that could change the level; none where they cannot be found just now."""
    if full["state"] == store.COMPLETED:
        return []
    try:
        asked = await parts.scorer.ask(CaseReading(case, ()), parts.clock(), _ASKED)
    except NabzError:
        return []
    return [question for question in asked.questions if question.could_reach_level is not None]


async def _overrides(parts: Parts, who: Who, id_: str, assessment: Assessment) -> list[PastOverride]:
    now = parts.clock()
    return await parts.database.run(lambda unit: similar_overrides(unit, parts.vault, who, id_, assessment, now))


def _changes(full: dict[str, Any], models: Any) -> dict[str, Any] | None:
    """What the latest assessment changed, if it was not the first."""
    latest = full["assessments"][-1] if full["assessments"] else None
    if latest is None or not latest["changes"]:
        return None
    changes: dict[str, Any] = latest["changes"]
    return {**changes, "at": latest["at"], "new": finding_lines(changes["findings"], models)}
