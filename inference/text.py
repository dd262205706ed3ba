"""Words of a complaint: tokens with their place in the text, and keys under which spellings meet.

Urdu is normalised (Arabic code points, digits, joiners, diacritics); Roman Urdu is folded by sound; English loses its
plural. This module does not know findings.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

# Arabic code points that Urdu keyboards and converters mix with Urdu's own, and letters that writers confuse.
_URDU_LETTERS = str.maketrans(
    {
        "ي": "ی", "ى": "ی", "ې": "ی", "ئ": "ی", "ے": "ی", "ۓ": "ی",
        "ك": "ک", "ڪ": "ک",
        "ه": "ہ", "ة": "ہ", "ۂ": "ہ", "ۃ": "ہ", "ھ": "ہ", "ۀ": "ہ",
        "أ": "ا", "إ": "ا", "آ": "ا", "ٱ": "ا", "ؤ": "و",
        "ں": "ن",
    }
)  # fmt: skip
_DIGITS = {ord(c): str(i) for digits in ("٠١٢٣٤٥٦٧٨٩", "۰۱۲۳۴۵۶۷۸۹") for i, c in enumerate(digits)}
_INVISIBLE = re.compile("[\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0640\u200b\u200d-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")

_TOKEN = re.compile(
    r"(?P<number>[0-9\u0660-\u0669\u06f0-\u06f9]+(?:[./][0-9\u0660-\u0669\u06f0-\u06f9]+)?)"
    r"|(?P<urdu>[\u0600-\u060b\u060e-\u061a\u0620-\u065f\u066e-\u06d3\u06d5-\u06ef\u06fa-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufefc\u200d]+)"
    r"|(?P<latin>[^\W\d_\u0600-\u06ff\ufb50-\ufeff]+(?:['’][^\W\d_]+)?)"
    r"|(?P<stop>[;!?\n۔؟؛]+|\.(?=\s|$)|[,،/&+()-]|\.)"
)
# Words that are written with a full stop inside a sentence.
_ABBREVIATIONS = frozenset("abd ant post rt lt lac bil hx pt temp approx vs dr mr mrs st resp inj sup inf lat med".split())

_VOWELS = re.compile("[aeiouy]+")
_DOUBLED = re.compile(r"([b-df-hj-np-tv-xz])\1+")
_SOUNDS = (
    ("ph", "f"), ("q", "k"), ("ck", "k"), ("w", "v"), ("x", "ks"), ("ce", "se"), ("ci", "si"), ("cy", "si"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Token:
    """A word or number: its characters' span in the original text and the keys under which it may be looked up.

    `place` counts words, with a jump over punctuation, so that nearness can be measured; `clause` counts sentences.
    """

    text: str
    start: int
    end: int
    place: int
    clause: int
    keys: tuple[str, ...]


def tokenize(text: str) -> list[Token]:
    """The words and numbers of `text`, in order. Spans index the text as given."""
    tokens: list[Token] = []
    place = clause = 0
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        word = match.group()
        if kind == "stop":
            if word == "." and tokens and tokens[-1].end == match.start() and _is_abbreviation(tokens[-1].text):
                continue
            if word in ",،/&+()-":
                place += word in ",،"
            else:
                clause += 1
                place += 4
            continue
        keys = word_keys(word)
        if keys:
            tokens.append(Token(word, match.start(), match.end(), place, clause, keys))
            place += 1
    return tokens


def _is_abbreviation(word: str) -> bool:
    return len(word) == 1 or word.casefold() in _ABBREVIATIONS


@lru_cache(maxsize=65536)
def word_keys(word: str) -> tuple[str, ...]:
    """The keys of one word: `e:` as English, `r:` as Roman Urdu, `l:` as spelt, `u:` as Urdu, `n:` as a number."""
    word = _INVISIBLE.sub("", unicodedata.normalize("NFKC", word)).translate(_DIGITS)
    if not word:
        return ()
    if word[0].isdigit():
        return (f"n:{word}",)
    if word[0] >= "\u0600":
        return (f"u:{normalize_urdu(word)}",)
    lower = "".join(c for c in unicodedata.normalize("NFKD", word.casefold()) if not unicodedata.combining(c))
    lower = lower.replace("'", "").replace("’", "")
    return (f"e:{stem_english(lower)}", f"r:{fold_roman(lower)}", f"l:{lower}")


def normalize_urdu(word: str) -> str:
    """One spelling for the letters that Urdu writers and keyboards exchange; digits become Latin."""
    word = _INVISIBLE.sub("", unicodedata.normalize("NFKC", word))
    return word.translate(_URDU_LETTERS).translate(_DIGITS).replace("\u200c", "")


def stem_english(word: str) -> str:
    """Without the plural's s and with one spelling for what American and British English spell differently."""
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    return word.replace("oea", "ea").replace("aem", "em").replace("oed", "ed").replace("our", "or")


def fold_roman(word: str) -> str:
    """Roman Urdu by sound: vowel groups become a, i or u, doubled consonants single, a silent final h falls."""
    for spelt, sound in _SOUNDS:
        word = word.replace(spelt, sound)
    word = _DOUBLED.sub(r"\1", word)
    if len(word) > 3 and word[-1] == "h" and word[-2] in "aeiou":
        word = word[:-1]
    return _VOWELS.sub(_vowel_class, word)


def _vowel_class(match: re.Match[str]) -> str:
    vowels = set(match.group())
    if vowels == {"a"}:
        return "a"
    return "u" if vowels <= {"u", "o"} else "i"
