"""Weeks of an invented service: drawn cases with districts, priorities, photos and outcomes, scored as the service scores.

A week is drawn from its own seed and is the same each time. What goes wrong in a week is a `Fault` that the caller gives; this
module knows no statistics and no alarms.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.case import Case, CaseReading, Photo, read_case
from inference.monitor_features import sample_of
from inference.monitor_sample import Column, Sample
from inference.monitor_scoring import sample_of_cases, scored_cases, scripts_of
from inference.policy import load_policy
from inference.triage import Triage
from training.generator import Generator, PatientGenerator
from training.knowledge import load_knowledge
from training.render import SKIN_TONES, render_lesion
from training.synthetic import draw_cases

Array = NDArray[Any]
Raw = dict[str, Any]
Spoil = Callable[[Image.Image, np.random.Generator], Image.Image]
_DISTRICTS = {
    "punjab": ("multan", "rahim yar khan", "mianwali"),
    "sindh": ("tharparkar", "dadu", "larkana"),
    "khyber_pakhtunkhwa": ("swat", "bannu"),
    "balochistan": ("khuzdar", "zhob"),
}
_OTHER_DISTRICT = "elsewhere"
_PRIORITIES = ("routine", "urgent", "asap", "stat")
_PRIORITY_SHARES = {
    1: (0.1, 0.2, 0.3, 0.4),
    2: (0.2, 0.4, 0.25, 0.15),
    3: (0.5, 0.4, 0.08, 0.02),
    4: (0.8, 0.18, 0.02, 0.0),
    5: (0.9, 0.1, 0.0, 0.0),
}
_PHOTO_SHARE = 0.13
_PHOTO_SIZE = (400, 300)
_EMERGENCY_SEVERITY = 3  # of a condition: what experts would call urgent
_COLOURS = ((110, 74, 52), (52, 36, 38), (190, 120, 110), (150, 90, 60))
_PHOTO_HEADS = frozenset({"photo_problem", "photo_light", "photo_detail", "photo_ita", "photo_tone", "unfamiliarity", "lesion", "malignancy", "lesion_probability"})  # fmt: skip
_WEEK = np.timedelta64(7, "D")
_JPEG_QUALITY = 85


@dataclass(frozen=True)
class Fault:
    """What is other than before: how often conditions occur, what arrives of the cases, who scores, which photos, which outcomes.

    `times` multiplies conditions' priors; `cases` changes the raw cases; `triage` makes another one from the usual one;
    `photo` spoils a photo; `outcome` changes the outcomes [n] given the random generator.
    """

    times: Mapping[str, float] = field(default_factory=dict)
    cases: Callable[[list[Raw], Generator], list[Raw]] | None = None
    triage: Callable[[Triage], Triage] | None = None
    photo: Spoil | None = None
    outcome: Callable[[Array, Generator], Array] | None = None


NOTHING = Fault()


@dataclass(frozen=True)
class Week:
    """A week's cases as columns, and which were emergencies by case_id."""

    sample: Sample
    outcomes: dict[str, bool]


