"""Scoring on demand: every case comes out, whatever becomes of the models, and soon.

Cases that wait are scored together in one worker thread; photos have another, long complaints a third, and heat maps a
fourth, so that no other case waits for them. A model that raises, answers nonsense or hangs costs its part of the score,
never the case: then the rules rank it, and if even they fail, a person must look. Knows no HTTP, no database and no roles.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from inference.assessment import Assessment, BundleName
from inference.case import Case, CaseReading, Photo, Vitals
from inference.errors import BundleError, OverloadedError, PhotoError
from inference.heat_map import heat_map, overlay_png
from inference.lesions import LesionModel, LesionRequest
from inference.models import Models
from inference.policy import Policy
from inference.priors import Priors
from inference.questions import Questions
from inference.service.lane import Lane, Limits
from inference.service.live_models import Live, fingerprint, load_live, no_models
from inference.service.telemetry import Telemetry
from inference.service.unscored import unscored
from inference.triage import Triage

BATCH = 64
LATE = "the models did not answer in time: ranked by rules"
LOADING = "the models are still being loaded: ranked by rules"
FAILED = "scoring failed on this case: ranked by rules"
_LONG_COMPLAINT = 500  # characters; a full batch of longer ones could not be read within the time limit
_LONG_QUEUE, _LONG_AT_ONCE = 16, 4  # of the longest ones, as many as can be read in the time that they may wait
_READING_SECONDS = 50e-6  # for each character of nonsense, which takes longest
_PHOTO_QUEUE = 32
_PATIENCE = 4  # time limits: photos and long complaints in a busy lane are worth waiting for; one that hangs is noticed long before
_PHOTO_SHARE, _REST_SHARE = 0.6, 0.4  # of the time limit: with its photos, then without them, then by the rules
_PHOTO_SECONDS = 0.15  # for each photo besides the first two
_RULES_SECONDS = 0.3
_HEAT_MAP_QUEUE = 4  # of clinicians who look at one and the same moment
_HEAT_MAP_SHARE = 0.5  # of the time limit: it costs as much as a photo's score
_LOADING_SECONDS, _LOADING_QUEUE = 60.0, 8
_LOAD_AGAIN_SECONDS = 60.0  # after a load that failed: it takes seconds, and may fail again
_ASK_AGAIN_SECONDS = 5
_log = logging.getLogger("nabz.service")


@dataclass(frozen=True, slots=True)
class Health:
    """Whether every model works; `problems` has a sentence for each that does not. `bundles` are the live ones by task."""

    ready: bool
    degraded: bool
    problems: tuple[str, ...]
    bundles: dict[str, BundleName]


@dataclass(frozen=True, slots=True)
class _Given:
    """A case on its way; `why` is the review reason, should the rules rank it."""

    reading: CaseReading
    now: datetime
    photos: Mapping[str, bytes]
    why: str = LATE
    count: int = 0


@dataclass(frozen=True, slots=True)
class _Shown:
    """A photo to draw a heat map for: the file's content, what the case says of it, the patient's age in years."""

    content: bytes
    photo: Photo
    age_years: float | None


class Scorer:
    """Scores cases with the live models, on the event loop that starts it."""

    def __init__(
        self,
        models_folder: Path | None,
        policy: Policy,
        *,
        timeout_seconds: float = 1.5,
        queue_limit: int = 256,
        photo_threads: int = 1,
        telemetry: Telemetry | None = None,
        rest_seconds: float = 5.0,
        watch_seconds: float = 2.0,
        priors: Priors | None = None,
    ) -> None:
        """`timeout_seconds`: after this a case is ranked without models; `rest_seconds`: how long models that hang are left
        alone before a probe; `watch_seconds`: how often the models' folder is looked at."""
        self._folder, self._policy, self._photo_threads, self._priors = models_folder, policy, photo_threads, priors
        self._timeout, self._watch_seconds = timeout_seconds, watch_seconds
        self._observe = telemetry.observe_model if telemetry else None
        self._live = no_models(policy)
        self._loaded = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._load_at = 0.0  # on the loop's clock: when to load, though no file has changed
        probe, rest = _probe_case(), _REST_SHARE * timeout_seconds

        def limits(batch: int, queue: int, running: float, waiting: float) -> Limits:
            return Limits(batch, queue, running, waiting, rest_seconds)

        self._models = Lane("models", self._score, limits(BATCH, queue_limit, timeout_seconds, timeout_seconds), probe, _allowance)
        long_limits = limits(1, _LONG_QUEUE, timeout_seconds, _PATIENCE * timeout_seconds)
        self._long = Lane("long complaints", self._score, long_limits, probe, _allowance)
        photo_limits = limits(1, _PHOTO_QUEUE, _PHOTO_SHARE * timeout_seconds, _PATIENCE * timeout_seconds)
        self._photos = Lane("photos", self._score, photo_limits, _probe_photo(), _allowance)
        self._rest = Lane("photo cases", self._score_without_photos, limits(BATCH, queue_limit, rest, rest), probe, _allowance)
        rules_limits = limits(BATCH, queue_limit, _RULES_SECONDS, _RULES_SECONDS)
        self._rules = Lane("rules", self._rank_by_rules, rules_limits, probe, _allowance)
        self._questions = Lane("questions", self._ask, limits(1, queue_limit, timeout_seconds, timeout_seconds), probe)
        heat_limits = limits(1, _HEAT_MAP_QUEUE, _HEAT_MAP_SHARE * timeout_seconds, _PATIENCE * timeout_seconds)
        self._heat_maps = Lane("heat maps", self._draw, heat_limits, _shown(_probe_photo()))
        self._lanes = (self._models, self._long, self._photos, self._rest, self._rules, self._questions, self._heat_maps)
        loading = limits(1, _LOADING_QUEUE, _LOADING_SECONDS, 2 * _LOADING_SECONDS)
        self._loading: Lane[Callable[[], Live | bytes], Live | bytes] = Lane("bundles", _call, loading, bytes)
        if telemetry:
            telemetry.set_degraded_by(lambda: self.health().degraded)

    @property
    def ready(self) -> bool:
        """Whether the models were loaded, as far as they can be used."""
        return self._loaded.is_set()

    @property
    def models(self) -> Models:
        """The live models, for what pages say of them; scoring goes through the lanes."""
        return self._live.triage.models

    async def start(self) -> None:
        """Begin to load and verify the models, and to watch for others. Returns at once: see `ready`."""
        self._watching = asyncio.create_task(self._watch(), name="nabz-models")

    async def stop(self) -> None:
        """Finish what was begun, as far as it answers; what is given later is ranked by the rules."""
        if self._watching:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        for lane in self._lanes:
            await lane.stop()
        await self._loading.stop()

    async def assess(self, reading: CaseReading, now: datetime, photos: Mapping[str, bytes] | None = None) -> Assessment:
        """The assessment of one case, with rank 1; `photos` are the files' content by `Photo.path`.

        Never fails for the case's or a model's sake. Raises OverloadedError when too many cases wait.
        """
        if not await self._can_score():
            return await self._without_models(_Given(reading, now, {}, LOADING))
        given = _Given(reading, now, photos or {})
        lane = self._photos if given.photos else self._long if _is_long(given) else self._models
        assessment = await lane.put(given)
        return await self._late(given) if assessment is None else assessment

    async def assess_many(self, readings: Sequence[CaseReading], now: datetime) -> list[Assessment]:
        """Cases without photos, in the order given, as `assess` gives them. Raises OverloadedError before any was scored."""
        if not await self._can_score():
            return [await self._without_models(_Given(reading, now, {}, LOADING)) for reading in readings]
        given = [_Given(reading, now, {}) for reading in readings]
        long, short = [one for one in given if _is_long(one)], [one for one in given if not _is_long(one)]
        # The few long ones first: once any case was scored, the others must be taken.
        of_long = iter(await self._in_turn(self._long, long, _LONG_AT_ONCE))
        of_short = iter(await self._in_turn(self._models, short, BATCH, must=bool(long)))
        return [next(of_long if _is_long(one) else of_short) for one in given]

    async def ask(self, reading: CaseReading, now: datetime, count: int) -> Questions:
        """The next best questions; without models that answer, what to measure. Raises OverloadedError when too many wait."""
        given = _Given(reading, now, {}, count=count)
        questions = await self._questions.put(given) if await self._can_score() else None
        if questions is None:
            try:
                return self._live.bare.ask(reading, now, count)
            except Exception as error:
                raise OverloadedError("no question could be found for this case: ask again later", _ASK_AGAIN_SECONDS) from error
        return questions

    async def heat_map(self, content: bytes, photo: Photo, age_years: float | None) -> bytes | None:
        """A transparent PNG to lay over the upright photo whose file `content` is: see `inference.heat_map`.

        None when no lesion model gives heat maps, when the photo cannot be read, and when the model fails or takes too long.
        Raises OverloadedError when too many wait. No case waits for it.
        """
        model = self._live.triage.models.lesions if await self._can_score() else None
        if model is None or not model.has_heat_map:
            return None
        return await self._heat_maps.put(_Shown(content, photo, age_years)) or None

    async def reload(self) -> tuple[str, ...]:
        """Use what serving.toml names now; gives the problems, if any. What cannot be used leaves the old model live."""
        loaded = await self._loading.put(self._load)
        is_whole = isinstance(loaded, Live) and loaded.is_whole
        self._load_at = math.inf if is_whole else asyncio.get_running_loop().time() + _LOAD_AGAIN_SECONDS
        if not isinstance(loaded, Live):
            problems = ("the models could not be loaded, which is tried again: see the log, and restore the bundles",)
            self._live = replace(self._live, problems=problems, fingerprint=None)
        elif not is_whole and loaded.triage.models.bundles == self._live.triage.models.bundles:
            # Tried in vain. The models stay, so that workers that hang in one of them are not forgotten again and again.
            self._live = replace(self._live, problems=loaded.problems, fingerprint=loaded.fingerprint)
        else:
            self._live = loaded
            for lane in self._lanes:
                lane.renew()
        self._loaded.set()
        return self._live.problems

    def health(self) -> Health:
        """What works and what does not, now."""
        problems = list(self._live.problems)
        problems += [f"{task}: the model failed when it was last asked" for task in self._live.failing]
        for lane in self._lanes:
            if lane.is_open:
                problems.append(f"{lane.name} did not answer in time and are left out until a probe succeeds")
        if not self.ready:
            problems.append("the models are still being loaded")
        return Health(self.ready, bool(problems), tuple(problems), dict(self._live.triage.models.bundles))

    async def watch(self, seconds: float) -> None:
        """Reload whenever serving.toml or a file that it names has changed, and after a load that failed. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                seen = await self._loading.put(lambda: fingerprint(self._folder))
                is_due = asyncio.get_running_loop().time() >= self._load_at
                if isinstance(seen, bytes) and (is_due or self._live.fingerprint not in (None, seen)):
                    problems = await self.reload()
                    _log.warning("the models were loaded again: %s", "; ".join(problems) or "all models are live")
            except Exception as error:  # noqa: BLE001 (whatever it is, later changes must still be seen)
                _log.warning("the models' folder was not looked at: %s", type(error).__name__)

    async def _watch(self) -> None:
        with contextlib.suppress(OverloadedError):  # others load them already
            await self.reload()
        await self.watch(self._watch_seconds)

    def _load(self) -> Live:
        return load_live(
            self._folder, self._policy, self._live, photo_threads=self._photo_threads, observe=self._observe, priors=self._priors
        )

    async def _can_score(self) -> bool:
        """Whether models are loaded, after a wait of at most the time limit."""
        if not self._loaded.is_set():
            try:
                async with asyncio.timeout(self._timeout):
                    await self._loaded.wait()
            except TimeoutError:
                return False
        return True

    async def _in_turn(self, lane: Lane[_Given, Assessment], cases: Sequence[_Given], size: int, *, must: bool = False) -> list[Assessment]:
        """So many at a time, so that single cases get in between and no queue is too short."""
        assessments: list[Assessment] = []
        for start in range(0, len(cases), size):
            chunk = cases[start : start + size]
            answers = await asyncio.gather(*(lane.put(one, must=must or bool(start)) for one in chunk))
            assessments += [await self._late(one) if it is None else it for one, it in zip(chunk, answers, strict=True)]
        return assessments

    async def _late(self, given: _Given) -> Assessment:
        """A photo may be what did not answer: try without, then by rules."""
        if given.photos and not self._models.is_open:
            assessment = await self._rest.put(given, must=True)
            if assessment is not None:
                return assessment
        return await self._without_models(given)

    async def _without_models(self, given: _Given) -> Assessment:
        """By the rules; without even the reader when that does not answer."""
        assessment = None if _is_long(given) else await self._rules.put(given, must=True)
        return _bare(self._live, given) if assessment is None else assessment

    def _score(self, cases: Sequence[_Given]) -> list[Assessment]:
        live = self._live  # one reference for the whole batch: a swap comes between two batches
        return _scored(live, live.triage, cases, cases[0].photos)

    def _score_without_photos(self, cases: Sequence[_Given]) -> list[Assessment]:
        live = self._live
        return _scored(live, live.without_photos, cases, {})

    def _rank_by_rules(self, cases: Sequence[_Given]) -> list[Assessment]:
        live = self._live
        return [_by_rules(live, given) for given in cases]

    def _ask(self, cases: Sequence[_Given]) -> list[Questions]:
        return [self._live.triage.ask(given.reading, given.now, given.count) for given in cases]

    def _draw(self, photos: Sequence[_Shown]) -> list[bytes]:
        model = self._live.triage.models.lesions
        return [_overlay(model, shown) for shown in photos]


def _scored(live: Live, triage: Triage, cases: Sequence[_Given], photos: Mapping[str, bytes]) -> list[Assessment]:
    """All cases together; if anything unforeseen happens, one by one; the one that it happens to, by rules."""
    try:
        return triage.assess_each([given.reading for given in cases], [given.now for given in cases], photos)
    except Exception as error:  # noqa: BLE001 (a case that breaks the code must still come out)
        _log.error("scoring failed with %s", type(error).__name__)  # no message: it may hold a patient's words
        if len(cases) > 1:
            return [_scored(live, triage, [given], photos)[0] for given in cases]
        return [_by_rules(live, replace(cases[0], why=FAILED))]


def _overlay(model: LesionModel | None, shown: _Shown) -> bytes:
    """The heat map's PNG; empty when there can be none."""
    if model is None:
        return b""
    path = shown.photo.path
    try:
        return overlay_png(heat_map(model, LesionRequest(shown.photo, {path: shown.content}, shown.age_years)))
    except (PhotoError, BundleError):
        return b""


