"""A data set as MLflow knows it: name, origin, licence, checksum and counts. No row ever goes there, and none is read here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.dataset import Dataset

from inference.errors import DataError
from training.sources import read_sources

SOURCES = Path("data/sources.toml")
_DIGEST_LENGTH = 36  # MLflow takes no more; the whole checksum stands in the source and the profile


class LearnedData(Dataset):
    """A data set by name, origin and checksum. MLflow never sees a row of it."""

    def __init__(self, name: str, checksum: str, data_card: Mapping[str, Any]) -> None:
        self._profile = {"sha256": checksum, **data_card}
        super().__init__(CodeDatasetSource({"sha256": checksum, **_origin(checksum)}), name, checksum[:_DIGEST_LENGTH])

    def _compute_digest(self) -> str:
        raise AssertionError("the digest is given")

    @property
    def profile(self) -> Any:
        """The whole checksum, and the counts of the run's data card."""
        return self._profile

    @property
    def schema(self) -> None:
        """None: what the model takes is its signature."""
        return None

    def to_dict(self) -> dict[str, str]:
        """As MLflow stores it."""
        return {**super().to_dict(), "profile": json.dumps(self._profile)}


def measured_on(title: str, data: Mapping[str, LearnedData]) -> LearnedData | None:
    """The data set that an evaluation is of: the only one, or the one whose name's first word stands in its title."""
    if len(data) == 1:
        return next(iter(data.values()))
    return next((one for name, one in data.items() if name.split("_")[0].lower() in title.lower()), None)


def _origin(checksum: str) -> dict[str, str]:
    """Where the data are from, by their checksum in data/sources.toml; other data are their owner's."""
    try:
        listed = read_sources(SOURCES)
    except DataError:
        listed = {}
    for entry in listed.values():
        if checksum in entry["sha256"].values():
            return {name: str(entry[name]) for name in ("title", "from", "licence")}
    return {"from": "not in data/sources.toml: the catalogue, or the owner's own data"}
