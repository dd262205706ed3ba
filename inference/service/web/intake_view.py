"""The intake form as its template shows it: fields, findings with their states, the question, and what its script is told.

Everything that the script says or decides by comes from here, so that texts are translated and numbers stand in one place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inference.case import ABSENT, PRESENT
from inference.photo import YES_NO_FIELDS
from inference.photo_quality import gate_numbers, photo_problems
from inference.service.web.case_number import ALPHABET
from inference.service.web.intake_form import CHOICES, MOST_PHOTOS, NOT_SAID, PREGNANCY_YEARS, Typed
from inference.service.web.intake_hints import NOT_A_NUMBER, Hint, rules_for_script
from inference.service.web.intake_offline import SCRIPT
from inference.service.web.intake_reading import SeenFinding, Understood
from inference.service.web.intake_words import chip_text
from inference.service.web.language import N_, Speech
from inference.service.web.owner import owner_of
from inference.service.web.render import Page
from inference.service.web.uploads import CHUNK_BYTES, LARGEST_BYTES
from inference.service.web.vocabulary import HISTORY, PRIORITIES, SEXES, vital_names

# Where on the body: words that the lesion model knows.
BODY_SITES: Final = {
    "face": N_("face"),
    "nose": N_("nose"),
    "lip": N_("lip"),
    "ear": N_("ear"),
    "scalp": N_("scalp"),
    "neck": N_("neck"),
    "chest": N_("chest"),
    "back": N_("the back"),
    "abdomen": N_("belly"),
    "arm": N_("upper arm"),
    "forearm": N_("forearm"),
    "hand": N_("hand"),
    "thigh": N_("thigh or leg"),
    "foot": N_("foot"),
}
CONSCIOUSNESS: Final = ("A", "C", "V", "P", "U")
LONGEST_SIDE: Final = 1280  # pixels: what a phone sends; the models look at far less
JPEG_QUALITY: Final = 0.85
_NOTHING: Final = Understood((), (), None, ("", ""))
# What the script says; `{…}` is filled in there.
_TEXTS: Final = {
    "there": N_("there"),
    "not_there": N_("not there"),
    "not_said": N_("not said"),
    "skip": N_("Not known: ask another"),
    "enter": N_("Enter it"),
    "open": N_("Finish it"),
    "remove": N_("Remove"),
    "sure": N_("Remove for good?"),
    "slip": N_("Print the slip"),
    "result": N_("See what was understood"),
    "unfinished": N_("to be finished"),
    "waiting": N_("waiting to be sent"),
    "sending": N_("being sent"),
    "sent": N_("sent"),
    "refused": N_("not accepted"),
    "elsewhere": N_("open in another window"),
    "untitled": N_("nothing written yet"),
    "saved": N_("Kept on this phone."),
    "not_saved": N_("This browser keeps no drafts: send the case before you close the page."),
    "queued": N_("Kept. It is sent as soon as there is a connection. Case number:"),
    "stored": N_("Stored. Case number:"),
    "offline": N_("No connection: cases are kept on this phone and sent later."),
    "sign_in": N_("You are signed out: sign in, then the waiting cases are sent."),
    "look": N_("Look at what is marked, then send it."),
    "empty": N_("Nothing is entered: write what brings the patient, or send it as it is."),
    "not_a_number": NOT_A_NUMBER,
    "use": N_("Use {value}"),
    "good_photo": N_("The photo is good."),
    "no_photo": N_("This file cannot be shown as a photo: choose another one."),
    "photo_too_large": N_("The photo is too large: take it at a lower resolution."),
    "most_photos": N_("No more photos fit into this case."),
    "not_understood": N_("Not understood:"),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """A finding in the form: what it may be, what it is, and what the machine had read (empty: it was answered)."""

    code: str
    text: str
    words: str
    options: tuple[tuple[str, str], ...]
    state: str
    read: str


def form_values(
    page: Page,
    typed: Typed,
    *,
    understood: Understood | None = None,
    skipped: str = "",
    hints: Sequence[Hint] = (),
    problems: Sequence[str] = (),
    sent_id: str = "",
) -> dict[str, Any]:
    """What the template `intake.html` needs."""
    seen = understood or _NOTHING
    codes = [hint.code for hint in hints] + ([] if typed["complaint"] or typed.answers or typed.photos else ["empty"])
    return {
        "typed": typed,
        "is_answer": understood is not None,
        "choices": _choices(seen.findings, typed, page.speech),
        "not_understood": seen.not_understood,
        "question": seen.question,
        "stop": page.speech.pick(*seen.stop),
        "skipped": skipped,
        "hints": {hint.field: hint for hint in hints},
        "seen": " ".join(codes) if understood is not None else "",
        "problems": problems,
        "sent_id": sent_id,
        "districts": _districts(page),
        "sexes": SEXES,
        "priorities": PRIORITIES,
        "sites": BODY_SITES,
        "history": {field: HISTORY[field] for field in YES_NO_FIELDS},
        "consciousness": CONSCIOUSNESS,
        "choice_vitals": CHOICES,
        "script": script_data(page),
        "script_file": SCRIPT,
    }


def script_data(page: Page) -> dict[str, Any]:
    """All that the page's script is told."""
    speech = page.speech
    return {
        "owner": owner_of(page.parts, page.who) if page.who else "",
        "language": speech.code,
        "clinic": page.who.clinic if page.who else "",
        "alphabet": ALPHABET,
        "vitals": vital_names(),
        "pregnancy": PREGNANCY_YEARS,
        "photo": {"side": LONGEST_SIDE, "quality": JPEG_QUALITY, "chunk": CHUNK_BYTES, "largest": LARGEST_BYTES, "most": MOST_PHOTOS},
        "gate": gate_numbers(),
        "advice": {one.code: speech.pick(one.advice_en, one.advice_ur) for one in photo_problems()},
        "rules": rules_for_script(speech),
        "texts": {name: speech.t(text) for name, text in _TEXTS.items()},
    }


def _choices(findings: Sequence[SeenFinding], typed: Typed, speech: Speech) -> list[Choice]:
    """One line a finding; several values of one finding are several lines, of which only the first can be corrected."""
    listed: dict[str, Choice] = {}
    for seen in findings:
        read = seen.value if seen.span else typed.read.get(seen.code, "")
        words = typed["complaint"][slice(*seen.span)] if seen.span else ""
        state = typed.findings.get(seen.code) or seen.value
        options = [(seen.value, speech.t(N_("there")))] if seen.is_choice else []
        options = options or [(PRESENT, speech.t(N_("there"))), (ABSENT, speech.t(N_("not there")))]
        options.append((NOT_SAID if read else "", speech.t(N_("not said"))))
        state = state if state in {value for value, _ in options} else seen.value
        listed.setdefault(seen.code, Choice(seen.code, chip_text(seen, speech), words, tuple(options), state, read))
    return list(listed.values())


def _districts(page: Page) -> list[str]:
    model = page.parts.scorer.models.symptoms
    known: Mapping[str, str] = model.vocabulary["lexicon"].get("districts", {}) if model else {}
    return sorted(name.title() for name in known if name.isascii())
