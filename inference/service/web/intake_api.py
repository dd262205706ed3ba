"""What the intake page's script asks for: read a case as it stands, and send it. JSON in, JSON out; errors are problem documents.

Both are the page's own: another program uses /v1, which has the same functions behind it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from inference.assessment import Assessment
from inference.errors import ConflictError, MalformedError, UnprocessableError
from inference.service.access import require
from inference.service.bodies import as_object, idempotency_key, submission_of
from inference.service.caller_check import WHO
from inference.service.callers import Who
from inference.service.problems import problem
from inference.service.referrals import Stored
from inference.service.web.intake_form import MOST_PHOTOS, free_name, not_said_reasons
from inference.service.web.intake_reading import understand
from inference.service.web.intake_send import AlreadySent, UploadsMissing, store_case
from inference.service.web.intake_words import chip_text, photo_advice, review_reasons, wait_in_words
from inference.service.web.owner import owner_of
from inference.service.web.render import Page, page_of

_JSON: Final = "application/json"
_LOST_PHOTO: Final = "a photo was lost on the phone before it could be sent: ask for it again"


async def read(request: Request) -> Response:
    """Findings, words that were not understood, and the next question. Nothing is stored."""
    who: Who = request.scope[WHO]
    require(who, "referral.create")
    page, body = page_of(request), as_object(await request.body())
    raw = _case(body)
    raw.pop("patient", None)
    seen = await understand(page.parts, raw, _texts(body, "skipped"))
    pick = page.speech.pick
    findings = [
        {
            "code": one.code, "value": one.value, "text": chip_text(one, page.speech), "name_en": one.name_en, "name_ur": one.name_ur,
            "span": one.span, "is_choice": one.is_choice,
        }
        for one in seen.findings
    ]  # fmt: skip
    asked = seen.question
    question = None if asked is None else {
        "kind": asked.kind, "code": asked.code, "text": pick(asked.text_en, asked.text_ur), "why": pick(asked.why_en, asked.why_ur),
        "text_en": asked.text_en, "text_ur": asked.text_ur,
        "answers": [{"value": one.value, "text": pick(one.text_en, one.text_ur)} for one in asked.answers],
    }  # fmt: skip
    answer = {"findings": findings, "not_understood": seen.not_understood, "question": question, "stop": pick(*seen.stop)}
    return Response(orjson.dumps(answer), media_type=_JSON)


async def send(request: Request) -> Response:
    """Store a case with the photos that were uploaded before. 201 once it is on the disk; a repeat gives the same answer."""
    page, who = page_of(request), request.scope[WHO]
    require(who, "referral.create")
    raw_body = await request.body()
    body, key = as_object(raw_body), idempotency_key(request)
    if key is None:
        raise MalformedError("Idempotency-Key is missing: send a UUID, the same one each time that this case is sent")
    if body.get("owner", owner_of(page.parts, who)) != owner_of(page.parts, who):
        raise ConflictError("this case was taken down by somebody else: sign in as they were, then send it")
    raw, photos, reasons = _with_photos(_case(body), body.get("photos"))
    given = submission_of({**raw, **({"patient": body["patient"]} if body.get("patient") else {})})
    given = replace(given, reasons=(*given.reasons, *reasons, *not_said_reasons(_texts(body, "not_said"))))
    try:
        stored = await store_case(page.parts, who, given, photos, key, raw_body)
    except UploadsMissing as missing:
        return problem(409, "Photos are missing", "some photos are not here yet: upload them, then send it again", missing=missing.ids)
    except AlreadySent as sent:
        row = await page.parts.referrals.read(who, sent.id)
        return _acknowledged(page, row, Assessment.model_validate(row["assessment"]) if row["assessment"] else None, is_replay=True)
    return _acknowledged(page, stored.row, _assessment(stored), is_replay=stored.is_replay)


def _acknowledged(page: Page, row: Any, assessment: Assessment | None, *, is_replay: bool) -> Response:
    """The case is stored: its number, its level and wait in words, and what is still to be done about it."""
    level = page.parts.policy.levels[row["level"]]
    answer = {
        "id": row["id"],
        "case_number": assessment.case_id if assessment else None,
        "level": row["level"],
        "level_name": page.words.level(row["level"]),
        "wait": wait_in_words(level.cap_minutes, page.speech),
        "review": review_reasons(assessment, page.words) if assessment else [],
        "photo_advice": photo_advice(assessment, page.speech) if assessment else [],
        "url": f"/app/intake/sent/{row['id']}",
    }
    return Response(orjson.dumps(answer), 201, {"Idempotency-Replayed": "true"} if is_replay else {}, _JSON)


def _assessment(stored: Stored) -> Assessment | None:
    found = orjson.loads(stored.assessment)
    return None if found is None else Assessment.model_validate(found)


def _case(body: dict[str, Any]) -> dict[str, Any]:
    case = body.get("case")
    if not isinstance(case, dict):
        raise UnprocessableError("`case` is no object: send the case, with named fields, in it")
    return dict(case)


def _texts(body: dict[str, Any], name: str) -> list[str]:
    listed = body.get(name)
    return [one for one in listed if isinstance(one, str)] if isinstance(listed, list) else []


def _with_photos(raw: dict[str, Any], listed: Any) -> tuple[dict[str, Any], dict[str, str], tuple[str, ...]]:
    """The case with its photos by free names, the uploads by these names, and a review reason for each photo that is lost."""
    photos: dict[str, str] = {}
    said, lost = [], 0
    for one in listed[:MOST_PHOTOS] if isinstance(listed, list) else []:
        if not isinstance(one, dict):
            continue
        upload = one.get("upload")
        if not isinstance(upload, str):
            lost += 1
            continue
        name = free_name(str(one.get("name") or "photo.jpg"), photos)
        photos[name] = upload
        said.append({**{key: value for key, value in one.items() if key not in ("upload", "name")}, "path": name})
    reasons = (_LOST_PHOTO,) * bool(lost)
    return ({**raw, "photos": said} if said else raw), photos, reasons
