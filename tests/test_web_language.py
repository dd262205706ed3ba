"""The pages' two languages: nothing untranslated, one word for one thing, numbers and ages as they are written, colours that can be read."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

from inference.bundle import load_bundle
from inference.models import live_versions
from inference.service.problems import KINDS
from inference.service.telemetry import REVIEW_KINDS as COUNTED
from inference.service.web import core_texts
from inference.service.web.language import script_of, speech
from inference.service.web.vocabulary import EVENTS, LEVEL_NAMES, REVIEW_KINDS, SPECIALTIES, Vocabulary

ROOT = Path(__file__).resolve().parent.parent
WEB = ROOT / "inference/service/web"
CATALOGUE = WEB / "locale/ur/LC_MESSAGES/messages.po"
KEYWORDS = {"_": None, "gettext": None, "ngettext": (1, 2), "t": None, "tn": (1, 2), "N_": None}
METHODS = [("**.py", "python"), ("**/templates/**.html", "jinja2"), ("**/templates/**.txt", "jinja2")]
PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|\{\w+\}")


def used() -> dict[str, str | None]:
    """Every text that pages show: the first form, and the plural one."""
    options = {"**/templates/**.html": {"extensions": "jinja2.ext.i18n", "trimmed": "true"}}
    found: dict[str, str | None] = {}
    for _, _, message, _, _ in extract_from_dir(WEB, METHODS, options, KEYWORDS):
        one, many = message if isinstance(message, tuple) else (message, None)
        found[one] = many
    return found


def urdu() -> dict[str, tuple[str, ...]]:
    """The catalogue: the Urdu forms by the English text."""
    catalogue = read_po(io.BytesIO(CATALOGUE.read_bytes()), locale="ur")
    found = {}
    for message in catalogue:
        if message.id and not message.fuzzy:
            key = message.id[0] if isinstance(message.id, list | tuple) else message.id
            found[key] = tuple(message.string) if isinstance(message.string, list | tuple) else (message.string,)
    return found


def test_no_text_is_untranslated():
    """Every text of every template and module has its Urdu, and the catalogue has no text that no page shows."""
    texts, translated = used(), urdu()
    missing = [text for text in texts if not all(translated.get(text, ("",)))]
    assert missing == []
    assert len(texts) > 250
    assert sorted(translated.keys() - texts.keys()) == []


def test_translations_keep_what_is_filled_in():
    """Each placeholder of the English text stands in the Urdu one, once in every form."""
    for english, forms in urdu().items():
        for form in filter(None, forms):
            assert sorted(PLACEHOLDER.findall(form)) == sorted(PLACEHOLDER.findall(english)), english


def test_translations_are_urdu():
    """No Arabic ي or ك, which look alike and are other letters; Latin digits only; no English word but names and units."""
    allowed = re.compile(r"\b(NEWS2|SpO2|KTAS|EARS|C2|C3|PSI|QR|Nabz|mmHg|mg|dL|F|C)\b|%\(\w+\)[sd]|\{\w+\}")
    for english, forms in urdu().items():
        for form in forms:
            assert not re.search(r"[يك٠-٩۰-۹]", form), english
            assert not re.search(r"[A-Za-z]{2,}", allowed.sub("", form)), english


def test_one_word_for_one_thing():
    """Where an English text has a word of the glossary, its Urdu has the glossary's."""
    table = re.findall(r"^\| ([a-z' ]+) \| ([^|]+) \|", (ROOT / "docs/glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(table) > 20
    strayed = []
    for english, forms in urdu().items():
        said = PLACEHOLDER.sub("", english)
        for word, terms in table:
            if re.search(rf"\b{word}\b", said, re.IGNORECASE):
                ends = [term.strip() for term in terms.split("/")]
                strayed += [(word, english, form) for form in forms if form and not any(term in form for term in ends)]
    assert strayed == []


def test_texts_of_the_core_are_the_cores():
    """The titles of problems and the limits of the live bundles, as they are now, all have their Urdu."""
    assert {kind.title for kind in KINDS.values()} <= set(core_texts.TITLES)
    limits = {
        limit
        for task, version in live_versions(ROOT / "models").items()
        for limit in load_bundle(ROOT / "models" / task / version).contract.limits
    }
    assert limits == set(core_texts.LIMITS)
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "inference").rglob("*.py") if path.name != "core_texts.py")
    for refusal in core_texts.REFUSALS:
        assert json.dumps(refusal, ensure_ascii=False) in sources, refusal


