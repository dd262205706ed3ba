"""Words of a complaint: tokens with their place in the text, and keys under which spellings meet.

Urdu is normalised (Arabic code points, digits, joiners, diacritics) and, like Roman Urdu, loses the gender of its verbs;
Roman Urdu is folded by sound; English loses its plural. This module does not know findings.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

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
# Verbs that agree with a woman, a man or several people are one word here (after the letters above are exchanged).
_URDU_VERBS = {"رہی": "رہا", "تہی": "تہا", "گیی": "گیا", "ہویی": "ہوا", "ہوی": "ہوا", "لگی": "لگا", "آیی": "آیا", "پڑی": "پڑا"}
_ROMAN_VERBS = {"rahi": "raha", "rhi": "raha", "rha": "raha", "lagi": "laga", "pari": "para"}
_DIGITS = {ord(c): str(i) for digits in ("٠١٢٣٤٥٦٧٨٩", "۰۱۲۳۴۵۶۷۸۹") for i, c in enumerate(digits)}
_INVISIBLE = re.compile("[\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0640\u200b\u200d-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")

_TOKEN = re.compile(
    r"(?P<number>[0-9\u0660-\u0669\u06f0-\u06f9]+(?:[./][0-9\u0660-\u0669\u06f0-\u06f9]+)?)"
    r"|(?P<urdu>[\u0600-\u060b\u060e-\u061a\u0620-\u065f\u066e-\u06d3\u06d5-\u06ef\u06fa-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufefc\u200d]+)"
    r"|(?P<latin>[^\W\d_\u0600-\u06ff\ufb50-\ufeff]+(?:['’][^\W\d_]+)?)"
    r"|(?P<stop>[;!?\n۔؟؛]+|\.(?=\s|$)|[,،/&+()-]|\.)"
)
_COMMAS, _JOINERS, _STROKES = frozenset(",،"), frozenset("/&+()-"), frozenset("/&+")
_NEGATIVE = ("e:negative", "r:nigativi", "l:negative")  # "fever -ve"
# Words that are written with a full stop inside a sentence.
_ABBREVIATIONS = frozenset("abd ant post rt lt lac bil hx pt temp approx vs dr mr mrs st resp inj sup inf lat med".split())

_VOWELS = re.compile("[aeiouy]+")
_DOUBLED = re.compile(r"([b-df-hj-np-tv-xz])\1+")
_SOUNDS = (
    ("ph", "f"), ("q", "k"), ("ck", "k"), ("w", "v"), ("x", "ks"), ("ce", "se"), ("ci", "si"), ("cy", "si"),
)  # fmt: skip


class Token(NamedTuple):
    """A word or number: its characters' span in the original text and the keys under which it may be looked up.

    `place` counts words, with a jump over punctuation, so that nearness can be measured; `clause` counts sentences and
    `statement` what stands between commas too. `is_joined` is True behind a stroke or a plus sign ("DM/HTN").
    """

    text: str
    start: int
    end: int
    place: int
    clause: int
    statement: int
    is_joined: bool
    keys: tuple[str, ...]


def tokenize(text: str) -> list[Token]:
    """The words and numbers of `text`, in order. Spans index the text as given."""
    tokens: list[Token] = []
    place = clause = statement = 0
    separator = ""
    for match in _TOKEN.finditer(text):
        word = match.group()
        if match.lastgroup == "stop":
            if word == "." and tokens and tokens[-1].end == match.start() and _is_abbreviation(tokens[-1].text):
                continue
            if word in _COMMAS:
                place += 1
                statement += 1
            elif word not in _JOINERS:
                clause += 1
                statement += 1
                place += 4
            separator = word
            continue
        keys = _NEGATIVE if separator == "-" and word in ("ve", "VE", "Ve") else word_keys(word)
        if keys:
            tokens.append(Token(word, match.start(), match.end(), place, clause, statement, separator in _STROKES, keys))
            place += 1
        separator = ""
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
    if not lower:
        return ()
    return (f"e:{stem_english(lower)}", f"r:{fold_roman(lower)}", f"l:{lower}")


def normalize_urdu(word: str) -> str:
    """One spelling for the letters that Urdu writers and keyboards exchange; digits become Latin."""
    word = _INVISIBLE.sub("", unicodedata.normalize("NFKC", word))
    word = word.translate(_URDU_LETTERS).translate(_DIGITS).replace("\u200c", "")
    return f"{word[:-1]}ا" if len(word) > 2 and word.endswith("تی") else _URDU_VERBS.get(word, word)


def stem_english(word: str) -> str:
    """Without the plural's s and with one spelling for what American and British English spell differently."""
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) and word != "does":
        word = word[:-1]
    return word.replace("oea", "ea").replace("aem", "em").replace("oed", "ed").replace("our", "or")


def fold_roman(word: str) -> str:
    """Roman Urdu by sound: vowel groups become a, i or u, doubled consonants single, a silent final h and gender fall."""
    for spelt, sound in _SOUNDS:
        word = word.replace(spelt, sound)
    word = _DOUBLED.sub(r"\1", word)
    if len(word) > 3 and word[-1] == "h" and word[-2] in "aeiou":
        word = word[:-1]
    word = _VOWELS.sub(_vowel_class, word)
    return f"{word[:-1]}a" if len(word) > 2 and word.endswith("ti") else _ROMAN_VERBS.get(word, word)


def _vowel_class(match: re.Match[str]) -> str:
    vowels = set(match.group())
    if vowels == {"a"}:
        return "a"
    return "u" if vowels <= {"u", "o"} else "i"
