"""The intake page for a health worker: a short form, what was understood of it, the next question, and sending it.

It works without a script: "Read it" shows the form again with what was understood, "Send" stores the case. With the script of
`static/intake.js` the same form keeps drafts on the phone. Whatever is wrong with a form, it comes back with all that was typed.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import orjson
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import Response

from inference.errors import ServiceError
from inference.photo import YES_NO_FIELDS
from inference.service.access import require
from inference.service.bodies import form_of
from inference.service.caller_check import WHO
from inference.service.callers import Who
from inference.service.intake import Submission
from inference.service.parts import Parts
from inference.service.problems import describe
from inference.service.settings import LARGEST_UPLOAD
from inference.service.web.intake_form import Typed, TypedPhoto, free_name, not_said_reasons, read_form
from inference.service.web.intake_hints import Hint, hints_for, mended
from inference.service.web.intake_reading import understand
from inference.service.web.intake_send import HOLDING, AlreadySent, UploadsMissing, store_case
from inference.service.web.intake_view import form_values
from inference.service.web.intake_words import problem_in_words
from inference.service.web.language import N_, Speech
from inference.service.web.render import go_to, page_of, render
from inference.service.web.uploads import UploadStore

PHOTO_PLACES: Final = (1, 2, 3)  # of the form without a script
SHELL: Final = "Nabz-Shell"  # an answer that has this header holds nothing of a patient: the service worker may keep it
_MOST_FIELDS: Final = 600
_EMPTY: Final = N_("Nothing is entered: write what brings the patient, or send it as it is.")
_LOOK: Final = N_("Look at what is marked, then send it.")
_PHOTOS_GONE: Final = N_("The photos are not here any more: choose them again.")
_SENT_BEFORE: Final = N_("This case was sent already. What was changed since is not in it: add it to the case.")


async def show_intake(request: Request) -> Response:
    """The empty form. Nothing of any patient is in it."""
    require(request.scope[WHO], "referral.create")
    page = page_of(request)
    response = render(page, "intake.html", **form_values(page, read_form({})))
    response.headers[SHELL] = "1"
    response.headers["Content-Language"] = page.speech.code
    return response


async def use_intake(request: Request) -> Response:
    """Read, mend or send what was typed."""
    who: Who = request.scope[WHO]
    require(who, "referral.create")
    page = page_of(request)
    async with AsyncExitStack() as held:
        form = await read_parts(request, held)
        typed, problems = await typed_of(page.parts, who, form, page.speech)
    asked = {name: str(form.get(name, "")) for name in ("action", "seen", "skipped", "skip")}
    better = mended(typed, page.speech, asked["action"])
    typed = better or typed
    hints = hints_for(typed, page.speech)
    if better is None and asked["action"] == "send" and not problems:
        problems = _unseen(typed, hints, asked["seen"], page.speech)
        if not problems:
            return await _send(request, typed)
    status = 422 if asked["action"] == "send" else 200
    return await _again(request, typed, hints, problems, asked, status)


def _unseen(typed: Typed, hints: list[Hint], seen: str, speech: Speech) -> list[str]:
    """What must be looked at once before the form is sent; the second time it goes."""
    known = set(seen.split())
    problems = [speech.t(_LOOK)] if any(hint.code not in known for hint in hints) else []
    is_empty = not (typed["complaint"] or typed.answers or typed.photos)
    return [*problems, speech.t(_EMPTY)] if is_empty and "empty" not in known else problems


async def _send(request: Request, typed: Typed) -> Response:
    page, who = page_of(request), request.scope[WHO]
    photos = {photo.name: photo.upload for photo in typed.photos}
    given = Submission(typed.case(), typed.patient(), None, not_said_reasons(typed.not_said))
    body = orjson.dumps([given.raw, given.patient, given.reasons, photos])
    again: dict[str, Any] = {}
    try:
        stored = await store_case(page.parts, who, given, photos, typed["key"], body)
    except UploadsMissing:
        typed, problem, status = Typed(typed.fields, typed.findings, typed.read), page.speech.t(_PHOTOS_GONE), 409
    except AlreadySent as sent:
        problem, status, again = page.speech.t(_SENT_BEFORE), 409, {"sent_id": sent.id}
    except ServiceError as error:
        problem, status = problem_in_words(error, page.speech), describe(error).status
    else:
        return go_to(f"/app/intake/sent/{stored.row['id']}")
    hints = hints_for(typed, page.speech)
    return await _again(request, typed, hints, [problem], {"seen": "", "skipped": "", "skip": ""}, status, again)


async def _again(
    request: Request,
    typed: Typed,
    hints: list[Hint],
    problems: list[str],
    asked: Mapping[str, str],
    status: int,
    more: Mapping[str, Any] | None = None,
) -> Response:
    """The form with what was typed, what was understood of it, and what is to be looked at."""
    page = page_of(request)
    skipped = [code for code in (*asked["skipped"].split(), asked["skip"]) if code]
    seen = await understand(page.parts, typed.case(), skipped)
    shown: dict[str, Any] = {"understood": seen, "skipped": " ".join(skipped), "hints": hints, "problems": problems, **(more or {})}
    return render(page, "intake.html", status, **form_values(page, typed, **shown))


async def read_parts(request: Request, held: AsyncExitStack) -> FormData:
    """The form's parts, with a place for its photos in the memory. Raises MalformedError."""
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        announced = request.headers.get("content-length", "")
        await held.enter_async_context(HOLDING.hold(int(announced) if announced.isdecimal() else LARGEST_UPLOAD))
    problem = "the form cannot be read: go back, and send it again"
    form = await form_of(request, problem, most_files=len(PHOTO_PLACES), most_fields=_MOST_FIELDS)
    held.push_async_callback(form.close)
    return form


async def typed_of(parts: Parts, who: Who, form: FormData, speech: Speech) -> tuple[Typed, list[str]]:
    """What was typed, with its photos kept as uploads, and what is wrong with photos."""
    texts = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    typed, photos, problems = read_form(texts), dict[str, TypedPhoto](), list[str]()
    for place in PHOTO_PLACES:
        file, upload, name = form.get(f"photo{place}.file"), texts.get(f"photo{place}.upload", ""), texts.get(f"photo{place}.name", "")
        if texts.get(f"photo{place}.drop"):
            upload = ""
        if isinstance(file, UploadFile) and file.size:
            try:
                name = free_name(file.filename or "photo.jpg", photos)
                upload = await _keep(parts.uploads, who.clinic or "", typed["key"], await file.read())
            except ServiceError as error:
                problems.append(f"{name}: {problem_in_words(error, speech)}")
                upload = ""
        if upload:
            name = free_name(name or "photo.jpg", photos)
            answers = {one: texts.get(f"photo{place}.{one}", "") for one in YES_NO_FIELDS}
            photos[name] = TypedPhoto(upload, name, texts.get(f"photo{place}.body_site", "").strip(), answers)
    return Typed(typed.fields, typed.findings, typed.read, tuple(photos.values())), problems


async def _keep(store: UploadStore, clinic: str, key: str, content: bytes) -> str:
    """A photo of a form as an upload, named by its content: the same form sent twice keeps it once."""
    id_ = str(uuid.UUID(bytes=hashlib.sha256(key.encode() + content).digest()[:16]))

    def keep() -> None:
        if not store.create(clinic, id_, len(content)).is_whole:
            store.append(clinic, id_, 0, content)

    await asyncio.to_thread(keep)
    return id_
