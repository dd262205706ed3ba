"""Tests of reading the policy."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from importlib import resources

import pytest

from inference.errors import PolicyError
from inference.policy import LEAST_URGENT, LEVELS, MOST_URGENT, load_policy

SHIPPED = resources.files("inference").joinpath("policy.toml").read_bytes().decode()


def written(tmp_path, text: str | bytes):
    """A policy file with this text."""
    path = tmp_path / "policy.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path) -> str:
    """What `load_policy` says when it refuses a policy."""
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    return str(caught.value)


def test_the_shipped_policy_has_five_levels_with_growing_caps():
    """Ten minutes, an hour, a day, two weeks, thirty days."""
    policy = load_policy()
    assert LEVELS == (MOST_URGENT, 2, 3, 4, LEAST_URGENT)
    assert [policy.levels[level].name for level in LEVELS] == ["immediate", "emergency", "urgent", "routine", "advice"]
    assert [policy.levels[level].cap for level in LEVELS] == [
        timedelta(minutes=10),
        timedelta(hours=1),
        timedelta(days=1),
        timedelta(days=14),
        timedelta(days=30),
    ]
    assert all(policy.levels[level].name_ur for level in LEVELS)


def test_the_shipped_policy_holds_what_is_unread_at_urgent_and_the_unscored_at_routine():
    """Only a model may send a case to "advice", and the referrer's words have their levels."""
    policy = load_policy()
    assert policy.unscored.unreadable == 3
    assert policy.unscored.rules_only == 4
    assert policy.priority == {"stat": 1, "asap": 2, "urgent": 3}


def test_the_hash_is_that_of_the_file(tmp_path):
    """Every assessment's provenance can be checked with `sha256sum`."""
    assert load_policy().sha256 == hashlib.sha256(SHIPPED.encode()).hexdigest()
    changed = SHIPPED.replace("risk_weight = 0.5", "risk_weight = 0.25")
    policy = load_policy(written(tmp_path, changed))
    assert policy.queue.risk_weight == 0.25
    assert policy.sha256 == hashlib.sha256(changed.encode()).hexdigest()


def test_a_policy_is_frozen():
    """Nobody changes a cap after loading."""
    with pytest.raises(ValueError, match="frozen"):
        load_policy().levels[1].cap_minutes = 5


def test_a_missing_file_is_named(tmp_path):
    """With the system's reason."""
    path = tmp_path / "none.toml"
    assert refusal(path) == f"the policy {path} cannot be read: No such file or directory"
    assert refusal(tmp_path) == f"the policy {tmp_path} cannot be read: Is a directory"


@pytest.mark.parametrize("text", ["[levels", "a = ", b"\xff\xfe"])
def test_what_is_not_toml_is_refused(tmp_path, text):
    """The file is named and the parser's own words follow."""
    path = written(tmp_path, text)
    assert refusal(path).startswith(f"the policy {path} is not valid TOML: ")


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("cap_minutes = 60 ", "cap_minutes = 0 ", "levels.2.cap_minutes: Input should be greater than 0"),
        ("risk_weight = 0.5", "risk_weight = 1.5", "queue.risk_weight: Input should be less than or equal to 1"),
        ("risk_weight = 0.5", "risk_wait = 0.5", "queue.risk_weight: Field required; queue.risk_wait: Extra inputs are not permitted"),
        ("unreadable = 3", "unreadable = 6", "unscored.unreadable: Input should be less than or equal to 5"),
        ("stat = 1", "stat = 0", "priority.stat: Input should be greater than or equal to 1"),
        ("stat = 1", "soon = 1", "priority.soon.[key]: Input should be 'routine', 'urgent', 'asap' or 'stat'"),
        ('version = "1"', "", "version: Field required"),
    ],
)
def test_a_policy_that_says_something_impossible_is_refused(tmp_path, old, new, where):
    """The place in the file is named."""
    assert old in SHIPPED
    path = written(tmp_path, SHIPPED.replace(old, new))
    assert refusal(path) == f"the policy {path} cannot be used: {where}"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cap_minutes = 10 ", "cap_minutes = 61 "),
        ('5 = { name = "advice"', '6 = { name = "advice"'),
        ("cap_minutes = 43200 }", "cap_minutes = 43200 }\n6 = { name = 'x', name_ur = 'x', cap_minutes = 50000 }"),
    ],
    ids=["a shorter cap below", "a level missing", "a level too many"],
)
def test_levels_are_1_to_5_with_caps_that_do_not_shrink(tmp_path, old, new):
    """A more urgent case may never be allowed to wait longer."""
    assert old in SHIPPED
    path = written(tmp_path, SHIPPED.replace(old, new))
    assert refusal(path) == "a policy needs the levels 1 to 5, with wait caps that do not shrink from 1 to 5"
