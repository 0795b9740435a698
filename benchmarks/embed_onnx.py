"""MiniLM in ONNX Runtime, measured from the start of a process; runs in `.venv-peers`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
"""The interpreter that has ONNX Runtime; `make bench-peers` makes its environment."""

PLAIN, OPTIMIZED = "model.onnx", "optimized.onnx"
"""As it was exported; and as ONNX Runtime writes it after its own passes, for this machine."""


def has(python: str | Path, *packages: str) -> bool:
    """Tell whether an interpreter is there and has packages; say on stderr what it lacks."""
    code = f"import {', '.join(packages)}"
    if Path(python).exists():
        done = subprocess.run([python, "-c", code], capture_output=True, text=True)
        if done.returncode == 0:
            return True
        missing = done.stderr.strip().splitlines()[-1]
    else:
        missing = "it is not there"
    print(f"ONNX Runtime is left out: {python}: {missing}", file=sys.stderr)
    return False


def export(folder: str | Path) -> None:
    """Export the model of `examples/embed.py`, and let ONNX Runtime write what it makes of it."""
    import torch

    from examples import embed

    Path(folder).mkdir(exist_ok=True)
    file = Path(folder, PLAIN)
    batch = torch.export.Dim("batch", min=1, max=16)
    seq = torch.export.Dim("seq", min=2, max=embed.MAX_TOKENS)
    example = embed.tokens([*embed.SENTENCES, embed.SENTENCES[0]])
    with torch.no_grad():
        program = torch.onnx.export(
            embed.make(),
            kwargs=example,
            dynamo=True,
            dynamic_shapes={name: {0: batch, 1: seq} for name in example},
            verbose=False,
        )
    program.save(str(file), external_data=True)
    session(file, written=Path(folder, OPTIMIZED))


def session(file: Path, written: Path | None = None) -> Any:
    """Open a session on all cores this process may use; write the optimized graph if asked to."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or _cores())
    options.inter_op_num_threads = 1
    if written is not None:
        options.log_severity_level = 3  # it warns that the file is for this machine
        options.optimized_model_filepath = str(written)
    elif file.name == OPTIMIZED:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def load(file: Path) -> Callable[[list[str]], list[list[float]]]:
    """Make what embeds sentences."""
    import numpy as np

    from examples import embed_numpy

    opened = session(file)
    tokenizer = embed_numpy.make_tokenizer()

    def embed(sentences: list[str]) -> list[list[float]]:
        lists = embed_numpy.tokens(tokenizer, sentences)
        arrays = {name: np.array(numbers, dtype=np.int64) for name, numbers in lists.items()}
        found: list[list[float]] = opened.run(None, arrays)[0].tolist()
        return found

    return embed


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    export(sys.argv[1])
    print("{}")
