"""Tests of the token verifier: hostile tokens of many kinds, keys that change, and the development issuer."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import os
import time

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from inference.errors import OverloadedError, PolicyError, UnauthenticatedError, UnprocessableError
from inference.service.dev_issuer import DevIssuer
from inference.service.identity import LEEWAY_SECONDS, REMEMBERED_TOKENS, TokenVerifier, Who
from inference.service.settings import Settings
from inference.service.signing_keys import FileKeys, FixedKeys, KeySet, UrlKeys

ISSUER = "https://issuer.example"
NOW = int(time.time())
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = Ed25519PrivateKey.generate()
STRANGER = Ed25519PrivateKey.generate()
SETTINGS = Settings(_env_file=None, auth_issuer=ISSUER, auth_keys="keys.json", auth_audience="nabz")
PLANTED = "احمد-خان"


def entry(key, kid: str | None, **more) -> dict:
    """A key's entry in a key set."""
    of = {"RSAPrivateKey": RSAAlgorithm, "ECPrivateKey": ECAlgorithm}
    algorithm = next((one for name, one in of.items() if name in type(key).__name__), None)
    if algorithm is None:
        algorithm = (
            RSAAlgorithm
            if isinstance(key, rsa.RSAPrivateKey)
            else ECAlgorithm
            if isinstance(key, ec.EllipticCurvePrivateKey)
            else OKPAlgorithm
        )
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), **({} if kid is None else {"kid": kid}), **more}


KEYS = [entry(RSA_KEY, "r", use="sig"), entry(EC_KEY, "e", alg="ES256"), entry(ED_KEY, "d", alg="EdDSA")]


def key_set(*entries: dict) -> bytes:
    """A key set's document."""
    return json.dumps({"keys": list(entries)}).encode()


def claims(**changed) -> dict:
    """A clinician's claims; None takes one away."""
    whole = {"iss": ISSUER, "aud": "nabz", "sub": "dr-7", "exp": NOW + 86_400, "iat": NOW, "role": "clinician", **changed}
    return {name: value for name, value in whole.items() if value is not None}


def token(key=ED_KEY, algorithm: str = "EdDSA", kid: str | None = "d", header: dict | None = None, **changed) -> str:
    """A token of these claims."""
    return jwt.encode(claims(**changed), key, algorithm=algorithm, headers={**({"kid": kid} if kid else {}), **(header or {})})


def verifier(keys: bytes | None = None, clock=time.time) -> TokenVerifier:
    """A verifier of the issuer's keys."""
    return TokenVerifier(SETTINGS, FixedKeys(KeySet.parse(keys or key_set(*KEYS))), clock)


def who(given: str, of: TokenVerifier | None = None) -> Who:
    """The caller of this token."""
    return asyncio.run((of or verifier()).who(f"Bearer {given}"))


