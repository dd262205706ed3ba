"""Fixtures that several test files use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data beside the checkout (or at NABZ_DATA); tests that need it are skipped by name without it."""
    folder = Path(os.environ.get("NABZ_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the real data sets at {folder} (or NABZ_DATA)")
    return folder


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """The shipped bundles."""
    return ROOT / "models"
