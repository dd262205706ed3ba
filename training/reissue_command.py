"""`nabz-train reissue BUNDLE`: the same weights under a new version, with today's card and a reference for drift."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from inference.command_line import add_command

DONE = 0


def add_reissue(commands: Any) -> None:
    """Add `reissue` to the parser of `nabz-train`."""
    text = "Write a bundle's weights under a new version, with today's card and a reference for drift; train nothing, change no threshold."
    command = add_command(commands, "reissue", text, "nabz-train reissue models/symptoms/1.1.1 --version 1.1.2 --data data/catalogue")
    command.add_argument("bundle", type=Path, metavar="BUNDLE")
    command.add_argument("--version", required=True, help="the new bundle's version; it is written beside the old one")
    command.add_argument(
        "--data", type=Path, default=None,
        help="what the reference is made from: the catalogue (symptoms), the folder of data sets (acuity) or a photo set (default: no reference)",
    )  # fmt: skip
    command.set_defaults(run=_reissue)


def _reissue(args: argparse.Namespace) -> int:
    from training.reissue import reissue

    print(reissue(args.bundle, args.version, args.data))
    return DONE