def test_every_code_has_a_word():
    """Review reasons, specialties of the catalogue, levels and events: nothing is shown as a code."""
    assert {kind for kind, _ in COUNTED} < set(REVIEW_KINDS)
    symptoms = load_bundle(ROOT / "models/symptoms" / live_versions(ROOT / "models")["symptoms"])
    assert {label.specialty for label in symptoms.contract.labels} <= set(SPECIALTIES)
    assert set(LEVEL_NAMES) == {1, 2, 3, 4, 5}
    kinds = set(re.findall(r'"(created|claimed|released|lease_expired|completed|overridden|agreed|impression|noted|reassessed|erased)"', "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "inference/service").glob("*.py"))))  # fmt: skip
    assert kinds <= set(EVENTS)


@pytest.mark.parametrize(
    ("minutes", "english", "in_urdu"),
    [(0, "0 min", "0 منٹ"), (59, "59 min", "59 منٹ"), (60, "1 h", "1 گھنٹہ"), (1440, "24 h", "24 گھنٹے"), (20160, "14 d", "14 دن")],
)
def test_durations(minutes: int, english: str, in_urdu: str):
    """In the unit that a reader would use, with Latin digits in both."""
    assert (speech("en").duration(minutes), speech("ur").duration(minutes)) == (english, in_urdu)


@pytest.mark.parametrize(
    ("years", "said"), [(None, "age unknown"), (0.01, "4 days old"), (1.5, "18 months"), (2, "2 years"), (58, "58 years")]
)
def test_ages(years: float | None, said: str):
    """Days for the newborn, months below two years."""
    assert speech("en").age(years) == said


@pytest.mark.parametrize(
    ("probability", "words", "frequency"),
    [
        (0.001, "very unlikely", "about 1 in 100 patients like this"),
        (0.07, "very unlikely", "about 7 in 100 patients like this"),
        (0.1, "unlikely", "about 1 in 10 patients like this"),
        (0.34, "about as likely as not", "about 3 in 10 patients like this"),
        (0.7, "likely", "about 7 in 10 patients like this"),
        (0.95, "very likely", "about 95 in 100 patients like this"),
        (1.0, "very likely", "about 99 in 100 patients like this"),
    ],
)
def test_probabilities_in_words(probability: float, words: str, frequency: str):
    """Words by the IPCC's table, natural frequencies out of ten or a hundred; never "all" and never "none"."""
    said = Vocabulary(speech("en"))
    assert (said.likelihood(probability), said.frequency(probability)) == (words, frequency)


@pytest.mark.parametrize(
    ("share", "said"), [(None, "–"), (float("nan"), "–"), (0.0, "0%"), (0.0001, "<0.1%"), (0.004, "0.4%"), (0.5, "50%"), (1.0, "100%")]
)
def test_percentages(share: float | None, said: str):
    """What is not known is a dash, and what is small is not nothing."""
    assert speech("ur").percent(share) == said


def test_times_are_pakistans():
    """A moment in UTC as clocks in Karachi show it, in both languages."""
    at = datetime(2026, 11, 22, 20, 30, tzinfo=UTC)
    assert speech("en").moment(at) == "23 Nov 2026, 01:30"
    assert speech("ur").moment(at) == "23 نومبر 2026, 01:30"


def test_words_stand_in_their_own_script():
    """Urdu runs from the right on an English page, Roman Urdu from the left on an Urdu one; what has no letters stays left."""
    assert script_of("سینے میں درد, BP 90") == {"lang": "ur", "dir": "rtl"}
    assert script_of("seenay mein dard") == {"lang": "en", "dir": "ltr"}
    assert script_of("118 / 96") == {"lang": "en", "dir": "ltr"}


# ---- colours: axe passes over text in Urdu, so the tokens themselves are checked ----

PAIRS = (
    [
        ("ink", "ground"),
        ("ink", "card"),
        ("muted", "ground"),
        ("muted", "card"),
        ("accent", "ground"),
        ("accent", "card"),
        ("on-accent", "accent"),
    ]
    + [("ink", "late"), ("muted", "late"), ("accent", "late"), ("late-edge", "late"), ("late-edge", "card"), ("mark-ink", "mark")]
    + [(f"l{level}-ink", f"l{level}") for level in range(1, 6)]
)
LINES = [("edge", "card"), ("late-edge", "ground"), ("line-1", "card"), ("line-2", "card"), ("line-3", "card")]


def tokens(selector: str) -> dict[str, str]:
    """The colours that a rule of the style sheet names."""
    css = (WEB / "static/app.css").read_text(encoding="utf-8")
    body = re.search(rf"{re.escape(selector)} \{{(.*?)\}}", css, re.DOTALL).group(1)
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", body))


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def ratio(one: str, other: str) -> float:
    """Contrast of two colours, from 1 to 21 (WCAG 2.2)."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("selector", [":root", '[data-theme="dark"]', '[data-theme="auto"]'])
def test_every_pair_of_colours_can_be_read(selector: str):
    """Text on its ground at 4.5 to 1 and more, edges and lines at 3 to 1 (WCAG 2.2, 1.4.3 and 1.4.11), light and dark."""
    named = tokens(selector)
    weak = [(one, other, round(ratio(named[one], named[other]), 2)) for one, other in PAIRS if ratio(named[one], named[other]) < 4.5]
    weak += [(one, other, round(ratio(named[one], named[other]), 2)) for one, other in LINES if ratio(named[one], named[other]) < 3]
    assert weak == []


def test_dark_is_the_same_by_choice_and_by_the_device():
    """Two rules hold the dark colours, because style sheets cannot say it once."""
    assert tokens('[data-theme="dark"]') == tokens('[data-theme="auto"]')
    assert ratio("#000000", "#ffffff") == pytest.approx(21)
