"""Search for a better recipe on held-out data: a seeded, resumable optuna study in an sqlite file.

The shipped recipe is the first trial, so that a search never ends with a worse one by its own measure. It knows no task: each has
its space and its objective beside its recipe (`symptom_search`, `acuity_search`, `lesion_search`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from inference.errors import DataError
from training.live_table import live_table
from training.settings import RunOptions, Settings

STUDIES = "search.db"
_RANDOM_TRIALS = 5  # before the sampler goes by what it has seen
_UNPRUNED_TRIALS = 4
_SEEDS_APART = 10_007


@dataclass(frozen=True)
class Span:
    """Numbers from `low` to `high`, both included; by their logarithm where `is_log`. Whole ones where both ends are."""

    low: float
    high: float
    is_log: bool = False


@dataclass(frozen=True)
class OneOf:
    """One of some values."""

    values: tuple[Any, ...]


Space = Mapping[str, Span | OneOf]
Report = Callable[[int, float], None]
Objective = Callable[[dict[str, Any], Report], float]


@dataclass(frozen=True)
class Found:
    """The best values and their held-out loss, how many trials there were in all, and how many of them were cut short."""

    values: dict[str, Any]
    loss: float
    trials: int
    pruned: int


def search(
    space: Space, first: Mapping[str, Any], objective: Objective, settings: Settings, options: RunOptions, *, quiet: bool = False
) -> Found:
    """Try recipes until `options.trials` are done, those of an earlier search with these settings included.

    `first` are the shipped recipe's values, which a space always holds. `objective` gives a recipe's held-out loss; what it reports on the way decides
    whether the trial is cut short (median rule). Every trial has a seed of its own and the study is on disk, so that a search
    that was cut goes on as if it had not been. Raises DataError when no trial comes to a loss that is a number.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {name: _with(part, first[name]) for name, part in space.items()}
    file = options.runs / settings.task / STUDIES
    file.parent.mkdir(parents=True, exist_ok=True)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=_UNPRUNED_TRIALS)
    study = optuna.create_study(
        storage=f"sqlite:///{file}", study_name=study_name(settings, space), direction="minimize", pruner=pruner, load_if_exists=True
    )
    for cut in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(cut.number, state=optuna.trial.TrialState.FAIL)
    finished = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)

    def of_trial(trial: Any) -> float:
        values = {name: _drawn(trial, name, part) for name, part in space.items()}

        def report(step: int, loss: float) -> None:
            trial.report(loss, step)
            if trial.should_prune():
                raise optuna.TrialPruned

        return objective(values, report)

    with live_table(f"{settings.task} search", quiet=quiet) as table:
        table.add("trials", options.trials, "trials")
        done = len(study.get_trials(states=finished))
        table.begin("trials", done)
        while done < options.trials:
            if done == 0:
                study.enqueue_trial({name: first[name] for name in space})
            study.sampler = optuna.samplers.TPESampler(seed=settings.seed * _SEEDS_APART + done, n_startup_trials=_RANDOM_TRIALS)
            study.optimize(of_trial, n_trials=1)
            known = len(study.get_trials(states=finished))
            if known == done:
                raise DataError(
                    f"the search's trial {study.trials[-1].number} gave no loss that is a number: narrow the space, or mend the data"
                )
            done = known
            last = study.get_trials(states=finished)[-1].value
            table.update("trials", done, loss=last, best=study.best_value)
        table.finish("trials")
    pruned = len(study.get_trials(states=(optuna.trial.TrialState.PRUNED,)))
    return Found({name: study.best_params[name] for name in space}, float(study.best_value), done, pruned)


def study_name(settings: Settings, space: Space) -> str:
    """The settings and the space: with others it is another search."""
    parts = {name: asdict(part) for name, part in space.items()}
    return hashlib.sha256((settings.as_json() + json.dumps(parts, sort_keys=True)).encode()).hexdigest()[:16]


def told(found: Found, objective: str, *, quiet: bool) -> dict[str, Any]:
    """Print the best values, and what the bundle's contract says of the search."""
    if not quiet:
        shown = ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in found.values.items())
        line = f"best of {found.trials} trials ({found.pruned} cut short): {shown}; {objective} {found.loss:.4f}"
        Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)
    return {"search": {"trials": found.trials, "cut_short": found.pruned, "objective": objective, "held_out_loss": found.loss}}


def _with(part: Span | OneOf, shipped: Any) -> Span | OneOf:
    """The part of the space, made wide enough for the shipped recipe's value."""
    if isinstance(part, OneOf):
        return part if shipped in part.values else OneOf((shipped, *part.values))
    return Span(min(part.low, shipped), max(part.high, shipped), part.is_log and shipped > 0)


def _drawn(trial: Any, name: str, part: Span | OneOf) -> Any:
    if isinstance(part, OneOf):
        return trial.suggest_categorical(name, part.values)
    if isinstance(part.low, int) and isinstance(part.high, int):
        return trial.suggest_int(name, part.low, part.high, log=part.is_log)
    return trial.suggest_float(name, part.low, part.high, log=part.is_log)
