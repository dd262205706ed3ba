"""`nabz-train keys list|rotate`: which keys and hashes the bundles have, and a new signing key for all of them. Decides nothing."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from inference.command_line import add_command
from inference.errors import ExportError
from inference.models import SERVING_FILE, default_models_folder, live_versions
from training.signing import SignedBundle, rotate_signing_key, signed_bundles

_DONE, _PROBLEMS = 0, 1
_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")


def add_keys(commands: Any) -> None:
    """Add `keys` to the command's parser."""
    text = "list: each bundle with the key that signed it and its SHA-256. rotate: a new signing key for all bundles; older keys are trusted no more."
    keys = add_command(commands, "keys", text, "nabz-train keys list --json")
    keys.add_argument("what", choices=("list", "rotate"))
    keys.add_argument("--models", type=Path, metavar="DIR", help="the folder of bundles (default: NABZ_MODELS, or models/)")
    keys.add_argument(
        "--hashes",
        type=Path,
        metavar="FILE",
        help="rotate: sign only the bundles whose SHA-256 stands in this file, which was kept elsewhere: for a key that leaked",
    )
    keys.add_argument("--json", action="store_true", help="print JSON")
    keys.set_defaults(run=_keys)


def _keys(args: argparse.Namespace) -> int:
    models = args.models or default_models_folder()
    return _rotate(args, models) if args.what == "rotate" else _list(args, models)


def _list(args: argparse.Namespace, models: Path) -> int:
    found = signed_bundles(models)
    for one in found:
        print(json.dumps(_as_json(one)) if args.json else f"{_name(one)}  key {one.key_id}  {one.sha256 or one.problem}")
    return _PROBLEMS if any(one.problem for one in found) else _DONE


def _rotate(args: argparse.Namespace, models: Path) -> int:
    done = rotate_signing_key(models, _hashes(args.hashes), lambda words: print(words, file=sys.stderr))
    if args.json:
        signed, left = ([_as_json(one) for one in many] for many in (done.signed, done.left))
        print(json.dumps({"key_id": done.key_id, "signed": signed, "left": left, "retired": list(done.retired)}))
    else:
        print(
            f"key {done.key_id} signs now: {len(done.signed)} bundles have its signature, {len(done.retired)} older keys are trusted no more"
        )
    live = live_versions(models) if (models / SERVING_FILE).is_file() else {}
    for one in done.left:
        is_live = live.get(one.folder.parent.name) == one.folder.name
        print(
            f"nabz-train: {_name(one)} is trusted no more{' AND IS LIVE: roll back, or promote another' if is_live else ''}",
            file=sys.stderr,
        )
    return _PROBLEMS if done.left else _DONE


def _hashes(file: Path | None) -> frozenset[str] | None:
    """The hashes in a file of any form, as `nabz-train keys list` or `sha256sum` write it."""
    if file is None:
        return None
    try:
        found = frozenset(_SHA256.findall(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{file} cannot be read ({type(error).__name__}): write it with `nabz-train keys list`") from error
    if not found:
        raise ExportError(f"{file} holds no SHA-256: write it with `nabz-train keys list`, before a key leaks")
    return found


def _as_json(one: SignedBundle) -> dict[str, str | None]:
    return {
        "task": one.folder.parent.name,
        "version": one.folder.name,
        "key_id": one.key_id,
        "sha256": one.sha256 or None,
        "problem": one.problem,
    }


def _name(one: SignedBundle) -> str:
    return f"{one.folder.parent.name} {one.folder.name}"
