from __future__ import annotations

import base64
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from hotstart.artifact.signing import generate, signer, truster
from hotstart.errors import ArtifactError

CONTENT = b"a manifest"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A private key, its public key beside it."""
    generate(tmp_path / "team")
    return tmp_path / "team"


# --- key files ----------------------------------------------------------------------------------


def test_a_key_pair_is_two_files(tmp_path: Path) -> None:
    public, text = generate(tmp_path / "team")
    assert public == tmp_path / "team.pub"
    assert public.read_text() == f"{text}\n"
    name, encoded = text.split(" ")
    assert (name, len(base64.b64decode(encoded, validate=True))) == ("hotstart-ed25519", 32)
    assert (tmp_path / "team").read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")


def test_a_private_key_is_its_owners_alone(key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_every_key_is_another(tmp_path: Path) -> None:
    assert generate(tmp_path / "a")[1] != generate(tmp_path / "b")[1]


@pytest.mark.parametrize("name", ["team", "team.pub"])
def test_no_file_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(ArtifactError, match=f"{name}: expected no such file, found one"):
        generate(tmp_path / "team")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, "precious")]


def test_a_key_needs_a_folder_to_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"No such file or directory\. Give a path in"):
        generate(tmp_path / "no" / "team")


# --- signatures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["raw", "text", "line", "path", "path as text"])
def test_a_signature_by_a_trusted_key_is_good(key: Path, form: str) -> None:
    public, signature = signer(key)(CONTENT)
    file = Path(f"{key}.pub")
    given: dict[str, Any] = {
        "raw": public,
        "text": file.read_text().strip(),
        "line": file.read_text(),
        "path": file,
        "path as text": str(file),
    }
    assert truster([given[form]])(CONTENT, public, signature) is None


def test_any_trusted_key_will_do(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    check = truster([generate(tmp_path / name)[1] for name in names])
    assert [check(CONTENT, *signer(tmp_path / name)(CONTENT)) for name in names] == [None] * 3


def test_a_single_key_need_not_be_in_a_list(key: Path) -> None:
    assert truster(f"{key}.pub")(CONTENT, *signer(str(key))(CONTENT)) is None


def test_missing_signatures_are_found(key: Path) -> None:
    public, signature = signer(key)(CONTENT)
    check = truster([public])
    assert check(CONTENT, None, None) == "no signature"
    assert check(CONTENT, public, None) == "no signature"
    assert check(CONTENT, None, signature) == "no signature"


def test_other_signers_are_named(key: Path, tmp_path: Path) -> None:
    _, text = generate(tmp_path / "other")
    found = truster([f"{key}.pub"])(CONTENT, *signer(tmp_path / "other")(CONTENT))
    assert found == f"a signature by {text.split()[1]}, which is not trusted"


def test_no_keys_trust_nobody(key: Path) -> None:
    found = truster([])(CONTENT, *signer(key)(CONTENT))
    assert found is not None
    assert found.endswith("which is not trusted")


@pytest.mark.parametrize("change", ["content", "signature", "short", "long", "empty"])
def test_a_signature_must_fit_its_content(key: Path, change: str) -> None:
    public, signature = signer(key)(CONTENT)
    content, signature = {
        "content": (CONTENT + b"!", signature),
        "signature": (CONTENT, bytes([signature[0] ^ 1]) + signature[1:]),
        "short": (CONTENT, signature[:-1]),
        "long": (CONTENT, signature + b"\0"),
        "empty": (CONTENT, b""),
    }[change]
    found = truster([public])(content, public, signature)
    assert found == "a signature that does not fit its content"


def test_the_signature_of_one_trusted_key_is_not_that_of_another(tmp_path: Path) -> None:
    a, b = (signer(generate(tmp_path / name)[0].with_suffix("")) for name in "ab")
    check = truster([a(CONTENT)[0], b(CONTENT)[0]])
    found = check(CONTENT, a(CONTENT)[0], b(CONTENT)[1])
    assert found == "a signature that does not fit its content"


# --- keys that are none -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"short", "trusted key 2: expected a public key: 32 bytes, `hotstart-ed25519 <base64>`"),
        ("hotstart-ed25519 AAAA", "trusted key 2: expected a public key"),
        ("hotstart-ed25519 !", "trusted key 2: expected a public key"),
        ("hotstart-ed25519", "trusted key 2: expected a public key"),
        ("missing.pub", "trusted key 2 (missing.pub): expected a public key"),
        (".", "found: Is a directory"),
        ("no\0file", "found: embedded null byte"),
        (3, "trusted key 2: expected a public key"),
    ],
)
def test_a_bad_public_key_is_named(key: Path, bad: Any, message: str) -> None:
    with pytest.raises(ArtifactError, match=re.escape(message)):
        truster([f"{key}.pub", bad])


def test_a_file_that_holds_no_public_key_is_named(tmp_path: Path) -> None:
    file = tmp_path / "model.hot"
    file.write_bytes(os.urandom(100_000))
    with pytest.raises(ArtifactError, match=r"model\.hot\): .* found something else"):
        truster([file])


@pytest.mark.parametrize("form", ["path", "text", "bytes"])
def test_a_private_key_given_as_trusted_is_recognised_and_not_repeated(
    key: Path, form: str
) -> None:
    given: dict[str, Any] = {"path": key, "text": key.read_text(), "bytes": key.read_bytes()}
    with pytest.raises(ArtifactError, match="found a private key") as raised:
        truster([given[form]])
    assert key.read_text().splitlines()[1] not in str(raised.value)


def test_a_public_key_does_not_sign(key: Path) -> None:
    with pytest.raises(ArtifactError, match="found a public key"):
        signer(f"{key}.pub")


def test_an_encrypted_key_is_said_to_be_one(key: Path) -> None:
    plain = load_pem_private_key(key.read_bytes(), None)
    encryption = BestAvailableEncryption(b"secret")
    key.write_bytes(plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    with pytest.raises(ArtifactError, match="found an encrypted key"):
        signer(key)


def test_a_key_of_another_kind_is_said_to_be_one(tmp_path: Path) -> None:
    other = Ed448PrivateKey.generate()
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "other").write_bytes(pem)
    with pytest.raises(ArtifactError, match="found a key of another kind"):
        signer(tmp_path / "other")


def test_a_public_key_in_another_format_is_not_taken(key: Path) -> None:
    public = load_pem_private_key(key.read_bytes(), None).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(ArtifactError, match="found something else"):
        truster([pem])


@pytest.mark.parametrize("content", [b"", b"something", b"-----BEGIN PRIVATE KEY-----\nAAAA\n"])
def test_a_file_that_holds_no_private_key_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"key: expected a private key .* something else"):
        signer(tmp_path / "key")


def test_a_missing_private_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none: expected a private key .* No such file"):
        signer(tmp_path / "none")


# --- the optional package -----------------------------------------------------------------------


def test_nothing_of_the_package_is_imported_before_a_key_is_used() -> None:
    code = """
import sys
from hotstart.artifact.signing import truster
assert truster([])(b"", b"k", b"s")
assert not any(name.startswith("cryptography") for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize(
    "call", ["generate(pathlib.Path('k'))", "signer('team')", "truster(['team.pub'])"]
)
def test_without_the_package_the_message_says_what_to_install(key: Path, call: str) -> None:
    code = f"""
import pathlib, sys
sys.modules["cryptography"] = None
from hotstart.errors import ArtifactError
from hotstart.artifact.signing import generate, signer, truster
try:
    {call}
except ArtifactError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=key.parent,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "pip install hotstart[sign]" in done.stdout
