"""An artifact goes into a manifest and blobs, and comes out of them as it was."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

import hotstart
from hotstart.artifact import container, disk
from hotstart.artifact.manifest import TENSORS
from hotstart.artifact.read import to_artifact
from hotstart.artifact.write import to_manifest
from hotstart.records.artifact import Artifact
from hotstart.runtime.code.generated import stitched_code

EAGER = hotstart.Options(compiler="op_by_op")


def artifact_with(*tensors: Tensor) -> Artifact:
    """An artifact whose code mentions tensors that no module keeps."""

    def model(x: Tensor) -> list[Tensor]:
        return [x.sum() + (t.abs() if t.is_complex() else t).float().sum() for t in tensors]

    return hotstart.compile(model, (torch.zeros(2),), options=EAGER).artifact


def there_and_back(artifact: Artifact, tmp_path: Any) -> Artifact:
    file = tmp_path / "model.hot"
    manifest, blobs = to_manifest(artifact)
    disk.write(file, container.file_parts(manifest, blobs))
    return to_artifact(container.read(file))


LAYOUTS = {
    "plain": torch.arange(24.0).view(2, 3, 4),
    "transposed": torch.arange(24.0).view(4, 6).t(),
    "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "every other": torch.arange(12.0)[::2],
    "from the middle": torch.arange(12.0)[3:7],
    "expanded": torch.arange(3.0).expand(4, 3),
    "number": torch.tensor(1.5),
    "empty": torch.empty(0, 3),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_tensor_keeps_its_layout(name: str, tmp_path: Any) -> None:
    tensor = LAYOUTS[name]
    ((_, found),) = there_and_back(artifact_with(tensor), tmp_path).captured
    assert torch.equal(found, tensor)
    assert found.stride() == tensor.stride()
    assert found.dtype == tensor.dtype


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8,
        torch.bool, torch.complex64,
    ],
    ids=str,
)  # fmt: skip
def test_a_tensor_keeps_its_dtype_and_bits(dtype: torch.dtype, tmp_path: Any) -> None:
    tensor = torch.tensor([0, 1, 1, 0]).to(dtype)
    ((_, found),) = there_and_back(artifact_with(tensor), tmp_path).captured
    assert found.dtype is dtype
    assert torch.equal(found, tensor)


def test_the_blob_of_tensors_is_what_safetensors_reads(tmp_path: Any) -> None:
    _, blobs = to_manifest(artifact_with(LAYOUTS["plain"], LAYOUTS["transposed"]))
    data = blobs[TENSORS]
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    assert [entry["dtype"] for entry in header.values()] == ["F32", "F32"]
    assert header["tensor_0"]["shape"] == [2, 3, 4]
    assert size % 8 == 0
    assert len(data) == 8 + size + 2 * 24 * 4


def test_an_artifact_comes_back_as_it_was(tmp_path: Any) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4)).eval()
    program = hotstart.compile(
        model,
        (torch.zeros(3, 4),),
        dynamic_shapes={"input": {0: hotstart.Dim("batch", max=8, sizes=[1])}},
        options=EAGER,
    )
    assert there_and_back(program.artifact, tmp_path) == program.artifact


def test_what_is_defined_in_the_script_is_refused() -> None:
    artifact = artifact_with(torch.zeros(2))
    (call,) = artifact.calls
    (stitched,) = call.stitched
    code = stitched_code(stitched.variant, f"from __main__ import Result\n{stitched.source}")
    stitched = msgspec.structs.replace(stitched, code=code)
    changed = msgspec.structs.replace(
        artifact, calls=(msgspec.structs.replace(call, stitched=(stitched,)),)
    )
    with pytest.raises(hotstart.ArtifactError, match="__main__"):
        to_manifest(changed)


@pytest.mark.parametrize(("field", "wrong"), [("dtype", "float7"), ("device", "toaster")])
def test_names_that_torch_does_not_know_are_damage(field: str, wrong: str, tmp_path: Any) -> None:
    file = tmp_path / "model.hot"
    program = hotstart.compile(torch.nn.Linear(2, 2), (torch.zeros(1, 2),), options=EAGER)
    manifest, blobs = to_manifest(program.artifact)
    manifest["requirements"]["weights"][0][field] = wrong
    disk.write(file, container.file_parts(manifest, blobs))
    with pytest.raises(hotstart.CorruptArtifact, match=wrong):
        to_artifact(container.read(file))
