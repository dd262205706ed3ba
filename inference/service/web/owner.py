"""Whose drafts are on a phone: a name for a caller and their clinic that says nothing of either. Phones are shared; drafts are not."""

from __future__ import annotations

import hashlib
import hmac

from inference.service.callers import Who
from inference.service.parts import Parts


def owner_of(parts: Parts, who: Who) -> str:
    """The same for the same caller as long as the service's keys live."""
    return hmac.digest(parts.vault.mac_key("drafts"), f"{who.clinic}\0{who.subject}".encode(), hashlib.sha256).hex()[:16]
