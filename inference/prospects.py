"""What every question that is still open could lead to: its answers' chances, its information, the level it could reach.

One call of the symptom model a case, with every answer to every open finding. Decides no order and has no words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.answers import Floats, answer_rows, expected_information, severity_weights
from inference.case import ABSENT, PRESENT, Case, Sex
from inference.measurements import question_facts
from inference.policy import LEAST_URGENT, Policy
from inference.rule_tables import VITALS, FiredRule, rule_tables
from inference.rules import RuleFloor
from inference.symptoms import Read, SymptomModel
from inference.urgency import raises_from_differential

# An answer that fewer than so many of a hundred such patients would give is no reason to ask for the level's sake: every
# sign of the tables could raise every case, and nobody answers seventy questions.
LIKELY = 0.02
_YES_OR_NO = 2  # answers of a binary finding, yes first
_SEVERE = 2  # severities 1 and 2 need care within the hour


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known when the question is asked: the case as read, its rule floor, its level, and who scores it."""

    read: Read
    floor: RuleFloor
    level: int
    model: SymptomModel | None
    policy: Policy


@dataclass(frozen=True, slots=True)
class Prospect:
    """One finding that could be asked.

    `probabilities` of its answers in the encoder's order; `information` in weighted bits, and `told` [conditions] what of
    it is about each condition; `rule` the sign that a yes would fire above the present level, if a yes is likely
    enough; `model_level` the most urgent level that the differential could support after a likely enough answer.
    """

    code: str
    probabilities: tuple[float, ...]
    information: float
    told: Floats
    rule: FiredRule | None
    model_level: int

    def could_reach(self, level: int) -> int | None:
        """The more urgent level that an answer could lead to, or None."""
        reached = min(self.model_level, self.rule.level if self.rule else level)
        return reached if reached < level else None

    @property
    def chance_of_sign(self) -> float:
        """How likely the answer is that fires the rule."""
        return self.probabilities[0] if len(self.probabilities) == _YES_OR_NO else 1.0


@dataclass(frozen=True, slots=True)
class Outlook:
    """All prospects by code; now: the probability of severe conditions, of the leading one, and the prediction set's size."""

    prospects: Mapping[str, Prospect]
    severe_probability: float
    leading_probability: float
    set_size: int


def outlook(asked: Asked, model: SymptomModel) -> Outlook:
    """Every open finding's prospect. Raises BundleError when the model fails."""
    codes, read, encoder = open_findings(asked, model), asked.read, model.encoder
    bases = [encoder.encode(read.findings)]
    if read.stated != read.findings:  # levels are decided without what only a measurement says
        bases.append(encoder.encode(read.stated))
    rows = np.concatenate([part for base in bases for part in (base[None], answer_rows(encoder, {}, base, codes))])
    likely = model.answers
    scored = model.posterior(read.case, rows)
    each = len(rows) // len(bases)
    now, after, deciding = scored[0], scored[1:each], scored[len(scored) - each + 1 :]
    sizes = model.set_sizes(deciding, rows[len(rows) - each + 1 :])
    counts = [len(encoder.values(code)) for code in codes]
    starts = np.cumsum([0, *counts])[:-1]
    chances = likely.probabilities(codes, now)
    told = expected_information(after, chances, starts, severity_weights(model.severity)) if codes else after
    levels = _levels(asked, model, deciding, sizes, chances, codes)
    fired = _signs(
        asked,
        [code for code, place in zip(codes, starts, strict=True) if chances[place] >= LIKELY or len(encoder.values(code)) > _YES_OR_NO],
    )
    prospects = {}
    for place, code in enumerate(codes):
        span = slice(starts[place], starts[place] + counts[place])
        prospect = Prospect(
            code=code,
            probabilities=tuple(chances[span].tolist()),
            information=float(told[place].sum()),
            told=told[place],
            rule=fired.get(code),
            model_level=int(levels[span].min()),
        )
        prospects[code] = prospect
    severe = float(now[model.severity <= _SEVERE].sum())
    return Outlook(prospects, severe, float(now.max()), int(model.set_sizes(now[None], rows[:1])[0]))


