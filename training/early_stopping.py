"""When to stop: the best held-out loss so far, and how many more checks without a better one are waited for.

Knows no network; who keeps the best weights is told when there are new ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass
class EarlyStopping:
    """`patience` checks in a row may fail to be better than the best; 0 waits for ever, and the best still counts."""

    patience: int
    best: float = math.inf
    best_step: int = 0
    waited: int = 0

    def hear(self, step: int, held_out_loss: float) -> bool:
        """Take in a check's loss; whether it is the best so far. A loss that is not a number is never the best."""
        if held_out_loss < self.best:
            self.best, self.best_step, self.waited = held_out_loss, step, 0
            return True
        self.waited += 1
        return False

    @property
    def is_over(self) -> bool:
        """Whether patience has run out."""
        return self.patience > 0 and self.waited >= self.patience

    @property
    def left(self) -> int | None:
        """How many more checks without a better loss are waited for; None without a limit."""
        return self.patience - self.waited if self.patience else None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"best": self.best, "best_step": self.best_step, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.best, self.best_step, self.waited = float(state["best"]), int(state["best_step"]), int(state["waited"])
