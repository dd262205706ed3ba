"""Promotion and rollback: a failed gate stops it, what was live before comes back, and a crash leaves the old bundle live or the new."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_export import REPORT, contract, softmax_model

import training.comparison
from inference.bundle import SIGNATURE_FILE, load_bundle
from inference.errors import BundleError, PromotionError
from inference.models import SERVING_FILE, live_versions
from training import promotion
from training.cli import main
from training.export import make_live, write_bundle
from training.gates import Gate
from training.promotion import judge, promote, roll_back
from training.promotion_history import HISTORY_FILE, Switch, add_switch, read_history, sha256_of, versions_back
from training.signing import rotate_signing_key, signed_bundles

PASSED = Gate("under_triage", True, 0.001, 0.02, "4.0 % with the champion, 4.1 % with the challenger")
FAILED = Gate("red_flags", False, 2.0, 0.0, "2 textbook emergencies fall below level 2")


@pytest.fixture(autouse=True)
def _tiny_models_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test signs with a key of its own folder, any graph serves, and no registry is asked."""
    monkeypatch.delenv("NABZ_SIGNING_KEY", raising=False)
    monkeypatch.setattr(promotion, "SERVES", {task: lambda bundle: bundle for task in promotion.SERVES})
    monkeypatch.setattr("training.tracking.alias_promoted", lambda *_: None)


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> list[Gate]:
    """What the comparison will say; a test changes it in place. The comparison itself is COMPARED's affair."""
    found = [PASSED]

    class Fake:
        def __init__(self, challenger: Path, champion: Path, data: Path, **_: Any) -> None:
            new, old = load_bundle(challenger), load_bundle(champion)
            self.task, self.gates, self.data, self.n = new.contract.task, tuple(found), data.name, 16
            self.champion_sha256, self.challenger_sha256 = old.sha256, new.sha256
            self.verdict = "PROMOTE" if all(gate.passed for gate in found) else "HOLD"

        def as_json(self) -> dict[str, Any]:
            return {"verdict": self.verdict}

    monkeypatch.setattr(training.comparison, "compare_bundles", Fake)
    return found


def bundle(folder: Path, version: str, task: str = "acuity", **changes: Any) -> Path:
    """A tiny signed bundle in `folder`."""
    place = folder / task / version
    text = f"Shows how {task} {version} is promoted."
    made = contract().model_copy(update={"task": task, "version": version, "intended_use": text, **changes})
    write_bundle(place, softmax_model(), made, REPORT)
    return place


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder in which acuity 1.0.0 is live."""
    bundle(tmp_path / "models", "1.0.0")
    make_live(tmp_path / "models", {"acuity": "1.0.0"})
    return tmp_path / "models"


def promoted(models: Path, version: str, reason: str | None = None, task: str = "acuity") -> Switch:
    """Train a bundle elsewhere and promote it."""
    challenger = bundle(models.parent / "runs", version, task)
    return promote(challenger, judge(challenger, Path("held-out"), models, threads=1), models, reason)


def refused(call: Callable[[], Any]) -> str:
    """What it says when it refuses."""
    with pytest.raises(PromotionError) as caught:
        call()
    return str(caught.value)


def test_a_challenger_that_passes_goes_live_signed_by_the_promoter(models, gates):
    """It lies in its place byte for byte, under the promoter's key, and the history says all of it."""
    switch = promoted(models, "1.1.0", "third quarter")
    source, place = models.parent / "runs" / "acuity" / "1.1.0", models / "acuity" / "1.1.0"
    assert live_versions(models) == {"acuity": "1.1.0"}
    assert load_bundle(place).sha256 == load_bundle(source).sha256 == switch.after_sha256
    key_id = json.loads((place / SIGNATURE_FILE).read_text())["key_id"]
    assert key_id == switch.signed_by != json.loads((source / SIGNATURE_FILE).read_text())["key_id"]
    line = json.loads((models / HISTORY_FILE).read_text())
    assert (line["from"], line["to"], line["verdict"], line["reason"], line["n"]) == ("1.0.0", "1.1.0", "PROMOTE", "third quarter", 16)
    assert line["gates"] == [PASSED.as_json()] and line["from_sha256"] == load_bundle(models / "acuity" / "1.0.0").sha256
    assert sorted(path.name for path in models.rglob(".*")) == [".signing_key.pem"]  # nothing unfinished is left


