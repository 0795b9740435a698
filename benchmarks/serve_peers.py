"""The app of `examples/serve.py` with something else than hotstart, for `bench_serve.py`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import embed_onnx
from examples import serve

if TYPE_CHECKING:
    from fastapi import FastAPI


def create_eager() -> FastAPI:
    """Make the app with the model of transformers."""
    import torch

    from examples import embed, embed_numpy

    model = embed.make()
    tokenizer = embed_numpy.make_tokenizer()

    def embedded(sentences: list[str]) -> list[list[float]]:
        lists = embed_numpy.tokens(tokenizer, sentences)
        with torch.no_grad():
            tensors = {name: torch.tensor(numbers) for name, numbers in lists.items()}
            found: list[list[float]] = model(**tensors).tolist()
        return found

    return serve.app(embedded)


def create_onnx() -> FastAPI:
    """Make the app with ONNX Runtime, from the file as it was exported."""
    return serve.app(embed_onnx.load(Path(os.environ[serve.FOLDER], embed_onnx.PLAIN)))


def create_optimized_onnx() -> FastAPI:
    """Make the app with ONNX Runtime, from the file that it wrote itself."""
    return serve.app(embed_onnx.load(Path(os.environ[serve.FOLDER], embed_onnx.OPTIMIZED)))