def b64(value) -> str:
    """A segment of a token."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def hand_made(header: dict, signature: bytes = b"x" * 64, **changed) -> str:
    """A token whose parts were put together by hand."""
    return f"{b64(header)}.{b64(claims(**changed))}.{b64(signature)}"


def signed_by_hand(payload: bytes) -> str:
    """A correctly signed token with any payload."""
    signing = f"{b64({'alg': 'EdDSA', 'kid': 'd'})}.{b64(payload)}"
    return f"{signing}.{b64(ED_KEY.sign(signing.encode()))}"


def as_hmac(algorithm: str, secret: bytes) -> str:
    """A token signed with a public key taken as a shared secret."""
    signing = f"{b64({'alg': algorithm, 'kid': 'r'})}.{b64(claims())}"
    return f"{signing}.{b64(hmac.new(secret, signing.encode(), hashlib.sha256).digest())}"


PUBLIC_PEM = RSA_KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
GOOD = token()
HOSTILE = {
    "no signature": (hand_made({"alg": "none", "kid": "d"}, b""), "is signed in a way that is not accepted"),
    "None in capitals": (hand_made({"alg": "None"}, b""), "is signed in a way that is not accepted"),
    "no alg": (hand_made({"kid": "d"}), "is signed in a way that is not accepted"),
    "alg is a list": (hand_made({"alg": ["EdDSA"], "kid": "d"}), "is signed in a way that is not accepted"),
    "public key as HMAC secret": (as_hmac("HS256", PUBLIC_PEM), "is signed in a way that is not accepted"),
    "HS256": (jwt.encode(claims(), "s" * 32, algorithm="HS256"), "is signed in a way that is not accepted"),
    "RS512": (token(RSA_KEY, "RS512", "r"), "is signed in a way that is not accepted"),
    "stranger's key, our kid": (token(STRANGER), "signature is not the issuer's"),
    "stranger's embedded jwk": (token(STRANGER, header={"jwk": entry(STRANGER, "d")}), "signature is not the issuer's"),
    "stranger's jku": (token(STRANGER, kid="s", header={"jku": "https://evil.example/keys"}), "that the issuer does not publish"),
    "unknown kid": (token(kid="zz"), "that the issuer does not publish"),
    "kid of another algorithm": (token(kid="r"), "that the issuer does not publish"),
    "ES256 with the RSA kid": (token(EC_KEY, "ES256", "r"), "that the issuer does not publish"),
    "kid is a path": (token(STRANGER, kid="../../dev/null"), "that the issuer does not publish"),
    "kid is a number": (hand_made({"alg": "EdDSA", "kid": 7}), "cannot be read|`kid` must be"),
    "kid is huge": (token(kid="k" * 300), "`kid` must be"),
    "crit": (token(header={"crit": ["exp"], "exp": 1}), "cannot be read|asks for an extension"),
    "zip": (token(header={"zip": "DEF"}), "asks for an extension"),
    "typ of another kind": (token(header={"typ": "dpop+jwt"}), "its `typ` must be"),
    "typ is a number": (hand_made({"alg": "EdDSA", "kid": "d", "typ": 1}), "its `typ` must be"),
    "another issuer": (token(iss="https://other.example"), "from another issuer"),
    "issuer with a slash more": (token(iss=ISSUER + "/"), "from another issuer"),
    "no issuer": (token(iss=None), "lacks one of the claims"),
    "another audience": (token(aud="lab"), "for another service"),
    "audience of others only": (token(aud=["lab", "pharmacy"]), "for another service"),
    "no audience": (token(aud=None), "lacks one of the claims"),
    "no expiry": (token(exp=None), "lacks one of the claims"),
    "expired": (token(exp=NOW - LEEWAY_SECONDS - 60), "has expired"),
    "expiry is text": (token(exp="tomorrow"), "must be seconds since 1970"),
    "expiry is endless": (signed_by_hand(json.dumps(claims(exp=float("inf"))).encode()), "must be seconds since 1970"),
    "expiry is no number": (signed_by_hand(json.dumps(claims(exp=float("nan"))).encode()), "must be seconds since 1970"),
    "expiry is true": (token(exp=True), "must be seconds since 1970"),
    "not valid yet": (token(nbf=NOW + 600), "not valid yet"),
    "issued tomorrow": (token(iat=NOW + 86400), "not valid yet"),
    "no subject": (token(sub=None), "lacks one of the claims"),
    "subject is a name in Urdu": (token(sub=PLANTED), "`sub` must be"),
    "subject breaks a line": (token(sub="a\nb"), "`sub` must be"),
    "subject is too long": (token(sub="a" * 129), "`sub` must be"),
    "subject is empty": (token(sub=""), "`sub` must be"),
    "no role": (token(role=None), "must name exactly one of"),
    "unknown role": (token(role="root"), "must name exactly one of"),
    "role in capitals": (token(role="Admin"), "must name exactly one of"),
    "two roles": (token(role=["clinic", "admin"]), "must name exactly one of"),
    "role is an object": (token(role={"admin": True}), "must name exactly one of"),
    "clinic without its name": (token(role="clinic"), "needs the claim `clinic`"),
    "clinic is a list": (token(role="clinic", clinic=["mithi", "islamkot"]), "needs the claim `clinic`"),
    "payload is a list": (signed_by_hand(b"[]"), "cannot be read"),
    "payload is no JSON": (signed_by_hand(b"\xff\xfe"), "cannot be read"),
    "payload nested deeply": (signed_by_hand(b"[" * 1500), "cannot be read"),
    "header nested deeply": (f"{b64(b'[' * 1500)}.e30.x", "cannot be read"),
    "header is a list": (f"{b64([])}.e30.x", "cannot be read"),
    "changed payload": (f"{GOOD.split('.')[0]}.{b64(claims(role='admin'))}.{GOOD.split('.')[2]}", "signature is not the issuer's"),
    "cut signature": (GOOD[:-8], "signature is not the issuer's|cannot be read"),
    "two segments": (GOOD.rpartition(".")[0], "cannot be read"),
    "five segments": ("a.b.c.d.e", "cannot be read"),
    "not base64": ("!!.??.~~", "cannot be read"),
    "too long": ("a" * 5000, "is longer than 4096 bytes"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_token_is_refused_and_not_repeated(kind):
    """Each is refused with its reason, in words that hold no part of the token."""
    given, reason = HOSTILE[kind]
    with pytest.raises(UnauthenticatedError, match=reason) as refused:
        who(given)
    text = str(refused.value)
    assert all(part not in text for part in given.split(".") if len(part) > 3)
    assert PLANTED not in text


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "bearer\ttoken", GOOD, "Bearer توکن", b"\xff\xfe"])
def test_a_header_without_a_bearer_token_is_refused(header):
    """Nothing but `Bearer TOKEN` is read."""
    with pytest.raises(UnauthenticatedError):
        asyncio.run(verifier().who(header))


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"), [(RSA_KEY, "RS256", "r"), (RSA_KEY, "PS256", "r"), (EC_KEY, "ES256", "e"), (ED_KEY, "EdDSA", "d")]
)
def test_each_algorithm_of_the_list_is_accepted(key, algorithm, kid):
    """The caller is who the claims say."""
    assert who(token(key, algorithm, kid)) == Who("dr-7", "clinician", None)


def test_a_caller_is_read_from_the_claims():
    """A clinic carries its name, others none; some issuers send roles as a list beside their own; clocks may differ a little."""
    assert who(token(role="clinic", clinic="mithi")) == Who("dr-7", "clinic", "mithi")
    assert who(token(role=["offline_access", "admin"], clinic="mithi")) == Who("dr-7", "admin", None)
    assert who(token(aud=["lab", "nabz"], header={"typ": "at+jwt"})).role == "clinician"
    assert who(token(exp=NOW - 5, nbf=NOW + 5), verifier(clock=lambda: float(NOW))).role == "clinician"


def test_a_token_without_a_kid_needs_a_set_with_one_fitting_key():
    """Where two keys would fit, the service does not guess; two keys of one kid are as bad."""
    assert who(token(kid=None)).subject == "dr-7"
    for second in ("d2", "d"):
        two = verifier(key_set(*KEYS, entry(STRANGER, second)))
        with pytest.raises(UnauthenticatedError, match=r"^the token does not say which of the issuer's keys signed it"):
            who(token(kid=None if second == "d2" else "d"), two)


def test_a_token_is_remembered_until_it_expires_or_must_be_checked_again():
    """A second look costs no verification; a token past its expiry is refused although it was seen."""
    now = [float(NOW)]
    one = verifier(clock=lambda: now[0])
    header = f"Bearer {token(exp=NOW + 40)}"
    assert one.known(header) is None
    assert asyncio.run(one.who(header)) == one.known(header) == one.known(header.encode())
    now[0] += 61
    assert one.known(header) is None
    assert asyncio.run(one.who(header)).subject == "dr-7"  # within the leeway
    now[0] += 10
    with pytest.raises(UnauthenticatedError, match="has expired"):
        asyncio.run(one.who(header))


def test_a_token_that_must_be_checked_again_is_still_counted_for_its_caller():
    """Until its end, and never as trusted; once it is refused, it is nobody's."""
    now = [float(NOW)]
    one = verifier(clock=lambda: now[0])
    header = f"Bearer {token(exp=NOW + 600)}"
    assert one.seen(header) is None
    asyncio.run(one.who(header))
    now[0] += 61
    assert (one.known(header), one.seen(header), one.seen(header.encode())) == (None, Who("dr-7", "clinician"), Who("dr-7", "clinician"))
    now[0] += 600
    assert one.seen(header) is None
    with pytest.raises(UnauthenticatedError, match="has expired"):
        asyncio.run(one.who(header))
    assert header.encode() not in one._remembered


