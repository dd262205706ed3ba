"""What a network is fitted on: the device, its arithmetic, and how far the device can repeat itself.

Knows no network. bfloat16 and compilation pay on a GPU; on a CPU they are off.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Hardware:
    """A device and what it is used for: bfloat16 autocast of the forward pass, and a compiled network."""

    device: torch.device
    bfloat16: bool = False
    compiled: bool = False

    @property
    def is_gpu(self) -> bool:
        """Whether this is a GPU."""
        return self.device.type == "cuda"

    def arithmetic(self) -> AbstractContextManager[Any]:
        """The precision of the forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

    def place(self, values: Tensor) -> Tensor:
        """A batch [N, C, H, W] where the network is, in the memory layout that is fastest."""
        return values.to(self.device).contiguous(memory_format=torch.channels_last)

    def wait(self) -> None:
        """Return when the device has done what it was given: a GPU works on after a call returns, and a clock must not miss that."""
        if self.is_gpu:
            torch.cuda.synchronize(self.device)


CPU = Hardware(torch.device("cpu"))


def hardware(name: str, local_rank: int = 0) -> Hardware:
    """`cpu`, `cuda`, or `auto` for a GPU where there is one; of several GPUs the one with this process's number."""
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        return Hardware(torch.device("cuda", local_rank), bfloat16=True, compiled=True)
    return CPU


@contextmanager
def repeatable(machine: Hardware) -> Iterator[None]:
    """Have torch choose operations that give the same bits every time; put back what was set before at the end.

    A CPU has one for everything that is used here. On a GPU torch warns where it has none.
    """
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself with a fixed workspace only
    torch.use_deterministic_algorithms(True, warn_only=machine.is_gpu)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
