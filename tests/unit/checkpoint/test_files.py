"""What may be given as weights is opened; anything else is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from hotstart.checkpoint.files import open_checkpoint
from hotstart.checkpoint.tensors import Checkpoint
from hotstart.errors import ArtifactError, CorruptArtifact, OptionsError
from tests.safetensors_files import file_of

ONE = {"a": torch.arange(3.0), "b.c": torch.arange(4).view(2, 2)}


def shards(folder: Path, table: Any, files: Mapping[str, Mapping[str, Tensor]]) -> Path:
    for name, tensors in files.items():
        (folder / name).write_bytes(file_of(tensors))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": table}))
    return index


def assert_is(found: Checkpoint, tensors: Mapping[str, Tensor]) -> None:
    assert set(found.names()) == set(tensors)
    for name, tensor in tensors.items():
        assert found.shape(name) == tuple(tensor.shape)
        assert torch.equal(found.tensor(name), tensor)


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".pth", ".ckpt"])
def test_a_state_dict_is_mapped(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"model{suffix}"
    torch.save({**ONE, "_extra": 3}, file)
    content = file.read_bytes()
    found = open_checkpoint(file)
    assert_is(found, ONE)
    found.tensor("a").zero_()
    assert file.read_bytes() == content
    assert found.where == str(file)


def test_a_file_a_folder_and_an_index_are_found(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(file_of(ONE))
    assert_is(open_checkpoint(str(file)), ONE)
    assert_is(open_checkpoint(tmp_path), ONE)
    split = {"x.safetensors": {"a": ONE["a"]}, "y.safetensors": {"b.c": ONE["b.c"]}}
    table = {"a": "x.safetensors", "b.c": "y.safetensors"}
    index = shards(tmp_path, table, split)
    file.unlink()
    assert_is(open_checkpoint(index), ONE)
    assert_is(open_checkpoint(tmp_path), ONE)
    assert open_checkpoint(tmp_path).where == str(index)


def test_a_folder_with_one_file_of_any_name_is_taken_and_with_two_is_not(tmp_path: Path) -> None:
    (tmp_path / "unet.safetensors").write_bytes(file_of(ONE))
    assert_is(open_checkpoint(tmp_path), ONE)
    (tmp_path / "vae.safetensors").write_bytes(file_of(ONE))
    with pytest.raises(ArtifactError, match=r"found unet.safetensors, vae.safetensors. Give"):
        open_checkpoint(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="expected one checkpoint, found none"):
        open_checkpoint(tmp_path / "empty")


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/b.bin", "..", "", 3, None])
def test_an_index_names_files_of_its_folder_only(tmp_path: Path, name: Any) -> None:
    with pytest.raises(CorruptArtifact, match="names of files in its own folder"):
        open_checkpoint(shards(tmp_path, {"a": name}, {}))


def test_an_index_that_lies_is_told(tmp_path: Path) -> None:
    index = shards(tmp_path, {"a": "x.safetensors", "z": "x.safetensors"}, {"x.safetensors": ONE})
    found = open_checkpoint(index)
    assert torch.equal(found.tensor("a"), ONE["a"])
    with pytest.raises(CorruptArtifact, match=r"expected z in x\.safetensors"):
        found.tensor("z")
    with pytest.raises(ArtifactError, match="expected a file of weights"):
        open_checkpoint(shards(tmp_path, {"a": "gone.safetensors"}, {})).tensor("a")
    for content in ("", "[]", "{}", "[" * 100_000):
        index.write_text(content)
        with pytest.raises(ArtifactError, match="expected an index"):
            open_checkpoint(index)
    index.write_text('{"weight_map": []}')
    with pytest.raises(CorruptArtifact, match="weight_map: expected an object"):
        open_checkpoint(index)


def test_a_pickle_of_something_else_is_refused_and_not_run(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "touched",)

    cases: dict[str, Any] = {"a state dict that": Evil(), "a state dict, found a list": [ONE]}
    for said, content in cases.items():
        torch.save(content, file)
        with pytest.raises(ArtifactError, match=f"expected {said}"):
            open_checkpoint(file)
    assert not (tmp_path / "touched").exists()
    for damage in (b"", b"PK\x03\x04", b"nonsense"):
        file.write_bytes(damage)
        with pytest.raises(ArtifactError, match="expected a state dict"):
            open_checkpoint(file)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(data=st.data())
def test_damage_to_a_pickle_is_a_typed_error_or_harmless(
    tmp_path: Path, data: st.DataObject
) -> None:
    file = tmp_path / "model.pt"
    torch.save(ONE, file)
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    try:
        found = open_checkpoint(file)
        for name in found.names():
            assert found.tensor(name).sum() is not None
    except (ArtifactError, OptionsError):
        return


@pytest.mark.parametrize("wrong", [3, [torch.ones(1)], "model.gguf", "", {3: torch.ones(1)}])
def test_what_no_checkpoint_can_be_is_an_option_that_makes_no_sense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.gguf").touch()
    with pytest.raises(OptionsError, match="weights: got"):
        open_checkpoint(wrong)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.weights", "a.index.json", "a"])
def test_a_file_that_is_not_there_is_looked_for_by_its_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match=r"found nothing of that name\. Correct the path"):
        open_checkpoint(tmp_path / name)


def test_a_mapping_is_taken_as_it_is() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    found = open_checkpoint({"a": parameter, "b": parameter, "c": torch.ones(2), "d": "text"})
    assert set(found.names()) == {"a", "b", "c"}
    assert not found.tensor("a").requires_grad
    assert found.tensor("a").data_ptr() == parameter.data_ptr()
    assert found.same("a", "b")
    assert not found.same("a", "c")
    assert found.shared
