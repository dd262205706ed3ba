"""The list head of the DDXPlus benchmark: which conditions the release's rule engine would put on a patient's differential.

The engine lists every condition that some answers speak for, however small its posterior; its rules are not published, so
they are learned from patients with lists. Knows the network's probabilities and changes nothing about them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from inference.bundle import Contract, DataSource, TensorSpec
from inference.evidence import DEMOGRAPHICS
from training.ddxplus import PatientTable, read_patients
from training.export import file_sha256
from training.knowledge import Knowledge
from training.symptom_network import SymptomNetwork
from training.symptom_scorer import OUTPUTS, SymptomScorer

Array = NDArray[Any]
HIDDEN = 256
# A condition at or above it is on the list: what is listed in four of ten patients like this helps DDF1 more than it hurts.
LISTED_FROM = 0.4
RELEVANT_SHARE = 0.01  # DDXPlus: what is at or below 1 % of a differential is not on it
STEPS, BATCH, RATE = 600, 256, 2e-3
SMOKE_STEPS = 10
_LEAST = 1e-6
# Patients with lists, and the share of the draws that are theirs. The first file has few conditions and many patients alike.
LIST_FILES = {"patients_19conditions.csv": 0.3, "patients_all49.csv": 0.7}
# Of the file that the benchmark is measured on, every third patient is not learned from.
CITATION = (
    "Fansi Tchango et al., DDXPlus: A New Dataset For Automatic Medical Diagnosis, NeurIPS 2022 Datasets and Benchmarks; figshare 20043374."
)
LIST_LIMIT = (
    "The differential copies a rule engine's lists, learned from two thirds of the test patients; its figures are of the other third."
)
LISTS = "differentials"  # in the name of a source whose lists were learned from
TEST_FILE, HELD_OUT_EVERY = "patients_all49.csv", 3


class ListHead(nn.Module):
    """The probability that each condition is on the list, [N, C], from evidence, who, and the scorer's probabilities."""

    def __init__(self, slots: int, conditions: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        width = 2 * slots + DEMOGRAPHICS + 2 * conditions
        self.register_buffer("who", torch.eye(DEMOGRAPHICS))
        self.who: Tensor
        self.linear = nn.Linear(width, conditions)
        self.deep = nn.Sequential(
            nn.Dropout(0.1),
            *(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(0.3)),
            *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(0.3)),
            nn.Linear(hidden, conditions),
        )
        nn.init.zeros_(self.linear.weight)
        nn.init.constant_(self.linear.bias, -1.5)  # about one condition in six is listed

    def forward(self, evidence: Tensor, demographics: Tensor, probabilities: Tensor) -> Tensor:
        """Logits [N, C]."""
        who = torch.index_select(self.who, 0, demographics)
        likely = torch.log(torch.clamp(probabilities, min=_LEAST)) / 5
        wide = torch.cat([torch.relu(evidence), torch.relu(-evidence), who, likely, probabilities], dim=1)
        logits: Tensor = self.linear(wide) + self.deep(wide)
        return logits


class ListingScorer(nn.Module):
    """What is exported for the benchmark: the scorer's outputs, `listed` [N, C] and the `differential` [N, C]."""

    outputs = (*OUTPUTS, "listed", "differential")

    def __init__(self, scorer: SymptomScorer, head: ListHead) -> None:
        super().__init__()
        self.scorer, self.head = scorer, head

    @property
    def network(self) -> SymptomNetwork:
        """The scorer's network."""
        return self.scorer.network

    def forward(self, evidence: Tensor, demographics: Tensor, log_shift: Tensor) -> tuple[Tensor, ...]:
        """The scorer's outputs, the probability of being listed, and the list as shares that sum to 1."""
        found = self.scorer(evidence, demographics, log_shift)
        listed = torch.sigmoid(self.head(evidence, demographics, found[0]))
        return *found, listed, differential_of(listed)


def differential_of(listed: Tensor) -> Tensor:
    """The list as shares, [N, C]: in proportion to being listed from LISTED_FROM on, else 0; the likeliest is always on it."""
    least = torch.clamp(listed.amax(dim=1, keepdim=True), max=LISTED_FROM)
    kept = torch.where(listed >= least, listed, torch.zeros_like(listed))
    return kept / kept.sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class ListPatients:
    """Patients with lists: the tables, the share of the draws that is each one's, and the files' checksums by name."""

    tables: tuple[PatientTable, ...]
    shares: tuple[float, ...]
    checksums: dict[str, str]


def output_specs(conditions: int) -> tuple[TensorSpec, ...]:
    """What the contract says of the head's two outputs."""
    return (
        TensorSpec(
            name="listed",
            dtype="float32",
            shape=("n", conditions),
            meaning="probability that the release's rule engine lists each condition at more than 1 %",
        ),
        TensorSpec(
            name="differential",
            dtype="float32",
            shape=("n", conditions),
            meaning="the listed conditions' shares, 0 for the others; sums to 1. What the engine would list, not how probable a condition is",
        ),
    )


