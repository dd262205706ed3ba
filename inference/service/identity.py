"""Who calls, from the bearer token (RFC 6750, RFC 8725): verified with PyJWT, remembered until it expires.

It does not know what a role may do (access.py) nor where keys come from (signing_keys.py). No text here holds any part
of a token. A header's `jwk`, `jku`, `x5c` and `x5u` are never looked at: only the issuer's own keys count.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import jwt
from jwt import exceptions as refusals

from inference.errors import PolicyError, UnauthenticatedError
from inference.service.callers import ROLES, Role, Who, is_plain_name
from inference.service.dev_issuer import DEV_ISSUER, DevIssuer
from inference.service.settings import Settings
from inference.service.signing_keys import ALGORITHMS, FileKeys, FixedKeys, KeySource, UrlKeys

__all__ = ["ROLES", "Role", "TokenVerifier", "Who"]

LEEWAY_SECONDS: Final = 30  # clocks of an issuer and of a clinic's laptop
TOKEN_BYTES_LIMIT: Final = 4096
REMEMBERED_TOKENS: Final = 4096
CHECK_AGAIN_SECONDS: Final = 60.0  # a remembered token is verified anew after this, so that a withdrawn key takes its tokens along
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_KEY_ID_LIMIT: Final = 256
_SAY: Final[Mapping[type[Exception], str]] = {
    refusals.ExpiredSignatureError: "the token has expired: get a new one",
    refusals.ImmatureSignatureError: "the token is not valid yet: check this machine's clock and the issuer's",
    refusals.InvalidSignatureError: "the token's signature is not the issuer's: get a new one",
    refusals.InvalidIssuerError: "the token is from another issuer than the one in NABZ_AUTH_ISSUER",
    refusals.InvalidAudienceError: "the token is for another service: its `aud` must name the one in NABZ_AUTH_AUDIENCE",
    refusals.MissingRequiredClaimError: "the token lacks one of the claims iss, aud, sub and exp",
}
_UNREADABLE: Final = "the token cannot be read: expected a signed JSON Web Token (RFC 7519)"


class TokenVerifier:
    """Tells who sends a request. One for each service; its methods belong to one event loop."""

    def __init__(self, settings: Settings, keys: KeySource | None = None, clock: Callable[[], float] = time.time) -> None:
        """`keys` and `clock` (Unix seconds) stand in for the configured ones in tests."""
        self.dev_issuer: DevIssuer | None = None
        _check_settings(settings)
        if settings.dev_issuer:
            self.dev_issuer = DevIssuer(settings)
            keys = keys or FixedKeys(self.dev_issuer.keys)
        self._issuer = settings.auth_issuer or DEV_ISSUER
        self._keys = keys or _configured_keys(settings)
        self._audience = settings.auth_audience
        self._role_claim = settings.auth_role_claim
        self._clinic_claim = settings.auth_clinic_claim
        self._clock = clock
        self._remembered: OrderedDict[bytes, tuple[Who, float, float]] = OrderedDict()  # with when to check again, and the end

    def known(self, authorization: str | bytes | None) -> Who | None:
        """The caller, if this very header was verified a short while ago; never verifies anything itself."""
        header = _as_bytes(authorization)
        found = self._remembered.get(header) if header else None
        if found is None or header is None or found[1] <= self._clock():
            return None
        self._remembered.move_to_end(header)
        return found[0]

    def seen(self, authorization: str | bytes | None) -> Who | None:
        """The caller, if this very header was verified at any time before its end: whom to count, not whom to trust."""
        header = _as_bytes(authorization)
        found = self._remembered.get(header) if header else None
        return found[0] if found is not None and found[2] > self._clock() else None

    async def who(self, authorization: str | bytes | None) -> Who:
        """The caller. Raises UnauthenticatedError, or OverloadedError while the issuer's keys cannot be had."""
        header = _as_bytes(authorization)
        known = self.known(header)
        if known is not None:
            return known
        try:
            who, expires_at = await self._verify(header)
        except UnauthenticatedError:
            if header is not None:
                self._remembered.pop(header, None)
            raise
        if header is not None:
            self._remember(header, who, expires_at)
        return who

    async def _verify(self, header: bytes | None) -> tuple[Who, float]:
        """The caller, and when the token expires."""
        token = _token_in(header)
        algorithm, key_id = _read_header(token)
        key = (await self._keys.ensure()).choose(algorithm, key_id) or (await self._keys.look_again()).choose(algorithm, key_id)
        if key is None:
            raise UnauthenticatedError("the token is signed with a key that the issuer does not publish: get a new one")
        claims = self._verified(token, key, algorithm)
        return self._who_in(claims), float(claims["exp"])

    async def warm_up(self) -> None:
        """Fetch the keys before the first request. Raises OverloadedError when they cannot be had; later calls try again."""
        await self._keys.ensure()

    def _verified(self, token: bytes, key: jwt.PyJWK, algorithm: str) -> dict[str, Any]:
        """The claims of a token whose signature, issuer, audience and times hold."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                options={"require": ["iss", "aud", "sub", "exp"], "verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
        except (refusals.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
            raise UnauthenticatedError(_SAY.get(type(error), _UNREADABLE)) from error
        self._check_times(claims)
        return claims

    def _check_times(self, claims: dict[str, Any]) -> None:
        """Expiry, start and issue, by our own clock; PyJWT has no seam for one and lets infinite numbers through."""
        now = self._clock()
        times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
        if any(isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12 for value in times.values()):
            raise UnauthenticatedError("the token's times (exp, nbf, iat) must be seconds since 1970")
        if times["exp"] <= now - LEEWAY_SECONDS:
            raise UnauthenticatedError(_SAY[refusals.ExpiredSignatureError])
        if max(times.get("nbf", now), times.get("iat", now)) > now + LEEWAY_SECONDS:
            raise UnauthenticatedError(_SAY[refusals.ImmatureSignatureError])

    def _who_in(self, claims: dict[str, Any]) -> Who:
        """The caller that verified claims describe. Some issuers send roles as a list: exactly one must be ours."""
        if not is_plain_name(claims["sub"]):
            raise UnauthenticatedError("the token's `sub` must be 1 to 128 letters, digits or . _ : @ | + = / ~ - (ASCII)")
        given = claims.get(self._role_claim)
        roles = [role for role in ROLES if role == given or (isinstance(given, list) and role in given)]
        if len(roles) != 1:
            raise UnauthenticatedError(f"the token's claim `{self._role_claim}` must name exactly one of {', '.join(ROLES)}")
        clinic = claims.get(self._clinic_claim) if roles[0] == "clinic" else None
        if roles[0] == "clinic" and not is_plain_name(clinic):
            raise UnauthenticatedError(f"the role clinic needs the claim `{self._clinic_claim}` with the clinic's name")
        return Who(claims["sub"], roles[0], clinic)

    def _remember(self, header: bytes, who: Who, expires_at: float) -> None:
        ends_at = expires_at + LEEWAY_SECONDS
        self._remembered[header] = (who, min(ends_at, self._clock() + CHECK_AGAIN_SECONDS), ends_at)
        self._remembered.move_to_end(header)
        if len(self._remembered) > REMEMBERED_TOKENS:
            self._remembered.popitem(last=False)


def _check_settings(settings: Settings) -> None:
    """Raises PolicyError unless the settings name exactly one issuer, completely."""
    given = [settings.auth_issuer, settings.auth_keys]
    if settings.dev_issuer:
        if any(given):
            raise PolicyError(
                "NABZ_DEV_ISSUER is on beside NABZ_AUTH_ISSUER or NABZ_AUTH_KEYS: anybody on this machine could get in. Unset one of them"
            )
    elif not all(given):
        raise PolicyError(
            "nobody could sign in: set NABZ_AUTH_ISSUER (the `iss` of your tokens) and NABZ_AUTH_KEYS (its key set: an https URL or a file),"
            " or NABZ_DEV_ISSUER=true for a demo on this machine"
        )


def _configured_keys(settings: Settings) -> KeySource:
    where = settings.auth_keys or ""
    if where.lower().startswith("http://"):
        raise PolicyError("NABZ_AUTH_KEYS: keys that come over plain http can be replaced on the way: use an https URL or a file")
    return UrlKeys(where) if where.lower().startswith("https://") else FileKeys(Path(where))


def _as_bytes(header: str | bytes | None) -> bytes | None:
    return header.encode("utf-8", "surrogateescape") if isinstance(header, str) else header


def _token_in(header: bytes | None) -> bytes:
    """The token of a header `Bearer TOKEN`."""
    if not header:
        raise UnauthenticatedError("there is no token: send the header `Authorization: Bearer TOKEN`")
    scheme, _, token = header.partition(b" ")
    token = token.strip(b" ")
    if scheme.lower() != b"bearer" or not token:
        raise UnauthenticatedError("the Authorization header is of another kind: send `Authorization: Bearer TOKEN`")
    if len(token) > TOKEN_BYTES_LIMIT:
        raise UnauthenticatedError(f"the token is longer than {TOKEN_BYTES_LIMIT} bytes: ask the issuer for a smaller one")
    if token.count(b".") != 2:
        raise UnauthenticatedError(_UNREADABLE)
    return token


def _read_header(token: bytes) -> tuple[str, str | None]:
    """Algorithm and key id of a token not yet verified; anything that this service does not understand is refused."""
    try:
        header = jwt.get_unverified_header(token)
    except (refusals.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise UnauthenticatedError(_UNREADABLE) from error
    algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise UnauthenticatedError(f"the token is signed in a way that is not accepted: use one of {', '.join(ALGORITHMS)}")
    if not {"crit", "b64", "zip", "enc"}.isdisjoint(header):
        raise UnauthenticatedError("the token's header asks for an extension that is not supported (crit, b64, zip or enc)")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise UnauthenticatedError("the token is of another kind: its `typ` must be JWT or at+jwt")
    if not (key_id is None or (isinstance(key_id, str) and len(key_id) <= _KEY_ID_LIMIT)):
        raise UnauthenticatedError(f"the token's `kid` must be a text of at most {_KEY_ID_LIMIT} characters")
    return algorithm, key_id
