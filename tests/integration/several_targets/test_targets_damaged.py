"""Damage to a file with several targets is found, and its signature stands for all of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import hotstart
from hotstart.artifact import container, inspection, signing
from hotstart.cli import main
from hotstart.errors import CorruptArtifact, IncompatibleArtifact, UntrustedArtifact
from hotstart.saving import checked_parts
from tests.integration.alone import Encoder, Saved
from tests.integration.c_api import CORRUPT, Library, Program, Refused
from tests.integration.several_targets.encoders import ON_V4, V3, V4, pooled
from tests.opening import opens_library_alone
from tests.unit.artifact.test_target_index import forged, index_of, pool_of

pytestmark = ON_V4


def bytes_of(file: Path, name: str, other: str) -> Iterator[int]:
    """Places in a file of which only one of two targets has the bytes."""
    targets = {one.target: one for one in container.read_targets(file)}
    pool = file.stat().st_size - max(sum(each) for one in targets.values() for each in one.ranges)
    used = [range(at, at + size) for at, size in targets[other].ranges]
    for at, size in targets[name].ranges:
        for place in (at, at + size // 2, at + size - 1):
            if not any(place in each for each in used):
                yield pool + place


@pytest.mark.slow
def test_a_target_that_is_not_taken_is_not_read_but_verified(two: Saved, tmp_path: Path) -> None:
    damaged, data = tmp_path / "model.hot", two.file.read_bytes()
    places = list(bytes_of(two.file, V3, V4))
    assert places
    for place in places:
        damaged.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        program = hotstart.load(damaged, Encoder().eval())
        assert torch.equal(pooled(program), pooled(two.program))
        with pytest.raises(CorruptArtifact):
            inspection.verify(damaged)
        assert main(["verify", str(damaged)]) == 3
        assert main(["load-check", "--no-source", str(damaged)]) == 3


@opens_library_alone
def test_damage_to_what_is_taken_is_found_by_every_load(
    two: Saved, library: Library, tmp_path: Path
) -> None:
    damaged, data = tmp_path / "model.hot", two.file.read_bytes()
    index = range(160, 160 + int.from_bytes(data[24:32], "little"), 97)
    for place in (*range(0, 64, 5), *index, *bytes_of(two.file, V4, V3)):
        damaged.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises((CorruptArtifact, IncompatibleArtifact)):
            hotstart.load(damaged, Encoder().eval())
        if place < 160 + len(index):
            with pytest.raises(Refused):
                Program(library, damaged, two.weights)


HUGE = 2**62


@opens_library_alone
@pytest.mark.parametrize(
    "fields",
    [
        {"ranges": [[0, HUGE]]},
        {"ranges": [[HUGE, HUGE]]},
        {"ranges": [[-1, 5]]},
        {"ranges": []},
        {"ranges": [[0, 200]], "manifest_bytes": 190},
        {"ranges": [[0]]},
        {"manifest_bytes": HUGE},
        {"manifest_bytes": 5},
        {"sha256": "00" * 32},
        {"sha256": None},
        {"instructions": "avx"},
        {"target": 5},
    ],
    ids=str,
)
def test_an_index_that_does_not_hold_together_is_refused_from_c(
    fields: dict[str, Any], two: Saved, library: Library, tmp_path: Path
) -> None:
    data = two.file.read_bytes()
    index = index_of(data)
    index["targets"][0] |= fields
    (tmp_path / "model.hot").write_bytes(forged(index, pool_of(data)))
    with pytest.raises(Refused) as refused:
        Program(library, tmp_path / "model.hot", two.weights)
    assert refused.value.status == CORRUPT
    with pytest.raises(CorruptArtifact):
        hotstart.load(tmp_path / "model.hot", Encoder().eval())


def test_a_signature_stands_for_all_targets(two: Saved, tmp_path: Path) -> None:
    public, _ = signing.generate(tmp_path / "key")
    file = tmp_path / "model.hot"
    two.program.save(file, sign_key=tmp_path / "key", check=False)
    hotstart.load(file, Encoder().eval(), trusted_keys=[public])
    assert inspection.verify(file, [public])["signed_by"]
    with pytest.raises(UntrustedArtifact):
        hotstart.load(two.file, Encoder().eval(), trusted_keys=[public])
    # The index of another file, with the signature of this one.
    signed, other = file.read_bytes(), checked_parts(*two.program.artifacts()[::-1])
    forged = b"".join(other)[:64] + signed[64:160] + b"".join(other)[160:]
    file.write_bytes(forged)
    with pytest.raises(UntrustedArtifact):
        hotstart.load(file, Encoder().eval(), trusted_keys=[public])
