"""The syndromes are data that name the catalogue's findings; which of them a case has."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from inference.service.syndromes import syndromes, syndromes_of


def catalogue(folder: Path) -> dict[str, str]:
    """Every finding's code by its slug."""
    files = (folder / "findings").glob("*.toml")
    return {slug: facts["code"] for file in files for slug, facts in tomllib.loads(file.read_text(encoding="utf-8")).items()}


def test_every_code_is_in_the_catalogue_under_its_slug(catalogue_folder: Path):
    """A renumbered finding cannot silently make another syndrome of it."""
    known = catalogue(catalogue_folder)
    wrong = [(one.code, slug) for one in syndromes().values() for code, slug in one.slugs.items() if known.get(slug) != code]
    assert wrong == []


def test_every_syndrome_has_names_and_findings():
    """In both languages."""
    assert len(syndromes()) >= 11
    for one in syndromes().values():
        assert re.fullmatch("[a-z_]+", one.code)
        assert one.name_en.isascii() and re.search("[\u0600-\u06ff]", one.name_ur)
        assert one.all_of | one.any_of == set(one.slugs)


def test_all_and_any():
    """Fever and cough are influenza-like; cough alone is a respiratory illness; fever alone is neither."""
    assert syndromes_of({"F_001": "present", "F_043": "present"}) == ["acute_respiratory", "influenza_like"]
    assert syndromes_of({"F_043": "present"}) == ["acute_respiratory"]
    assert syndromes_of({"F_001": "present"}) == []


def test_any_needs_all_as_well():
    """A stiff neck without fever is not meningitis-like; with fever it is."""
    assert syndromes_of({"F_142": "present"}) == []
    assert syndromes_of({"F_142": "present", "F_001": "present"}) == ["meningitis_like"]


def test_absent_and_unknown_findings_do_not_count():
    """Only what is present."""
    assert syndromes_of({"F_114": "absent", "F_117": "unknown"}) == []
    assert syndromes_of({}) == []
