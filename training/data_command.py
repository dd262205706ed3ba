"""`nabz-train data …`: check the catalogue or own data, split it, make cases and patients of it. Prints and returns exit statuses."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from inference.command_line import add_command
from training.catalogue import CATALOGUE

_DONE, _PROBLEMS = 0, 1


def add_data(commands: Any) -> None:
    """Add `data` and its verbs to the command's parser."""
    data = add_command(commands, "data", "Check, split, generate or convert data.", "nabz-train data check")
    verbs = data.add_subparsers(required=True, metavar="VERB")
    _add_check(verbs)
    _add_split(verbs)
    _add_generate(verbs)
    _add_cases(verbs)
    _add_patients(verbs)


def _add_check(verbs: Any) -> None:
    check = add_command(
        verbs,
        "check",
        "With MYDATA: explain what is wrong with your own data, row by row and as a whole (docs/own_data.md). "
        "Without: prove the catalogue consistent and the public data sets' checksums right.",
        "nabz-train data check data/sample/referrals.jsonl",
    )
    check.add_argument(
        "mydata", type=Path, nargs="?", metavar="MYDATA", help="a file or folder to train on, or one with train/ and held_out/"
    )
    check.add_argument("--json", action="store_true", help="print the whole document as JSON (default: tables)")
    check.add_argument("--html", type=Path, metavar="FILE", help="also write one HTML page with plots")
    check.add_argument("--threads", type=int, default=2, help="threads that read images (default 2)")
    check.add_argument("--catalogue", type=Path, default=CATALOGUE)
    check.add_argument("--data", type=Path, default=None, help="the folder of public data sets: also check those that are there")
    check.set_defaults(run=_check)


def _add_split(verbs: Any) -> None:
    split = add_command(
        verbs, "split", "Split your own data by patient (lesion, case) into train/ and held_out/, with near-duplicates on one side.",
        "nabz-train data split data/sample/referrals.jsonl --out runs/split",
    )  # fmt: skip
    split.add_argument("mydata", type=Path, metavar="MYDATA")
    split.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    split.add_argument("--held-out", type=float, default=0.2, metavar="SHARE", help="the share to hold out (default 0.2)")
    split.add_argument("--seed", type=int, default=0)
    split.add_argument("--threads", type=int, default=2, help="threads that read images (default 2)")
    split.set_defaults(run=_split)


def _add_generate(verbs: Any) -> None:
    generate = add_command(
        verbs, "generate", "Draw synthetic cases from the catalogue: vitals, season, province, missing answers, complaint text.",
        "nabz-train data generate --n 1000 --out runs/cases.jsonl",
    )  # fmt: skip
    generate.add_argument("--catalogue", type=Path, default=CATALOGUE)
    generate.add_argument("--n", type=int, default=1000)
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument(
        "--out",
        type=Path,
        required=True,
        help=".jsonl: cases; .parquet: coded cases without words; .csv: patients in DDXPlus format; with --labels a folder",
    )
    generate.add_argument("--labels", action="store_true", help="labelled cases, with the level and the condition that were drawn")
    generate.set_defaults(run=_generate)


def _add_cases(verbs: Any) -> None:
    cases = add_command(
        verbs, "cases", "Turn public visits or photos into a case file for `nabz rank`, without their labels.",
        "nabz-train data cases ktas --data ../shared/data --out runs/ktas.jsonl",
    )  # fmt: skip
    cases.add_argument("source", choices=("ktas", "pad_ufes_20"))
    cases.add_argument("--data", type=Path, required=True, help="the folder of data sets")
    cases.add_argument("--out", type=Path, required=True, help="a .jsonl file")
    cases.set_defaults(run=_cases)


def _add_patients(verbs: Any) -> None:
    patients = add_command(
        verbs, "patients", "Turn labelled cases with a confirmed condition into a folder in DDXPlus format, for nabz-train symptoms --data.",
        "nabz-train data patients runs/split/train --out runs/patients",
    )  # fmt: skip
    patients.add_argument("cases", type=Path, metavar="CASES", help="labelled cases, or a folder with cases.jsonl")
    patients.add_argument("--catalogue", type=Path, default=CATALOGUE)
    patients.add_argument("--out", type=Path, required=True, metavar="DIR")
    patients.add_argument("--least", type=int, default=10, metavar="N", help="leave out conditions with fewer confirmed cases (default 10)")
    patients.set_defaults(run=_patients)


def _check(args: argparse.Namespace) -> int:
    if args.mydata is None:
        return _check_catalogue(args)
    from rich.console import Console

    from training.own_data_report import check_own_data, print_report, write_page

    report = check_own_data(args.mydata, args.threads)
    if args.html is not None:
        write_page(report, args.html)
        print(f"nabz-train: wrote {args.html}", file=sys.stderr)
    if args.json:
        print(json.dumps(report, ensure_ascii=False, allow_nan=False))
    else:
        print_report(report, Console())
    return _PROBLEMS if report["status"] == "problems" else _DONE


def _check_catalogue(args: argparse.Namespace) -> int:
    from training.catalogue import check_catalogue, load_catalogue
    from training.sources import check_sources

    catalogue = load_catalogue(args.catalogue)
    problems = check_catalogue(catalogue)
    if args.data is not None:
        problems += check_sources(args.catalogue.parent / "sources.toml", args.data)
    for problem in problems:
        print(problem)
    print(f"{len(catalogue.conditions)} conditions, {len(catalogue.findings)} findings, {len(problems)} problems", file=sys.stderr)
    return _PROBLEMS if problems else _DONE


def _split(args: argparse.Namespace) -> int:
    from training.own_data_split import split_own_data

    record = split_own_data(args.mydata, args.out, args.held_out, args.seed, args.threads)
    for side, n in record["rows"].items():
        print(f"{args.out / side}: {n} rows, {record['groups'][side]} groups")
    print(f"{record['joined']} groups were joined with another, because rows or photos are the same", file=sys.stderr)
    return _DONE


def _generate(args: argparse.Namespace) -> int:
    if args.labels:
        from training.labelled_sample import write_labelled_sample

        write_labelled_sample(args.out, args.catalogue, args.n, args.seed)
    else:
        from training.synthetic import write_synthetic

        write_synthetic(args.catalogue, args.n, args.seed, args.out)
    print(f"wrote {args.n} synthetic cases to {args.out}", file=sys.stderr)
    return _DONE


def _cases(args: argparse.Namespace) -> int:
    from training.exchange import write_cases

    print(f"wrote {write_cases(args.source, args.data, args.out)} cases to {args.out}", file=sys.stderr)
    return _DONE


def _patients(args: argparse.Namespace) -> int:
    from training.labelled_patients import write_patients

    kept, left_out = write_patients(args.cases, args.catalogue, args.out, args.least)
    for condition, n in kept.most_common():
        print(f"{condition} {n}")
    print(f"left out, fewer than {args.least}: {sum(left_out.values())} cases of {len(left_out)} conditions", file=sys.stderr)
    return _DONE
