"""A challenger goes live, or what was live before comes back. There is no way past a failed gate.

Whoever stops it at any moment leaves the old bundle live or the new one, whole and signed. Compares nothing itself, prints
nothing, and restarts no service: a running one sees the switch by itself.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.acuity import AcuityModel
from inference.bundle import TRUSTED_KEYS_FOLDER, Bundle, bundle_hash, load_bundle, read_signed_files
from inference.errors import BundleError, PromotionError
from inference.lesions import LesionModel
from inference.models import SERVING_FILE, TASKS, live_versions
from inference.service.durable import locked, sync_tree
from inference.symptoms import SymptomModel
from training.export import make_live, now_utc
from training.gates import Gate, gates_file
from training.promotion_history import Switch, add_switch, read_history, sha256_of, versions_back
from training.signing import sign, signed_bundle, signing_key_id

if TYPE_CHECKING:
    from training.comparison import Comparison

Told = Callable[[str, float], None]
# What makes each task's model of a bundle: a bundle that it refuses would leave a service without that model.
SERVES: Mapping[str, Callable[[Bundle], object]] = {"symptoms": SymptomModel, "acuity": AcuityModel, "lesions": LesionModel}
# Gates that ask nothing about a champion.
_ALONE = frozenset({"parity", "leak", "card", "size"})
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+-]{0,63}")


@dataclass(frozen=True)
class Judged:
    """What the gates say of a challenger; `comparison` is with the champion, or, where none is live, with itself."""

    comparison: Comparison
    gates: tuple[Gate, ...]
    gates_sha256: str
    is_first: bool

    @property
    def because(self) -> tuple[str, ...]:
        """Why it is held back, one sentence for each gate that it fails."""
        return tuple(f"{gate.name}: {gate.why}" for gate in self.gates if not gate.passed)


def judge(challenger: Path, data: Path, models: Path, *, threads: int, told: Told = lambda _what, _share: None) -> Judged:
    """Compare the challenger with the live bundle of its task in `models`. Changes nothing.

    Limits are those of `gates.toml` in `models`, else the shipped ones. Raises PromotionError for a task that is not served and for a
    bundle that is live already, and NabzError when bundles, data or limits cannot be used.
    """
    from training.comparison import compare_bundles

    bundle = load_bundle(challenger)
    task, live = bundle.contract.task, _live(models)
    if task not in TASKS:
        raise PromotionError(f"{challenger} is a bundle of {task}, which no service uses: only {', '.join(TASKS)} go live")
    champion = models / task / live[task] if task in live else None
    gates = gates_file(models)
    if champion and load_bundle(champion).sha256 == bundle.sha256:
        raise PromotionError(f"{challenger} is live already, as {task} {live[task]}: there is nothing to promote")
    # A first bundle is compared with itself: what needs a champion says nothing then, and is left out.
    found = compare_bundles(challenger, champion or challenger, data, threads=threads, gates=gates, models=models, told=told)
    verdicts = found.gates if champion else _gates_alone(found, bundle)
    return Judged(found, verdicts, hashlib.sha256(gates.read_bytes()).hexdigest(), is_first=champion is None)


def promote(challenger: Path, judged: Judged, models: Path, reason: str | None = None) -> Switch:
    """Copy the challenger that was judged into `models`, sign it there and switch to it. Returns the line of the history.

    Raises PromotionError when a gate failed, when the challenger is not the bundle that was judged any more, when its version is
    taken by another bundle, and when another switch came in between.
    """
    if judged.because:
        raise PromotionError(f"HOLD because {'; '.join(judged.because)}")
    found = judged.comparison
    with locked(models):
        before = _live(models).get(found.task)
        before_sha256 = None if judged.is_first else found.champion_sha256
        if (before is None) != judged.is_first or (before and _verified(models, found.task, before).sha256 != before_sha256):
            raise PromotionError(f"another bundle of {found.task} went live during the comparison: compare with that one")
        folder = _installed(challenger, found.challenger_sha256, models)
        _check_serves(load_bundle(folder))
        switch = Switch(
            time=now_utc(), action="promote", task=found.task, before=before, after=folder.name, before_sha256=before_sha256,
            after_sha256=found.challenger_sha256, reason=reason, verdict="PROMOTE", data=found.data,
            n=found.n, gates=tuple(gate.as_json() for gate in judged.gates), gates_sha256=judged.gates_sha256, signed_by=signing_key_id(models),
        )  # fmt: skip
        _switch(models, switch)
    return switch


def roll_back(models: Path, task: str | None = None, to: str | None = None, reason: str | None = None) -> Switch:
    """Make live again what was live before, or the earlier version `to`; without `task`, of the task that was switched last.

    The old bundle is verified first, and must be the one that was live then, byte for byte. Raises PromotionError when there is nothing to
    go back to, BundleError when the old bundle is missing or was altered; then nothing was changed.
    """
    with locked(models):
        history, live = read_history(models), _live(models)
        task = task or next((switch.task for switch in reversed(history)), None)
        if task is None:
            raise PromotionError(f"nothing was ever promoted in {models}, so that there is nothing to go back to")
        bundle = _earlier_bundle(models, history, task, live.get(task), to)
        before = live.get(task)
        before_sha256 = signed_bundle(models / task / before, models).sha256 or None if before else None
        switch = Switch(now_utc(), "rollback", task, before, bundle.contract.version, before_sha256, bundle.sha256, reason)
        _switch(models, switch)
    return switch


def tell_registry(switch: Switch, models: Path) -> str:
    """Give MLflow's alias `champion` to the bundle that is live now; says what was done, or why nothing was."""
    from training.tracking import alias_promoted

    told = alias_promoted(switch.task, switch.after, switch.after_sha256, models / switch.task / switch.after)
    return told or f"MLflow has no registered model of {switch.task}: no alias was changed"


