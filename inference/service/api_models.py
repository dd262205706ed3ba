"""The shapes of the HTTP interface, for callers' bodies and for the OpenAPI document. Decides nothing."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from inference.assessment import Assessment

_STRICT = ConfigDict(extra="forbid", str_strip_whitespace=True, strict=True)
_TEXT_LENGTH = 4000
_HOST = "[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?"
_RECEIVER = rf"^(https://{_HOST}|http://(localhost|127\.0\.0\.1))(:[0-9]{{1,5}})?(/[!-~]*)?$"

CASE_EXAMPLE: dict[str, Any] = {
    "case_id": "r-17",
    "received_at": "2026-11-22T08:30:00+05:00",
    "age_years": 58,
    "sex": "male",
    "complaint": "seenay mein dard, paseena",
    "vitals": {"pulse_per_minute": 118, "systolic_mmhg": 96, "respiratory_rate_per_minute": 24, "spo2_percent": 93},
    "district": "Tharparkar",
    "patient": {"name": "…", "phone": "…", "identifiers": [{"system": "…", "value": "…"}]},
}

# A case is never refused for one field that is wrong: the field is set aside and the case gets a review reason. So no type is
# demanded here, and any further field is named in the answer.
CASE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "A case, as `nabz rank` takes it. A field that cannot be right is set aside and named in `review.why`; the case "
    "is stored all the same. `patient` (name, phone, identifiers) is sealed and never scored.",
    "properties": {
        "case_id": {"description": "your name for the case; without one it gets the referral's id", "examples": ["r-17"]},
        "received_at": {"description": "ISO 8601 with a zone; default: now"},
        "age_years": {"description": "0 to 125; fractions for infants", "examples": [58]},
        "sex": {"description": "female, male or unknown"},
        "complaint": {"description": "in English, Urdu or Roman Urdu", "examples": ["بخار نہیں، سینے میں درد"]},
        "findings": {"description": "finding code to present, absent or a value; a code that is not there is unknown"},
        "vitals": {"description": "with units in the names, such as spo2_percent; what is not there was not measured"},
        "pregnant": {"description": "true, false or nothing"},
        "photos": {"description": "what is known of each photo; `path` is the name of its file in the request"},
        "district": {"description": "district of Pakistan"},
        "priority": {"description": "the referrer's own: routine, urgent, asap or stat; never lowered"},
        "patient": {"description": "identity: name, phone, identifiers"},
    },
    "examples": [CASE_EXAMPLE],
}
FINDINGS_EXAMPLE: dict[str, Any] = {"vitals": {"spo2_percent": 86}, "complaint": "saans phool rahi hai"}

# One event of the stream; `data` is a JSON object.
EVENT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+$", "description": "what `Last-Event-ID` resumes after; now and then it comes alone"},
        "event": {"type": "string", "description": "what happened: created, claimed, reassessed, …"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "referral_id, at, level_before, level, state, specialty, district, clinic, revision",
        },
    },
}


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 2.0 is 2, and 2.5, "2" and true are no levels."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Level = Annotated[int, Field(ge=1, le=5), BeforeValidator(_whole)]


class OverrideRequest(BaseModel):
    """A clinician's own level, and why."""

    model_config = _STRICT

    level: Level = Field(examples=[2])
    reason: str = Field(min_length=1, max_length=_TEXT_LENGTH, examples=["ECG by phone shows ST elevation"])


class CompleteRequest(BaseModel):
    """How the case ended. `final_level` is the level that it deserved, seen afterwards."""

    model_config = _STRICT

    outcome: Literal["advised", "treated", "referred", "admitted", "not_reached", "died", "other"] = Field(examples=["referred"])
    final_level: Level | None = Field(default=None, examples=[2])
    note: str = Field(default="", max_length=_TEXT_LENGTH)


class NoteRequest(BaseModel):
    """A clinician's note."""

    model_config = _STRICT

    text: str = Field(min_length=1, max_length=_TEXT_LENGTH, examples=["Called the clinic; patient is on the way"])


class WebhookRequest(BaseModel):
    """Where events are sent to."""

    model_config = _STRICT

    url: str = Field(
        min_length=1,
        max_length=2000,
        pattern=_RECEIVER,
        description="https, or http to this machine; without a user name",
        examples=["https://hospital.example/nabz"],
    )


class ReferralRow(BaseModel):
    """A referral without anything of the patient's. Times are ISO 8601 in UTC."""

    id: str
    state: Literal["waiting", "claimed", "completed"]
    level: int
    level_name: str
    level_name_ur: str
    machine_level: int
    floor_level: int
    override_level: int | None
    clinic: str
    district: str | None
    specialty: str
    scored_by: str
    needs_review: bool
    received_at: str
    stored_at: str
    due_at: str
    cap_at: str
    past_cap: bool
    holder: str | None
    lease_until: str | None
    completed_at: str | None
    version: int
    revision: int


class StoredReferral(ReferralRow):
    """A referral as it was acknowledged: it is stored."""

    assessment: Assessment | None


class StoredReferrals(BaseModel):
    """The referrals of a batch, in its order."""

    referrals: list[StoredReferral]


class ReassessedReferral(StoredReferral):
    """A referral after new findings: `changes` says what changed, and why."""

    changes: dict[str, Any]


class ListedReferral(ReferralRow):
    """A row of the worklist; `summary` is null once the content was erased."""

    summary: dict[str, Any] | None


class Worklist(BaseModel):
    """One page, in the queue's order as of `as_of`. `next` is the cursor of the next page, null on the last."""

    as_of: str
    items: list[ListedReferral]
    next: str | None


class Version(BaseModel):
    """One assessment of a referral, and what it changed."""

    version: int
    at: str
    assessment: Assessment
    changes: dict[str, Any] | None


class FullReferral(ReferralRow):
    """A referral with its case, all of its assessments and all that happened to it."""

    patient: dict[str, Any] | None
    case: dict[str, Any] | None
    photos: list[dict[str, str]]
    assessment: Assessment | None
    assessments: list[Version]
    history: list[dict[str, Any]]


class Claimed(BaseModel):
    """The case that was claimed; null when none waits."""

    referral: ReferralRow | None


class Webhook(BaseModel):
    """A receiver of events; `delivered` is the last event that it accepted."""

    id: str
    url: str
    is_active: bool
    delivered: int
    failures: int


class NewWebhook(BaseModel):
    """A receiver that was just added. The secret is shown this once."""

    id: str
    url: str
    secret: str


class AuditRow(BaseModel):
    """One row of the audit trail."""

    sequence: int
    at: str
    actor: str
    role: str
    action: str
    referral_id: str | None
    detail: dict[str, Any]
    hash: str


class Reloaded(BaseModel):
    """The bundles that are live now, and what could not be used."""

    bundles: dict[str, dict[str, str]]
    problems: list[str]


class Health(BaseModel):
    """Whether the service can take cases: ready, degraded (some model is not in use), starting or draining."""

    status: Literal["ready", "degraded", "starting", "draining", "no database"]
    bundles: dict[str, dict[str, str]] = {}
