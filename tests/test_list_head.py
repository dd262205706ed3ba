"""Tests of the list head: shares, held-out patients, and what training patients are let known."""

from __future__ import annotations

import numpy as np
import torch

from training.knowledge import load_knowledge
from training.list_head import ListHead, _as_asked, differential_of, held_out, read_lists


def test_the_list_is_shares_of_what_is_likely_listed():
    """0.6 and 0.6 of three; where none reaches 0.4 the likeliest alone."""
    listed = torch.tensor([[0.6, 0.6, 0.39], [0.1, 0.3, 0.2]])
    assert differential_of(listed).tolist() == [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]


def test_a_head_that_learned_nothing_lists_every_condition_alike_for_anybody():
    """The shapes are right, and the first guess is about one in six."""
    head = ListHead(slots=3, conditions=4).eval()
    torch.nn.init.zeros_(head.deep[-1].weight)
    torch.nn.init.zeros_(head.deep[-1].bias)
    logits = head(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), torch.full((2, 4), 0.25))
    assert logits.tolist() == [[-1.5] * 4] * 2


def test_every_third_test_patient_is_held_out():
    """By place in the file, so that anybody can say which."""
    assert held_out(5).tolist() == [True, False, False, True, False]


def test_only_patients_with_a_list_who_are_not_held_out_are_learned_from(tiny_release):
    """The tiny release's first patient is held out and the others have no list; one more with a list is learned from."""
    knowledge = load_knowledge(tiny_release)
    assert read_lists(tiny_release, knowledge) is None
    path = tiny_release / "patients_all49.csv"
    more = "5,\"[['cold', 1.0]]\",F,cold,\"['E_1']\",E_1\n"
    path.write_text(path.read_text(encoding="utf-8") + more + more, encoding="utf-8")
    lists = read_lists(tiny_release, knowledge)
    assert lists is not None
    assert [table.age_years.tolist() for table in lists.tables] == [[5.0]]
    assert list(lists.checksums) == ["patients_all49.csv"]


def test_what_is_let_known_is_the_patient_s_own_and_has_the_first_complaint():
    """Whole findings at a time; a fifth of the patients tell everything."""
    random = np.random.default_rng(0)
    full = np.tile(np.array([[1, 1, -1, 1, -1]], dtype=np.float32), (400, 1))
    first = np.zeros_like(full)
    first[:, 0] = 1
    codes = np.array([0, 1, 1, 2, 3])
    seen = _as_asked(full, first, codes, random)
    assert (seen[:, 0] == 1).all()
    assert ((seen == 0) | (seen == full)).all()
    assert ((seen[:, 1] != 0) == (seen[:, 2] != 0)).all()
    assert 0.2 < (seen == full).all(axis=1).mean() < 0.5
    assert (seen[:, 3] != 0).mean() > (seen[:, 4] != 0).mean()