def test_a_failed_gate_holds_it_back_and_nothing_changes(models, gates, capsys):
    """Exit 1, the gate's own words, and no way around: the option that would force it does not exist."""
    gates.append(FAILED)
    challenger = bundle(models.parent / "runs", "1.1.0")
    before = sorted(path.as_posix() for path in models.rglob("*"))
    command = ["promote", str(challenger), "--data", "held-out", "--models", str(models)]
    assert main(command) == 1
    assert capsys.readouterr().out == "HOLD because red_flags: 2 textbook emergencies fall below level 2\n"
    assert main([*command, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["because"] == ["red_flags: 2 textbook emergencies fall below level 2"]
    judged = judge(challenger, Path("held-out"), models, threads=1)
    assert refused(lambda: promote(challenger, judged, models)) == "HOLD because red_flags: 2 textbook emergencies fall below level 2"
    assert sorted(path.as_posix() for path in models.rglob("*")) == before
    with pytest.raises(SystemExit):
        main([*command, "--force"])


def test_rollback_goes_back_one_by_one_and_then_says_that_there_is_no_more(models, gates):
    """1.0.0, 1.1.0, 1.2.0: back, and back again; a third time there is nothing."""
    promoted(models, "1.1.0")
    promoted(models, "1.2.0")
    assert [roll_back(models).after, roll_back(models).after] == ["1.1.0", "1.0.0"]
    assert live_versions(models) == {"acuity": "1.0.0"}
    assert refused(lambda: roll_back(models)) == "there is nothing to go back to: no other bundle of acuity was live before 1.0.0"
    assert [switch.action for switch in read_history(models)] == ["promote", "promote", "rollback", "rollback"]


def test_rollback_to_a_named_version_takes_only_one_that_was_live(models, gates):
    """Two back at once; a version that no gate ever passed is not a way in."""
    promoted(models, "1.1.0")
    promoted(models, "1.2.0")
    bundle(models, "9.9.9")
    assert refused(lambda: roll_back(models, to="9.9.9")) == (
        "acuity 9.9.9 was not live before 1.2.0; these were: 1.1.0, 1.0.0. Anything else goes live with `nabz-train promote`"
    )
    assert roll_back(models, "acuity", to="1.0.0", reason="alarms").reason == "alarms"
    assert live_versions(models) == {"acuity": "1.0.0"}


def test_rollback_without_a_task_takes_the_last_one_that_was_switched(models, gates):
    """Two tasks; the other one's bundle stays."""
    bundle(models, "1.0.0", "symptoms")
    make_live(models, {"symptoms": "1.0.0"})
    promoted(models, "1.1.0")
    promoted(models, "2.0.0", task="symptoms")
    assert (roll_back(models).task, live_versions(models)) == ("symptoms", {"symptoms": "1.0.0", "acuity": "1.1.0"})


def test_a_lost_serving_file_comes_back_from_the_history(models, gates):
    """Nothing is live: what was live last is what rollback goes back to."""
    promoted(models, "1.1.0")
    (models / SERVING_FILE).unlink()
    assert (roll_back(models).after, live_versions(models)) == ("1.1.0", {"acuity": "1.1.0"})


def test_nothing_was_ever_promoted(models):
    """There is no history to go back in."""
    assert refused(lambda: roll_back(models)) == f"nothing was ever promoted in {models}, so that there is nothing to go back to"


@pytest.mark.parametrize("fault", ["altered", "missing", "replaced"])
def test_an_old_bundle_is_verified_before_it_comes_back(models, gates, fault):
    """Altered, gone, or another one under its name: the new one stays live."""
    promoted(models, "1.1.0")
    old = models / "acuity" / "1.0.0"
    if fault == "altered":
        (old / "card.md").write_text("better than it is", encoding="utf-8")
    else:
        shutil.rmtree(old)
    if fault == "replaced":
        bundle(models, "1.0.0", limits=("Another one.",))
    with pytest.raises(PromotionError if fault == "replaced" else BundleError):
        roll_back(models)
    assert live_versions(models) == {"acuity": "1.1.0"}
    assert len(read_history(models)) == 1


def test_a_bundle_that_inference_cannot_use_does_not_go_live(models, gates, monkeypatch):
    """It is whole and signed, and of features that this version does not encode: a service would lose its model."""

    def refuse(made: Any) -> None:
        raise BundleError("other features")

    monkeypatch.setattr(promotion, "SERVES", {"acuity": refuse})
    with pytest.raises(BundleError, match="other features"):
        promoted(models, "1.1.0")
    assert live_versions(models) == {"acuity": "1.0.0"} and read_history(models) == []


def test_a_version_is_never_overwritten(models, gates):
    """Another bundle under a version that is taken is refused; the same bundle, already in place, is fine."""
    bundle(models, "1.1.0", limits=("The first of its name.",))
    assert refused(lambda: promoted(models, "1.1.0")) == (
        f"{models / 'acuity' / '1.1.0'} is there already and is another bundle: give the challenger a version of its own with --version"
    )
    assert load_bundle(models / "acuity" / "1.1.0").contract.limits == ("The first of its name.",)
    place = bundle(models, "1.2.0")
    promote(place, judge(place, Path("held-out"), models, threads=1), models)
    assert live_versions(models) == {"acuity": "1.2.0"}


def test_what_was_compared_is_what_goes_live(models, gates):
    """A challenger that was written anew after its comparison, or a champion that changed, is compared again."""
    challenger = bundle(models.parent / "runs", "1.1.0")
    judged = judge(challenger, Path("held-out"), models, threads=1)
    bundle(models.parent / "runs", "1.1.0", limits=("Trained again.",))
    assert refused(lambda: promote(challenger, judged, models)) == f"{challenger} was changed after it was compared: compare it again"
    bundle(models.parent / "runs", "1.1.0")
    promoted(models, "1.2.0")
    expected = "another bundle of acuity went live during the comparison: compare with that one"
    assert refused(lambda: promote(challenger, judged, models)) == expected


def test_what_is_live_and_what_no_service_uses_is_not_promoted(models, gates):
    """Both are told before anything is compared."""
    live = models / "acuity" / "1.0.0"
    assert (
        refused(lambda: judge(live, Path("x"), models, threads=1))
        == f"{live} is live already, as acuity 1.0.0: there is nothing to promote"
    )
    other = bundle(models.parent / "runs", "1.0.0", "symptoms-ddxplus")
    expected = f"{other} is a bundle of symptoms-ddxplus, which no service uses: only symptoms, acuity, lesions go live"
    assert refused(lambda: judge(other, Path("x"), models, threads=1)) == expected


def test_a_version_that_leads_out_of_the_folder_is_refused(models, gates):
    """A contract's version names a folder, and must be nothing but a name."""
    challenger = bundle(models.parent / "runs", "1.1.0")
    made = load_bundle(challenger).contract.model_copy(update={"version": "../../1.1.0"})
    write_bundle(challenger, softmax_model(), made, REPORT)
    judged = judge(challenger, Path("held-out"), models, threads=1)
    assert "is no version that a folder can be named by" in refused(lambda: promote(challenger, judged, models))


def test_a_first_bundle_must_pass_the_gates_that_need_no_champion(models, gates):
    """Nothing is live: card, size, parity and leak are asked all the same, and what only a champion's model would excuse is not excused."""
    gates[:] = [
        PASSED,
        Gate("card", False, 1.0, 0.0, "no seed"),
        Gate("parity", True, 0.0, 1e-4, "the same model"),
        Gate("size", True, 1.0, 2.0, "small"),
    ]
    challenger = bundle(models.parent / "runs", "1.0.0", "symptoms")
    judged = judge(challenger, Path("held-out"), models, threads=1)
    assert judged.because == ("card: no seed", "parity: the bundle keeps no probe: train it again")
    gates[:] = [FAILED, Gate("size", True, 1.0, 2.0, "small")]  # an emergency that only a comparison with another could have lowered
    switch = promote(challenger, judge(challenger, Path("held-out"), models, threads=1), models)
    assert (switch.before, live_versions(models)) == (None, {"symptoms": "1.0.0", "acuity": "1.0.0"})
    assert (
        refused(lambda: roll_back(models, "symptoms"))
        == "there is nothing to go back to: no other bundle of symptoms was live before 1.0.0"
    )


class _Crash(BaseException):
    """As if the power failed."""


def crashing_at(line: int) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that stops at the given executed line of the modules that switch."""
    left = line
    files = {"promotion.py", "promotion_history.py", "export.py", "durable.py", "signing.py"}

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if Path(frame.f_code.co_filename).name not in files:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise _Crash
        return trace

    return trace


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a file that the crash left open
@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_a_crash_at_any_line_leaves_the_old_or_the_new_live(tmp_path, gates, action, figure):
    """Stopped at each line that a switch executes, in turn: a whole, verified bundle is live, and doing it again finishes it."""
    pristine = tmp_path / "pristine"
    bundle(pristine / "models", "1.0.0")
    make_live(pristine / "models", {"acuity": "1.0.0"})
    if action == "rollback":
        promoted(pristine / "models", "1.1.0")
    challenger = bundle(pristine / "runs", "1.2.0")
    old, new = ("1.0.0", "1.2.0") if action == "promote" else ("1.1.0", "1.0.0")
    judged = judge(challenger, Path("held-out"), pristine / "models", threads=1)
    seen, line, is_done = {old: 0, new: 0}, 0, False
    while not is_done:
        line += 1
        models = tmp_path / "now" / "models"
        shutil.rmtree(models.parent, ignore_errors=True)
        shutil.copytree(pristine, models.parent)

        def act(models: Path = models) -> Any:
            return promote(challenger, judged, models) if action == "promote" else roll_back(models, "acuity")

        before = sys.gettrace()
        sys.settrace(crashing_at(line))
        try:
            act()
            is_done = True
        except _Crash:
            pass
        finally:
            sys.settrace(before)
        live = live_versions(models)["acuity"]
        assert load_bundle(models / "acuity" / live).contract.version == live
        seen[live] += 1
        assert not is_done or live == new
        if live == old:
            act()
            assert live_versions(models)["acuity"] == new
        assert old in versions_back(read_history(models), "acuity", new) or action == "rollback"
    assert min(seen.values()) > 1 and line > 60
    figure(
        f"{action} stopped at each of {line - 1} lines: {seen[old]} times the old bundle stayed live, {seen[new] - 1} times the new one was"
    )


@given(st.lists(st.sampled_from(["promote", "rollback", "by hand", "announced only"]), max_size=12))
def test_the_history_knows_what_was_live_before(actions):
    """Against a plain stack: promotions push, rollbacks pop; a switch by hand is seen at the next line, an announced one that never came leaves
    no trace."""
    history: list[Switch] = []
    stack, live = [], "v0"  # what lines have told of, and what serves
    for number, action in enumerate(actions, start=1):
        seen = stack if stack[-1:] == [live] else [*stack, live]
        back = versions_back(history, "acuity", live)
        assert back == seen[-2::-1]
        history.append(Switch("", "promote", "lesions", None, "another task's", None, "x"))
        if action == "by hand" and history[-2:-1] and history[-2].after == live:  # else it hides whether an announced one came
            live = f"v{number}"
        elif action == "rollback" and back:
            history.append(Switch("", "rollback", "acuity", live, back[0], None, "x"))
            stack, live = seen[:-1], back[0]
        elif action in ("promote", "announced only"):
            history.append(Switch("", "promote", "acuity", live, f"v{number}", None, "x"))
            stack = seen if action == "announced only" else [*seen, f"v{number}"]
            live = live if action == "announced only" else f"v{number}"


def test_a_history_that_cannot_be_read_is_told_with_its_line(models):
    """Somebody edited it: nothing is guessed."""
    add_switch(models, Switch("t", "promote", "acuity", "1.0.0", "1.1.0", "a", "b"))
    assert (sha256_of(read_history(models), "acuity", "1.1.0"), sha256_of(read_history(models), "acuity", "1.0.0")) == ("b", "a")
    with (models / HISTORY_FILE).open("a", encoding="utf-8") as file:
        file.write('{"action": "promote"}\n')
    expected = f"{models / HISTORY_FILE}, line 2 cannot be read: restore the file, or take that line out"
    assert refused(lambda: read_history(models)) == expected


def test_the_commands_say_what_is_live(models, gates, capsys):
    """promote, rollback and live, in words and as JSON."""
    challenger = bundle(models.parent / "runs", "1.1.0")
    sha256 = load_bundle(challenger).sha256
    assert main(["promote", str(challenger), "--data", "held-out", "--models", str(models), "--reason", "third quarter"]) == 0
    out, err = capsys.readouterr()
    assert out == f"acuity 1.1.0 ({sha256[:12]}…) is live; 1.0.0 was until now\n"
    assert err == "1 gates passed on held-out, n = 16\nMLflow has no registered model of acuity: no alias was changed\n"
    assert main(["live", "--models", str(models)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("acuity 1.1.0 is live; rollback goes to 1.0.0\n") and "third quarter" in out
    assert main(["rollback", "--models", str(models), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["switch"]["to"] == "1.0.0"
    assert main(["live", "--models", str(models), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["live"], shown["back_to"], len(shown["history"])) == ({"acuity": "1.0.0"}, {"acuity": []}, 2)
    assert main(["rollback", "--models", str(models)]) == 2


def test_the_registry_is_told_of_both_directions(models, gates, monkeypatch, capsys):
    """The alias follows what is live; a sentence of the registry's is passed on."""
    told: list[tuple[Any, ...]] = []
    monkeypatch.setattr("training.tracking.alias_promoted", lambda *given_: told.append(given_) or "MLflow: done")
    challenger = bundle(models.parent / "runs", "1.1.0")
    main(["promote", str(challenger), "--data", "held-out", "--models", str(models)])
    main(["rollback", "--models", str(models)])
    assert [one[:2] for one in told] == [("acuity", "1.1.0"), ("acuity", "1.0.0")]
    assert told[0][2:] == (load_bundle(challenger).sha256, models / "acuity" / "1.1.0")
    assert capsys.readouterr().err.count("MLflow: done\n") == 2


def test_limits_of_the_services_own_are_used_and_named_in_the_history(models, gates, monkeypatch):
    """A gates.toml beside serving.toml is what the clinical lead decided on; its hash stands in the line."""
    used = []
    fake = training.comparison.compare_bundles
    monkeypatch.setattr(training.comparison, "compare_bundles", lambda *a, **k: used.append(k["gates"]) or fake(*a, **k))
    first = promoted(models, "1.1.0")
    (models / "gates.toml").write_text("# our own\n", encoding="utf-8")
    second = promoted(models, "1.2.0")
    assert [path.name for path in used] == ["gates.toml"] * 2 and used[1] == models / "gates.toml" != used[0]
    assert first.gates_sha256 != second.gates_sha256


def test_rotation_signs_every_bundle_anew_and_trusts_no_older_key(models, gates, capsys):
    """All bundles load under the one new key, with the hashes that they had; what is signed next has it too."""
    promoted(models, "1.1.0")
    hashes = {one.folder.name: one.sha256 for one in signed_bundles(models)}
    old = {one.key_id for one in signed_bundles(models)}
    assert main(["keys", "rotate", "--models", str(models)]) == 0
    assert "2 bundles have its signature, 1 older keys are trusted no more" in capsys.readouterr().out
    now = signed_bundles(models)
    assert {one.folder.name: one.sha256 for one in now} == hashes and {one.problem for one in now} == {None}
    assert len({one.key_id for one in now}) == 1 and old.isdisjoint({one.key_id for one in now})
    assert [path.stem for path in (models / "trusted_keys").glob("*.pub")] == [now[0].key_id]
    assert promoted(models, "1.2.0").signed_by == now[0].key_id
    assert main(["keys", "list", "--models", str(models)]) == 0
    assert f"acuity 1.0.0  key {now[0].key_id}  {hashes['1.0.0']}\n" in capsys.readouterr().out


def test_after_a_leak_only_bundles_of_known_hashes_are_signed_anew(models, gates, tmp_path, capsys):
    """A bundle that the thief signed and put live is left behind: it no longer loads, and the command says that it is live."""
    assert main(["keys", "list", "--models", str(models)]) == 0
    known = tmp_path / "hashes.txt"
    known.write_text(capsys.readouterr().out, encoding="utf-8")
    planted = bundle(models, "6.6.6")
    make_live(models, {"acuity": "6.6.6"})
    assert main(["keys", "rotate", "--models", str(models), "--hashes", str(known)]) == 1
    assert capsys.readouterr().err.endswith("nabz-train: acuity 6.6.6 is trusted no more AND IS LIVE: roll back, or promote another\n")
    with pytest.raises(BundleError, match="not among the trusted keys"):
        load_bundle(planted)
    load_bundle(models / "acuity" / "1.0.0")
    known.write_text("none\n", encoding="utf-8")
    assert main(["keys", "rotate", "--models", str(models), "--hashes", str(known)]) == 2


def test_a_rotation_that_was_broken_off_goes_on(models, gates, monkeypatch):
    """Stopped after the first of two bundles: both can be verified all the time, and the second try ends with one key."""
    promoted(models, "1.1.0")
    with pytest.raises(_Crash):
        rotate_signing_key(models, told=lambda _: (_ for _ in ()).throw(_Crash()))
    between = signed_bundles(models)
    assert {one.problem for one in between} == {None} and len({one.key_id for one in between}) == 2
    done = rotate_signing_key(models)
    assert {one.key_id for one in signed_bundles(models)} == {done.key_id}
    assert done.key_id in {one.key_id for one in between}
    assert (models / SERVING_FILE).is_file()
