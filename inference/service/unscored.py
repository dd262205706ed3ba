"""The assessment of a case that neither models nor rules could score: urgent, and for a person to look at. Knows no models."""

from __future__ import annotations

from datetime import datetime

from inference.assessment import Assessment, Provenance, Reason, Review
from inference.case import CaseReading, case_sha256
from inference.policy import LEAST_URGENT, Policy
from inference.triage import DEFAULT_SPECIALTY, package_version

WHY = "neither the models nor the rules could score this case: look at it"
_WHY_UR = "نہ ماڈل اور نہ قواعد اس کیس کو جانچ سکے: خود دیکھیں"


def unscored(reading: CaseReading, now: datetime, policy: Policy) -> Assessment:
    """An assessment at the policy's level for what cannot be read, or at the referrer's own where that is more urgent."""
    case = reading.case
    level = min(policy.unscored.unreadable, policy.priority.get(case.priority, LEAST_URGENT) if case.priority else LEAST_URGENT)
    return Assessment(
        case_id=case.case_id,
        rank=1,
        level=level,
        level_name=policy.levels[level].name,
        wait_cap_minutes=policy.levels[level].cap_minutes,
        received_at=(case.received_at or now).isoformat(),
        emergency_probability=None,
        critical_probability=None,
        floor_level=LEAST_URGENT,
        scored_by="nothing",
        red_flags=(),
        differential=(),
        prediction_set=(),
        specialty=DEFAULT_SPECIALTY,
        lesion=None,
        news2=None,
        unknown_vitals=(),
        findings=dict(case.findings),
        not_understood=(),
        review=Review(needed=True, why=(*reading.problems, WHY)),
        reasons=(Reason(kind="policy", direction="for", text=WHY, text_ur=_WHY_UR),),
        provenance=Provenance(
            nabz_version=package_version(),
            rule_version="none",
            policy_sha256=policy.sha256,
            bundles={},
            input_sha256=case_sha256(case),
        ),
    )