def _by_rules(live: Live, given: _Given) -> Assessment:
    try:
        return live.triage.by_rules([given.reading], given.now, given.why)[0]
    except Exception as error:  # noqa: BLE001 (as above)
        _log.error("the rules with the reader failed with %s", type(error).__name__)
        return _bare(live, given)


def _bare(live: Live, given: _Given) -> Assessment:
    """By the rules without the reader; what they fail on as well, a person must look at."""
    try:
        return live.bare.by_rules([given.reading], given.now, given.why)[0]
    except Exception as error:  # noqa: BLE001 (as above)
        _log.error("the rules failed with %s", type(error).__name__)
        return unscored(given.reading, given.now, live.bare.policy)


def _is_long(given: _Given) -> bool:
    return len(given.reading.case.complaint) > _LONG_COMPLAINT


def _allowance(given: _Given) -> float:
    """What a case may take besides: a batch of cases that take long to read is no model that hangs."""
    return _READING_SECONDS * len(given.reading.case.complaint) + _PHOTO_SECONDS * max(0, len(given.photos) - 2)


def _call(calls: Sequence[Callable[[], Live | bytes]]) -> list[Live | bytes]:
    return [call() for call in calls]


def _probe_case() -> _Given:
    """An invented patient, to see whether the models answer."""
    vitals = Vitals(pulse_per_minute=72, spo2_percent=98)
    case = Case(case_id="probe", age_years=40, complaint="fever and cough", vitals=vitals)
    return _Given(CaseReading(case, ()), datetime(2026, 1, 1, tzinfo=UTC), {}, count=1)


def _probe_photo() -> _Given:
    from PIL import Image

    content, given = io.BytesIO(), _probe_case()
    Image.new("RGB", (256, 256), (150, 110, 90)).save(content, "JPEG")
    case = given.reading.case.model_copy(update={"photos": (Photo(path="probe.jpg"),)})
    return replace(given, reading=CaseReading(case, ()), photos={"probe.jpg": content.getvalue()})


def _shown(given: _Given) -> _Shown:
    """The first photo of a case."""
    case = given.reading.case
    return _Shown(given.photos[case.photos[0].path], case.photos[0], case.age_years)
