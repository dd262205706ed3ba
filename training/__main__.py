"""`python -m training`: the command `nabz-train`, for torchrun, which starts modules."""

from training.cli import entry

entry()
