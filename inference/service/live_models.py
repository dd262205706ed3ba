"""The live models and how they are exchanged: loaded and verified beside the old ones, then taken over task by task.

A bundle that cannot be used leaves its task's old model live and is named. Each model is watched: its calls are timed, its
failures counted, and whatever it raises becomes the one error that a triage knows how to go on after. Knows no requests.
"""

from __future__ import annotations

import io
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from inference.bundle import SIGNATURE_FILE, SIGNED_FILES
from inference.errors import BundleError
from inference.models import SERVING_FILE, TASKS, Models, default_models_folder, load_models
from inference.policy import Policy
from inference.priors import Priors
from inference.triage import Triage

NO_MODELS = Models(None, None, None, {}, ())
Observe = Callable[[str, float, int], None]  # task, seconds, cases


class Watched:
    """Stands before a model and passes everything on to it."""

    def __init__(self, model: Any, task: str, observe: Observe | None) -> None:
        self._model, self._task, self._observe = model, task, observe
        self.is_failing = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def score(self, items: Sequence[Any]) -> Any:
        """As the model does; anything that it raises comes out as a BundleError."""
        return self._called(self._model.score, items)

    def score_cases(self, items: Sequence[Any]) -> Any:
        """As the model does; anything that it raises comes out as a BundleError."""
        return self._called(self._model.score_cases, items)

    def _called(self, score: Callable[[Sequence[Any]], Any], items: Sequence[Any]) -> Any:
        if not items:
            return []
        began = time.perf_counter()
        try:
            answers = score(items)
        except Exception as error:
            self.is_failing = True
            if isinstance(error, BundleError):
                raise
            raise BundleError(f"{self._task}: the model failed with {type(error).__name__} on this batch") from error
        if self._observe:
            self._observe(self._task, time.perf_counter() - began, len(items))
        self.is_failing = False
        return answers


@dataclass(frozen=True)
class Live:
    """What scores: `triage` has every live model, `without_photos` all but the lesion model, `bare` none.

    `fingerprint` tells one state of the models' folder from another; None where that was not seen. `is_whole`: every model that
    serving.toml names was loaded.
    """

    triage: Triage
    without_photos: Triage
    bare: Triage
    watched: dict[str, Watched]
    problems: tuple[str, ...]
    fingerprint: bytes | None
    is_whole: bool

    @property
    def failing(self) -> list[str]:
        """The tasks whose last call failed."""
        return [task for task, model in self.watched.items() if model.is_failing]


def no_models(policy: Policy) -> Live:
    """Rules alone, until models are loaded."""
    bare = Triage(NO_MODELS, policy)
    return Live(bare, bare, bare, {}, (), None, is_whole=False)


def load_live(
    folder: Path | None, policy: Policy, old: Live, *, photo_threads: int, observe: Observe | None, priors: Priors | None = None
) -> Live:
    """Load what serving.toml names now. Takes seconds at worst; reads files and runs no case."""
    folder = folder or default_models_folder()
    seen = fingerprint(folder)
    loaded = load_models(folder, photo_threads=photo_threads, priors=priors)
    named = _named(folder)
    problems, bundles, live = list(loaded.problems), dict(loaded.bundles), {}
    for task in TASKS:
        model, before = getattr(loaded, task), old.watched.get(task)
        if model is not None:
            live[task] = Watched(model, task, observe)
        elif before is not None and (named is None or task in named):
            live[task], bundles[task] = before, old.triage.models.bundles[task]
            problems.append(f"{task} {bundles[task].version} stays live until what {SERVING_FILE} names can be used")
    models = Models(
        cast("Any", live.get("symptoms")), cast("Any", live.get("acuity")), cast("Any", live.get("lesions")), bundles, tuple(problems)
    )
    rest = {task: name for task, name in bundles.items() if task != "lesions"}
    return Live(
        triage=Triage(models, policy),
        without_photos=Triage(replace(models, lesions=None, bundles=rest), policy),
        bare=Triage(NO_MODELS, policy),
        watched=live,
        problems=tuple(problems),
        fingerprint=seen,
        is_whole=all(getattr(loaded, task) is not None for task in named or {}),
    )


def fingerprint(folder: Path | None) -> bytes:
    """What serving.toml says, and the size and time of every file that it names: changes when they do."""
    folder = folder or default_models_folder()
    seen = io.BytesIO()
    for task, version in sorted((_named(folder) or {}).items()):
        seen.write(f"{task} {version}\n".encode())
        for name in (*SIGNED_FILES, SIGNATURE_FILE):
            try:
                state = (folder / task / version / name).stat()
                seen.write(f"{name} {state.st_size} {state.st_mtime_ns}\n".encode())
            except (OSError, ValueError):
                seen.write(f"{name} is missing\n".encode())
    return seen.getvalue()


def _named(folder: Path) -> dict[str, str] | None:
    """The versions that serving.toml names; None when it cannot be read."""
    try:
        serving = tomllib.loads((folder / SERVING_FILE).read_text(encoding="utf-8"))
        return {task: str(serving[task]) for task in TASKS if task in serving}
    except (OSError, ValueError):
        return None
