"""`nabz` with models that fail when a file tells them to: `python -m reliability.faulty_serve serve`. The service itself is as shipped.

The file `fault` in the service's data folder says how: `raise`, `nan` or `hang SECONDS`; without it the models are sound.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

FILE = "fault"


class FaultySession:
    """Stands before an onnxruntime session."""

    def __init__(self, real: Any, file: Path) -> None:
        self._real, self._file = real, file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def run(self, names: Any, feeds: Any) -> Any:
        """As the session does, or as the file says."""
        try:
            kind, *rest = self._file.read_text(encoding="ascii").split()
        except FileNotFoundError:
            return self._real.run(names, feeds)
        if kind == "raise":
            raise RuntimeError("the session failed, as it was told to")
        if kind == "hang":
            time.sleep(float(rest[0]))
        answers = self._real.run(names, feeds)
        return [np.full_like(answer, np.nan) for answer in answers] if kind == "nan" else answers


def main() -> None:
    """Patch the loader, then do what `nabz` does."""
    from inference import cli
    from inference.service import live_models

    load, file = live_models.load_models, Path(os.environ["NABZ_DATA_DIR"]) / FILE

    def load_faulty(*args: Any, **options: Any) -> Any:
        models = load(*args, **options)
        for model in (models.symptoms, models.acuity, models.lesions):
            if model is not None:
                model._bundle = replace(model._bundle, _session=FaultySession(model._bundle._session, file))
        return models

    live_models.load_models = load_faulty
    cli.entry()


if __name__ == "__main__":
    main()
