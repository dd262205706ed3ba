"""What the service counts, for Prometheus. Labels come from closed sets: no text, no name and no id gets into a metric.

Each app has a registry of its own. Thread-safe: models are timed in the workers' threads. Knows neither HTTP nor the database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from inference.assessment import Assessment
from inference.monitor_metrics import ALARMS, CASES, CHECKED, HELP, INDEX, Figures
from inference.policy import LEVELS

TASKS = ("symptoms", "acuity", "lesions")
STATES = ("waiting", "claimed")
DIRECTIONS = ("more_urgent", "less_urgent", "same")
OTHER = "other"

# Review reasons by words that their makers use, first match first: inference/case.py, triage.py, lesions.py, photo.py,
# photo_checks.py and the service's scoring, referrals and FHIR. A reason that matches nothing counts as "other", and a test looks for that.
REVIEW_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("nothing_scored", ("neither the models nor the rules",)),
    ("models_late", ("did not answer in time",)),
    ("models_loading", ("still being loaded",)),
    ("scoring_failed", ("scoring failed on this case", "model failed on this case")),
    ("complaint_not_read", ("the complaint was not read",)),
    ("complaint_not_understood", ("nothing in the complaint was understood",)),
    ("outside_scope", ("conditions fits these findings",)),
    ("nothing_given", ("the complaint is empty",)),
    ("unknown_finding", ("are not in the catalogue",)),
    ("photo_not_scored", ("photo not scored", "was not scored", "photo not kept", "photos were kept")),
    ("field_set_aside", ("set aside", "is not an object", "case_id is missing", "complaint: only its first")),
    ("time_of_arrival", ("received_at lies in the future",)),
    ("measurement_old", ("before the request: measure it again",)),
    ("request_unclear", ("ServiceRequest",)),
    ("darker_skin", ("of darker skin",)),
    ("photo_quality", ("photo ",)),
)
_KINDS = (*(kind for kind, _ in REVIEW_KINDS), OTHER)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_ROUTE_LIMIT = 256  # more route templates than any version has: whatever comes after them is "other"
_HTTP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_MODEL_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_WAIT_RATIOS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Telemetry:
    """The service's metrics. Every series with known labels is there from the start, at zero."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._http = Histogram(
            "nabz_http_request_seconds", "Time to answer, by route template", ("method", "route"), buckets=_HTTP_SECONDS, registry=registry
        )
        self._statuses = Counter(
            "nabz_http_requests", "Requests by route template and status", ("method", "route", "status"), registry=registry
        )
        self._model = Histogram("nabz_model_seconds", "Time of one batch in a model", ("task",), buckets=_MODEL_SECONDS, registry=registry)
        self._batch = Histogram(
            "nabz_model_batch_cases", "Cases in one batch of a model", ("task",), buckets=_BATCH_SIZES, registry=registry
        )
        self._reviews = Counter("nabz_review_reasons", "Reasons for a person to look at a case, by kind", ("kind",), registry=registry)
        self._scored = Counter("nabz_assessments", "Assessments by what ranked them", ("scored_by",), registry=registry)
        self._wait = Histogram(
            "nabz_wait_cap_ratio", "Wait at the claim over the level's cap", ("level",), buckets=_WAIT_RATIOS, registry=registry
        )
        self._overrides = Counter("nabz_overrides", "Levels changed by a clinician", ("direction",), registry=registry)
        self._depth = Gauge("nabz_queue_referrals", "Open referrals", ("level", "state"), registry=registry)
        self._oldest = Gauge("nabz_queue_oldest_seconds", "Age of the oldest open referral", ("level",), registry=registry)
        self._past = Gauge("nabz_queue_past_cap_referrals", "Open referrals past their level's cap", ("level",), registry=registry)
        self._lag = Gauge("nabz_outbox_lag_events", "Events that the slowest webhook has not accepted", registry=registry)
        self._audit = Counter("nabz_audit_rows", "Rows written to the audit chain", registry=registry)
        self._degraded = Gauge("nabz_degraded", "1 while some model is not in use", registry=registry)
        self._drift = Gauge(INDEX, HELP[INDEX], ("feature",), registry=registry)
        self._drift_alarms = Gauge(ALARMS, HELP[ALARMS], ("group",), registry=registry)
        self._drift_cases = Gauge(CASES, HELP[CASES], registry=registry)
        self._drift_checked = Gauge(CHECKED, HELP[CHECKED], registry=registry)
        self._children: dict[tuple[str, str, int], tuple[Histogram, Counter]] = {}
        self._routes: set[str] = set()
        self._models = {task: (self._model.labels(task), self._batch.labels(task)) for task in TASKS}
        self._kinds = {kind: self._reviews.labels(kind) for kind in _KINDS}
        self._levels = {level: self._wait.labels(str(level)) for level in LEVELS}
        for direction in DIRECTIONS:
            self._overrides.labels(direction)
        for level, state in product(LEVELS, STATES):
            self._depth.labels(str(level), state)

    def observe_http(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request, by its route's template (never its path)."""
        children = self._children.get((method, route, status))
        if children is None:
            children = self._http_children(method, route, status)
        children[0].observe(seconds)
        children[1].inc()

    def observe_model(self, task: str, seconds: float, cases: int) -> None:
        """One batch through a task's model."""
        timed, size = self._models[task]
        timed.observe(seconds)
        size.observe(cases)

    def observe_wait(self, level: int, cap_ratio: float) -> None:
        """A claim: how long the case waited, over the level's cap."""
        self._levels[level].observe(cap_ratio)

    def count_review(self, assessment: Assessment) -> None:
        """What ranked the case, and each kind among its review reasons once."""
        self._scored.labels(assessment.scored_by).inc()
        for kind in {review_kind(why) for why in assessment.review.why}:
            self._kinds[kind].inc()

    def count_override(self, before: int, after: int) -> None:
        """A clinician's change of level; the smaller level is the more urgent one."""
        direction = "same" if after == before else "more_urgent" if after < before else "less_urgent"
        self._overrides.labels(direction).inc()

    def count_audit_rows(self, rows: int) -> None:
        """Rows that were added to the audit chain."""
        self._audit.inc(rows)

    def set_queue(self, depth: Mapping[tuple[int, str], int], oldest_seconds: Mapping[int, float], past_cap: Mapping[int, int]) -> None:
        """The queue as it is: open referrals by level and state, the oldest one's age and how many are past their cap by level."""
        for (level, state), referrals in depth.items():
            self._depth.labels(str(level), state if state in STATES else OTHER).set(referrals)
        for level in LEVELS:
            self._oldest.labels(str(level)).set(oldest_seconds.get(level, 0.0))
            self._past.labels(str(level)).set(past_cap.get(level, 0))

    def set_outbox_lag(self, events: int) -> None:
        """How many events the slowest webhook is behind."""
        self._lag.set(events)

    def set_drift(self, figures: Figures, at_seconds: float) -> None:
        """What the look for drift found. A feature that it no longer sees has no figure any more."""
        self._drift.clear()
        for feature, value in figures.index.items():
            self._drift.labels(feature).set(value)
        for group, alarms in figures.alarms.items():
            self._drift_alarms.labels(group).set(alarms)
        self._drift_cases.set(figures.cases)
        self._drift_checked.set(at_seconds)

    def set_degraded_by(self, is_degraded: Callable[[], bool]) -> None:
        """Ask `is_degraded` whenever the metrics are read."""
        self._degraded.set_function(lambda: float(is_degraded()))

    def render(self) -> tuple[bytes, str]:
        """All metrics in Prometheus' text format, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def _http_children(self, method: str, route: str, status: int) -> tuple[Histogram, Counter]:
        known = route if route in self._routes or len(self._routes) < _ROUTE_LIMIT else OTHER
        self._routes.add(known)
        verb = method if method in _METHODS else OTHER
        children = self._http.labels(verb, known), self._statuses.labels(verb, known, str(status))
        if known == route and verb == method:
            self._children[method, route, status] = children
        return children


def review_kind(why: str) -> str:
    """The kind of a review reason: one of a closed set, never a word of the reason itself."""
    return next((kind for kind, words in REVIEW_KINDS if any(word in why for word in words)), OTHER)
