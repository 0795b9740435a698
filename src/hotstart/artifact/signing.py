"""Signatures by which a process knows whose artifacts it may execute: Ed25519 (RFC 8032).

The package `cryptography` does the work. It is optional, and imported when a key is first used.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hotstart.artifact.header import Sign
from hotstart.artifact.trust import Trust
from hotstart.errors import ArtifactError, OptionsError
from hotstart.faults import path_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

_PREFIX = "hotstart-ed25519"
_KEY_BYTES = 32
# No key is longer; what is longer may be an artifact given by mistake.
_MOST_BYTES = 4096


def generate(private: Path) -> tuple[Path, str]:
    """Make a key pair. Neither file may be there yet.

    Args:
        private: where to write the private key, readable by its owner only. The public key goes
            beside it, with `.pub` added to the name.

    Returns:
        The public key's file, and its text: `hotstart-ed25519 <base64>`.

    Raises:
        ArtifactError: a file is there already or cannot be written, or `cryptography` is missing.
    """
    private_key, _ = _key_types()
    key = private_key.generate()
    text = _as_text(key.public_key().public_bytes_raw())
    public = Path(f"{private}.pub")
    if public.exists():
        raise _occupied(public)
    _write_new(private, _as_pem(key), 0o600)
    _write_new(public, f"{text}\n".encode(), 0o644)
    return public, text


def signer(private: str | os.PathLike[str]) -> Sign:
    """A function that signs bytes with a private key, giving the raw public key and signature.

    Raises:
        ArtifactError: the file holds no private key of `generate`, or `cryptography` is missing.
    """
    key = _read_private(Path(path_of("sign_key", private)))
    public = key.public_key().public_bytes_raw()

    def sign(content: bytes) -> tuple[bytes, bytes]:
        return public, key.sign(content)

    return sign


def truster(keys: Iterable[str | os.PathLike[str] | bytes] | None) -> Trust | None:
    """A function that says what is wrong with a signature, or None if a trusted key made it.

    It takes the signed bytes, the raw public key and the signature, the last two None where there
    is no signature.

    Args:
        keys: public keys to trust, each as its raw 32 bytes, as the one line of text that
            `generate` gave, or as the file of that text. An empty list trusts nobody; without one,
            no signature is asked for, and there is no such function.

    Raises:
        OptionsError: they are no keys.
        ArtifactError: one of the keys is no public key, or `cryptography` is missing.
    """
    if keys is None:
        return None
    if not isinstance(keys, Iterable):
        raise OptionsError(f"trusted_keys: got {keys!r}, takes a list of public keys")
    if isinstance(keys, str):  # a sequence too, but of no keys
        keys = [keys]
    raw = [_read_public(key, f"trusted key {n}") for n, key in enumerate(keys, 1)]
    trusted = {key: _key_types()[1].from_public_bytes(key) for key in raw}

    def check(content: bytes, public: bytes | None, signature: bytes | None) -> str | None:
        if public is None or signature is None:
            return "no signature"
        if public not in trusted:
            return f"a signature by {base64.b64encode(public).decode()}, which is not trusted"
        from cryptography.exceptions import InvalidSignature

        try:
            trusted[public].verify(signature, content)
        except InvalidSignature:
            return "a signature that does not fit its content"
        return None

    return check


# --- key files ----------------------------------------------------------------------------------


def _as_text(public: bytes) -> str:
    return f"{_PREFIX} {base64.b64encode(public).decode()}"


def _as_pem(key: Ed25519PrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that is not there yet; it never has wider permissions than `mode`."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except FileExistsError:
        raise _occupied(path) from None
    except OSError as error:
        raise ArtifactError(
            f"{path}: expected a place to write a key to, found: {error.strerror}. "
            "Give a path in a folder that exists and can be written to."
        ) from error


def _occupied(path: Path) -> ArtifactError:
    return ArtifactError(
        f"{path}: expected no such file, found one. A key is never overwritten: "
        "give another name, or move that file away."
    )


def _read(path: Path, name: str, advice: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ArtifactError(f"{name}: expected {advice}, found: {reason}.") from error


def _read_private(path: Path) -> Ed25519PrivateKey:
    advice = "a private key as written by `generate` (PEM, PKCS8, Ed25519, not encrypted)"
    refused = partial(_refused, str(path), advice)
    content = _read(path, str(path), advice)
    private_key, _ = _key_types()
    if content.startswith(_PREFIX.encode()):
        raise refused("a public key. Give the file without .pub.")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(content, password=None)
    except TypeError:  # raised for a missing password
        raise refused("an encrypted key.") from None
    except (ValueError, UnsupportedAlgorithm):
        raise refused("something else.") from None
    if not isinstance(key, private_key):
        raise refused(f"a key of another kind ({type(key).__name__.lstrip('_')}).")
    return key


def _read_public(key: str | os.PathLike[str] | bytes, name: str) -> bytes:
    """The raw bytes of a public key. Messages repeat paths, and never content."""
    advice = f"a public key: {_KEY_BYTES} bytes, `{_PREFIX} <base64>`, or a .pub file of that text"
    if isinstance(key, bytes) and len(key) == _KEY_BYTES:
        return key
    if isinstance(key, bytes):
        content = key
    elif isinstance(key, str) and (key.startswith(_PREFIX) or "-----BEGIN" in key):
        content = key.encode()
    elif isinstance(key, str | os.PathLike):
        name = f"{name} ({os.fspath(key)})"
        content = _read(Path(key), name, advice)
    else:
        raise _refused(name, advice, f"{type(key).__name__}.")
    if b"PRIVATE KEY-----" in content:
        found = "a private key, which belongs to the signer alone. Give the .pub file beside it."
        raise _refused(name, advice, found)
    words = content.split()
    if len(words) == 2 and words[0] == _PREFIX.encode():
        try:
            raw = base64.b64decode(words[1], validate=True)
        except binascii.Error:
            raw = b""
        if len(raw) == _KEY_BYTES:
            return raw
    raise _refused(name, advice, "something else.")


def _refused(name: str, advice: str, found: str) -> ArtifactError:
    return ArtifactError(f"{name}: expected {advice}, found {found}")


# --- the optional package -----------------------------------------------------------------------


def _key_types() -> tuple[type[Ed25519PrivateKey], type[Ed25519PublicKey]]:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise ArtifactError(
            "signatures need the package cryptography, which is not installed here. "
            "Do: pip install hotstart[sign]"
        ) from error
    return ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey
