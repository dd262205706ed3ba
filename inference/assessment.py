"""The assessment of one case: what clinicians read and services store. Its JSON form is stable.

Holds results only; it decides nothing.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_FROZEN = ConfigDict(frozen=True, extra="forbid")

NOTICE = "Decision support, not a medical device; the models are not clinically validated. A clinician decides."


class PossibleCondition(BaseModel):
    """One condition of the differential; `severity` 1 is the most severe."""

    model_config = _FROZEN

    condition: str
    name_en: str
    name_ur: str
    icd10: str | None
    probability: float
    severity: int | None


class LesionAssessment(BaseModel):
    """The most worrying of the case's photos."""

    model_config = _FROZEN

    photo: str
    label: str
    probabilities: dict[str, float]
    malignancy_probability: float
    quality_problems: tuple[str, ...]


class PhotoCheck(BaseModel):
    """What was found out about one photo before its lesion was believed.

    `problems` are the gate's codes. A photo with any of them is not believed: no lesion probability is taken from it.
    `tone` is the skin's tone group: "said" comes from the Fitzpatrick type in the case (and is then "type 1" to "type 6"),
    "estimated" from the photo's own light (`ita_degrees`), which errs by a group or more. `sha256` is of the file's content;
    None in assessments from before it was noted.
    """

    model_config = _FROZEN

    photo: str
    problems: tuple[str, ...] = ()
    is_believed: bool
    tone: str | None = None
    tone_source: Literal["said", "estimated"] | None = None
    ita_degrees: float | None = None
    sha256: str | None = None


class Reason(BaseModel):
    """One line of why: from a rule, the referrer, a model, a finding; `could_change` names what is not known."""

    model_config = _FROZEN

    kind: Literal["rule", "referrer", "model", "finding", "could_change", "policy"]
    direction: Literal["for", "against", "open"]
    text: str
    text_ur: str = ""


class Review(BaseModel):
    """Whether a person must look at the case besides its turn in the queue, and why."""

    model_config = _FROZEN

    needed: bool
    why: tuple[str, ...]


class BundleName(BaseModel):
    """The bundle that a score came from."""

    model_config = _FROZEN

    version: str
    sha256: str


class CalibrationBand(BaseModel):
    """On what a probability's calibration rests: the held-out patients to whom `task`'s model gave one in [low, high).

    `events` of these `n` were emergencies. `data` says what they were, and `is_synthetic` whether they were invented.
    The last band of a model takes in 1.
    """

    model_config = _FROZEN

    task: str
    data: str
    is_synthetic: bool
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    n: int = Field(ge=1)
    events: int = Field(ge=0)

    @model_validator(mode="after")
    def _is_possible(self) -> CalibrationBand:
        if self.low >= self.high or self.events > self.n:
            raise ValueError("low must lie below high, and events must be at most n")
        return self


class Provenance(BaseModel):
    """All that it takes to compute the assessment again: code, rules, policy, bundles, the input's hash, and local priors if any.

    `runtime` names the libraries and the kind of processor that did the arithmetic, on which last digits can depend; None in
    assessments from before it was noted.
    """

    model_config = _FROZEN

    nabz_version: str
    rule_version: str
    policy_sha256: str
    bundles: dict[str, BundleName]
    input_sha256: str
    priors_sha256: str | None = None
    runtime: str | None = None


class Assessment(BaseModel):
    """The result for one case. `rank` counts from 1 within the batch; probabilities are in [0, 1].

    `level` is at most `floor_level`, the least urgent level that rules allow. `scored_by` says what ranked it.
    `calibration` is the band of the model that gave `emergency_probability`; None where none scored, where its bundle
    has no bands, and in assessments from before there were any. `photos` has a line for each photo that was looked at; it is
    empty in assessments from before there were such lines. `is_outside_scope`: none of the symptom model's conditions fits the
    findings, so that the differential and its set say little.
    """

    model_config = _FROZEN

    case_id: str
    rank: int
    level: int
    level_name: str
    wait_cap_minutes: int
    received_at: str
    emergency_probability: float | None
    critical_probability: float | None
    floor_level: int
    scored_by: Literal["models and rules", "rules alone", "nothing"]
    red_flags: tuple[str, ...]
    differential: tuple[PossibleCondition, ...]
    prediction_set: tuple[str, ...]
    specialty: str
    lesion: LesionAssessment | None
    news2: dict[str, Any] | None
    unknown_vitals: tuple[str, ...]
    findings: dict[str, str | tuple[str, ...]]
    not_understood: tuple[str, ...]
    review: Review
    reasons: tuple[Reason, ...]
    provenance: Provenance
    notice: str = NOTICE
    calibration: CalibrationBand | None = None
    photos: tuple[PhotoCheck, ...] = ()
    is_outside_scope: bool = False
