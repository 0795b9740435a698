"""Every way to run a model on a CPU that `bench_peers.py` compares: a file each."""

from __future__ import annotations

from benchmarks.peers.aot_inductor import AOT_INDUCTOR
from benchmarks.peers.eager import EAGER
from benchmarks.peers.hotstart import HOTSTART
from benchmarks.peers.hotstart_tuned import HOTSTART_TUNED
from benchmarks.peers.hotstart_unpacked import HOTSTART_UNPACKED
from benchmarks.peers.onnx_runtime import ONNX_RUNTIME
from benchmarks.peers.openvino import OPENVINO
from benchmarks.peers.peer import Peer
from benchmarks.peers.torch_compile import TORCH_COMPILE
from benchmarks.peers.torch_compile_freezing import TORCH_COMPILE_FREEZING

PEERS: dict[str, Peer] = {
    "eager": EAGER,
    "torch_compile": TORCH_COMPILE,
    "torch_compile_freezing": TORCH_COMPILE_FREEZING,
    "aot_inductor": AOT_INDUCTOR,
    "onnx_runtime": ONNX_RUNTIME,
    "openvino": OPENVINO,
    "hotstart": HOTSTART,
    "hotstart_tuned": HOTSTART_TUNED,
    "hotstart_unpacked": HOTSTART_UNPACKED,
}
