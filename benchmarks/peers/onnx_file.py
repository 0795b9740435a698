"""The ONNX file of a model, which ONNX Runtime and OpenVINO both start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.peers.peer import Place
from benchmarks.peers.subjects import Subject
from benchmarks.peers.tensors import exported, set_up


def export(subject: Subject, place: Place, module: Any) -> Path:
    """Export the module to a file in the place's folder, with weights in a file beside it."""
    import torch

    set_up(place)
    file = onnx_file(place)
    program = torch.onnx.export(
        exported(subject, module),
        dynamo=True,
        input_names=[each.name for each in subject.inputs],
        output_names=["result"],
        verbose=False,
    )
    program.save(str(file), external_data=True)
    return file


def onnx_file(place: Place) -> Path:
    """Where the ONNX file is."""
    return place.folder / "model.onnx"
