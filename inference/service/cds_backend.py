"""What the CDS Hooks routes need, on the scorer and the database: a score that stores nothing, and feedback that is kept, sealed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from inference.assessment import Assessment
from inference.case import read_case
from inference.service import store
from inference.service.callers import Who
from inference.service.database import Unit
from inference.service.fhir_in import FhirCase
from inference.service.intake import in_time
from inference.service.referrals import Referrals
from inference.service.tables import feedback, to_us


class Backend:
    """Implements `CdsBackend`."""

    def __init__(self, cases: Referrals) -> None:
        self._cases = cases

    async def assess(self, who: Who, content: FhirCase) -> Assessment:  # noqa: ARG002 (the protocol's; the routes asked for the right)
        """Score a case. Nothing of it is stored."""
        now = self._cases.clock()
        reading = read_case({"case_id": "case", **content.case}, "case")
        reading = replace(reading, problems=(*content.review, *reading.problems))
        return await self._cases.scorer.assess(in_time(reading, now), now, content.photos)

    async def store_feedback(self, who: Who, service_id: str, given: Mapping[str, Any]) -> None:
        """Keep what a clinician did with a card."""
        now = self._cases.clock()
        content = self._cases.vault.seal(orjson.dumps(dict(given)), f"feedback:{service_id}")

        def work(unit: Unit) -> None:
            unit.add(feedback, at_us=to_us(now), actor=who.subject, service=service_id, content=content)
            store.record(unit, who, "cds_feedback", None, now, service=service_id)

        await self._cases.database.run(work)
