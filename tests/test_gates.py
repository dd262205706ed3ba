"""The gates' limits as a file, and the two ways in which a difference is judged."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest

from inference.errors import PolicyError
from training.gates import GATES_FILE, at_most, load_limits, non_inferior, not_worse
from training.metrics import Interval
from training.paired import Difference, compared, rate


def moved(value: float, low: float, high: float, n: int = 100, better: str = "lower") -> Difference:
    """A figure at 0.1 that moves."""
    return Difference(Interval(0.1, 0.05, 0.15, n), Interval(0.1 + value, 0.05, 0.2, n), Interval(value, low, high, n), better)


def test_the_shipped_limits_are_read_and_differ_by_task():
    """A bundle that only benchmarks has the limits of its kind."""
    limits = load_limits()
    assert limits.red_flags.lowered == 0
    assert limits.size.of("lesions-ham10000") == limits.size.of("lesions") == 22_000_000


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("lowered = 0", "lowered = -1"), "red_flags.lowered: Input should be greater than or equal to 0"),
        (("[leak]", "[leek]"), "leak: Field required; leek: Extra inputs are not permitted"),
        (("share = 0.01", "share = nan"), "leak.share: Input should be a finite number"),
    ],
)
def test_a_wrong_limit_is_named(tmp_path, change, says):
    """Somebody who edits the file learns where the mistake is; a limit that is no number switches no gate off."""
    path = tmp_path / "gates.toml"
    path.write_text(GATES_FILE.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    with pytest.raises(PolicyError) as caught:
        load_limits(path)
    assert str(caught.value) == f"the gates {path} cannot be used: {says}; take training/gates.toml as the pattern"


def test_a_file_that_is_not_there_is_named(tmp_path):
    """With what the system says of it."""
    with pytest.raises(PolicyError) as caught:
        load_limits(tmp_path / "none.toml")
    assert str(caught.value) == f"the gates {tmp_path / 'none.toml'} cannot be read: No such file or directory"


def test_non_inferiority_asks_for_proof():
    """A harmless point with a wide interval is held back, a small certain harm within the margin is not."""
    wide, certain = moved(0.0, -0.05, 0.05), moved(0.01, 0.005, 0.015)
    assert not non_inferior("under_triage", "missed", wide, 0.02, 50).passed
    assert non_inferior("under_triage", "missed", certain, 0.02, 50).passed
    assert non_inferior("under_triage", "missed", certain, 0.02, 50).measured == 0.015


def test_too_few_cases_prove_nothing():
    """Neither do none at all; JSON holds null."""
    few = non_inferior("under_triage", "missed", moved(0.0, 0.0, 0.0, n=49), 0.02, 50)
    assert (few.passed, few.why) == (False, "only 49 held-out cases tell of missed; at least 50 are needed")
    none = non_inferior("under_triage", "missed", None, 0.02, 50)
    assert not none.passed
    assert none.as_json()["measured"] is None


def test_the_other_gates_ask_for_a_harm_that_is_large_and_not_by_chance():
    """Large and uncertain passes, and so does certain and small; an improvement passes however large."""
    assert not not_worse("accuracy", "x", moved(0.06, 0.02, 0.1), 0.05).passed
    assert not_worse("accuracy", "x", moved(0.06, -0.01, 0.13), 0.05).passed
    assert not_worse("accuracy", "x", moved(0.04, 0.02, 0.06), 0.05).passed
    assert not_worse("accuracy", "x", moved(0.5, 0.4, 0.6, better="higher"), 0.05).passed
    assert not not_worse("accuracy", "x", moved(-0.06, -0.1, -0.02, better="higher"), 0.05).passed


def test_what_cannot_be_measured_is_not_within_a_limit():
    """NaN is at most nothing."""
    assert at_most("parity", 1e-5, 1e-4, "").passed
    assert not at_most("parity", nan, 1e-4, "").passed


def test_the_sentence_tells_both_rates_and_the_change():
    """As a clinician reads it."""
    rows = np.ones(4, dtype=bool)
    found = compared(rate(np.array([0, 0, 0, 1]), rows), rate(np.array([0, 0, 0, 1]), rows), np.arange(4))
    assert non_inferior("under_triage", "missed", found, 0.02, 1).why == (
        "missed: 25.0 % with the champion, 25.0 % with the challenger, change +0.0 points (+0.0 to +0.0, n = 4); within the margin of 2.0 points"
    )
