"""The case number: what a slip shows, a patient says on the telephone and a list finds. Knows no case.

Eight characters of Crockford's base 32 (https://www.crockford.com/base32.html), written XXXX-XXXX: 40 random bits, without the letters
I, L, O and U, which are misread. The phone that takes a case down makes its number, so that a slip can be printed without a connection.
"""

from __future__ import annotations

import secrets
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH: Final = 8
_MISREAD: Final = str.maketrans("ILO", "110")


def new_case_number() -> str:
    """A number that nobody has."""
    return written("".join(secrets.choice(ALPHABET) for _ in range(LENGTH)))


def read_case_number(text: str) -> str | None:
    """The number that was typed, however it was; None for what can be none."""
    plain = "".join(letter for letter in text.upper() if letter.isalnum()).translate(_MISREAD)
    return written(plain) if len(plain) == LENGTH and set(plain) <= set(ALPHABET) else None


def written(plain: str) -> str:
    """As it is shown."""
    return f"{plain[: LENGTH // 2]}-{plain[LENGTH // 2 :]}"