def open_findings(asked: Asked, model: SymptomModel) -> list[str]:
    """The findings that are not known, concern this patient, lie under no parent but present ones, and no known vital settles."""
    findings, case = asked.read.findings, asked.read.case
    barred = _not_concerning(case, model)
    for rule in model.vocabulary["lexicon"].get("measured", []):
        if getattr(case.vitals, rule["vital"]) is not None:
            barred.add(rule["finding"])
    return [
        code
        for code in sorted(model.encoder.codes)
        if code not in findings and code not in barred and _is_reached(code, findings, model.parents)
    ]


def _is_reached(code: str, findings: Mapping[str, object], parents: Mapping[str, str]) -> bool:
    while code := parents.get(code, ""):
        if findings.get(code, ABSENT) == ABSENT:
            return False
    return True


def _not_concerning(case: Case, model: SymptomModel) -> set[str]:
    """The codes of findings that a patient of this age and sex cannot have; unknown age or sex rules nothing out."""
    limited = limited_findings(model.vocabulary)
    return {code for rule in outside_of(case.age_years, case.sex) for code in limited[rule]}


def outside_of(age_years: float | None, sex: Sex) -> tuple[str, ...]:
    """The limits of findings that a patient of this age and sex lies outside of; unknown age or sex lies outside of none."""
    outside = {
        "female_only": sex == "male",
        "male_only": sex == "female",
        "from_12_years": age_years is not None and age_years < 12,
        "under_2_years": age_years is not None and age_years >= 2,
        "under_12_years": age_years is not None and age_years >= 12,
    }
    return tuple(rule for rule, is_outside in outside.items() if is_outside)


def limited_findings(vocabulary: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """The codes of the findings under each limit: the vocabulary's own, else the shipped ones by their slugs."""
    if "applies" in vocabulary:
        return {rule: frozenset(vocabulary["applies"].get(rule, ())) for rule in question_facts()["applies"]}
    by_slug = {evidence.get("slug"): code for code, evidence in vocabulary["evidences"].items()}
    return {rule: frozenset(by_slug[slug] for slug in slugs if slug in by_slug) for rule, slugs in question_facts()["applies"].items()}


def _signs(asked: Asked, codes: Sequence[str]) -> dict[str, FiredRule]:
    """For each finding, the most urgent sign that its presence would fire above the present level; NEWS2 reads no finding."""
    case, table = asked.read.case, rule_tables().iitt
    facts = {**{name: getattr(case.vitals, name) for name in VITALS}, "pregnant": case.pregnant, "age_years": case.age_years}
    signs, found = table.for_age(case.age_years), {}
    for code in codes:
        if code in table.roles:
            fired = signs.fired({**asked.read.findings, code: PRESENT}, facts)
            if fired and fired[0].level < asked.level:
                found[code] = fired[0]
    return found


def _levels(
    asked: Asked, model: SymptomModel, deciding: Floats, sizes: NDArray[np.int64], chances: Floats, codes: Sequence[str]
) -> NDArray[np.int64]:
    """The level that the differential supports after each answer; the least urgent one after an unlikely answer."""
    policy = asked.policy.differential
    n_present = sum(value != ABSENT for value in asked.read.stated.values())
    is_present = [value != ABSENT for code in codes for value in model.encoder.values(code)]
    masses = np.stack([deciding[:, model.severity == severity].sum(axis=1) for severity in range(6)], axis=1).tolist()
    present = n_present + np.array(is_present, dtype=int)
    certain = (sizes <= policy.largest_set_that_raises) & (present >= policy.least_findings_that_raise)
    levels = np.full(len(deciding), LEAST_URGENT)
    # An uncertain differential supports no more than routine, and what cannot raise need not be worked out.
    for row in np.flatnonzero((chances >= LIKELY) & (certain | (asked.level == LEAST_URGENT))):
        is_certain = bool(certain[row])
        raises = raises_from_differential(dict(enumerate(masses[row])), model.thresholds, is_certain=is_certain)
        levels[row] = min((one.level for one in raises), default=LEAST_URGENT)
    return levels
