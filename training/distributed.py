"""Processes that train one network together, as torchrun starts them: who is who, and what they tell one another.

Every process draws its own part of each batch, the gradients are averaged, and all hold the same weights. The first one
alone writes, logs and exports. One process without torchrun is a world of one, for which nothing is set up. Knows no
task and no data; on several machines torchrun's own rendezvous finds them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from inference.errors import DataError


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's number `rank` of `world`, and its number `local` on its machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes, logs and exports."""
        return self.rank == 0

    def from_first(self, value: Any) -> Any:
        """The first process's `value`, in all of them; what the others bring is ignored."""
        if self.world == 1:
            return value
        from torch import distributed

        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def gathered(self, value: Any) -> list[Any]:
        """What all processes bring, in their order, in all of them."""
        if self.world == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values

    def mean(self, value: float) -> float:
        """The mean of what all processes bring."""
        return float(sum(self.gathered(value)) / self.world)

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.world > 1:
            from torch import distributed

            distributed.barrier()

    def shared(self, network: Any) -> Any:
        """The network such that a backward pass averages the gradients of all processes, which begin from the first's weights."""
        if self.world == 1:
            return network
        from torch.nn.parallel import DistributedDataParallel

        device = next(network.parameters()).device
        return DistributedDataParallel(network, device_ids=[device.index] if device.type == "cuda" else None)


ALONE = Ranks()


def ranks_of(environment: Mapping[str, str]) -> Ranks:
    """Who this process is by RANK, WORLD_SIZE and LOCAL_RANK, which torchrun sets; a world of one without them.

    Raises DataError when they are not three whole numbers that fit one another.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if not any(name in environment for name in names):
        return ALONE
    found = {name: environment.get(name, "") for name in names}
    try:
        ranks = Ranks(*(int(found[name]) for name in names))
    except ValueError:
        ranks = Ranks(-1)
    if not 0 <= ranks.local <= ranks.rank < ranks.world:
        said = ", ".join(f"{name}={value!r}" for name, value in found.items())
        raise DataError(f"the environment says {said}: expected what torchrun sets; start with torchrun, or unset all three")
    return ranks


def own_ranks() -> Ranks:
    """Who this process is."""
    return ranks_of(os.environ)


@contextmanager
def joined(device_type: str) -> Iterator[Ranks]:
    """Meet the other processes, by NCCL on GPUs (`cuda`) and by gloo on CPUs, and part at the end."""
    ranks = own_ranks()
    if ranks.world == 1:
        yield ranks
        return
    import torch
    from torch import distributed

    if device_type == "cuda":
        torch.cuda.set_device(ranks.local)
    distributed.init_process_group("nccl" if device_type == "cuda" else "gloo")
    try:
        yield ranks
        distributed.barrier()
    finally:
        distributed.destroy_process_group()
