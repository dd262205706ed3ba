"""A study's answer as a table and as JSON. Formats numbers; computes none and prints nothing by itself."""

from __future__ import annotations

from dataclasses import fields
from math import isfinite
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from inference.service.simulation_results import CRITERION, EMERGENCIES, Estimate
from inference.service.simulation_study import Answer, Check, GroupAnswer
from inference.worklist import duration

_UNKNOWN = ("unknown to the AI:\nmean", "against\nFIFO", "against those\nit knows")

# GroupAnswer's field -> its name with the unit, in JSON
_JSON_NAMES = {
    "mean": "mean_wait_minutes",
    "p95": "p95_wait_minutes",
    "past_cap": "past_cap_share",
    "known_mean": "known_mean_wait_minutes",
    "unknown_mean": "unknown_mean_wait_minutes",
    "saved_against_fifo": "saved_against_fifo_minutes",
    "unknown_against_fifo": "unknown_against_fifo_minutes",
    "unknown_against_known": "unknown_against_known_minutes",
    "cases": "cases_per_replication",
}


def as_json(answer: Answer) -> dict[str, Any]:
    """The whole answer, ready for json.dumps; what has no value is null."""
    content: dict[str, Any] = {
        "scenario": answer.scenario.model_dump(mode="json"),
        "load": answer.scenario.load,
        "policy": {"version": answer.policy.version, "sha256": answer.policy.sha256},
        "seed": answer.seed,
        "confidence": 0.95,
        "readers_needed_criterion": CRITERION,
        "policies": {
            name: {
                "emergencies": _group(one.groups[EMERGENCIES]),
                "levels": {str(level): _group(one.groups[level]) for level in sorted(answer.scenario.levels)},
                "readers_needed": one.readers_needed,
            }
            for name, one in answer.policies.items()
        },
        "warnings": list(answer.warnings),
    }
    if answer.check:
        content |= {
            "published": answer.check.published,
            "simulated": {group: {arm: _estimate(one) for arm, one in arms.items()} for group, arms in answer.check.simulated.items()},
            "within_interval": answer.check.within_interval,
            "exact": answer.check.exact,
        }
    return content


def print_answer(answer: Answer, console: Console) -> None:
    """Waits by true level and policy; then the policies in one line each; then the published example, if there is one."""
    scenario = answer.scenario
    console.print(
        f"[bold]{scenario.name}[/]: {scenario.arrivals_per_hour:.3g} cases an hour, {scenario.readers} readers, load {scenario.load:.2f}; "
        f"{scenario.replications} replications of {scenario.measured_hours:g} hours, seed {answer.seed}",
        highlight=False,
    )
    if "estimate" in scenario.sources.values():
        console.print("Every parameter of this preset is an estimate. Put your own in a file: nabz simulate --file FILE", style="italic")
    console.print(_waits_table(answer))
    console.print(_policies_table(answer))
    if answer.searched_readers:
        console.print(f"readers needed: {CRITERION}", style="dim", highlight=False)
    if answer.check:
        console.print(_check_table(answer.check))


def level_label(answer: Answer, level: int) -> str:
    """`1 immediate`: the scenario's own word for the level, or the policy's."""
    return f"{level} {answer.scenario.levels[level].label or answer.policy.levels[level].name}"


def _waits_table(answer: Answer) -> Table:
    table = _table("Waits in minutes by true level (± half of the 95 % interval)")
    names = ["mean", "95th percentile", "past cap", *(_UNKNOWN if _has_unknown(answer) else ())]
    _columns(table, ("true level", "policy"), names)
    for level in sorted(answer.scenario.levels):
        cap = answer.policy.levels[level].cap_minutes
        for place, (name, one) in enumerate(answer.policies.items()):
            group = one.groups[level]
            heading = level_label(answer, level) if place == 0 else f"  cap {duration(cap)}" if place == 1 else ""
            unknown = (_minutes(group.unknown_mean), _signed(group.unknown_against_fifo), _signed(group.unknown_against_known))
            cells = (_minutes(group.mean), _minutes(group.p95), _share(group.past_cap), *unknown)
            table.add_row(heading, name, *cells[: len(names)])
        table.add_section()
    return table


def _policies_table(answer: Answer) -> Table:
    table = _table("Emergencies (true levels 1 and 2)" + (", and the readers needed" if answer.searched_readers else ""))
    names = ["minutes saved\nagainst FIFO", "past cap", *(_UNKNOWN[1:] if _has_unknown(answer) else ())]
    _columns(table, ("policy",), [*names, *(["readers\nneeded"] if answer.searched_readers else [])])
    for name, one in answer.policies.items():
        group = one.groups[EMERGENCIES]
        needed = [str(one.readers_needed or "none found")] if answer.searched_readers else []
        cells = (
            _minutes(group.saved_against_fifo),
            _share(group.past_cap),
            _signed(group.unknown_against_fifo),
            _signed(group.unknown_against_known),
        )
        table.add_row(name, *cells[: len(names)], *needed)
    return table


def _check_table(check: Check) -> Table:
    table = _table("The published example: mean wait in minutes")
    _columns(table, ("cases", "arm"), ["published", "simulated (95 % interval)", "exact", "published within interval"])
    for group, arms in check.simulated.items():
        for arm, one in arms.items():
            table.add_row(
                group.replace("_", "-"), arm.replace("_ai", " AI"), f"{check.published[group][arm]:.2f}",
                f"{one.value:.2f} ({one.low:.2f} to {one.high:.2f})", f"{check.exact[group][arm]:.2f}",
                "yes" if check.within_interval[group][arm] else "NO",
            )  # fmt: skip
    return table


def _table(title: str) -> Table:
    return Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="bold")


def _group(group: GroupAnswer) -> dict[str, Any]:
    return {_JSON_NAMES[field.name]: _estimate(getattr(group, field.name)) for field in fields(group)}


def _estimate(one: Estimate) -> dict[str, float | int | None]:
    value, low, high = (figure if isfinite(figure) else None for figure in (one.value, one.low, one.high))
    return {"value": value, "low": low, "high": high, "n": one.replications}


def _minutes(one: Estimate) -> str:
    if not isfinite(one.value):
        return "-"
    digits = 1 if abs(one.value) < 100 else 0
    half = f" ± {(one.high - one.low) / 2:,.{digits}f}" if isfinite(one.low) else ""
    return f"{one.value:,.{digits}f}{half}"


def _signed(one: Estimate) -> str:
    return _minutes(one) if not isfinite(one.value) or one.value < 0 else f"+{_minutes(one)}"


def _share(one: Estimate) -> str:
    return f"{one.value:.1%}" if isfinite(one.value) else "-"


def _has_unknown(answer: Answer) -> bool:
    return any(mix.unknown_share for mix in answer.scenario.levels.values())


def _columns(table: Table, words: tuple[str, ...], figures: list[str]) -> None:
    for name in words:
        table.add_column(name, no_wrap=True)
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
