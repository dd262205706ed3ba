"""`nabz-train data check MYDATA`: everything that is known of own data in one document, as a table, JSON or one HTML page.

The document's keys are stable. It holds ids, codes and counts, never a patient's words.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from rich.console import Console
from rich.table import Table

from training import own_data_checks as checks
from training.own_data import read_own_data
from training.own_data_leaks import compared_images, leaks
from training.own_data_schema import schema_problems

# Rows shown of each column, in a table and on the page; the JSON has all.
_IN_TABLE, _ON_PAGE = 3, 20
_SHOWN_COLUMNS = 25
_MARKS = {"problem": "[red]problem[/red]", "warning": "[yellow]warning[/yellow]"}


def check_own_data(path: Path, threads: int = 2) -> dict[str, Any]:
    """The document on the data in `path`. `status` is `clean` or `problems`; warnings alone are clean.

    Raises DataError when the data cannot be read or are of no known kind.
    """
    data = read_own_data(path)
    rows = schema_problems(data)
    data = data.without((one.file, one.row, one.column) for one in rows)
    pairs, unreadable = compared_images(data, threads)
    found = sorted([*unreadable, *leaks(data, pairs), *checks.balance(data)], key=lambda finding: finding.severity)  # problems first
    ids = data.ids
    is_spoilt = bool(rows) or any(finding.severity == "problem" for finding in found)
    return {
        "path": path.as_posix(),
        "kind": data.kind.name,
        "format": data.kind.words,
        "status": "problems" if is_spoilt else "clean",
        "counts": checks.counts(data),
        "classes": checks.classes(data),
        "findings": [finding.as_json() for finding in found],
        "rows": [problem.as_json() for problem in rows],
        "missing": checks.missingness(data),
        "subgroups": checks.subgroups(data),
        "near_duplicates": [
            {"first": ids[p.first], "second": ids[p.second], "bits": p.bits, "correlation": p.correlation, "turned": p.is_turned}
            for p in pairs
        ],
    }


def print_report(report: dict[str, Any], console: Console) -> None:
    """The document as tables, what must be done first."""
    counts = report["counts"]
    console.print(f"{report['path']}: {report['format']}", style="bold", markup=False)
    sides = ", ".join(f"{n} {side}" for side, n in counts["sides"].items())
    console.print(
        f"{counts['rows']} rows, {counts['groups']} patients, lesions or cases, {counts['images']} images; {sides}", highlight=False
    )
    _print_findings(report, console)
    _print_rows(report, console)
    _print_shares(report, console)
    words = {"clean": "nothing that spoils training was found", "problems": "correct what is marked problem, then check again"}
    console.print(f"{report['status']}: {words[report['status']]}", style="bold", highlight=False)


def _print_findings(report: dict[str, Any], console: Console) -> None:
    if not report["findings"]:
        return
    table = Table("", "what", "first ids", title="the data as a whole")
    for finding in report["findings"]:
        table.add_row(_MARKS[finding["severity"]], _plain(finding["says"]), _plain(", ".join(finding["ids"][:3])))
    console.print(table)


def _print_rows(report: dict[str, Any], console: Console) -> None:
    rows = shown_rows(report, _IN_TABLE)
    if not rows:
        return
    table = Table("file", "row", "id", "column", "found", "expected", "to do", title=f"{len(report['rows'])} rows that cannot be right")
    for one in rows:
        row = str(one["row"] or "")
        table.add_row(*map(_plain, (one["file"], row, one["case"], one["column"], one["found"], one["expected"], one["to_do"])))
    console.print(table)
    if len(rows) < len(report["rows"]):
        console.print(f"and {len(report['rows']) - len(rows)} more: --html FILE shows more, --json all of them", highlight=False)


def _print_shares(report: dict[str, Any], console: Console) -> None:
    classes = report["classes"]
    table = Table("class", "rows", "share", title="classes")
    for label, n in list(classes.items())[:_SHOWN_COLUMNS]:
        table.add_row(_plain(label or "none given"), str(n), f"{n / report['counts']['rows']:.1%}")
    console.print(table)
    if report["missing"]:
        named = [label for label in classes if label][:6]
        table = Table("column", "blank", *named, title="missing, over all rows and by class")
        for column, shares in list(report["missing"].items())[:_SHOWN_COLUMNS]:
            table.add_row(_plain(column), f"{shares['share']:.0%}", *(f"{shares['by_class'].get(label, 0):.0%}" for label in named))
        console.print(table)
    table = Table("subgroup", "", "rows", "serious class", "95 % interval", title="subgroups")
    for name, groups in report["subgroups"].items():
        for group, one in list(groups.items())[:_SHOWN_COLUMNS]:
            table.add_row(_plain(name), _plain(group), str(one["n"]), *_serious(one["serious"]))
    console.print(table)


def _serious(share: dict[str, Any] | None) -> tuple[str, str]:
    if share is None or share["value"] is None:
        return "", ""
    return f"{share['value']:.1%}", f"{share['low']:.1%} to {share['high']:.1%}, n {share['n']}"


def shown_rows(report: dict[str, Any], most: int) -> list[dict[str, Any]]:
    """The first `most` problems of each column of each file."""
    seen: Counter[tuple[str, str]] = Counter()
    shown = []
    for one in report["rows"]:
        seen[one["file"], one["column"]] += 1
        if seen[one["file"], one["column"]] <= most:
            shown.append(one)
    return shown


def write_page(report: dict[str, Any], path: Path) -> None:
    """The document as one HTML page that needs nothing beside it."""
    from training import own_data_plots

    figures = [
        ("classes", own_data_plots.class_balance(report)),
        ("missing by class", own_data_plots.missing_by_class(report)),
        ("subgroups", own_data_plots.subgroup_sizes(report)),
    ]
    environment = Environment(
        loader=PackageLoader("training", "."), autoescape=select_autoescape(default=True), undefined=StrictUndefined, trim_blocks=True
    )
    pictures = [(title, _png(figure)) for title, figure in figures if figure is not None]
    page = environment.get_template("own_data.html.jinja").render(report=report, rows=shown_rows(report, _ON_PAGE), pictures=pictures)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _png(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()


def _plain(text: str) -> str:
    """Text in which square brackets mean nothing."""
    return text.replace("[", r"\[")
