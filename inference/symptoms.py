"""The symptom model over cases: a calibrated differential, its 90 % set, and what spoke for and against.

Reads findings with the lexicon of its own bundle. Knows no rules, no levels and no queue.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.answers import AnswerModel
from inference.assessment import CalibrationBand
from inference.bundle import Bundle, Label
from inference.calibration import band_of, calibration_bands
from inference.case import ABSENT, PRESENT, Case
from inference.errors import BundleError, PolicyError
from inference.evidence import DEMOGRAPHICS, EvidenceEncoder, Slot, demographic_index, prior_shift, season_of
from inference.findings import FindingsReader, Reading
from inference.prediction_sets import PredictionSets
from inference.priors import Priors
from inference.scope import OUTPUT, Scope

SHOWN_CONDITIONS = 5
SHOWN_REASONS = 4
_CANDIDATE_REASONS = 4 * SHOWN_REASONS
_LEAST_PROBABILITY = 1e-30
_SHARED = (("age, sex, season and place", "عمر، جنس، موسم اور جگہ"), ("the findings together", "علامات مل کر"))
_TRIAL_ROWS = 64
LEAST_CONTRIBUTION = 0.3  # log-odds below which a finding is not worth a line


Findings = dict[str, str | tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Read:
    """A case with its findings and the reading of its complaint.

    `findings` merges form, measurements and complaint. `stated` leaves the measurements out: what decides a level must
    not see a vital twice, or a worse vital could, by way of a likelier mild condition, lower the level.
    """

    case: Case
    findings: Findings
    stated: Findings
    reading: Reading


@dataclass(frozen=True, slots=True)
class Possible:
    """One condition of a differential with its probability."""

    label: Label
    probability: float


@dataclass(frozen=True, slots=True)
class Contribution:
    """A finding's log-odds for (positive) or against the leading condition, with the finding's name and state.

    Without a `code` it is what the person or the findings together add: see `training.symptom_scorer`.
    """

    code: str
    text_en: str
    text_ur: str
    log_odds: float


@dataclass(frozen=True, slots=True)
class Differential:
    """The leading conditions, the 90 % prediction set, and the leading one's reasons.

    `severity_mass` (probability by severity), `deciding_set_size` and `n_present` (findings that are there) leave
    measured vitals out: see `Read.stated`. `is_outside_scope`: none of the conditions fits the findings.
    """

    leading: tuple[Possible, ...]
    prediction_set: tuple[str, ...]
    severity_mass: dict[int, float]
    deciding_set_size: int
    contributions: tuple[Contribution, ...]
    n_present: int
    is_outside_scope: bool = False


@dataclass(frozen=True, slots=True)
class RowScores:
    """What the model says of n cases, as arrays in the order of the cases.

    `probabilities` and `members` (of the prediction set) are [n, conditions], `severity_mass` [n, 6] by severity, `contributions`
    [n, slots]; `is_outside_scope` and `deciding_set_size` are [n]. `shared` [n, 2] is None from a bundle without it, and with
    `contributions` from a `terse` model. See `Differential` for what they mean.
    """

    probabilities: NDArray[Any]
    members: NDArray[np.bool_]
    is_outside_scope: NDArray[np.bool_]
    severity_mass: NDArray[np.float64]
    deciding_set_size: NDArray[np.int64]
    contributions: NDArray[np.float32] | None
    shared: NDArray[np.float32] | None


class SymptomModel:
    """A verified symptom bundle with its reader and encoder."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises BundleError when the bundle's vocabulary is not one that this version reads."""
        contract = bundle.contract
        self._bundle = bundle
        self._labels = contract.labels
        self._calibration = calibration_bands(contract)
        try:
            vocabulary = contract.vocabulary
            self._evidences = vocabulary["evidences"]
            self._slots = tuple(Slot(*slot) for slot in vocabulary["slots"])
            self.parents: Mapping[str, str] = vocabulary["parents"]
            self._shifts = {"n": len(self._labels), "season": vocabulary["season"], "province": vocabulary["province"]}
            self.reader = FindingsReader(vocabulary["lexicon"], self.parents)
            self._districts = vocabulary["lexicon"].get("districts", {})
            self._measured = frozenset(rule["finding"] for rule in vocabulary["lexicon"].get("measured", []))
        except (KeyError, TypeError) as error:
            raise BundleError(f"{contract.task} {contract.version}: the vocabulary lacks {error}; export it again") from error
        self._sets, self._scope = PredictionSets(contract), Scope(contract)
        self.encoder = EvidenceEncoder(self._slots, self.parents)
        self.pregnancy_code = self._code_of("pregnancy")
        self._temperature = float(contract.training.get("temperature", 1.0))
        self._terse: tuple[Bundle, Bundle] | None = None
        self.priors: Priors | None = None
        self._local = np.zeros(len(self._labels), dtype=np.float32)
        self._known_shifts: dict[tuple[str | None, str | None], NDArray[np.float32]] = {}
        self._severity = np.array([label.severity or 5 for label in self._labels])

    @property
    def thresholds(self) -> Mapping[str, float]:
        """The contract's thresholds on the differential's severity mass."""
        return self._bundle.contract.thresholds

    @property
    def limits(self) -> tuple[str, ...]:
        """What the contract says that the model is not good for."""
        return self._bundle.contract.limits

    @property
    def labels(self) -> tuple[Label, ...]:
        """The conditions, in the order of the probabilities."""
        return self._labels

    @property
    def severity(self) -> NDArray[np.int64]:
        """Each condition's severity, [conditions]: 1 is the most severe, 5 the least and what has none."""
        return self._severity

    @property
    def vocabulary(self) -> Mapping[str, Any]:
        """The contract's vocabulary: evidences with their wording, parents, lexicon."""
        return self._bundle.contract.vocabulary

    def calibration_band(self, probability: float) -> CalibrationBand | None:
        """The held-out patients whose severities 1 and 2 together had a probability like this one; see `band_of`."""
        return band_of(self._calibration, probability)

    @cached_property
    def answers(self) -> AnswerModel:
        """What each finding may be answered, and how likely under each condition. Raises BundleError when the model fails."""
        nobody = Case(case_id="nobody")
        return AnswerModel(self.encoder, self._evidences, self.parents, self._temperature, lambda rows: self.posterior(nobody, rows))

    def posterior(self, case: Case, evidence: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities [rows, conditions] for one patient under each row of evidence, in one call of the model.

        Only the case's age, sex, date and place are read. Raises BundleError when the model fails.
        """
        n = len(evidence)
        outputs = self._bundle.run(
            {
                "evidence": evidence,
                "demographics": np.full(n, demographic_index(case.age_years, case.sex)),
                "log_shift": np.repeat(self.shift(case)[None], n, axis=0),
            }
        )
        return self._finite(outputs["probabilities"]).astype(np.float64)

    def with_priors(self, priors: Priors) -> SymptomModel:
        """This model with local priors. Raises PolicyError when they were estimated with another bundle, or are not safe."""
        if priors.bundle_sha256 != self._bundle.sha256:
            live = self._bundle.contract.version
            raise PolicyError(
                f"the priors were estimated with symptoms {priors.version} ({priors.bundle_sha256[:12]}), not with the live {live}"
            )
        adjusted = copy.copy(self)
        adjusted.__dict__.pop("answers", None)
        adjusted.priors, adjusted._known_shifts = priors, {}
        # The network divides its logits by the temperature, and a multiplier belongs to the probabilities.
        adjusted._local = (self._temperature * priors.log_multipliers(self._labels)).astype(np.float32)
        return adjusted

    def beliefs(self, reads: Sequence[Read]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The conditions' probabilities before and after the findings of each case, [n, conditions] both.

        Before: for somebody of the case's age, sex, season and place. Raises BundleError when the model fails.
        """
        evidence = np.array([self.encoder.encode(read.findings) for read in reads])
        nothing = self._probabilities(np.zeros_like(evidence), reads, [self.shift(read.case) for read in reads])
        after = self._probabilities(evidence, reads, [self.shift(read.case) for read in reads])
        before = np.maximum(nothing, _LEAST_PROBABILITY) ** self._temperature  # calibration sharpens what findings say, not the prior
        return before / before.sum(axis=1, keepdims=True), after

    def _probabilities(
        self, evidence: NDArray[np.float32], reads: Sequence[Read], shifts: Sequence[NDArray[np.float32]]
    ) -> NDArray[np.float64]:
        who = np.array([demographic_index(read.case.age_years, read.case.sex) for read in reads])
        outputs = self._bundle.run({"evidence": evidence, "demographics": who, "log_shift": np.array(shifts)})
        return self._finite(outputs["probabilities"]).astype(np.float64)

    def set_sizes(self, probabilities: NDArray[np.float64], evidence: NDArray[np.float32]) -> NDArray[np.int64]:
        """How many conditions each row's prediction set has, [rows]; `evidence` has the rows that the probabilities are for."""
        return self._sets.sizes(probabilities, evidence)

    def read(self, case: Case) -> Read:
        """The case's findings from the form, the measurements and the complaint."""
        findings, reading = self.reader.read_case(case)
        if case.pregnant is not None and self.pregnancy_code:
            findings.setdefault(self.pregnancy_code, "present" if case.pregnant else "absent")
        return Read(case, findings, self._stated(case, findings, reading), reading)

    def _stated(self, case: Case, findings: Findings, reading: Reading) -> Findings:
        """The findings without what only a measurement says."""
        stated = {code: value for code, value in findings.items() if code not in self._measured or code in case.findings}
        for finding in reading.findings:
            if finding.code in self._measured and finding.code not in case.findings and stated.get(finding.code) != PRESENT:
                stated[finding.code] = finding.value
        return stated

    def province_of(self, case: Case) -> str | None:
        """The province that the case names, or its district's."""
        if case.province:
            return case.province.strip().casefold().replace(" ", "_")
        return self._districts.get(case.district.strip().casefold()) if case.district else None

    def score(self, reads: Sequence[Read]) -> list[Differential]:
        """One differential a case, in order. Raises BundleError when the model fails."""
        if not reads:
            return []
        # Every case's own row, then a second one without its measurements where it has any; all go through the model at once.
        again = [row for row, read in enumerate(reads) if read.stated != read.findings]
        rows = [self.encoder.encode(read.findings) for read in reads] + [self.encoder.encode(reads[row].stated) for row in again]
        people = [*reads, *(reads[row] for row in again)]
        who = np.array([demographic_index(read.case.age_years, read.case.sex) for read in people])
        told = self.score_rows(np.array(rows), who, np.array([self.shift(read.case) for read in people]), np.array(again, dtype=np.int64))
        order = np.argsort(-told.probabilities, axis=1, kind="stable")
        ranked = np.take_along_axis(told.members, order, axis=1)
        last = (ranked.shape[1] - ranked[:, ::-1].argmax(axis=1)).tolist()
        leading = np.take_along_axis(told.probabilities, order[:, :SHOWN_CONDITIONS], axis=1).tolist()
        assert told.contributions is not None
        kept = min(_CANDIDATE_REASONS, told.contributions.shape[1] - 1)
        strongest = np.argpartition(-np.abs(told.contributions), kept, axis=1)[:, : kept + 1]
        shared = told.shared.tolist() if told.shared is not None else [()] * len(reads)
        masses, sizes, outside = told.severity_mass.tolist(), told.deciding_set_size.tolist(), told.is_outside_scope.tolist()
        found = []
        for row, read in enumerate(reads):
            places = order[row, : max(last[row], SHOWN_CONDITIONS)].tolist()
            belongs = ranked[row, : last[row]].tolist()
            found.append(
                Differential(
                    leading=tuple(Possible(self._labels[place], value) for place, value in zip(places, leading[row], strict=False)),
                    prediction_set=tuple([self._labels[place].name for place, is_in in zip(places, belongs, strict=False) if is_in]),
                    severity_mass=dict(enumerate(masses[row])),
                    deciding_set_size=sizes[row],
                    contributions=self._contributions(strongest[row], rows[row], told.contributions[row]) + _shared(shared[row]),
                    n_present=sum([value != ABSENT for value in read.stated.values()]),
                    is_outside_scope=outside[row],
                )
            )
        return found

    def score_rows(
        self, evidence: NDArray[np.float32], who: NDArray[np.int64], shifts: NDArray[np.float32], again: NDArray[np.int64]
    ) -> RowScores:
        """The model's answers about n cases, as arrays. Raises BundleError when the model fails.

        `evidence` [n + m, slots], `who` and `shifts` have a row for each case, then a second one, without its measurements, of
        each of the m cases that `again` names by their rows; what decides the level is taken from that.
        """
        n = len(evidence) - len(again)
        outputs = self._outputs(n, {"evidence": evidence, "demographics": who, "log_shift": shifts})
        probabilities = self._finite(outputs["probabilities"])
        members = self._sets.members(probabilities, evidence)
        outside = self._scope.is_outside(outputs[OUTPUT][:n], evidence[:n]) if self._scope.is_known else np.zeros(n, dtype=bool)
        rows = np.arange(n)
        rows[again] = np.arange(n, len(evidence))
        masses, sizes = self._deciding(rows, probabilities, members.sum(axis=1), evidence, who, shifts)
        shared = outputs["shared"][:n] if "shared" in outputs else None
        contributions = outputs["contributions"][:n] if "contributions" in outputs else None
        return RowScores(probabilities[:n], members[:n], outside, masses, sizes, contributions, shared)

    def _outputs(self, n: int, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The model's outputs, as far as they are wanted; of the rows behind the first `n` the probabilities count alone."""
        if self._terse is None:
            return self._bundle.run(feeds)
        first, second = self._terse
        outputs = first.run({name: array[:n] for name, array in feeds.items()})
        if n < len(feeds["evidence"]):
            more = second.run({name: array[n:] for name, array in feeds.items()})
            outputs["probabilities"] = np.concatenate([outputs["probabilities"], more["probabilities"]])
        return outputs

    def terse(self) -> SymptomModel:
        """This model for large batches: `score_rows` says the same but for the contributions, in little more than half the time.

        Where a trial gives other bits than the whole graph, it is this model itself: speed must not change a digit.
        """
        first, second = self._bundle.narrowed(("probabilities", OUTPUT)), self._bundle.narrowed(("probabilities",))
        random = np.random.default_rng(0)
        feeds = {
            "evidence": random.choice(np.array([-1, 0, 0, 0, 0, 0, 0, 1], dtype=np.float32), (_TRIAL_ROWS, len(self._slots))),
            "demographics": random.integers(0, DEMOGRAPHICS, _TRIAL_ROWS),
            "log_shift": random.normal(size=(_TRIAL_ROWS, len(self._labels))).astype(np.float32),
        }
        whole = self._bundle.run(feeds)
        if not all((whole[name] == values).all() for part in (first, second) for name, values in part.run(feeds).items()):
            return self
        narrow = copy.copy(self)
        narrow._terse = first, second
        return narrow

    def _deciding(
        self,
        rows: NDArray[np.int64],
        probabilities: NDArray[Any],
        sizes: NDArray[np.int64],
        evidence: NDArray[np.float32],
        who: NDArray[np.int64],
        shifts: NDArray[np.float32],
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """What decides the levels of the cases: their probability by severity, [n, 6], and the sizes of their sets, from their `rows`.

        A case with measurements is decided by its second row. With local priors the catalogue's have their say as well: of both
        the larger probability of each severity or worse, and the smaller set, so that local priors raise a level or leave it.
        """
        masses, small = by_severity(probabilities[rows], self._severity), sizes[rows]
        if self.priors is not None:
            outputs = self._bundle.run({"evidence": evidence[rows], "demographics": who[rows], "log_shift": shifts[rows] - self._local})
            usual = self._finite(outputs["probabilities"]).astype(np.float64)
            worse = np.maximum(np.cumsum(masses, axis=1), np.cumsum(by_severity(usual, self._severity), axis=1))
            masses, small = np.diff(worse, axis=1, prepend=0.0), np.minimum(small, self._sets.sizes(usual, evidence[rows]))
        return masses, small

    def _finite(self, probabilities: NDArray[Any]) -> NDArray[Any]:
        if not np.isfinite(probabilities).all():
            raise BundleError(f"{self._bundle.contract.task}: the model gave no finite probabilities")
        return probabilities

    def shift(self, case: Case) -> NDArray[np.float32]:
        """The log multipliers of the priors for the case's date and place, [conditions]; read-only: cases of one season and province share it."""
        key = season_of(case.received_at), self.province_of(case)
        shift = self._known_shifts.get(key)
        if shift is None:
            shift = prior_shift(self._shifts, *key) + self._local
            if key[1] is None or key[1] in self._shifts["province"]:  # what a form calls a province is without limit
                self._known_shifts[key] = shift
        return shift

    def _contributions(
        self, candidates: NDArray[np.int64], evidence: NDArray[np.float32], contributions: NDArray[np.float32]
    ) -> tuple[Contribution, ...]:
        """The strongest findings for and against, strongest first, of one case's slots with the largest contributions."""
        worth, states = contributions[candidates].tolist(), evidence[candidates].tolist()
        told = [
            (place, state, log_odds)
            for place, state, log_odds in zip(candidates.tolist(), states, worth, strict=True)
            if state and abs(log_odds) >= LEAST_CONTRIBUTION
        ]
        told.sort(key=_strength, reverse=True)
        supporting = [one for one in told if one[2] > 0][:SHOWN_REASONS]
        opposing = [one for one in told if one[2] < 0][:SHOWN_REASONS]
        return tuple([self._contribution(*one) for one in supporting + opposing])

    def _contribution(self, place: int, state: float, log_odds: float) -> Contribution:
        slot = self._slots[place]
        evidence = self._evidences[slot.code]
        name_en, name_ur = evidence.get("name_en", slot.code), evidence.get("name_ur", slot.code)
        if slot.value:
            meaning = evidence["value_meaning"].get(slot.value, {})
            name_en, name_ur = f"{name_en}: {meaning.get('en', slot.value)}", f"{name_ur}: {meaning.get('ur', slot.value)}"
        if state < 0:
            name_en, name_ur = f"no {name_en}", f"{name_ur} نہیں"
        return Contribution(slot.code, name_en, name_ur, log_odds)

    def _code_of(self, slug: str) -> str | None:
        return next((code for code, evidence in self._evidences.items() if evidence.get("slug") == slug), None)


def by_severity(probabilities: NDArray[Any], severity: NDArray[np.int64]) -> NDArray[np.float64]:
    """The probability of each severity, [n, 6], of the conditions' own, [n, conditions]; `severity` is theirs, 1 to 5.

    Added up one by one, in the conditions' order: a product of matrices adds in an order that depends on how many rows there
    are, and a case must get the same digits alone and in a batch.
    """
    places = 6 * np.arange(len(probabilities))[:, None] + severity
    weights = np.asarray(probabilities, dtype=np.float64).ravel()
    sums = np.bincount(places.ravel(), weights=weights, minlength=6 * len(probabilities))
    return np.asarray(sums, dtype=np.float64).reshape(-1, 6)


def _shared(log_odds: Sequence[float]) -> tuple[Contribution, ...]:
    """What no single finding adds, where it is worth a line."""
    named = zip(_SHARED, log_odds, strict=False)
    return tuple([Contribution("", text_en, text_ur, value) for (text_en, text_ur), value in named if abs(value) >= LEAST_CONTRIBUTION])


def _strength(told: tuple[int, float, float]) -> float:
    return abs(told[2])