def _earlier_bundle(models: Path, history: Sequence[Switch], task: str, live: str | None, to: str | None) -> Bundle:
    """The bundle to go back to, verified. Raises as `roll_back` does."""
    earlier = versions_back(history, task, live)
    if not earlier:
        raise PromotionError(f"there is nothing to go back to: no other bundle of {task} was live before {live or 'now'}")
    version = earlier[0] if to is None else to
    if version not in earlier:
        raise PromotionError(
            f"{task} {version} was not live before {live or 'now'}; these were: {', '.join(earlier)}. "
            "Anything else goes live with `nabz-train promote`"
        )
    bundle, known = _verified(models, task, version), sha256_of(history, task, version)
    if known != bundle.sha256:
        raise PromotionError(
            f"{models / task / version} is not the bundle that was live then ({bundle.sha256[:16]}…, then {(known or 'unknown')[:16]}): "
            "restore that one"
        )
    _check_serves(bundle)
    return bundle


def _switch(models: Path, switch: Switch) -> None:
    """First the line, then the switch: what stops in between leaves a line that what is live contradicts, which a reader sees."""
    add_switch(models, switch)
    make_live(models, {switch.task: switch.after})


def _installed(source: Path, sha256: str, models: Path) -> Path:
    """The bundle in its place in `models`, with the promoter's signature. What is there already stays byte for byte."""
    bundle = load_bundle(source)
    task, version = bundle.contract.task, bundle.contract.version
    if not _VERSION.fullmatch(version):
        raise PromotionError(f"{source}: {version!r} is no version that a folder can be named by: train it with --version 1.2.0 or such")
    files = read_signed_files(source, source.parent.parent / TRUSTED_KEYS_FOLDER)
    if bundle_hash(files) != sha256:
        raise PromotionError(f"{source} was changed after it was compared: compare it again")
    place = models / task / version
    if not place.exists():
        _copied(files, place)
    elif _verified_or_ours(place, source).sha256 != sha256:
        raise PromotionError(f"{place} is there already and is another bundle: give the challenger a version of its own with --version")
    elif signed_bundle(place, models).key_id != signing_key_id(models):
        sign(place, files)
    return place


def _verified_or_ours(place: Path, source: Path) -> Bundle:
    """The bundle that is in place; the challenger itself, where it was trained there."""
    return load_bundle(place, trusted_keys=source.parent.parent / TRUSTED_KEYS_FOLDER if place.resolve() == source.resolve() else None)


def _copied(files: Mapping[str, bytes], place: Path) -> None:
    """Write a signed bundle beside its place, put it on the disk, then rename it: the place never holds half a bundle."""
    unfinished = place.with_name(f".{place.name}.incoming")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(parents=True)
    for name, content in files.items():
        (unfinished / name).write_bytes(content)
    sign(unfinished, files)
    load_bundle(unfinished)
    sync_tree(unfinished)
    unfinished.rename(place)
    sync_tree(place)


def _verified(models: Path, task: str, version: str) -> Bundle:
    bundle = load_bundle(models / task / version)
    contract = bundle.contract
    if (contract.task, contract.version) != (task, version):
        raise BundleError(f"{models / task / version} holds {contract.task} {contract.version}: restore the right bundle")
    return bundle


def _check_serves(bundle: Bundle) -> None:
    """Raises BundleError when this version's inference cannot use the bundle."""
    SERVES[bundle.contract.task](bundle)


def _live(models: Path) -> dict[str, str]:
    if not (models / SERVING_FILE).is_file():
        return {}
    try:
        return live_versions(models)
    except (OSError, ValueError) as error:
        raise PromotionError(f"{models / SERVING_FILE} cannot be read ({type(error).__name__}): restore it first") from error


def _gates_alone(found: Comparison, bundle: Bundle) -> tuple[Gate, ...]:
    """The gates that need no champion; what a comparison with itself excuses is not excused."""
    lacking = {"parity": ("probe", bundle.contract.probe), "leak": ("sketch of what it learned from", bundle.contract.seen)}
    gates = []
    for gate in found.gates:
        if gate.name in _ALONE:
            what, kept = lacking.get(gate.name, ("", {"": Any}))
            gates.append(gate if kept else Gate(gate.name, False, nan, gate.limit, f"the bundle keeps no {what}: train it again"))
    return tuple(gates)
