"""How every command of `nabz` and `nabz-train` is added to its parser: a sentence that says what it does, and an example that runs."""

from __future__ import annotations

import argparse
from typing import Any


def add_command(commands: Any, name: str, text: str, example: str) -> argparse.ArgumentParser:
    """A command of the parser's `commands`. `example` is shown behind its options; further lines of it stand as they are."""
    made: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text.replace("%", "%%"),  # argparse fills in the line of the list of commands, and not the description
        description=text,
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return made
