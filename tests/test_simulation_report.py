"""`nabz simulate` from its arguments to table, JSON and picture."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from importlib import resources
from io import StringIO
from xml.etree import ElementTree as ET

import pytest
from PIL import Image
from rich.console import Console

from inference.errors import NabzError, PolicyError
from inference.policy import load_policy
from inference.service import simulation_study
from inference.service.simulation_command import add_simulate
from inference.service.simulation_plot import save_plot
from inference.service.simulation_presets import PRESETS, Study, preset
from inference.service.simulation_report import print_answer
from inference.service.simulation_scenario import load_scenario
from inference.service.simulation_study import run_study

SMALL = """
name = "small hub"
arrivals_per_hour = 6
readers = 1
warm_up_hours = 12
measured_hours = 72
replications = 4

[levels]
1 = { share = 0.1, service_minutes = 12, floor_catches = 0.5 }
4 = { share = 0.9, service_minutes = 6, unknown_share = 0.2 }

[ai]
kind = "binary"
sensitivity = 0.9
false_positive_rate = 0.1
positive_levels = [1]
flagged_level = 1
unflagged_level = 4
"""


def simulate(*arguments) -> int:
    """The command's exit status, through a parser of its own."""
    top = argparse.ArgumentParser(prog="nabz")
    add_simulate(top.add_subparsers(required=True))
    args = top.parse_args(["simulate", *map(str, arguments)])
    return int(args.run(args))


