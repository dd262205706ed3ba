"""Who calls: a subject, a role and, for a clinic, its name. It knows neither tokens nor what a role may do."""

from __future__ import annotations

import getpass
import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

Role = Literal["clinic", "clinician", "data_scientist", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

# What identity providers use for ids (UUIDs, `auth0|…`, URNs, addresses), and nothing that could break an audit row or a log line.
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@|+=/~-]{0,127}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Who:
    """A verified caller. `clinic` is set for the role clinic and None for every other."""

    subject: str
    role: Role
    clinic: str | None = None


def operator() -> Who:
    """Whoever runs a command on the service's own machine, by the name of their account there."""
    return Who(f"os:{re.sub(r'[^A-Za-z0-9._-]', '_', getpass.getuser())}", "admin")


def is_plain_name(value: object) -> bool:
    """Whether this is a text that may stand as a subject or a clinic: 1 to 128 characters of ASCII."""
    return isinstance(value, str) and _PLAIN_NAME.fullmatch(value) is not None
