"""The file of prepared weights holds together, or is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hotstart.artifact import weights_file
from hotstart.artifact.disk import OpenFile
from hotstart.artifact.weights_file import PAGE, Stored, StoredPreparation, Stretch, Table
from hotstart.checkpoint.prepared import PreparedWeights, page_sums, sums_digest
from hotstart.errors import CorruptArtifact, IncompatibleArtifact


def table_of(data: bytes, **changed: Any) -> Table:
    known: dict[str, Any] = {
        "fingerprint": {},
        "units": (),
        "specs": "",
        "memory": len(data),
        "sums": page_sums([memoryview(bytearray(data))]),
        "sha256": hashlib.sha256(data).hexdigest(),
        "stretches": (Stretch(0, 64), Stretch(64, 100)),
        "layouts": (b"",),
        "tensors": (Stored("float32", (4, 4), (4, 1), 0), Stored("int8", (100,), (1,), 1)),
        "weights": {"a": 0, "b": 1},
        "made": (StoredPreparation("prepare", (0,), (1, None), 100),),
    }
    return Table(**{**known, **changed})


MEMORY = bytes(range(164)) + bytes(PAGE - 164)


def written(file: Path, table: Table, memory: bytes = MEMORY) -> Path:
    file.write_bytes(weights_file.head(table) + memory)
    return file


def test_a_file_is_what_was_written(tmp_path: Path) -> None:
    file = written(tmp_path / "x.weights", table_of(MEMORY))
    with OpenFile(str(file)) as source:
        assert weights_file.read(source).table == table_of(MEMORY)
    with OpenFile(str(file)) as source:
        assert weights_file.verify(source) == file.stat().st_size
    weights = PreparedWeights(file)
    expected = torch.frombuffer(bytearray(MEMORY), dtype=torch.int8)[64:164]
    assert torch.equal(weights.tensor("b"), expected)
    assert weights.tensor("a") is weights.tensor("a")
    weights.tensor("b").zero_()
    assert file.read_bytes()[-PAGE:] == MEMORY


@pytest.mark.parametrize(
    "changed",
    [
        {"memory": PAGE + 1},
        {"memory": 2 * PAGE},
        {"stretches": (Stretch(0, 64),)},
        {"stretches": (Stretch(0, 65), Stretch(64, 100))},
        {"stretches": (Stretch(0, 64), Stretch(64, PAGE))},
        {"layouts": (), "tensors": (Stored("float32", (4, 4), (), 0, 0, 0),) * 2},
        {"tensors": (Stored("float32", (4, 4), (4, 1), None, 0, 0),) * 2},
        {"tensors": (Stored("float32", (4, 4), (4,), 0),) * 2},
        {"tensors": ()},
        {"weights": {"a": 2}},
        {"made": (StoredPreparation("prepare", (2,), (1,), 1),)},
        {"made": (StoredPreparation("prepare", (0,), (2,), 1),)},
    ],
)
def test_a_table_that_does_not_hold_together_is_refused(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    file = written(tmp_path / "x.weights", table_of(MEMORY, **changed))
    with OpenFile(str(file)) as source, pytest.raises(CorruptArtifact):
        weights_file.read(source)


@pytest.mark.parametrize(
    "stored",
    [
        Stored("float32", (4, 5), (5, 1), 0),
        Stored("float32", (4, 4), (2**40, 1), 0),
        Stored("float32", (4, 4), (4, 1), 0, 4),
        Stored("float32", (2,), (1,), 0, 2),
        Stored("float99", (4, 4), (4, 1), 0),
        Stored("float32", (2**40, 2**40), (1, 1), 0),
    ],
)
def test_a_tensor_that_cannot_be_there_is_refused(tmp_path: Path, stored: Stored) -> None:
    table = table_of(MEMORY, tensors=(stored, stored))
    weights = PreparedWeights(written(tmp_path / "x.weights", table))
    with pytest.raises(CorruptArtifact, match="tensor 0 as hotstart writes it"):
        weights.tensor("a")


def test_another_format_is_named(tmp_path: Path) -> None:
    data = bytearray(weights_file.head(table_of(MEMORY)) + MEMORY)
    data[8] = 2
    (tmp_path / "x.weights").write_bytes(data)
    with pytest.raises(IncompatibleArtifact, match="format: expected 1, found 2"):
        PreparedWeights(tmp_path / "x.weights")


@pytest.mark.thorough
@given(st.lists(st.integers(0, 3 * PAGE), max_size=8), st.randoms())
def test_sums_of_parts_are_those_of_the_whole(sizes: Sequence[int], random: Any) -> None:
    parts = [bytearray(random.randbytes(size)) for size in sizes]
    parts.append(bytearray(-sum(sizes) % PAGE))
    whole = bytearray().join(parts)
    assert page_sums([memoryview(part) for part in parts]) == sums_digest(memoryview(whole), 0)
    words = torch.frombuffer(whole, dtype=torch.int64).tolist() if whole else []
    count = PAGE // 8
    sums = (sum(words[at : at + count]) % 2**64 for at in range(0, len(words), count))
    expected = b"".join(number.to_bytes(8, "little") for number in sums)
    assert hashlib.sha256(expected).hexdigest() == sums_digest(memoryview(whole), 0)


def test_stretches_of_a_page_begin_at_one() -> None:
    stretches, size = weights_file.placed([1, PAGE, 0, 65, PAGE - 1, 10 * PAGE])
    assert [each.offset for each in stretches] == [0, PAGE, 8192, 8192, 8320, 16384 - 4096 + 4096]
    assert size % PAGE == 0
    assert msgspec.json.decode(msgspec.json.encode(stretches), type=list[Stretch]) == stretches
