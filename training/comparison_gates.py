"""Which numbers of a comparison each gate is asked about, in the order of how serious a failure is. Measures nothing else itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from inference.bundle import Bundle
from inference.errors import BundleError
from training.card_check import missing_from_card
from training.comparison_cases import HeldOut
from training.comparison_cost import Cost
from training.comparison_words import words
from training.export import file_sha256
from training.gates import Gate, Limits, at_most, non_inferior, not_worse
from training.paired import Difference, holm
from training.probe import probe_difference
from training.seen import overlap

_URGENT = "patients who need more than they get"
_SUBGROUP_FIGURES = ("under_triage", "emergencies_late", "gtpa@1", "missed_malignant", "first_label_right")
_CONDITION = "condition "  # single conditions are what the sentinels watch; so many small groups would hide the others' differences
_ACCURACY = ("gtpa@1", "critical_auc", "malignancy_auc", "emergency_auc")
_NAMED_AT_MOST = 3


@dataclass(frozen=True)
class LostFlags:
    """Sentinels that are no longer at level 1 or 2, held-out cases that lost a red flag, and how many sentinels the champion reaches."""

    sentinels: tuple[str, ...]
    cases: tuple[str, ...]
    watched: int

    def as_json(self) -> dict[str, Any]:
        """All of them, by name."""
        return {
            "lowered_sentinels": list(self.sentinels),
            "cases_that_lost_a_red_flag": list(self.cases),
            "sentinels_watched": self.watched,
        }


@dataclass(frozen=True)
class Evidence:
    """All that the gates are asked about."""

    champion: Bundle
    challenger: Bundle
    challenger_folder: Path
    data: Path
    cases: HeldOut
    differences: dict[str, Difference]
    subgroups: dict[str, dict[str, Difference]]
    flags: LostFlags
    cost: Cost

    @property
    def has_the_same_model(self) -> bool:
        """Whether model.onnx is byte for byte the champion's: then there is nothing new to prove of the graph."""
        return self.challenger.contract.model_sha256 == self.champion.contract.model_sha256


def judge_all(evidence: Evidence, limits: Limits) -> tuple[tuple[Gate, ...], tuple[str, ...]]:
    """Every gate, the most serious first, and remarks for the reader."""
    task, found = evidence.champion.contract.task, evidence.differences
    margin = limits.calibration.margin
    gates = [
        _red_flags(evidence, limits),
        non_inferior(
            "under_triage", _URGENT, found.get("under_triage"), limits.under_triage.margin.of(task), limits.under_triage.least_cases
        ),
    ]
    late = "emergencies that are not seen within the hour"
    if "emergencies_late" in found:
        limit = limits.emergencies_late
        gates.append(non_inferior("emergencies_late", late, found["emergencies_late"], limit.margin.of(task), limit.least_cases))
    if "missed_malignant" in found:
        limit = limits.under_triage
        what = "malignant lesions that the model itself does not flag"
        gates.append(non_inferior("missed_malignant", what, found["missed_malignant"], limit.margin.of(task), limit.least_cases))
    gates += [
        _worst_subgroup(evidence, limits),
        not_worse("over_triage", "others who are called urgent", _first(found, ("false_alarm", "over_triage")), limits.over_triage.margin),
        _accuracy(evidence, limits),
        *_calibration(found, margin),
        _parity(evidence, limits),
        _leak(evidence, limits),
        _card(evidence, limits),
        _size(evidence, limits),
        _latency(evidence, limits),
    ]
    return tuple(gates), tuple(_remarks(evidence))


def _first(found: dict[str, Difference], names: tuple[str, ...]) -> Difference | None:
    return next((found[name] for name in names if name in found), None)


def _red_flags(evidence: Evidence, limits: Limits) -> Gate:
    flags = evidence.flags
    lost = (*flags.sentinels, *flags.cases)
    more = f" and {len(lost) - _NAMED_AT_MOST} more" if len(lost) > _NAMED_AT_MOST else ""
    if lost:
        why = f"{len(flags.sentinels)} textbook emergencies fall below level 2 and {len(flags.cases)} cases lose a red flag: {'; '.join(lost[:_NAMED_AT_MOST])}{more}"
    else:
        why = f"none of {flags.watched} textbook emergencies falls below level 2, and no held-out case loses a red flag"
    return at_most("red_flags", len(lost), limits.red_flags.lowered, why)


def _worst_subgroup(evidence: Evidence, limits: Limits) -> Gate:
    limit = limits.worst_subgroup
    asked = [
        (group, name, one)
        for group, figures in evidence.subgroups.items()
        for name, one in figures.items()
        if name in _SUBGROUP_FIGURES and not group.startswith(_CONDITION) and one.change.n >= limit.least_cases
    ]
    if not asked:
        return Gate("worst_subgroup", True, nan, limit.margin, f"no subgroup has {limit.least_cases} held-out cases")
    adjusted = holm(np.array([one.p_value for _, _, one in asked]))
    group, name, worst = max(asked, key=lambda one: one[2].harm.value)
    worse = [one for one, p in zip(asked, adjusted, strict=True) if one[2].harm.value >= limit.margin and p < limit.significance]
    if worse:
        group, name, worst = max(worse, key=lambda one: one[2].harm.value)
    state = "worse than chance explains" if worse else "no more than chance explains, or within the margin"
    why = (
        f"{group}, {words(name).lower()}: {100 * worst.champion.value:.1f} % with the champion, {100 * worst.challenger.value:.1f} % with the challenger "
        f"(n = {worst.change.n}): {state}"
    )
    return Gate("worst_subgroup", not worse, worst.harm.value, limit.margin, why)


