"""The intake form's fields, as they were typed, and the case that they make. Pure: knows no request, no model and no store.

Nothing that was typed is refused here: a number that is none goes into the case as it is, where it becomes a review reason.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from inference.case import ABSENT, PRESENT
from inference.photo import YES_NO_FIELDS, shown_name
from inference.service.web.case_number import new_case_number, read_case_number
from inference.service.web.vocabulary import vital_names

MONTHS_PER_YEAR: Final = 12
PREGNANCY_YEARS: Final = (10, 60)  # between these ages a girl or woman is asked
MOST_PHOTOS: Final = 8
NOT_SAID: Final = "not_said"
FINDING: Final = "finding."
READ: Final = "read."
CHOICES: Final = ("consciousness", "on_oxygen")  # vitals that are chosen, not measured
_WORDS: Final = ("number", "key", "complaint", "age", "age_unit", "sex", "pregnant", "district", "priority", "name", "phone")
_YES_NO: Final = {"yes": True, "no": False}
_KEY: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LONGEST: Final = 20_000
_MOST_FINDINGS: Final = 200


@dataclass(frozen=True, slots=True)
class TypedPhoto:
    """A photo of the form: the upload that holds it, its file's name, and what was said of it."""

    upload: str
    name: str
    body_site: str = ""
    answers: Mapping[str, str] = field(default_factory=dict)

    def as_case(self) -> dict[str, Any]:
        """As a case has it; what was not asked is left out."""
        answered = {one: _YES_NO[value] for one in YES_NO_FIELDS if (value := self.answers.get(one)) in _YES_NO}
        return {"path": self.name, **({"body_site": self.body_site} if self.body_site else {}), **answered}


@dataclass(frozen=True, slots=True)
class Typed:
    """What stands in the form. `findings` are the answers given, `read` what the machine had read in the complaint by then."""

    fields: Mapping[str, str]
    findings: Mapping[str, str] = field(default_factory=dict)
    read: Mapping[str, str] = field(default_factory=dict)
    photos: tuple[TypedPhoto, ...] = ()

    def __getitem__(self, name: str) -> str:
        """A field's text; empty where nothing was typed."""
        return self.fields.get(name, "")

    @property
    def not_said(self) -> list[str]:
        """The findings that the machine read in the complaint, and that the health worker says are not in it."""
        return [code for code, value in self.findings.items() if value == NOT_SAID and code in self.read]

    @property
    def answers(self) -> dict[str, str]:
        """The findings that were answered or corrected; what was left as it was read is read again, in the words that stand there."""
        return {code: value for code, value in self.findings.items() if value not in ("", NOT_SAID, self.read.get(code))}

    def case(self) -> dict[str, Any]:
        """The case, as every entrance takes it."""
        vitals = {name: _vital(name, self[name]) for name in vital_names() if self[name]}
        words = {name: self[name] for name in ("complaint", "sex", "district", "priority") if self[name]}
        age = {"age_years": years_of(self["age"], self["age_unit"])} if self["age"] else {}
        pregnant = {"pregnant": _YES_NO[self["pregnant"]]} if self["pregnant"] in _YES_NO else {}
        photos = [photo.as_case() for photo in self.photos]
        return {
            "case_id": self["number"], **words, **age, **pregnant, "vitals": vitals,
            "findings": self.answers, **({"photos": photos} if photos else {}),
        }  # fmt: skip

    def patient(self) -> dict[str, str] | None:
        """Who the patient is, if that was said."""
        return {name: self[name] for name in ("name", "phone") if self[name]} or None


def read_form(given: Mapping[str, str], photos: tuple[TypedPhoto, ...] = ()) -> Typed:
    """The fields of a form that was sent; what the form does not have is left out. Without a case number or a key it gets new ones."""
    texts = {name: value.strip()[:_LONGEST] for name, value in given.items() if isinstance(value, str)}
    fields = {name: texts[name] for name in (*_WORDS, *vital_names()) if texts.get(name)}
    fields["number"] = read_case_number(fields.get("number", "")) or new_case_number()
    fields["key"] = fields["key"] if _KEY.fullmatch(fields.get("key", "")) else str(uuid.uuid4())
    return Typed(fields, _coded(texts, FINDING), _coded(texts, READ), photos)


def not_said_reasons(codes: list[str]) -> tuple[str, ...]:
    """The review reason where the machine read something that, so the health worker, is not there to be read."""
    known = [code for code in codes if code.isascii() and code.replace("_", "").isalnum()][:_MOST_FINDINGS]
    return (f"the sender says that the complaint does not say {', '.join(known)}, which was read in it: read it",) if known else ()


def number_of(text: str) -> float | None:
    """A number as people type it: in any script's digits, with a comma or a point; None for what is none."""
    try:
        number = float(text.strip().replace(",", ".").replace("٫", "."))
    except ValueError:
        return None
    return number if number == number and abs(number) != float("inf") else None


def years_of(age: str, unit: str) -> float | str:
    """An age in years; as it was typed where that is no number."""
    number = number_of(age)
    if number is None:
        return age
    return round(number / MONTHS_PER_YEAR, 4) if unit == "months" else number


def free_name(name: str, taken: Mapping[str, Any]) -> str:
    """A photo's name without folders; a second one of the same name gets a number."""
    shown = shown_name(name.replace("\0", ""))
    return shown if shown not in taken else f"{len(taken) + 1}-{shown}"


def _vital(name: str, text: str) -> Any:
    if name in CHOICES:
        return _YES_NO.get(text, text)
    number = number_of(text)
    return text if number is None else number


def _coded(texts: Mapping[str, str], prefix: str) -> dict[str, str]:
    """The fields of one prefix, by what follows it."""
    found = {name.removeprefix(prefix): value for name, value in texts.items() if name.startswith(prefix)}
    return dict(list(found.items())[:_MOST_FINDINGS])


assert {PRESENT, ABSENT}.isdisjoint({NOT_SAID, ""})
