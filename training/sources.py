"""The external data sets that `data/sources.toml` lists, and whether what lies on disk is what was meant."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from inference.errors import DataError
from training.export import file_sha256


def read_sources(path: Path) -> dict[str, dict[str, Any]]:
    """Each data set's entry by name. Raises DataError when the list cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def check_sources(listed: Path, data: Path) -> list[str]:
    """One sentence for every data set in `data` whose bytes are not the listed ones; absent sets are no problem."""
    problems = []
    for name, entry in read_sources(listed).items():
        for relative, checksum in entry["sha256"].items():
            file = data / relative
            if file.exists() and (found := file_sha256(file)) != checksum:
                problems.append(f"{name}: {relative} has SHA-256 {found}, listed is {checksum}: fetch it again, or update the list")
    return problems