@pytest.fixture
def small(tmp_path):
    """A scenario that takes a moment."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL, encoding="utf-8")
    return path


def test_the_json_holds_every_policy_with_intervals(capsys, small):
    """By policy: every level of the scenario, emergencies, readers needed; the same seed gives the same text."""
    assert simulate("--file", small, "--json", "--seed", 7) == 0
    first = capsys.readouterr()
    assert simulate("--file", small, "--json", "--seed", 7) == 0
    assert capsys.readouterr().out == first.out
    answer = json.loads(first.out)
    assert first.err == ""
    assert (answer["seed"], answer["scenario"]["name"], answer["load"]) == (7, "small hub", pytest.approx(0.66))
    assert list(answer["policies"]) == ["fifo", "strict", "weighted", "accumulating", "nabz"]
    for one in answer["policies"].values():
        assert list(one["levels"]) == ["1", "4"]
        assert isinstance(one["readers_needed"], int)
        mean = one["levels"]["1"]["mean_wait_minutes"]
        assert mean["low"] < mean["value"] < mean["high"] and mean["n"] == 4
    assert answer["policies"]["fifo"]["emergencies"]["saved_against_fifo_minutes"]["value"] == 0
    assert answer["policies"]["nabz"]["emergencies"]["saved_against_fifo_minutes"]["value"] > 0
    assert answer["policies"]["nabz"]["levels"]["1"]["unknown_mean_wait_minutes"] == {"value": None, "low": None, "high": None, "n": 0}
    assert "published" not in answer


def test_the_table_names_levels_policies_and_the_criterion(capsys, small):
    """What a reader needs stands on stdout: waits, the share past the cap, minutes saved, readers needed and their meaning."""
    assert simulate("--file", small) == 0
    shown = capsys.readouterr().out
    for words in (
        "small hub",
        "1 immediate",
        "cap 10 min",
        "4 routine",
        "cap 14 d",
        "accumulating",
        "minutes saved",
        "readers needed: the smallest",
    ):
        assert words in shown
    assert "estimate" not in shown


def test_the_default_preset_says_that_it_is_an_estimate():
    """Nobody may take the default figures for measured ones, in the table or in the picture."""
    scenario = preset("clinic").scenario.model_copy(update={"measured_hours": 24.0, "warm_up_hours": 1.0, "replications": 2})
    out = StringIO()
    print_answer(run_study(Study(scenario, search_readers=False), load_policy(), 1), Console(file=out, width=130))
    assert "Every parameter of this preset is an estimate." in out.getvalue()
    assert "readers needed" not in out.getvalue()


@pytest.fixture
def short_qucad(monkeypatch):
    """The published example with 15 hundred hours in place of four thousand."""
    study = preset("qucad")
    scenario = study.scenario.model_copy(update={"measured_hours": 1500.0})
    monkeypatch.setitem(PRESETS, "qucad", replace(study, scenario=scenario))


@pytest.mark.usefixtures("short_qucad")
def test_the_published_example_is_set_beside_the_simulation(capsys):
    """Published, simulated with intervals, exact, and whether the one lies within the other."""
    assert simulate("--preset", "qucad", "--json", "--replications", 4) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["published"] == {
        "diseased": {"without_ai": 18.29, "with_ai": 2.57},
        "non_diseased": {"without_ai": 18.29, "with_ai": 19.98},
    }
    for group, arms in answer["simulated"].items():
        for arm, one in arms.items():
            assert answer["within_interval"][group][arm] is (one["low"] <= answer["published"][group][arm] <= one["high"])
            assert one["value"] == pytest.approx(answer["exact"][group][arm], rel=0.15)
    assert answer["load"] == pytest.approx(0.8)


@pytest.mark.usefixtures("short_qucad")
def test_other_readers_make_another_example_than_the_published_one(capsys):
    """With three readers there is nothing published to compare with, and the same cases keep arriving."""
    assert simulate("--preset", "qucad", "--replications", 2, "--readers", 3, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert "published" not in answer
    assert answer["load"] == pytest.approx(0.8 * 2 / 3)


def test_too_few_readers_are_warned_of_on_stderr(capsys, small):
    """One reader cannot do twice the work; the run ends all the same, and says what its waits are worth."""
    small.write_text(SMALL.replace("arrivals_per_hour = 6", "arrivals_per_hour = 12"), encoding="utf-8")
    assert simulate("--file", small, "--json") == 0
    out, err = capsys.readouterr()
    assert err.startswith("nabz: the work needs 1.32 readers on average and there are 1: the queue grows without end")
    assert all(one["readers_needed"] > 1 for one in json.loads(out)["policies"].values())


def test_a_queue_policy_of_ones_own_moves_the_caps(capsys, small, tmp_path):
    """With a cap of a day at level 1 nobody is past it, and one reader is enough."""
    shipped = resources.files("inference").joinpath("policy.toml").read_text(encoding="utf-8")
    slower = tmp_path / "policy.toml"
    slower.write_text(
        shipped.replace("cap_minutes = 10 }", "cap_minutes = 1440 }").replace("cap_minutes = 60 }", "cap_minutes = 1440 }"),
        encoding="utf-8",
    )
    assert simulate("--file", small, "--json", "--policy", slower) == 0
    nabz = json.loads(capsys.readouterr().out)["policies"]["nabz"]
    assert (nabz["readers_needed"], nabz["levels"]["1"]["past_cap_share"]["value"]) == (1, 0)


def test_the_picture_is_drawn_as_svg_and_png(small, tmp_path):
    """Both kinds can be opened; the same answer draws the same SVG, with its words as text."""
    answer = run_study(Study(load_scenario(small), search_readers=False), load_policy(), 1)
    for name in ("a.svg", "b.svg", "c.png"):
        save_plot(answer, tmp_path / name)
    words = " ".join(ET.parse(tmp_path / "a.svg").getroot().itertext())
    assert "small hub" in words and "1 immediate" in words and "nabz" in words
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    with Image.open(tmp_path / "c.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (1650, 1200))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--plot", "a.pdf"), r"the plot a\.pdf would be of an unknown kind: end its name in \.svg or \.png"),
        (("--plot", "nowhere/a.svg"), r"the plot nowhere/a\.svg cannot be written: No such file or directory"),
        (("--readers", "0"), r"the scenario small hub cannot be changed so: --readers: Input should be greater than or equal to 1"),
        (
            ("--replications", "1"),
            r"the scenario small hub cannot be changed so: --replications: Input should be greater than or equal to 2",
        ),
    ],
)
def test_wrong_arguments_are_refused_with_a_reason(small, arguments, message):
    """The message says what was expected."""
    with pytest.raises(PolicyError, match=message):
        simulate("--file", small, *arguments)


def test_without_the_service_extra_the_command_says_what_to_install(monkeypatch, small):
    """The parser works in a bare install; running needs simpy."""
    monkeypatch.setitem(sys.modules, "simpy", None)
    monkeypatch.delitem(sys.modules, "inference.service.simulation_study")
    for name in ("simulation", "simulation_results", "simulation_report", "simulation_plot"):
        monkeypatch.delitem(sys.modules, f"inference.service.{name}")
    with pytest.raises(NabzError, match=r"nabz simulate needs simpy: install the extra with pip install 'nabz\[service\]'"):
        simulate("--file", small)


def test_a_seed_that_is_no_number_is_refused(capsys):
    """By the parser, with the word that was given."""
    with pytest.raises(SystemExit):
        simulate("--seed", "-4.2")
    assert "'-4.2' is not a whole number from 0" in capsys.readouterr().err


def test_the_number_of_cores_does_not_change_the_answer(monkeypatch):
    """In processes of their own or here: the same figures, and as many steps as were announced."""
    study = preset("qucad")
    study = replace(
        study,
        scenario=study.scenario.model_copy(update={"measured_hours": 20.0, "warm_up_hours": 5.0, "replications": 3}),
        search_readers=True,
    )
    here, done = run_study(study, load_policy(), 5), []
    monkeypatch.setattr(simulation_study, "_POOL_FROM_CASES", 0)
    apart = run_study(study, load_policy(), 5, lambda: done.append(1))
    assert str(apart.policies) == str(here.policies)
    assert len(done) == simulation_study.steps(study) == 5