class InventedService:
    """Draws and scores weeks. `photos` are how many photos each pool has; 0 leaves photos out."""

    def __init__(self, catalogue: Path, triage: Triage, photos: int = 400) -> None:
        self.knowledge = load_knowledge(catalogue)
        self.triage = triage
        self._generator = PatientGenerator(self.knowledge)
        self._prior = self._generator.weights
        self._severity = np.array([self.knowledge.conditions[label]["severity"] for label in self.knowledge.labels])
        self._photos = photos
        self._pools: dict[tuple[int, Spoil | None], Sample] = {}

    def week(self, seed: int, n: int, fault: Fault = NOTHING) -> Week:
        """The week of a seed, n cases before its fault."""
        random = np.random.default_rng((seed, 1))
        raw, outcome = self._draw(seed, n, random, fault.times)
        changed = fault.cases(raw, random) if fault.cases else raw
        triage = fault.triage(self.triage) if fault.triage else self.triage
        readings = [read_case(one, f"case-{place}") for place, one in enumerate(changed)]
        sample = sample_of_cases(readings, triage)
        truth = fault.outcome(outcome, random) if fault.outcome else outcome
        sample = self._with_photos(sample, random, fault.photo, pool=1)
        return Week(sample, {one["case_id"]: bool(is_one) for one, is_one in zip(raw, truth, strict=True)})

    def baseline(self, seed: int, weeks: int, n: int) -> Week:
        """Quiet weeks as one sample whose times tell the weeks apart, with photos that no later week has."""
        start = np.datetime64("2026-01-05T00:00:00", "s")
        samples: list[Sample] = []
        outcomes: dict[str, bool] = {}
        for number in range(weeks):
            raw, outcome = self._draw(seed + number, n, random := np.random.default_rng((seed + number, 1)), {})
            readings = [read_case(one, one["case_id"]) for one in raw]
            sample = sample_of_cases(readings, self.triage)
            sample = replace(sample, received=np.full(sample.n, start + number * _WEEK))
            samples.append(self._with_photos(sample, random, None, pool=0, share=1 / weeks))
            outcomes |= {one["case_id"]: bool(is_one) for one, is_one in zip(raw, outcome, strict=True)}
        return Week(joined(samples), outcomes)

    def _draw(self, seed: int, n: int, random: Generator, times: Mapping[str, float]) -> tuple[list[Raw], Array]:
        weights = self._prior * np.array([times.get(label, 1.0) for label in self.knowledge.labels])
        self._generator.weights = weights / weights.sum()
        patients = self._generator.draw(n, random)
        self._generator.weights = self._prior
        raw = draw_cases(self.knowledge, self._generator, patients, random)
        severity = self._severity[patients.condition]
        for one, level in zip(raw, severity.tolist(), strict=True):
            districts = _DISTRICTS.get(one["province"], (_OTHER_DISTRICT,))
            one["district"] = str(random.choice(districts))
            one["priority"] = str(random.choice(_PRIORITIES, p=_PRIORITY_SHARES[level]))
            one["case_id"] = f"week-{seed}-{one['case_id']}"
        return raw, severity <= _EMERGENCY_SEVERITY

    def _with_photos(self, sample: Sample, random: Generator, spoil: Spoil | None, *, pool: int, share: float = 0.0) -> Sample:
        if not self._photos:
            return sample
        key = (pool, spoil)
        if key not in self._pools:
            self._pools[key] = self._pool(pool, spoil)
        photos = self._pools[key]
        if share:  # a baseline: each of its weeks has its part of the pool, and all together have all of it
            part = round(1 / share)
            number = int((sample.received[0] - np.datetime64("2026-01-05T00:00:00", "s")) // _WEEK)
            chosen = np.arange(photos.n) % part == number
        else:
            chosen = np.zeros(photos.n, dtype=bool)
            chosen[random.choice(photos.n, min(photos.n, round(_PHOTO_SHARE * sample.n)), replace=False)] = True
        picked = photos.of_cases(chosen)
        rows = random.choice(sample.n, picked.n, replace=picked.n > sample.n)
        columns = {
            name: Column(one.values, rows[one.rows], one.labels)
            for name, one in picked.columns.items()
            if name.split(":")[0] in _PHOTO_HEADS
        }
        return replace(sample, columns={**sample.columns, **columns})

    def _pool(self, pool: int, spoil: Spoil | None) -> Sample:
        """Rendered photos, scored once. A spoilt pool is smaller: it only has to last for some weeks."""
        count = self._photos if spoil is None else max(self._photos // 2, 1)
        content: dict[str, bytes] = {}
        readings = []
        for number in range(count):
            random = np.random.default_rng((pool, number, 7))
            name = f"{number}.jpg"
            content[name] = _photo(random, spoil)
            readings.append(CaseReading(Case(case_id=f"photo-{number}", age_years=40, photos=(Photo(path=name),)), ()))
        return sample_of(scored_cases(readings, self.triage, content), scripts_of(self.triage.models))


def _photo(random: np.random.Generator, spoil: Spoil | None) -> bytes:
    tone = int(random.choice(list(SKIN_TONES)))
    colour = _COLOURS[int(random.integers(len(_COLOURS)))]
    image = render_lesion(int(random.integers(1 << 30)), tone, colour, random.uniform(0.06, 0.16), random.uniform(0.05, 0.5), _PHOTO_SIZE)
    image = spoil(image, random) if spoil else image
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def joined(samples: list[Sample]) -> Sample:
    """Samples one after another as one."""
    names = dict.fromkeys(name for sample in samples for name in sample.columns)
    starts = np.cumsum([0, *(sample.n for sample in samples)])
    columns = {name: _joined_column([(sample, start) for sample, start in zip(samples, starts, strict=False)], name) for name in names}
    ids = tuple(one for sample in samples for one in sample.case_ids)
    return Sample(int(starts[-1]), columns, np.concatenate([sample.received for sample in samples]), ids)


def _joined_column(parts: list[tuple[Sample, int]], name: str) -> Column:
    found = [(sample, start, sample.columns.get(name)) for sample, start in parts]
    if name.startswith("finding:"):  # unknown in all cases of a week is no column
        labels = ("unknown", "present", "absent")
        values = [one.values if one is not None else np.zeros(sample.n, dtype=np.int8) for sample, _, one in found]
        return Column(np.concatenate(values), np.arange(sum(sample.n for sample, _, _ in found)), labels)
    have = [(start, one) for _, start, one in found if one is not None]
    rows = np.concatenate([one.rows + start for start, one in have])
    if have[0][1].labels is None:
        return Column(np.concatenate([one.values for _, one in have]), rows)
    known = tuple(sorted({label for _, one in have for label in one.labels or ()}))
    place = {label: at for at, label in enumerate(known)}
    values = [np.array([place[label] for label in one.labels or ()])[one.values] for _, one in have]
    return Column(np.concatenate(values), rows, known)


def shipped_triage() -> Triage:
    """The live models under the shipped policy."""
    from inference.models import load_models

    return Triage(load_models(), load_policy())
