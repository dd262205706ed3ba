"""What became of a case that a clinic sent: its number, level and wait, what was understood, what changed since, and its slip."""

from __future__ import annotations

import io
from typing import Any

import segno
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from inference.assessment import Assessment
from inference.service.access import require
from inference.service.caller_check import WHO
from inference.service.web.case_number import read_case_number
from inference.service.web.case_page import referral_id
from inference.service.web.intake_words import photo_advice, review_reasons, understood_in_words, wait_in_words
from inference.service.web.language import N_
from inference.service.web.render import Page, page_of, render

SAID = {"more": N_("What is new was added, and the case was assessed again.")}


async def show_sent(request: Request) -> Response:
    """The confirmation. It can be opened again, and shows the case as it is now."""
    page = page_of(request)
    require(request.scope[WHO], "referral.create")
    full = await page.parts.referrals.read(request.scope[WHO], referral_id(request))
    said = SAID.get(request.query_params.get("said", ""), "")
    return render(page, "intake_sent.html", said=said, **sent_values(page, full))


async def show_slip(request: Request) -> Response:
    """The slip for the patient: a number, and nothing that says why they came."""
    page = page_of(request)
    require(request.scope[WHO], "referral.create")
    full = await page.parts.referrals.read(request.scope[WHO], referral_id(request))
    number = case_number_of(full)
    return render(page, "slip.html", full=full, number=number, qr=qr_code(number or full["id"]), wait=_wait(page, full))


def sent_values(page: Page, full: dict[str, Any]) -> dict[str, Any]:
    """What the template shows of a referral. After an erasure only the row is left."""
    assessment = Assessment.model_validate(full["assessment"]) if full["assessment"] else None
    models = page.parts.scorer.models
    changes = full["assessments"][-1]["changes"] if full["assessments"] else None
    return {
        "full": full,
        "number": case_number_of(full),
        "wait": _wait(page, full),
        "understood": understood_in_words(assessment.findings, models, page.speech) if assessment else [],
        "not_understood": assessment.not_understood if assessment else (),
        "review": review_reasons(assessment, page.words) if assessment else [],
        "advice": photo_advice(assessment, page.speech) if assessment else [],
        "red_flags": assessment.red_flags if assessment else (),
        "changes": changes,
        "news": understood_in_words(changes["findings"], models, page.speech) if changes else [],
    }


def case_number_of(full: dict[str, Any]) -> str:
    """The number on the slip; a case that came another way may have none."""
    return read_case_number((full["case"] or {}).get("case_id", "")) or ""


def qr_code(text: str) -> Markup:
    """A QR code as inline SVG, drawn by attributes alone: the pages allow no inline style."""
    drawn = io.BytesIO()
    segno.make(text, error="m", micro=False).save(
        drawn, kind="svg", xmldecl=False, svgns=False, nl=False, scale=4, border=4, svgclass="qr", lineclass=None, omitsize=True
    )
    return Markup(drawn.getvalue().decode())  # noqa: S704 (segno's own drawing; the text is not in it)


def _wait(page: Page, full: dict[str, Any]) -> str:
    return wait_in_words(page.parts.policy.levels[full["level"]].cap_minutes, page.speech)
