"""Reproduces a stored assessment: the same case through the bundles, policy and priors that its provenance names, compared byte by byte.

What belongs to the run and not to the case, its rank in a list and the name of the machine, is kept as it was stored. Knows no
database and prints nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from inference.acuity import AcuityModel
from inference.assessment import Assessment, BundleName
from inference.bundle import TRUSTED_KEYS_FOLDER, Bundle, load_bundle
from inference.case import CaseReading, case_sha256
from inference.errors import BundleError, PolicyError
from inference.lesions import LesionModel
from inference.models import Models
from inference.photo import PhotoSource
from inference.policy import Policy
from inference.priors import Priors
from inference.stored_assessments import ABSENT, Difference, Plain, StoredAssessment, differences
from inference.symptoms import SymptomModel
from inference.triage import Triage, package_version, runtime_name

Way = Callable[[Triage], Assessment]
Status = Literal["identical", "differs", "impossible"]
_FAILED = "model failed on this case"  # as the triage says it


@dataclass(frozen=True)
class Replay:
    """What came of it. `why` has a sentence for each cause of a difference, or for what is missing; `notes` what was kept.

    "differs" with no cause that was found means that this installation computes something else from the same input.
    """

    name: str
    case_id: str
    status: Status
    bundles: dict[str, BundleName]
    differences: tuple[Difference, ...] = ()
    why: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def as_json(self) -> Plain:
        """For a program: stable keys; no words of the patient's."""
        bundles = {task: name.model_dump() for task, name in self.bundles.items()}
        return {
            "name": self.name, "case_id": self.case_id, "status": self.status, "bundles": bundles,
            "differences": [one.as_json() for one in self.differences], "why": list(self.why), "notes": list(self.notes),
        }  # fmt: skip


