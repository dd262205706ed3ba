"""A run's state in a file, so that one that was cut goes on where it was and ends with the same weights.

Written whole or not at all. Knows no network: the caller names the parts. A file belongs to one run's settings and is never
read for another's.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from inference.errors import DataError


def save_checkpoint(file: Path, settings_sha256: str, parts: Mapping[str, Any]) -> None:
    """Write tensors and plain values; a process that is killed meanwhile leaves the file that was there before."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".part")
    with unfinished.open("wb") as target:
        torch.save({"settings_sha256": settings_sha256, **parts}, target)
        target.flush()
        os.fsync(target.fileno())
    unfinished.replace(file)


def load_checkpoint(file: Path, settings_sha256: str) -> dict[str, Any] | None:
    """The parts of a run with these settings; None where there is no file.

    Raises DataError when the file is another run's, or is no checkpoint.
    """
    if not file.is_file():
        return None
    try:
        parts: dict[str, Any] = torch.load(file, weights_only=True)
        found = parts.pop("settings_sha256")
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, AttributeError) as error:
        raise DataError(f"{file} is not a checkpoint that can be read; delete it to start anew") from error
    if found != settings_sha256:
        raise DataError(
            f"{file} belongs to a run with the settings {str(found)[:16]}, and this run's are {settings_sha256[:16]} "
            "(recipe, data, seed, threads, code and libraries must be the same); delete it to start anew"
        )
    return parts
