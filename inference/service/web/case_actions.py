"""What a clinician does with a case by a form: claim, put back, agree, override, complete, note, first impression.

Each action is one of `Referrals`; what it refuses comes back on the case's page, with what was typed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from inference.errors import ConflictError, NotFoundError, UnprocessableError
from inference.service.api_models import CompleteRequest, Level, NoteRequest, OverrideRequest
from inference.service.caller_check import WHO
from inference.service.callers import Who
from inference.service.referrals import Referrals
from inference.service.web.case_page import case_answer, referral_id
from inference.service.web.language import N_
from inference.service.web.render import go_to, page_of
from inference.service.web.worklist_filters import read_filters

_REFUSED: Final = {
    "reason": N_("Write why: the reason is kept with both levels."),
    "text": N_("The note is empty, or too long."),
    "level": N_("Choose a level from 1 to 5."),
    "outcome": N_("Choose how the case ended."),
}


Body = TypeVar("Body", bound=BaseModel)


class _Impression(BaseModel):
    level: Level


Action = Callable[[Referrals, Who, str, Mapping[str, str]], Awaitable[Any]]


async def _override(referrals: Referrals, who: Who, id_: str, form: Mapping[str, str]) -> None:
    asked = _read(OverrideRequest, level=_level(form), reason=form.get("reason", ""))
    await referrals.override(who, id_, asked.level, {"reason": asked.reason})


async def _complete(referrals: Referrals, who: Who, id_: str, form: Mapping[str, str]) -> None:
    asked = _read(CompleteRequest, outcome=form.get("outcome"), final_level=_level(form), note=form.get("note", ""))
    await referrals.complete(who, id_, asked.model_dump(exclude_none=True))


async def _note(referrals: Referrals, who: Who, id_: str, form: Mapping[str, str]) -> None:
    await referrals.note(who, id_, _read(NoteRequest, text=form.get("text", "")).model_dump())


async def _impression(referrals: Referrals, who: Who, id_: str, form: Mapping[str, str]) -> None:
    await referrals.impression(who, id_, _read(_Impression, level=_level(form)).level)


# Each action, and what the reader is told afterwards.
_ACTIONS: Final[Mapping[str, tuple[Action, str]]] = {
    "claim": (lambda referrals, who, id_, _: referrals.claim(who, id_), "claimed"),
    "release": (lambda referrals, who, id_, _: referrals.release(who, id_), "released"),
    "agree": (lambda referrals, who, id_, _: referrals.agree(who, id_), "agreed"),
    "override": (_override, "overridden"),
    "complete": (_complete, "completed"),
    "note": (_note, "noted"),
    "impression": (_impression, "impression"),
}
_LEAVES: Final = frozenset({"release", "complete"})  # the case is done with: on to the list


async def act(request: Request) -> Response:
    """Do what the form asks for."""
    id_, name = referral_id(request), request.path_params["action"]
    if name not in _ACTIONS:
        raise NotFoundError("there is no such action: open the case again")
    action, said = _ACTIONS[name]
    form = {key: value for key, value in (await request.form()).items() if isinstance(value, str)}
    page = page_of(request)
    try:
        await action(page.parts.referrals, request.scope[WHO], id_, form)
    except (ConflictError, UnprocessableError) as error:
        status = 409 if isinstance(error, ConflictError) else 422
        return await case_answer(request, problem=str(error), typed={**form, "action": name}, status=status)
    if name == "complete" and form.get("next"):
        return await claim_next(request)
    return go_to(f"/app/worklist?said={said}" if name in _LEAVES else f"/app/cases/{id_}?said={said}")


async def claim_next(request: Request) -> Response:
    """Hold the first case that waits in the list that the reader looks at, and open it."""
    page, filters = page_of(request), read_filters(request.query_params)
    columns = {name: value for name, value in filters.columns(request.scope[WHO]).items() if name in ("level", "specialty", "district")}
    try:
        row = await page.parts.referrals.claim_next(request.scope[WHO], columns)
    except ConflictError:  # the policy lets nobody hold more
        return go_to("/app/worklist?view=mine&said=full")
    return go_to(f"/app/cases/{row['id']}?said=claimed" if row else "/app/worklist?said=none")


def _level(form: Mapping[str, str]) -> int | None:
    level = form.get("level", "")
    return int(level) if level in {"1", "2", "3", "4", "5"} else None


def _read(kind: type[Body], **given: Any) -> Body:
    """A form as the API takes it. Raises UnprocessableError for the first field that is missing."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        raise UnprocessableError(_REFUSED.get(field, field)) from error
