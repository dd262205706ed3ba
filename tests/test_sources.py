"""Tests of the list of external data sets and of its checksums."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from inference.errors import DataError
from training.sources import check_sources, read_sources

SHIPPED = Path(__file__).resolve().parent.parent / "data" / "sources.toml"
ONE = hashlib.sha256(b"one").hexdigest()


def listed(tmp_path: Path, checksum: str) -> Path:
    """A list of one data set with one file."""
    path = tmp_path / "sources.toml"
    path.write_text(f'[tiny]\ntitle = "Tiny"\n[tiny.sha256]\n"tiny/a.csv" = "{checksum}"\n', encoding="utf-8")
    return path


def data(tmp_path: Path, content: bytes) -> Path:
    """A data folder with that file."""
    (tmp_path / "data" / "tiny").mkdir(parents=True)
    (tmp_path / "data" / "tiny" / "a.csv").write_bytes(content)
    return tmp_path / "data"


def test_the_listed_bytes_are_no_problem(tmp_path):
    """The file has the SHA-256 that the list gives."""
    assert check_sources(listed(tmp_path, ONE), data(tmp_path, b"one")) == []


def test_other_bytes_are_named_with_both_checksums(tmp_path):
    """And with what to do."""
    two = hashlib.sha256(b"two").hexdigest()
    assert check_sources(listed(tmp_path, ONE), data(tmp_path, b"two")) == [
        f"tiny: tiny/a.csv has SHA-256 {two}, listed is {ONE}: fetch it again, or update the list"
    ]


def test_a_data_set_that_is_not_there_is_no_problem(tmp_path):
    """Nobody needs all of them."""
    assert check_sources(listed(tmp_path, ONE), tmp_path / "nothing") == []


@pytest.mark.parametrize("content", [b"[tiny\n", b"\xff\xfe"])
def test_a_list_that_is_no_toml_is_refused(tmp_path, content):
    """Broken, or not text."""
    path = tmp_path / "sources.toml"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_sources(path)
    assert str(caught.value).startswith(f"{path} cannot be read: ")


def test_a_missing_list_is_refused(tmp_path):
    """With the system's reason."""
    with pytest.raises(DataError, match=r"cannot be read: .*No such file or directory"):
        read_sources(tmp_path / "none.toml")


def test_every_shipped_entry_says_what_a_reader_must_know():
    """Title, place, licence, citation, the code that reads it, and checksums of 64 hexadecimal digits."""
    for name, entry in read_sources(SHIPPED).items():
        assert {"title", "from", "licence", "citation", "reader", "sha256"} <= entry.keys(), name
        assert entry["sha256"]
        assert all(len(value) == 64 and int(value, 16) >= 0 for value in entry["sha256"].values())


def test_every_reader_is_a_module_of_this_project():
    """`training.ddxplus` is training/ddxplus.py."""
    for entry in read_sources(SHIPPED).values():
        assert (SHIPPED.parent.parent / (entry["reader"].replace(".", "/") + ".py")).is_file()


def test_the_real_data_are_the_listed_ones(shared_data):
    """What the shipped bundles learned from is what lies on this disk."""
    assert check_sources(SHIPPED, shared_data) == []
