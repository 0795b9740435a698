"""ONNX Runtime on its CPU provider, from a file of torch's ONNX exporter."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.peers import onnx_file
from benchmarks.peers.peer import Loaded, Peer, Place
from benchmarks.peers.subjects import Subject


def build(subject: Subject, place: Place, module: Any) -> None:
    """Export the module."""
    onnx_file.export(subject, place, module)


def load(_subject: Subject, place: Place, _module: Any) -> Loaded:
    """Open a session, which optimises the graph and packs the weights."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = place.threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        onnx_file.onnx_file(place), options, providers=["CPUExecutionProvider"]
    )
    return Loaded(
        lambda arrays: partial(session.run, None, dict(arrays)), lambda results: results[0]
    )


ONNX_RUNTIME = Peer(
    title="ONNX Runtime",
    packages=("onnxruntime",),
    build_packages=("onnx", "onnxscript"),
    load=load,
    build=build,
    exports=True,
)
