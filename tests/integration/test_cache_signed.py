"""A cache whose files are signed: only what a trusted key has signed is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import json

from hotstart import Store
from hotstart.artifact import container
from hotstart.artifact.header import HEADER_BYTES, SIGNED_BYTES, Sign
from hotstart.artifact.signing import generate, signer
from hotstart.errors import StoreError
from tests.integration.caching import EAGER, asked, model

pytest.importorskip("cryptography")


@pytest.fixture
def keys(tmp_path: Path) -> Callable[[str], Path]:
    """Makes the private key of somebody, with the public one beside it."""

    def make(owner: str) -> Path:
        private = tmp_path / owner
        if not private.exists():
            generate(private)
        return private

    return make


@pytest.fixture
def team(keys: Callable[[str], Path]) -> Path:
    return keys("team")


def store(folder: Path, **settings: Any) -> Store:
    return Store(folder, check=False, **settings)


def public(private: Path) -> Path:
    return Path(f"{private}.pub")


def files(folder: Path, kind: str) -> list[Path]:
    return [file for file in (folder / "v1" / kind).rglob("*") if file.is_file()]


def signed_otherwise(file: Path, sign: Sign | None) -> None:
    """Sign the same content by another key, or by none."""
    content = file.read_bytes()
    signed = content[:SIGNED_BYTES]
    key, signature = sign(signed) if sign else (bytes(32), bytes(64))
    file.write_bytes(signed + key + signature + content[HEADER_BYTES:])


KINDS = ("entries", "programs", "pieces")


def test_what_a_store_has_signed_it_finds(tmp_path: Path, team: Path) -> None:
    assert asked(store(tmp_path / "cache", sign_key=team), model()) == "compiled"
    assert asked(store(tmp_path / "cache", sign_key=team), model()) == "loaded"
    assert asked(store(tmp_path / "cache", trusted_keys=[public(team)]), model()) == "loaded"


def test_every_file_is_signed(tmp_path: Path, team: Path) -> None:
    asked(store(tmp_path / "cache", sign_key=team), model())
    for kind in KINDS:
        assert files(tmp_path / "cache", kind)
        for file in files(tmp_path / "cache", kind):
            assert container.read_key(file) == signer(team)(b"")[0]


def test_a_store_without_keys_reads_signed_files(tmp_path: Path, team: Path) -> None:
    asked(store(tmp_path / "cache", sign_key=team), model())
    assert asked(store(tmp_path / "cache"), model()) == "loaded"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("forger", ["nobody", "somebody"])
def test_what_no_trusted_key_has_signed_is_not_read(
    tmp_path: Path, team: Path, keys: Callable[[str], Path], kind: str, forger: str
) -> None:
    folder = tmp_path / "cache"
    asked(store(folder, sign_key=team), model())
    for file in files(folder, kind):
        signed_otherwise(file, signer(keys("somebody")) if forger == "somebody" else None)
    if kind == "pieces":  # else no piece is asked for
        for file in files(folder, "entries"):
            file.unlink()
    reader = store(folder, trusted_keys=[public(team)], policy="require")
    with pytest.raises(StoreError, match=r"expected (a compiled program|the compiled piece)"):
        asked(reader, model(), policy="require")


def test_a_miss_says_that_a_program_is_not_trusted(tmp_path: Path, team: Path) -> None:
    folder = tmp_path / "cache"
    asked(store(folder, sign_key=team), model())
    for file in files(folder, "programs"):
        signed_otherwise(file, None)
    reader = store(folder, trusted_keys=[public(team)])
    with pytest.raises(StoreError, match="its signature: was by a trusted key, is no signature"):
        asked(reader, model(), policy="require")


def test_a_miss_says_that_nothing_is_trusted_rather_than_that_nothing_is_there(
    tmp_path: Path, team: Path, keys: Callable[[str], Path]
) -> None:
    folder = tmp_path / "cache"
    asked(store(folder, sign_key=team), model())
    reader = store(folder, trusted_keys=[public(keys("somebody"))])
    with pytest.raises(StoreError, match="nothing is stored that a trusted key signed"):
        asked(reader, model(), policy="require")


@pytest.mark.thorough
def test_a_changed_file_with_its_old_signature_is_not_read(tmp_path: Path, team: Path) -> None:
    folder = tmp_path / "cache"
    asked(store(folder, sign_key=team), model())
    (entry,) = files(folder, "entries")
    contents = container.read(entry)
    manifest = json.decode(contents.manifest)
    manifest["entry"]["model"] = "Another"
    parts = container.file_parts(manifest, contents.blobs)
    old = entry.read_bytes()[SIGNED_BYTES:HEADER_BYTES]
    entry.write_bytes(parts[0] + old + b"".join(parts[3:]))
    container.require_whole(entry)  # but for its signature it is a file like any other
    assert asked(store(folder, sign_key=team), model()) == "compiled"


@pytest.mark.thorough
def test_unsigned_files_are_replaced_by_who_signs(tmp_path: Path, team: Path) -> None:
    folder = tmp_path / "cache"
    asked(store(folder), model())
    assert asked(store(folder, sign_key=team), model()) == "compiled"
    assert asked(store(folder, sign_key=team), model()) == "loaded"
    assert asked(store(folder), model()) == "loaded"


def test_who_trusts_and_cannot_sign_keeps_nothing(tmp_path: Path, team: Path) -> None:
    folder = tmp_path / "cache"
    reader = store(folder, trusted_keys=[public(team)])
    assert asked(reader, model()) == "compiled"
    assert not any(files(folder, kind) for kind in KINDS)


@pytest.mark.thorough
def test_files_of_an_old_key_are_read_while_it_is_trusted(
    tmp_path: Path, keys: Callable[[str], Path]
) -> None:
    folder = tmp_path / "cache"
    asked(store(folder, sign_key=keys("old")), model())
    turning = store(folder, sign_key=keys("new"), trusted_keys=[public(keys("old"))])
    assert asked(turning, model()) == "loaded"
    assert asked(store(folder, sign_key=keys("new")), model()) == "compiled"


@pytest.mark.thorough
def test_pieces_serve_another_model(tmp_path: Path, team: Path) -> None:
    folder = tmp_path / "cache"
    asked(store(folder, sign_key=team), model())
    before = {file.name for file in files(folder, "pieces")}
    plain = replace(EAGER, form="python")  # another key, equal pieces
    assert asked(store(folder, sign_key=team), model(), options=plain) == "compiled"
    assert {file.name for file in files(folder, "pieces")} == before


@pytest.mark.thorough
def test_a_remote_is_believed_as_a_folder_is(tmp_path: Path, team: Path) -> None:
    url = f"file://{tmp_path / 'tree'}"
    (tmp_path / "tree").mkdir()
    asked(store(tmp_path / "unsigned", remote=url), model())
    trusting = {"remote": url, "trusted_keys": [public(team)]}
    assert asked(store(tmp_path / "a", **trusting), model()) == "compiled"
    assert asked(store(tmp_path / "b", remote=url, sign_key=team), model()) == "compiled"
    assert asked(store(tmp_path / "c", **trusting), model()) == "loaded"
    assert asked(store(tmp_path / "d", remote=url), model()) == "loaded"


def test_what_is_not_trusted_is_not_published(
    tmp_path: Path, team: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"file://{tmp_path / 'tree'}"
    (tmp_path / "tree").mkdir()
    unsigned = store(tmp_path / "cache")
    asked(unsigned, model())
    (entry,) = unsigned.entries.all()
    trusting = store(tmp_path / "cache", remote=url, trusted_keys=[public(team)])
    assert not trusting.push(entry)
    assert trusting.push_pieces() == 0
    assert "expected a signature by a trusted key, found no signature" in caplog.text
    assert unsigned.entries.all() == [entry], "it serves who asks for no signature"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trusted_keys": ["nobody.pub"]}, "expected a public key"),
        ({"trusted_keys": 1}, "takes a list of public keys"),
        ({"sign_key": "nobody"}, "expected a private key"),
    ],
    ids=["no file", "no list", "no private key"],
)
def test_what_is_no_key_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(StoreError, match=message):
        store(tmp_path, **settings)