def test_the_memory_of_tokens_is_bounded():
    """The oldest goes first."""
    one = verifier()
    for number in range(REMEMBERED_TOKENS + 5):
        one._remember(b"%d" % number, Who("a", "admin"), NOW + 600.0)
    assert len(one._remembered) == REMEMBERED_TOKENS
    assert one.known(b"4") is None and one.known(b"5") is not None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": []}',
        b'{"keys": 3}',
        b"[" * 100_000,
        key_set({"kty": "oct", "k": "c2VjcmV0", "kid": "d"}),
        key_set(entry(ED_KEY, "d", use="enc")),
        key_set(entry(ED_KEY, "d", key_ops=["sign"])),
        key_set({**OKPAlgorithm.to_jwk(ED_KEY, as_dict=True), "kid": "d"}),
        key_set(entry(ED_KEY, "d", alg="HS256")),
        key_set(entry(rsa.generate_private_key(public_exponent=65537, key_size=1024), "r")),
        key_set({"kty": "OKP", "crv": "Ed25519", "x": 7, "kid": "d"}),
        key_set({"kty": ["OKP"], "crv": {}, "kid": "d"}),
        key_set(*[entry(ED_KEY, str(number)) for number in range(101)]),
    ],
)
def test_a_key_set_without_a_usable_key_stops_the_start(tmp_path, content):
    """Shared secrets, private parts, short RSA keys and keys for other uses are no keys; the message names file and setting."""
    path = tmp_path / "keys.json"
    path.write_bytes(content)
    with pytest.raises(PolicyError, match=rf"^NABZ_AUTH_KEYS: {path} cannot be used: it "):
        FileKeys(path)


