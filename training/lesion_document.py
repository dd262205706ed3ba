"""Scored photos as a metrics document: all figures, subgroups, what abstaining would bring, and the release gate.

The release gate is one pure function over subgroup figures. Nothing here knows where the probabilities come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan, nan
from typing import Any

import numpy as np

from training.lesion_figures import Scored, lesion_metrics, skin_type_metrics
from training.metrics import Interval, metrics_document

# The release gate: of the Fitzpatrick types with at least so many cancers, the one with the lowest sensitivity must reach this.
LEAST_GROUP_SENSITIVITY = 0.90
LEAST_CANCERS = 20
ABSTAINED_PERCENT = (0, 5, 10, 20, 30)
_ABSTENTION_METRICS = ("balanced_accuracy", "sensitivity", "specificity")
_TONE_METRICS = ("balanced_accuracy", "auc", "sensitivity", "specificity")


def lesion_document(task: str, bundle: str, scored: Scored, labels: tuple[str, ...], malignant: tuple[str, ...]) -> dict[str, Any]:
    """The metrics document of n scored images: figures, subgroups, `worst_group` and `release_problems`.

    `worst_group_sensitivity` is that of the group that `worst_group` names, its n the group's cancers.
    """
    types = skin_type_metrics(scored, labels, malignant)
    group, worst = worst_group(types)
    metrics = lesion_metrics(scored, labels, malignant) | {"worst_group_sensitivity": worst}
    subgroups = types | _tone_metrics(scored, labels, malignant) | abstention_curve(scored, labels, malignant)
    document = metrics_document(task, bundle, len(scored.truth), metrics, subgroups)
    return document | {"worst_group": group, "release_problems": list(release_problems(types))}


def worst_group(types: Mapping[str, Mapping[str, Interval]]) -> tuple[str | None, Interval]:
    """The Fitzpatrick type with the lowest sensitivity among those with LEAST_CANCERS; None and NaN when there is none."""
    enough = {
        name: figures["sensitivity"]
        for name, figures in types.items()
        if name.startswith("fitzpatrick_") and name != "fitzpatrick_unknown" and figures["sensitivity"].n >= LEAST_CANCERS
    }
    if not enough:
        return None, Interval(nan, nan, nan, 0)
    name = min(enough, key=lambda one: enough[one].value)
    return name, enough[name]


def release_problems(types: Mapping[str, Mapping[str, Interval]]) -> tuple[str, ...]:
    """Why a bundle with these figures by skin type must not go live; empty when nothing speaks against it.

    A type with fewer cancers than LEAST_CANCERS proves nothing either way: the card shows its n.
    """
    name, worst = worst_group(types)
    if name is None:
        return (f"no Fitzpatrick type has {LEAST_CANCERS} cancers: its sensitivity by skin type is not known",)
    if isnan(worst.value) or worst.value < LEAST_GROUP_SENSITIVITY:
        return (f"{name}: sensitivity {worst.value:.3f} of {worst.n} cancers is below {LEAST_GROUP_SENSITIVITY:.2f}",)
    return ()


def abstention_curve(scored: Scored, labels: tuple[str, ...], malignant: tuple[str, ...]) -> dict[str, dict[str, Interval]]:
    """Figures of the images that are kept when the least certain are left to a clinician, each with its n.

    Certainty is the largest probability; the images kept stay the same while intervals are drawn.
    """
    order = np.argsort(-scored.probabilities.max(axis=1), kind="stable") if len(scored.truth) else np.arange(0)
    curve = {}
    for percent in ABSTAINED_PERCENT:
        kept = np.zeros(len(order), dtype=bool)
        kept[order[: len(order) - len(order) * percent // 100]] = True
        curve[f"abstained_{percent}_percent"] = lesion_metrics(scored.rows(kept), labels, malignant, only=_ABSTENTION_METRICS)
    return curve


def _tone_metrics(scored: Scored, labels: tuple[str, ...], malignant: tuple[str, ...]) -> dict[str, dict[str, Interval]]:
    if scored.tones is None:
        return {}
    return {
        f"estimated_tone_{tone.replace(' ', '_')}": lesion_metrics(scored.rows(scored.tones == tone), labels, malignant, only=_TONE_METRICS)
        for tone in np.unique(scored.tones).tolist()
    }
