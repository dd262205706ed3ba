"""Words and their keys: where spellings meet, and what must hold for any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.text import fold_roman, normalize_urdu, stem_english, tokenize, word_keys


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("بخار نہیں ہے", "بخار نهیں هے"),
        ("کھانسی", "كھانسي"),
        ("کھانسی", "کھان‍سی"),
        ("بُخار", "بخار"),
        ("رہا", "رہی"),
        ("گیا", "گئی"),
        ("آتا", "آتی"),
        ("۳ دن", "٣ دن"),
        ("۳ دن", "3 دن"),
    ],
)
def test_urdu_spellings_meet(one: str, other: str) -> None:
    """Arabic code points, diacritics, joiners, foreign digits and a verb's gender leave the keys alone."""
    assert [token.keys for token in tokenize(one)] == [token.keys for token in tokenize(other)]


@pytest.mark.parametrize(
    ("one", "other"),
    [("bukhar", "bukhaar"), ("saans", "sans"), ("khansi", "khaansee"), ("raha", "rahi"), ("lagta", "lagti"), ("qabz", "kabz")],
)
def test_roman_spellings_meet(one: str, other: str) -> None:
    """Long vowels, doubled letters, q and k, and a verb's gender sound the same."""
    assert fold_roman(one) == fold_roman(other)


@pytest.mark.parametrize(("word", "stem"), [("fevers", "fever"), ("does", "does"), ("oedema", "edema"), ("this", "this")])
def test_english_loses_its_plural_and_its_british_vowels(word: str, stem: str) -> None:
    """Only a plural's s falls: "does" must not become the shorthand DOE."""
    assert stem_english(word) == stem


def test_commas_and_full_stops_part_statements_and_sentences() -> None:
    """A comma begins a statement, a full stop a sentence; an abbreviation's full stop and a decimal's begin none."""
    tokens = tokenize("abd. pain, temp 38.5. No cough")
    assert [token.text for token in tokens] == ["abd", "pain", "temp", "38.5", "No", "cough"]
    assert [token.clause for token in tokens] == [0, 0, 0, 0, 1, 1]
    assert [token.statement for token in tokens] == [0, 0, 1, 1, 2, 2]


def test_strokes_join_and_minus_ve_denies() -> None:
    """A stroke makes one list of "DM/HTN", and "-ve" is the word negative."""
    assert [token.is_joined for token in tokenize("DM/HTN IHD")] == [False, True, False]
    assert tokenize("fever -ve")[1].keys == ("e:negative", "r:nigativi", "l:negative")


@given(st.text(max_size=200))
def test_any_text_is_tokenized_within_its_bounds(text: str) -> None:
    """Spans lie inside the text in order, spell the token, and statements never go back."""
    end = statement = 0
    for token in tokenize(text):
        assert end <= token.start < token.end <= len(text)
        assert text[token.start : token.end] == token.text
        assert token.statement >= statement
        assert token.keys
        end, statement = token.end, token.statement


@given(st.text(max_size=20))
def test_urdu_normalisation_is_done_once(word: str) -> None:
    """A normalised word normalises to itself in length, and no word raises."""
    assert len(normalize_urdu(normalize_urdu(word))) == len(normalize_urdu(word))
    assert word_keys(word) == word_keys(word)
