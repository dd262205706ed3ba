"""What the FHIR routes need of a store: a small protocol, and the records that cross it. Knows no database and no HTTP.

The routes have asked whether the role may do it. Every method shows a clinic its own alone: foreign and missing look the
same. `commit` stores everything or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from inference.assessment import Assessment
from inference.case import Priority
from inference.service.callers import Who
from inference.service.fhir_in import FhirCase
from inference.service.fhir_validation import Identified

State = Literal["waiting", "claimed", "completed"]


@dataclass(frozen=True, slots=True)
class NewResource:
    """A resource to keep as it was sent, without photos. An identifier that names no system has "" for it. `condition`: it is to be created only where nothing has that identifier."""

    kind: str
    id: str
    resource: Mapping[str, Any]
    identifiers: tuple[Identified, ...] = ()
    condition: Identified | None = None
    referral_id: str | None = None


@dataclass(frozen=True, slots=True)
class NewFhirReferral:
    """A referral to score and queue under this id, which is its ServiceRequest's as well.

    `adopted` are the stored resources that it names, by type and id: they belong to it, unless they belong to another.
    """

    id: str
    content: FhirCase
    patient_id: str | None = None
    adopted: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class FhirAddition:
    """What is newly known of a referral: to be merged into its case and assessed again."""

    referral_id: str
    content: FhirCase


@dataclass(frozen=True, slots=True)
class FhirWrite:
    """One transaction: all of it is stored, or nothing."""

    resources: tuple[NewResource, ...] = ()
    referrals: tuple[NewFhirReferral, ...] = ()
    additions: tuple[FhirAddition, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredResource:
    """A resource as it was stored."""

    resource: Mapping[str, Any]
    version: int
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ReferralView:
    """A referral as RiskAssessment and Task show it. `level` is the queue's, `assessment` the machine's latest.

    `priority` is the referrer's own; None where they gave none, or where a clinician has set the level since.
    `request_id` and `patient_id` name the stored ServiceRequest and Patient; None where the referral did not come by FHIR.
    """

    id: str
    state: State
    level: int
    level_name: str
    priority: Priority | None
    received_at: datetime
    cap_at: datetime
    updated_at: datetime
    version: int
    assessed_at: datetime
    assessment_version: int
    assessment: Assessment
    holder: str | None = None
    request_id: str | None = None
    patient_id: str | None = None


@dataclass(frozen=True, slots=True)
class ReferralQuery:
    """A search over referrals; None is "any". Times and texts never stand in it, so that it may stand in a URL.

    `levels` are the queue's; `ids` are referrals', and their ServiceRequests'; an identifier is a referral's id or its case's. `cursor` is the store's own.
    """

    states: frozenset[State] | None = None
    levels: frozenset[int] | None = None
    ids: frozenset[str] | None = None
    patient_ids: frozenset[str] | None = None
    identifiers: frozenset[str] | None = None
    count: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class ReferralPage:
    """Referrals in the queue's order, and the cursor of the next page."""

    referrals: tuple[ReferralView, ...]
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """When it was stored, and every referral that was created or assessed again, by its id."""

    at: datetime
    referrals: Mapping[str, ReferralView] = field(default_factory=dict)


class FhirStore(Protocol):
    """The store, as the FHIR routes see it."""

    def new_id(self) -> str:
        """An id that no resource has: at most 64 of A-Z, a-z, 0-9, '-' and '.'."""
        ...

    async def find(self, who: Who, kind: str, identifier: Identified) -> tuple[str, ...]:
        """The ids of the stored resources with this identifier; two are enough to say "several"."""
        ...

    async def fetch(self, who: Who, kind: str, id_: str) -> StoredResource | None:
        """One stored resource."""
        ...

    async def linked(self, who: Who, referral_id: str) -> tuple[Mapping[str, Any], ...]:
        """The stored resources of a referral, in the order in which they came."""
        ...

    async def commit(self, who: Who, write: FhirWrite) -> Committed:
        """Score, queue and store. Raises ConflictError when a `condition` has been met by another in the meantime.

        Raises NotFoundError for an addition to a referral that is not there, ConflictError for one that is completed.
        """
        ...

    async def referral(self, who: Who, id_: str) -> ReferralView | None:
        """One referral."""
        ...

    async def referrals(self, who: Who, query: ReferralQuery) -> ReferralPage:
        """One page of referrals."""
        ...
