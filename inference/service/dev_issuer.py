"""A token issuer for demos: an Ed25519 key in a file, and `POST /dev/token`, which answers this machine only.

It is built only when the settings ask for it (`NABZ_DEV_ISSUER`). It knows no users and no passwords: whoever can
reach it from this machine may be anybody. That is why it never runs beside a real issuer.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import secrets
import time
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inference.errors import MalformedError, NotAllowedError, PolicyError, UnprocessableError
from inference.service.callers import ROLES, is_plain_name
from inference.service.settings import Settings
from inference.service.signing_keys import KeySet

DEV_ISSUER: Final = "nabz-dev"
TOKEN_SECONDS: Final = 8 * 3600


class DevIssuer:
    """Mints tokens that this service's verifier trusts when `dev_issuer` is on."""

    def __init__(self, settings: Settings) -> None:
        if not settings.dev_issuer:
            raise PolicyError("the development issuer is off: set NABZ_DEV_ISSUER=true to use it, on a demo machine only")
        self._key = _key_in(settings.data_dir / "dev_issuer.pem")
        self._audience = settings.auth_audience
        self._role_claim = settings.auth_role_claim
        self._clinic_claim = settings.auth_clinic_claim
        public = self._key.public_key()
        raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self._key_id = hashlib.sha256(raw).hexdigest()[:16]
        entry = {**OKPAlgorithm.to_jwk(public, as_dict=True), "kid": self._key_id, "alg": "EdDSA", "use": "sig"}
        self.keys = KeySet.parse(json.dumps({"keys": [entry]}).encode())

    def mint(self, subject: str, role: str, clinic: str | None = None, seconds: int = TOKEN_SECONDS) -> str:
        """A signed token. Raises UnprocessableError for a role, subject or clinic that the service would not take."""
        if role not in ROLES:
            raise UnprocessableError(f"there is no such role: choose one of {', '.join(ROLES)}")
        if not is_plain_name(subject):
            raise UnprocessableError("`subject` must be 1 to 128 letters, digits or . _ : @ | + = / ~ - (ASCII)")
        if (role == "clinic" or clinic is not None) and not is_plain_name(clinic):
            raise UnprocessableError("the role clinic needs `clinic`: 1 to 128 letters, digits or . _ : @ | + = / ~ - (ASCII)")
        now = int(time.time())
        claims: dict[str, Any] = {"iss": DEV_ISSUER, "aud": self._audience, "sub": subject, "iat": now, "exp": now + seconds}
        claims["jti"] = secrets.token_hex(8)
        claims[self._role_claim] = role
        if clinic is not None:
            claims[self._clinic_claim] = clinic
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": self._key_id})

    def route(self) -> Route:
        """`POST /dev/token` with role, subject and clinic, as a form or as JSON."""
        return Route("/dev/token", self._answer, methods=["POST"], include_in_schema=False)

    async def _answer(self, request: Request) -> Response:
        if not from_this_machine(request):
            raise NotAllowedError("development tokens are for this machine only: ask for one at http://127.0.0.1, without a proxy")
        given = await _fields(request)
        role = given.get("role", "")
        token = self.mint(given.get("subject") or f"dev-{role}", role, given.get("clinic") or None)
        return JSONResponse({"access_token": token, "token_type": "Bearer", "expires_in": TOKEN_SECONDS})


def from_this_machine(request: Request) -> bool:
    """Whether a client on this machine asks, by a name of this machine.

    The Host check keeps a web page in the demo's browser from reaching us under a name of its own (DNS rebinding);
    a forwarded request comes from somebody else by definition.
    """
    forwarded = any(name in request.headers for name in ("forwarded", "x-forwarded-for", "x-real-ip"))
    named_here = request.url.hostname == "localhost" or _is_loopback(request.url.hostname)
    return not forwarded and named_here and request.client is not None and _is_loopback(request.client.host)


def _is_loopback(address: str | None) -> bool:
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False


async def _fields(request: Request) -> dict[str, str]:
    """The form's or the JSON object's texts."""
    if request.headers.get("content-type", "").startswith("application/json"):
        try:
            given = json.loads((await request.body()).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise MalformedError("the body is not JSON in UTF-8: send an object with role, subject and clinic") from error
        fields = dict(given) if isinstance(given, dict) else {}
    else:
        fields = dict(await request.form())
    return {name: value for name, value in fields.items() if isinstance(value, str)}


def _key_in(path: Path) -> Ed25519PrivateKey:
    """The key of this file, which is made (mode 0600) when it is missing."""
    try:
        if not path.exists():
            _create(path)
        if path.stat().st_mode & 0o077:
            raise PolicyError(f"{path} can be read by others: `chmod 600` it, or delete it to get a new key")
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise PolicyError(f"{path} cannot be used: {error.strerror}. The development issuer keeps its key there") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PolicyError(f"{path} is not a private key in PEM: delete it to get a new one") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise PolicyError(f"{path} is not an Ed25519 key: delete it to get a new one")
    return key


def _create(path: Path) -> None:
    """Write a new key beside `path` and link it there: of two processes that start at once, one wins and both read it."""
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    try:
        path.hardlink_to(beside)
    except FileExistsError:
        pass  # the other process was first: its key is the key
    finally:
        beside.unlink()