def _accuracy(evidence: Evidence, limits: Limits) -> Gate:
    name = next((one for one in _ACCURACY if one in evidence.differences), "accuracy")
    return not_worse("accuracy", words(name).lower(), evidence.differences.get(name), limits.accuracy.margin)


def _calibration(found: dict[str, Difference], margin: float) -> Iterator[Gate]:
    error = next((name for name in found if name.endswith("ece")), "calibration error")
    yield not_worse("calibration", words(error).lower(), found.get(error), margin)
    if "set_coverage" in found:
        yield not_worse("set_coverage", "patients whose condition is in the 90 % set", found["set_coverage"], margin)


def _parity(evidence: Evidence, limits: Limits) -> Gate:
    limit = limits.parity.largest_difference
    try:
        difference = probe_difference(evidence.challenger)
    except BundleError as error:
        return Gate("parity", False, nan, limit, str(error))
    if difference != difference:
        if evidence.has_the_same_model:
            return Gate("parity", True, 0.0, limit, "the bundle keeps no probe, but its model is the champion's byte for byte")
        return Gate(
            "parity",
            False,
            nan,
            limit,
            "the bundle keeps no answers of the trained model, so nobody can tell whether its graph is that model: train it again",
        )
    state = (
        "gives the trained model's answers"
        if difference <= limit
        else "gives other answers than the trained model: it was changed after the export"
    )
    return at_most("parity", difference, limit, f"the graph {state} (largest difference {difference:.1e})")


def _leak(evidence: Evidence, limits: Limits) -> Gate:
    contract, limit = evidence.challenger.contract, limits.leak.share
    if evidence.cases.is_whole_data and (_checksums(evidence.data) & {source.sha256 for source in contract.data}):
        return Gate(
            "leak",
            False,
            1.0,
            limit,
            "the challenger learned from these very data, as its contract says: compare on data that it never saw",
        )
    if not contract.seen:
        if evidence.has_the_same_model:
            return Gate(
                "leak", True, 0.0, limit, "the bundle does not say what it learned from, but its model is the champion's byte for byte"
            )
        return Gate(
            "leak",
            False,
            nan,
            limit,
            "the bundle keeps no sketch of what it learned from, so that a leak could not be seen: train it again",
        )
    found = overlap(contract.seen, evidence.cases.prints)
    share = found.share
    if share.n == 0:
        return Gate("leak", True, nan, limit, "no held-out case can be told apart well enough to look for it among those learned from")
    ids = ", ".join(evidence.cases.case_ids[place] for place in found.places[:_NAMED_AT_MOST])
    named = f", such as {ids}" if ids else ""
    why = f"an estimated {100 * share.value:.1f} % of the held-out cases were learned from ({100 * share.low:.1f} to {100 * share.high:.1f} %, told by {share.n} cases{named})"
    return at_most("leak", share.low, limit, why)


def _checksums(data: Path) -> set[str]:
    """Of the data, and of the folder that a table names."""
    return {file_sha256(data)} | ({file_sha256(data.parent)} if data.suffix == ".csv" else set())


def _card(evidence: Evidence, limits: Limits) -> Gate:
    metrics = json.loads((evidence.challenger_folder / "metrics.json").read_text(encoding="utf-8"))
    missing = list(missing_from_card(evidence.challenger.contract, metrics))
    if evidence.challenger.contract.training.get("smoke"):
        missing.insert(0, "it comes from a smoke run, which tries the steps and trains nothing")
    why = f"the model card lacks {len(missing)} things: {'; '.join(missing[:_NAMED_AT_MOST])}" if missing else "the model card is complete"
    return at_most("card", len(missing), limits.card.missing, why)


def _size(evidence: Evidence, limits: Limits) -> Gate:
    limit = limits.size.of(evidence.champion.contract.task)
    size = evidence.cost.challenger_bytes
    return at_most("size", size, limit, f"the bundle has {size / 1e6:.2f} MB; the budget is {limit / 1e6:.2f} MB")


def _latency(evidence: Evidence, limits: Limits) -> Gate:
    cost, limit = evidence.cost, limits.latency
    ratio = cost.challenger_ms / cost.champion_ms
    why = f"one case takes {cost.challenger_ms:.2f} ms, {ratio:.2f} times the champion's; {limit.ratio:g} times are accepted, and anything below {limit.quick_enough_ms:g} ms"
    return Gate("latency", ratio <= limit.ratio or cost.challenger_ms <= limit.quick_enough_ms, ratio, limit.ratio, why)


def _remarks(evidence: Evidence) -> Iterator[str]:
    if evidence.champion.sha256 == evidence.challenger.sha256:
        yield "both are the same bundle"
    elif evidence.has_the_same_model:
        yield "both have the same model; what differs are thresholds, texts or figures"
    champion = evidence.champion.contract
    if evidence.cases.is_whole_data and _checksums(evidence.data) & {source.sha256 for source in champion.data}:
        yield "the champion learned from these very data, so that it looks better than it is"
    elif champion.seen and (found := overlap(champion.seen, evidence.cases.prints)).share.low > 0.01:
        yield f"the champion learned from an estimated {100 * found.share.value:.0f} % of these cases, so that it looks better than it is"
    if not champion.seen:
        yield "the champion does not say which cases it learned from"