def test_keys_in_a_file_are_read_again_when_it_changes(tmp_path, caplog):
    """A new key is found, a withdrawn one goes, and a broken file leaves the last keys in use."""
    now = [0.0]
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(entry(ED_KEY, "d")))
    keys = FileKeys(path, lambda: now[0])
    wall = [float(NOW)]
    one = TokenVerifier(SETTINGS, keys, lambda: wall[0])
    old, new = token(), token(EC_KEY, "ES256", "e")
    assert who(old, one).subject == "dr-7"
    path.write_bytes(key_set(entry(EC_KEY, "e")))
    os.utime(path, ns=(1, 1))
    now[0] = 2.0
    assert who(new, one).subject == "dr-7"
    wall[0] += 61
    with pytest.raises(UnauthenticatedError, match="does not publish"):
        who(old, one)
    path.write_text("broken")
    now[0] = 4.0
    assert who(new, one).subject == "dr-7"
    assert "the last keys stay in use" in caplog.text
    path.unlink()
    now[0] = 6.0
    wall[0] += 61
    assert who(new, one).subject == "dr-7"


class Issuer(httpx.AsyncBaseTransport):
    """An issuer's web server: what it answers, and how often it was asked."""

    def __init__(self, content: bytes | None) -> None:
        self.content = content
        self.asked = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        await asyncio.sleep(0)
        if self.content is None:
            raise httpx.ConnectError("down")
        return httpx.Response(200, content=self.content)


def test_keys_behind_a_url_follow_the_issuers_rotation():
    """An unknown kid makes one fetch in 30 seconds, however many tokens name one; old keys outlive an issuer that is down."""
    now = [100.0]
    issuer = Issuer(key_set(entry(ED_KEY, "d")))
    one = TokenVerifier(SETTINGS, UrlKeys("https://issuer.example/keys", issuer, lambda: now[0]))
    new = token(EC_KEY, "ES256", "e")

    async def run() -> None:
        await asyncio.gather(*(one.who(f"Bearer {token(sub=f'dr-{number}')}") for number in range(20)))
        assert issuer.asked == 1
        issuer.content = key_set(entry(EC_KEY, "e"))
        for _ in range(5):
            with pytest.raises(UnauthenticatedError, match="does not publish"):
                await one.who(f"Bearer {new}")
        assert issuer.asked == 1
        now[0] += 31
        assert all(await asyncio.gather(*(one.who(f"Bearer {new}") for _ in range(5))))
        assert issuer.asked == 2
        issuer.content = None
        now[0] += 400
        assert (await one.who(f"Bearer {token(EC_KEY, 'ES256', 'e', sub='dr-8')}")).subject == "dr-8"
        await asyncio.sleep(0.01)
        assert issuer.asked == 3
        assert (await one.who(f"Bearer {token(EC_KEY, 'ES256', 'e', sub='dr-9')}")).subject == "dr-9"

    asyncio.run(run())


