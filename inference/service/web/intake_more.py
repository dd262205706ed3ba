"""What is newly known of a case that was sent: new words, vitals, a photo. The level may rise at once, and never falls by itself."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from inference.errors import ServiceError
from inference.service.access import require
from inference.service.caller_check import WHO
from inference.service.problems import describe
from inference.service.web.case_page import referral_id
from inference.service.web.intake_form import CHOICES, Typed, read_form
from inference.service.web.intake_hints import hints_for, mended
from inference.service.web.intake_page import read_parts, typed_of
from inference.service.web.intake_send import UploadsMissing, uploaded
from inference.service.web.intake_sent import case_number_of
from inference.service.web.intake_view import BODY_SITES, CONSCIOUSNESS
from inference.service.web.intake_words import problem_in_words
from inference.service.web.language import N_
from inference.service.web.render import Page, go_to, page_of, render
from inference.service.web.vocabulary import HISTORY

_NEW: Final = ("complaint", "vitals", "findings", "photos")
_NOTHING_NEW: Final = N_("Nothing new is entered: write what has changed, or measure again.")
_LOOK: Final = N_("Look at what is marked, then send it.")


async def show_more(request: Request) -> Response:
    """The form. What is known already is not shown in it: what is typed is what is new."""
    page = page_of(request)
    require(request.scope[WHO], "referral.create")
    return await _form(page, request, read_form({}))


async def send_more(request: Request) -> Response:
    """Assess the case again with what is new."""
    page, who, id_ = page_of(request), request.scope[WHO], referral_id(request)
    require(who, "referral.create")
    async with AsyncExitStack() as held:
        form = await read_parts(request, held)
        typed, problems = await typed_of(page.parts, who, form, page.speech)
    if (better := mended(typed, page.speech, str(form.get("action", "")))) is not None:
        return await _form(page, request, better, hints_for(better, page.speech))
    new = {name: value for name, value in typed.case().items() if name in _NEW and value}
    hints = hints_for(typed, page.speech)
    if not new:
        problems = [*problems, page.speech.t(_NOTHING_NEW)]
    elif any(hint.code not in str(form.get("seen", "")).split() for hint in hints):
        problems = [*problems, page.speech.t(_LOOK)]
    if problems:
        return await _form(page, request, typed, hints, problems, 422)
    photos = {photo.name: photo.upload for photo in typed.photos}
    try:
        async with uploaded(page.parts, who, list(photos.values())) as contents:
            await page.parts.referrals.add_findings(who, id_, new, dict(zip(photos, contents, strict=True)))
    except UploadsMissing:
        return await _form(page, request, Typed(typed.fields), hints, [page.speech.t(N_("Choose the photo again."))], 409)
    except ServiceError as error:
        return await _form(page, request, typed, hints, [problem_in_words(error, page.speech)], describe(error).status)
    page.parts.uploads.remove(who.clinic or "", photos.values())
    return go_to(f"/app/intake/sent/{id_}?said=more")


async def _form(page: Page, request: Request, typed: Typed, hints: Any = (), problems: Any = (), status: int = 200) -> Response:
    """The form, for a case that the caller may see. Raises NotFoundError for any other."""
    full = await page.parts.referrals.read(request.scope[WHO], referral_id(request))
    return render(
        page,
        "intake_more.html",
        status,
        full=full,
        number=case_number_of(full),
        typed=typed,
        hints={hint.field: hint for hint in hints},
        seen=" ".join(hint.code for hint in hints) if problems else "",
        problems=problems,
        consciousness=CONSCIOUSNESS,
        choice_vitals=CHOICES,
        sites=BODY_SITES,
        history=HISTORY,
    )
