"""OpenVINO on its CPU plugin, from the ONNX file, with its own cache of compiled models."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.peers import onnx_file
from benchmarks.peers.peer import Loaded, Peer, Place
from benchmarks.peers.subjects import Subject


def build(subject: Subject, place: Place, module: Any) -> None:
    """Convert the module to OpenVINO's format in full precision, and fill the cache."""
    import openvino

    source = onnx_file.export(subject, place, module)
    model = openvino.convert_model(source)
    openvino.save_model(model, place.folder / "model.xml", compress_to_fp16=False)
    for file in place.folder.glob("model.onnx*"):
        file.unlink()
    load(subject, place, None)


def load(_subject: Subject, place: Place, _module: Any) -> Loaded:
    """Compile the model for the CPU, from the cache where it is full."""
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": place.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "CACHE_DIR": str(place.folder / "cache"),
    }
    compiled = openvino.Core().compile_model(place.folder / "model.xml", "CPU", settings)
    return Loaded(lambda arrays: partial(compiled, dict(arrays)), lambda results: results[0])


OPENVINO = Peer(
    title="OpenVINO",
    packages=("openvino",),
    build_packages=("onnx", "onnxscript"),
    load=load,
    build=build,
    exports=True,
)