@pytest.mark.parametrize("content", [None, b"<html>", b"x" * 300_000])
def test_an_issuer_that_never_answered_is_no_fault_of_the_token(content, caplog):
    """The caller is told to come back instead of to sign in again; the next try waits for the pause."""
    issuer = Issuer(content)
    one = TokenVerifier(SETTINGS, UrlKeys("https://issuer.example/keys", issuer))
    for _ in range(3):
        with pytest.raises(OverloadedError, match=r"^the issuer's keys cannot be fetched") as refused:
            who(GOOD, one)
    assert refused.value.retry_after_seconds == 30
    assert issuer.asked == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"^nobody could sign in: set NABZ_AUTH_ISSUER .* and NABZ_AUTH_KEYS .* or NABZ_DEV_ISSUER=true"),
        ({"auth_issuer": ISSUER}, r"^nobody could sign in"),
        ({"auth_keys": "keys.json"}, r"^nobody could sign in"),
        ({"auth_issuer": ISSUER, "auth_keys": "http://issuer.example/keys"}, r"^NABZ_AUTH_KEYS: keys that come over plain http"),
        ({"auth_issuer": ISSUER, "auth_keys": "/nowhere/keys.json"}, r"^NABZ_AUTH_KEYS: /nowhere/keys.json cannot be used: No such file"),
        ({"auth_issuer": ISSUER, "auth_keys": "keys.json", "dev_issuer": True}, r"^NABZ_DEV_ISSUER is on beside"),
    ],
)
def test_settings_that_name_no_single_issuer_are_refused(given, message):
    """The message says which variables to set."""
    with pytest.raises(PolicyError, match=message):
        TokenVerifier(Settings(_env_file=None, **given))


def dev_settings(tmp_path) -> Settings:
    """Settings of a demo."""
    return Settings(_env_file=None, dev_issuer=True, data_dir=tmp_path / "data")


def test_the_development_issuers_tokens_are_trusted_and_outlive_a_restart(tmp_path):
    """Its key is made once, for its owner's eyes only."""
    one = TokenVerifier(dev_settings(tmp_path))
    given = one.dev_issuer.mint("asha", "clinic", "mithi")
    assert who(given, one) == Who("asha", "clinic", "mithi")
    assert who(given, TokenVerifier(dev_settings(tmp_path))) == Who("asha", "clinic", "mithi")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["dev_issuer.pem"]
    assert (tmp_path / "data" / "dev_issuer.pem").stat().st_mode & 0o777 == 0o600
    with pytest.raises(UnauthenticatedError):
        who(given)


def test_the_development_issuer_is_careful(tmp_path):
    """It is off by default, wants its key private, and mints nothing that the service would refuse."""
    with pytest.raises(PolicyError, match=r"^the development issuer is off"):
        DevIssuer(Settings(_env_file=None))
    issuer = DevIssuer(dev_settings(tmp_path))
    for subject, role, clinic in (("a", "root", None), ("a\n", "admin", None), ("a", "clinic", None), ("a", "clinic", PLANTED)):
        with pytest.raises(UnprocessableError):
            issuer.mint(subject, role, clinic)
    path = tmp_path / "data" / "dev_issuer.pem"
    path.chmod(0o644)
    with pytest.raises(PolicyError, match="can be read by others"):
        DevIssuer(dev_settings(tmp_path))
    path.chmod(0o600)
    path.write_text("broken")
    with pytest.raises(PolicyError, match="is not a private key in PEM"):
        DevIssuer(dev_settings(tmp_path))


def test_nothing_of_a_token_is_logged(caplog):
    """Whatever is refused, the log stays silent about it."""
    with caplog.at_level(logging.DEBUG):
        for given, _ in HOSTILE.values():
            with pytest.raises(UnauthenticatedError):
                who(given)
    assert all(given not in caplog.text for given, _ in HOSTILE.values())
