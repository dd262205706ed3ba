"""One assessment in words for a terminal: red flags, level and why, for and against, differential, what is unknown.

Formats; decides nothing.
"""

from __future__ import annotations

from rich.console import Console

from inference.assessment import Assessment, Reason
from inference.case import Case
from inference.worklist import duration


def print_assessment(assessment: Assessment, case: Case, console: Console) -> None:
    """Print one case's assessment, most important first."""
    line = _Lines(console)
    line.title(
        f"{assessment.case_id}: level {assessment.level} {assessment.level_name}, to be seen within {duration(assessment.wait_cap_minutes)}"
    )
    line.item("scored by", assessment.scored_by)
    line.items("red flags", assessment.red_flags)
    line.items("why", [reason.text for reason in assessment.reasons if reason.kind in ("rule", "referrer", "model", "policy")])
    if assessment.news2:
        bounds = assessment.news2
        total = f"{bounds['lower']}" if bounds["lower"] == bounds["upper"] else f"{bounds['lower']} to {bounds['upper']}"
        line.item("NEWS2", total)
    line.items("could change it", [reason.text for reason in assessment.reasons if reason.kind == "could_change"])
    if assessment.emergency_probability is not None:
        line.item("emergency probability", f"{100 * assessment.emergency_probability:.0f} %")
    line.items(
        "differential",
        [f"{100 * one.probability:3.0f} %  {one.name_en} ({one.icd10}), severity {one.severity}" for one in assessment.differential],
    )
    if assessment.prediction_set:
        doubt = ", but none of them fits these findings well" if assessment.is_outside_scope else ""
        line.item("90 % set", f"{len(assessment.prediction_set)} conditions{doubt}")
    line.items("findings for", _texts(assessment, "for"))
    line.items("findings against", _texts(assessment, "against"))
    if assessment.lesion:
        line.item(
            "photo",
            f"{assessment.lesion.photo}: {assessment.lesion.label}, malignant {100 * assessment.lesion.malignancy_probability:.0f} %",
        )
    line.item("specialty", assessment.specialty)
    line.items("not understood", assessment.not_understood if case.complaint else ())
    line.items("for review", assessment.review.why)
    line.item(
        "bundles",
        ", ".join(f"{task} {name.version} ({name.sha256[:12]})" for task, name in assessment.provenance.bundles.items()) or "none",
    )
    console.print(assessment.notice, style="italic", highlight=False)


def _texts(assessment: Assessment, direction: str) -> list[str]:
    chosen: list[Reason] = [r for r in assessment.reasons if r.kind == "finding" and r.direction == direction]
    return [reason.text for reason in chosen]


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console

    def title(self, text: str) -> None:
        self._console.print(text, style="bold", markup=False, highlight=False)

    def item(self, name: str, text: str) -> None:
        self._console.print(f"{name}: {text}", markup=False, highlight=False)

    def items(self, name: str, texts: list[str] | tuple[str, ...]) -> None:
        if texts:
            self._console.print(f"{name}:", markup=False, highlight=False)
            for text in texts:
                self._console.print(f"  - {text}", markup=False, highlight=False)