def with_list_contract(contract: Contract, patients: ListPatients) -> Contract:
    """The contract with the head's outputs and the patients that it learned from."""
    sources = tuple(
        DataSource(name=f"DDXPlus {name}, {LISTS}", licence="CC BY 4.0", sha256=checksum, citation=CITATION)
        for name, checksum in patients.checksums.items()
    )
    return contract.model_copy(
        update={
            "outputs": (*contract.outputs, *output_specs(len(contract.labels))),
            "data": (*contract.data, *sources),
            "limits": (*contract.limits, LIST_LIMIT),
        }
    )


def read_lists(folder: Path, knowledge: Knowledge) -> ListPatients | None:
    """The patients in `folder` whose lists may be learned from; None where there is none."""
    tables, shares, checksums = [], [], {}
    for name, share in LIST_FILES.items():
        if not (folder / name).is_file():
            continue
        table = read_patients(folder / name, knowledge.slots, knowledge.labels, knowledge.evidences)
        rows = (table.differential.sum(axis=1) > 0) & ~(held_out(len(table.condition)) & (name == TEST_FILE))
        if rows.any():
            tables.append(table.rows(np.flatnonzero(rows)))
            shares.append(share)
            checksums[name] = file_sha256(folder / name)
    return ListPatients(tuple(tables), tuple(shares), checksums) if tables else None


def held_out(n: int) -> NDArray[np.bool_]:
    """Which of the n patients of the test file no list was learned from."""
    return np.arange(n) % HELD_OUT_EVERY == 0


def with_lists(scorer: SymptomScorer, patients: ListPatients, knowledge: Knowledge, args: argparse.Namespace) -> ListingScorer:
    """The scorer with a list head learned from `patients`."""
    steps = SMOKE_STEPS if args.smoke else STEPS
    head = fit_list_head(scorer, patients, knowledge, steps, args.seed, quiet=args.quiet)
    return ListingScorer(scorer, head).eval()


def fit_list_head(scorer: SymptomScorer, patients: ListPatients, knowledge: Knowledge, steps: int, seed: int, *, quiet: bool) -> ListHead:
    """Learn who is listed from patients of whom as much is known as questions leave: from two answers to all of them."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    head = ListHead(len(knowledge.slots), len(knowledge.labels))
    optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    full, first, who, listed, chances = _together(patients)
    codes = np.unique([slot.code for slot in knowledge.slots], return_inverse=True)[1]
    shift = torch.zeros(BATCH, len(knowledge.labels))
    with Progress(console=Console(stderr=True), disable=quiet) as progress:
        bar = progress.add_task("list head", total=steps)
        for _ in range(steps):
            rows = random.choice(len(full), BATCH, p=chances)
            evidence = torch.from_numpy(_as_asked(full[rows], first[rows], codes, random))
            demographics = torch.from_numpy(who[rows])
            with torch.no_grad():
                probabilities = torch.softmax(scorer.network(evidence, demographics, shift) / scorer.temperature, dim=1)
            logits = head(evidence, demographics, probabilities)
            loss = (
                nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(listed[rows]), reduction="none").sum(dim=1).mean()
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            progress.update(bar, advance=1, description=f"list head, loss {loss.item():.2f}")
    return head.eval()


def _together(patients: ListPatients) -> tuple[Array, Array, Array, Array, Array]:
    """Evidence, first complaints, who, lists, and each patient's chance to be drawn; common conditions weigh less."""
    chances = []
    for table, share in zip(patients.tables, patients.shares, strict=True):
        weight = 1 / np.sqrt(np.bincount(table.condition)[table.condition])
        chances.append(share * weight / weight.sum())
    chance = np.concatenate(chances)
    full, first, who, differential = (
        np.concatenate([getattr(table, name) for table in patients.tables]) for name in ("full", "initial", "demographics", "differential")
    )
    return full, first, who, (differential > RELEVANT_SHARE).astype(np.float32), chance / chance.sum()


def _as_asked(full: Array, first: Array, codes: Array, random: np.random.Generator) -> NDArray[np.float32]:
    """A share of the answers known: of what is present more than of what is absent, as good questions find it; of a fifth all."""
    n, questions = len(full), codes.max() + 1
    share = random.random((n, 1)) ** 2
    share[random.random(n) < 0.2] = 1.0
    is_present = np.zeros((n, questions), dtype=bool)
    rows, slots = np.nonzero(full > 0)
    is_present[rows, codes[slots]] = True
    known = random.random((n, questions)) < np.where(is_present, np.sqrt(share), share)
    seen: NDArray[np.float32] = np.where(known[:, codes] | (first != 0), full, 0).astype(np.float32)
    return seen