@dataclass
class Replayer:
    """Replays assessments with the bundles in `folder`. Bundles are loaded once each, when an assessment names them."""

    folder: Path
    policy: Policy
    priors: Priors | None = None
    _loaded: dict[tuple[str, str], Bundle] = field(default_factory=dict)
    _triages: dict[str, Triage] = field(default_factory=dict)

    def replay(
        self,
        stored: StoredAssessment,
        reading: CaseReading,
        photos: PhotoSource | None = None,
        *,
        others: Sequence[Way] = (),
        after: Callable[[Assessment], Assessment] | None = None,
    ) -> Replay:
        """The stored assessment again. `photos` as in `Triage.assess`.

        `others` are further ways by which it may have come about, besides the usual one; `after` is what was done to it before it
        was stored.
        """
        was = stored.assessment
        bundles = was.provenance.bundles
        try:
            triage = self._triage(was)
        except (BundleError, PolicyError) as error:
            return Replay(stored.name, was.case_id, "impossible", bundles, why=(str(error),))
        nearest: tuple[Difference, ...] | None = None
        for way in (lambda triage: triage.assess(reading, stored.received_at, photos), *others):
            again = after(way(triage)) if after else way(triage)
            found = tuple(differences(stored.plain, json.loads(_as_stored(again, was).model_dump_json())))
            if not found:
                return Replay(stored.name, was.case_id, "identical", bundles, notes=tuple(self._notes(was)))
            nearest = found if nearest is None or len(found) < len(nearest) else nearest
        assert nearest is not None  # there is one way at least
        why = tuple(self._causes(was, case_sha256(reading.case), nearest))
        return Replay(stored.name, was.case_id, "differs", bundles, nearest, why, tuple(self._notes(was)))

    def _triage(self, was: Assessment) -> Triage:
        """With exactly the bundles and priors that the assessment names. Raises BundleError and PolicyError when they are not here."""
        provenance = was.provenance
        priors = self._priors(provenance.priors_sha256)
        key = json.dumps([sorted((task, name.sha256) for task, name in provenance.bundles.items()), provenance.priors_sha256])
        if key not in self._triages:
            bundles = {task: self._bundle(task, name) for task, name in provenance.bundles.items()}
            models = Models(
                SymptomModel(bundles["symptoms"]) if "symptoms" in bundles else None,
                AcuityModel(bundles["acuity"]) if "acuity" in bundles else None,
                LesionModel(bundles["lesions"], threads=1) if "lesions" in bundles else None,
                dict(provenance.bundles),
                (),
            )
            self._triages[key] = Triage(models, self.policy, priors)
        return self._triages[key]

    def _bundle(self, task: str, name: BundleName) -> Bundle:
        folder = self.folder / task / name.version
        key = task, name.sha256
        if key not in self._loaded:
            if not folder.is_dir():
                raise BundleError(
                    f"{folder} is not here: bring back the bundle {task} {name.version} with SHA-256 {name.sha256[:16]}… from where "
                    "bundles are kept (the repository's history, the model registry or a backup), or name its folder with --models"
                )
            found = load_bundle(folder, trusted_keys=self.folder / TRUSTED_KEYS_FOLDER)
            if found.sha256 != name.sha256:
                raise BundleError(
                    f"{folder} is another bundle ({found.sha256[:16]}…) than the one that scored ({name.sha256[:16]}…), though it has its "
                    "version: bring back the right one from where bundles are kept, into another folder, and name that with --models"
                )
            self._loaded[key] = found
        return self._loaded[key]

    def _priors(self, sha256: str | None) -> Priors | None:
        if sha256 is None:
            return None
        if self.priors is None or self.priors.sha256 != sha256:
            found = f"the file given has {self.priors.sha256[:16]}…" if self.priors else "none were given"
            raise PolicyError(f"local priors with SHA-256 {sha256[:16]}… had a part in it, and {found}: name their file with --priors")
        return self.priors

    def _causes(self, was: Assessment, input_sha256: str, found: Sequence[Difference]) -> Iterator[str]:
        """What is known to be other than it was, each with what to do about it."""
        then = was.provenance
        if then.input_sha256 != input_sha256:
            yield f"the case is not the one that was assessed (SHA-256 {input_sha256[:16]}…, then {then.input_sha256[:16]}…): find that one"
        if then.policy_sha256 != self.policy.sha256:
            yield (
                f"the policy is another one (SHA-256 {self.policy.sha256[:16]}…, then {then.policy_sha256[:16]}…): "
                "name the file of then with --policy"
            )
        here = package_version()
        if then.nabz_version != here:
            yield f"it was made by nabz {then.nabz_version}, this is {here}: replay it with that version"
        for one in found:
            if one.where == "provenance.rule_version":
                yield f"the rules are another version ({one.now}, then {one.stored}): replay it with the nabz that has those"
            elif one.where.startswith("photos.") and one.where.endswith(".sha256") and isinstance(one.stored, str) and one.stored != ABSENT:
                number = int(one.where.split(".")[1])
                yield f"photo {was.photos[number].photo} is another file than then (SHA-256 {one.stored[:16]}…): bring that one back"
        for failure in (why for why in was.review.why if _FAILED in why):
            yield f"then {failure}: what went wrong cannot be repeated"
        if added := sorted({one.where for one in found if one.stored == ABSENT and not one.where.rpartition(".")[2].isdigit()}):
            yield f"it lacks what this version writes ({', '.join(added[:3])}): it was made by code from before that"
        if then.runtime not in (None, runtime_name()) and all(_is_rounding(one) for one in found):
            yield "only last digits differ, and other libraries or another kind of processor computed it (see the note)"

    def _notes(self, was: Assessment) -> Iterator[str]:
        here = runtime_name()
        if was.provenance.runtime not in (None, here):
            yield f"computed then with {was.provenance.runtime}; here with {here}"


def summary_of(replays: Iterable[Replay]) -> dict[Status, int]:
    """How many came out how."""
    counts: dict[Status, int] = {"identical": 0, "differs": 0, "impossible": 0}
    for one in replays:
        counts[one.status] += 1
    return counts


def _as_stored(again: Assessment, was: Assessment) -> Assessment:
    """With the rank and the runtime of then: they say where it was computed, and among which others, and are no results."""
    runtime = was.provenance.runtime if "runtime" in was.provenance.model_fields_set else again.provenance.runtime
    provenance = again.provenance.model_copy(update={"runtime": runtime})
    return again.model_copy(update={"rank": was.rank, "provenance": provenance})


def _is_rounding(one: Difference) -> bool:
    """Whether two numbers are as good as equal: a float32 probability has seven digits."""
    values = one.stored, one.now
    return all(isinstance(value, float) for value in values) and abs(values[0] - values[1]) <= 1e-5
