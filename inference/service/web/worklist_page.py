"""The worklist: who is next, and enough of why to decide whom to open. Orders nothing itself."""

from __future__ import annotations

import orjson
from sqlalchemy import select
from starlette.requests import Request
from starlette.responses import Response

from inference.service import store
from inference.service.access import require
from inference.service.caller_check import WHO
from inference.service.callers import Who
from inference.service.database import Unit
from inference.service.parts import Parts
from inference.service.referrals import own_clinic
from inference.service.tables import events, referrals
from inference.service.web.case_number import read_case_number
from inference.service.web.language import N_
from inference.service.web.render import go_to, page_of, render
from inference.service.web.tiles import Tiles
from inference.service.web.vocabulary import SPECIALTIES
from inference.service.web.worklist_filters import PAGE_ROWS, VIEWS, read_filters
from inference.service.web.worklist_rows import rows_of, sorted_rows

# What a form may have to say to the reader on the list, by the code in the address.
SAID = {
    "none": N_("No case waits in this list."),
    "not-found": N_("There is no case of that number: check the slip, and that it was sent."),
    "completed": N_("The case is completed."),
    "full": N_("You hold as many cases as one person may: complete one, or put one back."),
    "released": N_("The case is back in the queue, at its place."),
}


async def show_worklist(request: Request) -> Response:
    """One page of the queue."""
    page, filters = page_of(request), read_filters(request.query_params)
    who: Who = request.scope[WHO]
    parts = page.parts
    require(who, "worklist.read")
    listed, _, items = await parts.referrals.page(who, filters.columns(who), filters.state, PAGE_ROWS, filters.cursor or None)
    items = [{**item, "summary": orjson.loads(orjson.dumps(item["summary"]))} for item in items or ()]
    seen = await _impressions(parts, who, [item["id"] for item in items]) if page.preferences.first_impression else None
    rows = rows_of(items, parts.policy, listed.as_of, who, filters.first, seen)
    return render(
        page,
        "worklist.html",
        filters=filters,
        rows=sorted_rows(rows, filters.sort, is_descending=filters.is_descending),
        tiles=await tiles_of(request).read(own_clinic(who)),
        views=VIEWS,
        specialties=SPECIALTIES,
        as_of=listed.as_of,
        next_url=filters.url(cursor=listed.cursor, first=filters.first + PAGE_ROWS) if listed.cursor else "",
        said=SAID.get(request.query_params.get("said", ""), ""),
        health=parts.scorer.health(),
    )


async def find(request: Request) -> Response:
    """Open the case of a number; a form, because what a sender calls a case does not belong into an address."""
    page, who = page_of(request), request.scope[WHO]
    require(who, "worklist.read")
    wanted = str((await request.form()).get("number", "")).strip()
    found = await find_case(page.parts, who, wanted) if wanted else None
    return go_to(f"/app/cases/{found}" if found else "/app/worklist?said=not-found")


def tiles_of(request: Request) -> Tiles:
    """The app's tiles."""
    state = request.app.state
    if not hasattr(state, "tiles"):
        state.tiles = Tiles(state.parts.database)
    tiles: Tiles = state.tiles
    return tiles


async def find_case(parts: Parts, who: Who, number: str) -> str | None:
    """The newest referral with a case number, as on a slip: small or capital letters, with or without its hyphens."""
    plain = "".join(letter for letter in number.upper() if letter.isalnum())
    numbers = {number, plain, read_case_number(number) or number}
    tokens = [parts.referrals.intake.case_token(one) for one in numbers]
    clinic = own_clinic(who)

    def work(unit: Unit) -> str | None:
        query = select(referrals.c.id).where(referrals.c.case_token.in_(tokens)).order_by(referrals.c.stored_us.desc()).limit(1)
        found = unit.connection.execute(query if clinic is None else query.where(referrals.c.clinic == clinic)).scalar()
        if found:
            store.record(unit, who, "found", found, parts.clock())
        return found

    return await parts.database.run(work)


async def _impressions(parts: Parts, who: Who, ids: list[str]) -> set[str]:
    """The cases of which the reader has recorded a first impression."""
    query = select(events.c.referral_id).where(
        events.c.referral_id.in_(ids), events.c.kind == store.IMPRESSION, events.c.actor == who.subject
    )
    return await parts.database.run(lambda unit: set(unit.connection.execute(query).scalars()))
