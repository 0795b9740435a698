"""A file in the format of safetensors gives its tensors; one that lies gives a typed error."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from hotstart.checkpoint.safetensors import DTYPES, MappedFile
from hotstart.dtypes import dtype_of
from hotstart.errors import ArtifactError, CorruptArtifact
from tests.safetensors_files import bytes_of, file_of, written

PLAIN = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int8", "uint8", "bool")


def one(**changed: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changed}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@st.composite
def some_tensors(draw: st.DrawFn) -> dict[str, Tensor]:
    made: dict[str, Tensor] = {}
    for number in range(draw(st.integers(0, 5))):
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        dtype = dtype_of(draw(st.sampled_from(PLAIN)))
        made[f"layer.{number}"] = torch.randint(0, 2, shape).to(dtype)
    return made


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tensors=some_tensors(), pad=st.integers(0, 7))
def test_tensors_come_back_wherever_they_lie(
    file: Path, tensors: dict[str, Tensor], pad: int
) -> None:
    file.write_bytes(file_of(tensors, pad))
    found = MappedFile(file)
    assert set(found.names()) == set(tensors)
    for name, tensor in tensors.items():
        assert found.shape(name) == tuple(tensor.shape)
        assert found.tensor(name).dtype == tensor.dtype
        assert torch.equal(found.tensor(name), tensor)
        address = found.tensor(name).data_ptr()
        assert tensor.numel() == 0 or address % tensor.itemsize == 0


def test_what_is_written_to_a_tensor_does_not_reach_the_file(file: Path) -> None:
    content = file_of({"a": torch.ones(4096), "b": torch.ones(3)})
    file.write_bytes(content)
    found = MappedFile(file)
    found.tensor("a").zero_()
    found.tensor("b").add_(1)
    assert file.read_bytes() == content
    assert found.tensor("b").tolist() == [2, 2, 2]
    assert MappedFile(file).tensor("b").tolist() == [1, 1, 1]


def test_memory_that_was_discarded_reads_as_the_file(file: Path) -> None:
    expected = {name: torch.randn(8192) for name in "abc"}
    file.write_bytes(file_of(expected))
    found = MappedFile(file)
    held = {name: found.tensor(name) for name in "abc"}
    found.discard("b")
    assert all(torch.equal(held[name], expected[name]) for name in "abc")
    assert torch.equal(found.tensor("b"), expected["b"])


def test_files_of_the_library_are_read(file: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    tensors = {
        name: torch.randn(3, 5).to(dtype_of(name))
        for name in DTYPES.values()
        if not name.startswith("float8_e8")
    }
    library.save_file(tensors, file)
    found = MappedFile(file)
    for name, tensor in tensors.items():
        assert bytes_of(found.tensor(name)) == bytes_of(tensor)


LIES = {
    "nothing": b"",
    "too short": b"1234567",
    "a header beyond the end": struct.pack("<Q", 100) + b"{}",
    "a huge header": struct.pack("<Q", 2**64 - 1) + b"{}",
    "no JSON": written("{"),
    "a list": written([]),
    "no text": struct.pack("<Q", 2) + b"\xff\xfe",
    "deep nesting": written("[" * 100_000),
    "a name twice": written(
        '{"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]},'
        ' "a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}'
    ),
    "no object": written({"a": 3}),
    "no dtype": written({"a": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
    "no offsets": written({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
    "a dtype that is a number": written(one(dtype=3), bytes(8)),
    "a negative size": written(one(shape=[-2]), bytes(8)),
    "a size that is no integer": written(one(shape=[2.0]), bytes(8)),
    "a size that is a truth": written(one(shape=[2, True]), bytes(8)),
    "a shape that is text": written(one(shape="2"), bytes(8)),
    "another number of bytes": written(one(shape=[3]), bytes(8)),
    "a size that is too large": written(one(shape=[2**62, 0, 2**62], data_offsets=[0, 0])),
    "three offsets": written(one(data_offsets=[0, 8, 9]), bytes(8)),
    "offsets the other way round": written(one(dtype="F4", data_offsets=[8, 0]), bytes(8)),
    "an offset beyond the end": written(one(data_offsets=[8, 16]), bytes(8)),
    "a file that was cut off": written(one(), bytes(7)),
    "bytes behind the last": written(one(), bytes(9)),
    "a gap": written({**one(), "b": one(data_offsets=[9, 17])["a"]}, bytes(17)),
    "an overlap": written({**one(), "b": one(data_offsets=[4, 12])["a"]}, bytes(12)),
    "the same place": written({**one(), "b": one()["a"]}, bytes(8)),
}


@pytest.mark.parametrize("content", LIES.values(), ids=LIES)
def test_a_file_that_lies_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(CorruptArtifact) as caught:
        MappedFile(file)
    assert str(file) in str(caught.value)
    assert "safetensors" in str(caught.value)


def test_a_dtype_that_torch_has_not_is_refused_when_it_is_asked_for(file: Path) -> None:
    file.write_bytes(written(one(dtype="F6_E2M3"), bytes(8)))
    found = MappedFile(file)
    assert found.shape("a") == (2,)
    with pytest.raises(ArtifactError, match="F6_E2M3"):
        found.tensor("a")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    for name in ("nowhere.safetensors", "bad\0name"):
        with pytest.raises(ArtifactError, match="expected a file of weights"):
            MappedFile(tmp_path / name)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(data=st.data())
def test_damage_is_a_typed_error_or_harmless(file: Path, data: st.DataObject) -> None:
    content = bytearray(file_of({"a": torch.ones(3), "b": torch.ones(2, 2, dtype=torch.int64)}))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    file.write_bytes(content)
    try:
        found = MappedFile(file)
        for name in found.names():
            assert found.tensor(name).sum() is not None
    except ArtifactError:
        return
