"""The service's commands of `nabz`: serve, audit, backup, restore, keys, export. Prints and returns exit statuses.

Imports the service's libraries only when a command runs, so that `nabz rank` starts fast and needs no `service` extra.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.command_line import add_command

if TYPE_CHECKING:
    from inference.service.settings import Settings

_DONE, _FOUND = 0, 1


def add_service_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the service's commands to the parser of `nabz`."""
    serve = add_command(
        commands, "serve", "Serve the triage API and the worklist over HTTP.",
        "nabz serve --demo\nsettings: every NABZ_… variable of the README, or a .env file",
    )  # fmt: skip
    serve.add_argument("--host", metavar="ADDRESS", help="address to listen on (default: NABZ_HOST, or 127.0.0.1)")
    serve.add_argument("--port", type=int, metavar="PORT", help="port to listen on (default: NABZ_PORT, or 8000)")
    serve.add_argument("--demo", action="store_true", help="issue tokens at /dev/token and load the sample referrals into an empty queue")
    serve.add_argument("--settings", action="store_true", help="list the settings and end")
    serve.set_defaults(run=_serve)
    audit = add_command(commands, "audit", "Prove that the audit trail is whole, or name its first bad row.", "nabz audit verify")
    audit.add_argument("what", choices=("verify",))
    audit.set_defaults(run=_audit)
    backup = add_command(commands, "backup", "Copy database and sealed photos while the service runs.", "nabz backup /media/usb/2026-11-22")
    backup.add_argument("folder", type=Path, metavar="DIR", help="a new folder")
    backup.set_defaults(run=_backup)
    restore = add_command(commands, "restore", "Put a backup in place; nothing is overwritten.", "nabz restore /media/usb/2026-11-22")
    restore.add_argument("folder", type=Path, metavar="DIR", help="the backup's folder")
    restore.set_defaults(run=_restore)
    keys = add_command(
        commands, "keys", "rotate: encrypt everything again with a new key. forget: drop the keys that nothing needs any more.",
        "nabz keys rotate; some minutes later: nabz keys forget",
    )  # fmt: skip
    keys.add_argument("what", choices=("rotate", "forget"))
    keys.set_defaults(run=_keys)
    _add_export(commands)


def _add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    export = add_command(
        commands, "export", "Write completed referrals, de-identified, as labelled cases to train on.",
        "nabz export /media/usb/2026-q3 --since 2026-07-01 --until 2026-10-01",
    )  # fmt: skip
    export.add_argument("folder", type=Path, metavar="DIR", help="a new folder")
    export.add_argument("--since", type=_day, metavar="DAY", help="completed on this day or later (UTC), such as 2026-07-01")
    export.add_argument("--until", type=_day, metavar="DAY", help="completed before this day (UTC)")
    export.add_argument("--with-complaints", action="store_true", help="with the patients' own words, which can name anybody")
    export.add_argument("--with-photos", action="store_true", help="with the photos, without metadata; a face still shows who it is")
    export.set_defaults(run=_export)


def _settings(**given: Any) -> Settings:
    from inference.service.settings import load_settings

    return load_settings(**{name: value for name, value in given.items() if value is not None})


def _serve(args: argparse.Namespace) -> int:
    from inference.service.serving import run_server

    if args.settings:
        return _print_settings()
    settings = _settings(host=args.host, port=args.port, dev_issuer=True if args.demo else None)
    run_server(settings, _say, demo=args.demo)
    return _DONE


def _print_settings() -> int:
    from inference.service.settings import Settings

    for name, field in Settings.model_fields.items():
        print(f"NABZ_{name.upper()}\n    {field.description}; default {field.default}")
    return _DONE


def _audit(_: argparse.Namespace) -> int:
    from inference.service.audit import verify_in_pages
    from inference.service.database import make_engine, read
    from inference.service.vault import Vault

    settings = _settings()
    key = Vault.open(settings.keys).mac_key("audit")
    engine = make_engine(settings.database_url)
    check = verify_in_pages(partial(read, engine), key, settings.data_dir / "audit.anchors")
    if check.warning:
        _say(f"warning: {check.warning}")
    if check.first_bad is None:
        print(f"the audit trail is whole: {check.rows} rows")
        return _DONE
    print(f"the audit trail is not whole: {check.problem}; {check.rows} rows before it are as they were written")
    return _FOUND


def _backup(args: argparse.Namespace) -> int:
    from inference.service.backup import backup

    manifest = backup(_settings(), args.folder, _say)
    print(f"backed up: {manifest}; the keys are not in it, keep a copy of them elsewhere")
    return _DONE


def _restore(args: argparse.Namespace) -> int:
    from inference.service.backup import restore

    restore(_settings(), args.folder, _say)
    print("restored: put the key file in its place, then run `nabz audit verify`")
    return _DONE


def _keys(args: argparse.Namespace) -> int:
    from inference.service.rotation import forget_keys, rotate_keys

    if args.what == "forget":
        print(f"{forget_keys(_settings())} old keys are forgotten: older backups can be read only with a copy of the key file from before")
    else:
        print(f"{rotate_keys(_settings(), _say)} sealed values have a new key now; a running service uses it too")
    return _DONE


def _export(args: argparse.Namespace) -> int:
    from inference.service.export import Wanted, export_referrals

    wanted = Wanted(args.since, args.until, args.with_complaints, args.with_photos)
    for is_wanted, what in ((args.with_complaints, "complaints"), (args.with_photos, "photos")):
        if is_wanted:
            _say(f"WARNING: {what} can tell who the patient is; read the data card's privacy part before anybody else gets this folder")
    card = export_referrals(_settings(), args.folder, wanted, datetime.now(UTC), _say)
    sources = ", ".join(f"{sum(levels.values())} {source}" for source, levels in card["levels_by_source"].items())
    _say(
        f"levels by source: {sources}; without district {card['privacy']['lost_their_district']} for fewer than {card['privacy']['k']} alike"
    )
    print(f"exported: {card['n']} referrals to {args.folder}; next: nabz-train data check {args.folder}")
    return _DONE


def _day(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no day: write it as 2026-07-01") from error


def _say(words: str) -> None:
    print(f"nabz: {words}", file=sys.stderr)
