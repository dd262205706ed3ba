"""How fast lesion training is on a GPU, against a bare loop: the same network and batch, on photos that are noise made once.

What the bare loop lacks is what training adds: reading and augmenting photos, blending, averaging weights. It measures and
reports; it decides nothing.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.nn.functional import cross_entropy, one_hot

from training.hardware import Hardware
from training.lesion_fitting import Plan, begun_backbone, begun_network

_WARM_UP_STEPS, _TIMED_STEPS = 5, 30


def bare_steps_per_second(plan: Plan, clinical_size: int, classes: int, machine: Hardware, steps: int = _TIMED_STEPS) -> float:
    """Optimiser steps a second on one batch of noise that stays on the device; some steps before warm up and do not count."""
    network, frozen, branch = begun_network(begun_backbone(plan), plan, clinical_size, classes, machine)
    forward: Any = torch.compile(branch) if machine.compiled else branch
    learning = [weights for weights in network.parameters() if weights.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=1e-5)
    generator = torch.Generator().manual_seed(0)
    photos = machine.place(torch.randn(plan.batch_size, 3, plan.size, plan.size, generator=generator))
    wanted = one_hot(torch.arange(plan.batch_size) % classes, classes).to(machine.device, torch.float32)
    with torch.no_grad(), machine.arithmetic():
        seen = frozen(photos).float()
    began = 0.0
    for step in range(_WARM_UP_STEPS + steps):
        if step == _WARM_UP_STEPS:
            machine.wait()
            began = time.perf_counter()
        with machine.arithmetic():
            found = forward(seen)
        loss = cross_entropy(found.float(), wanted, label_smoothing=plan.label_smoothing)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    machine.wait()
    return steps / (time.perf_counter() - began)


def step_rate_report(steps_per_second: float | None, bare: float, machine: Hardware, plan: Plan) -> dict[str, Any]:
    """What the contract's `training` says: both rates and their ratio; empty where no step was timed, because the run was read
    back whole from its checkpoints."""
    if steps_per_second is None:
        return {}
    device = torch.cuda.get_device_name(machine.device) if machine.is_gpu else "cpu"
    rates = {"steps_per_second": round(steps_per_second, 3), "bare_steps_per_second": round(bare, 3)}
    return {"step_rate": {"device": device, "batch": plan.batch_size, **rates, "share_of_bare": round(steps_per_second / bare, 3)}}
