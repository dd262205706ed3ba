"""Ed25519 keys: bundles are signed with the private one, and trusted by the public ones in `models/trusted_keys`.

A signature covers the bundle's files and is none of them: to sign anew changes no bundle's hash. Knows no model.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from inference.bundle import SIGNATURE_FILE, TRUSTED_KEYS_FOLDER, bundle_hash, read_signed_files, signed_message
from inference.errors import BundleError, ExportError
from inference.service.durable import PUBLIC_FILE, locked, write_durably

SIGNING_KEY_VARIABLE = "NABZ_SIGNING_KEY"
_NEXT = ".next"  # beside the key file: the key that a rotation is putting in its place


@dataclass(frozen=True)
class SignedBundle:
    """A bundle in the models folder: its place, which key signed it, its hash. `problem` says why it is not trusted, if so."""

    folder: Path
    key_id: str
    sha256: str
    problem: str | None = None


@dataclass(frozen=True)
class Rotation:
    """What a rotation did: the new key, the bundles that it signed, those that it left, and the keys that are trusted no more."""

    key_id: str
    signed: tuple[SignedBundle, ...]
    left: tuple[SignedBundle, ...]
    retired: tuple[str, ...]


def sign(folder: Path, files: Mapping[str, bytes]) -> None:
    """Sign the bundle's files with the trainer's Ed25519 key and publish the public half beside the bundles."""
    models = folder.parent.parent
    _sign(folder, files, _signing_key(models))


def signing_key_id(models: Path) -> str:
    """The name of the key that signs here now; it is made on first use. Raises ExportError when it is no Ed25519 key."""
    return _key_id(_signing_key(models))


def signed_bundles(models: Path) -> list[SignedBundle]:
    """Every bundle in the folder, by task and version, trusted or not."""
    return [
        signed_bundle(file.parent, models) for file in sorted(models.glob(f"*/*/{SIGNATURE_FILE}")) if not file.parent.name.startswith(".")
    ]


def signed_bundle(folder: Path, models: Path) -> SignedBundle:
    """What its signature says of one bundle, by the keys that are trusted in `models`."""
    try:
        key_id = str(json.loads((folder / SIGNATURE_FILE).read_bytes())["key_id"])
    except (OSError, ValueError, KeyError, TypeError):
        key_id = "unreadable"
    try:
        return SignedBundle(folder, key_id, bundle_hash(read_signed_files(folder, models / TRUSTED_KEYS_FOLDER)))
    except BundleError as error:
        return SignedBundle(folder, key_id, "", str(error))


def rotate_signing_key(models: Path, known: frozenset[str] | None = None, told: Callable[[str], None] = lambda _: None) -> Rotation:
    """Make a new signing key, sign every trusted bundle with it, and trust no other key any more.

    With `known`, bundles whose SHA-256 is not in it are left with their old signature, and so are trusted no more: for a key that
    leaked, which may have signed what is not ours. At every moment each bundle that is signed anew can be verified. What was broken
    off goes on where it was when this is called again. Raises ExportError when there is nothing to sign.
    """
    with locked(models):  # nothing is promoted meanwhile with the key that goes
        return _rotated(models, known, told)


def key_file(models: Path) -> Path:
    """Where the private key is: the file that NABZ_SIGNING_KEY names, or one in the models folder that git ignores."""
    return Path(os.environ.get(SIGNING_KEY_VARIABLE) or models / ".signing_key.pem")


def _rotated(models: Path, known: frozenset[str] | None, told: Callable[[str], None]) -> Rotation:
    found = signed_bundles(models)
    ours = [one for one in found if not one.problem and (known is None or one.sha256 in known)]
    if not ours:
        raise ExportError(f"{models} has no bundle that this could sign: nothing was changed; check the folder, and the list of hashes")
    place = key_file(models)
    key = _next_key(place)
    key_id, signed = _key_id(key), []
    for one in ours:
        files = read_signed_files(one.folder, models / TRUSTED_KEYS_FOLDER)
        _sign(one.folder, files, key)
        signed.append(SignedBundle(one.folder, key_id, one.sha256))
        told(f"signed {one.folder.parent.name} {one.folder.name} ({one.sha256})")
    place.with_name(place.name + _NEXT).replace(place)
    retired = []
    for public in sorted((models / TRUSTED_KEYS_FOLDER).glob("*.pub")):
        if public.stem != key_id:
            public.unlink()
            retired.append(public.stem)
    return Rotation(key_id, tuple(signed), tuple(one for one in found if one not in ours), tuple(retired))


def _sign(folder: Path, files: Mapping[str, bytes], key: Ed25519PrivateKey) -> None:
    public, key_id = _public(key), _key_id(key)
    trusted = folder.parent.parent / TRUSTED_KEYS_FOLDER
    trusted.mkdir(exist_ok=True)
    content, published = base64.b64encode(public) + b"\n", trusted / f"{key_id}.pub"
    if not published.is_file() or published.read_bytes() != content:  # a service may read it at this moment
        write_durably(published, content, mode=PUBLIC_FILE)
    record = {"key_id": key_id, "signature": base64.b64encode(key.sign(signed_message(files))).decode()}
    write_durably(folder / SIGNATURE_FILE, (json.dumps(record, indent=1) + "\n").encode(), mode=PUBLIC_FILE)


def _signing_key(models: Path) -> Ed25519PrivateKey:
    """The key in its file; one is made on first use."""
    place = key_file(models)
    return _read_key(place) if place.is_file() else _new_key(place)


def _next_key(place: Path) -> Ed25519PrivateKey:
    """The key that a rotation puts in place: the one of a rotation that was broken off, or a new one."""
    waiting = place.with_name(place.name + _NEXT)
    return _read_key(waiting) if waiting.is_file() else _new_key(waiting)


def _read_key(place: Path) -> Ed25519PrivateKey:
    key = serialization.load_pem_private_key(place.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ExportError(f"{place} is not an Ed25519 private key: make one with `openssl genpkey -algorithm ed25519`")
    return key


def _new_key(place: Path) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.generate()
    encoding, layout = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    place.parent.mkdir(parents=True, exist_ok=True)
    write_durably(place, key.private_bytes(encoding, layout, serialization.NoEncryption()))
    return key


def _public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def _key_id(key: Ed25519PrivateKey) -> str:
    return hashlib.sha256(_public(key)).hexdigest()[:16]
