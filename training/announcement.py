"""What a trainer says before anything runs: settings and their hash, the data card, what will be written, and how long it takes.

Words go to stderr; the record goes into the run's folder, unless this is a dry run. It trains nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from inference.bundle import SIGNATURE_FILE
from training.data_card import FILE, DataCard
from training.live_table import duration
from training.settings import RunOptions, Settings

SETTINGS_FILE = "settings.json"
BUNDLE_FILES = ("model.onnx", "contract.json", "metrics.json", "card.md", SIGNATURE_FILE)


@dataclass(frozen=True)
class Announcement:
    """A run that is about to begin. `out` is the bundle's folder, `kept` names what training keeps in the run's folder.

    `seconds` is how long fitting takes, estimated in the way that `estimated_by` says; None is not known.
    """

    settings: Settings
    card: DataCard
    options: RunOptions
    out: Path
    kept: tuple[str, ...]
    seconds: float | None = None
    estimated_by: str = ""

    @property
    def folder(self) -> Path:
        """The run's own folder."""
        return self.settings.folder(self.options.runs)

    def make(self, *, quiet: bool, console: Console | None = None) -> Path:
        """Say it (in a dry run also with `quiet`), record it unless it is a dry run, and return the run's folder."""
        if not quiet or self.options.dry_run:
            self._show(console or Console(stderr=True))
        if not self.options.dry_run:
            self.card.write(self.folder)
            (self.folder / SETTINGS_FILE).write_text(self.settings.as_json() + "\n", encoding="utf-8")
        return self.folder

    def _show(self, console: Console) -> None:
        settings = self.settings
        console.print(f"settings {settings.sha256}", highlight=False, soft_wrap=True)
        table = Table(show_header=False)
        shown = {name: value for name, value in settings.parameters().items() if name != "settings_sha256"}
        shown["code"] = settings.code[:16]
        shown["libraries"] = ", ".join(f"{name} {number}" for name, number in settings.libraries.items())
        for name, value in shown.items():
            table.add_row(name, str(value))
        console.print(table)
        self.card.show(console)
        if self.options.trials:
            console.print(
                f"first a search of {self.options.trials} recipes, which fits as many times at most; its study is kept in {self.options.runs}"
            )
        verb = "would write" if self.options.dry_run else "writes"
        files = [str(self.folder / name) for name in (SETTINGS_FILE, FILE, *self.kept)]
        files += [f"{self.out}/ with {', '.join(BUNDLE_FILES)}", "a run in MLflow's store"]
        console.print(f"{verb}: " + "\n  ".join(["", *files]), highlight=False, markup=False, soft_wrap=True)
        if self.seconds is not None:
            console.print(
                f"fitting takes about {duration(self.seconds)} ({self.estimated_by}); measuring and exporting come on top",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
