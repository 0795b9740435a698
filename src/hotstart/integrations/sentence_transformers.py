"""Embeddings with `sentence-transformers`: `encode` runs compiled code.

from hotstart.integrations.sentence_transformers import compile, load

program = compile(st, max_batch=32, max_seq=256)  # st.encode(texts) runs it from now on
program.save("minilm.hot")

load("minilm.hot", st)  # in another process
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn

import hotstart
from hotstart import Options, OptionsError, Program

_TEXTS = ([""], ["a word"] * 2, ["some more words than before"] * 3)
"""Texts that are encoded to learn how the model is called: none is shorter than the first."""


def compile(
    st: Any,
    *,
    max_batch: int = 32,
    max_seq: int | None = None,
    split_on: Any = "auto",
    options: Options | None = None,
    cache: Any = None,
) -> Program:
    """Compile the transformer of an embedding model, and put the program in its place.

    How `encode` calls the transformer is learnt by encoding a few short texts.

    Args:
        st: a `SentenceTransformer` for text.
        max_batch: the most texts of a batch; the `batch_size` of `encode`, 32 by default.
        max_seq: the most tokens of a text. Default: as many as the model takes.
        split_on: as in `hotstart.compile`.
        options: as in `hotstart.compile`.
        cache: as in `hotstart.compile`.

    Returns:
        The program, for its report, and to be saved. `hotstart.restore(transformer)` takes it out.

    Raises:
        OptionsError: the model is none, or a bound is below 3 texts, or the tokens of 3 words.
        HotstartError: as `hotstart.compile`.
    """
    path, transformer = _transformer(st)
    longest = getattr(st, "max_seq_length", None) if max_seq is None else max_seq
    if longest is None:
        raise OptionsError("max_seq: the model has no largest length; give one")
    with hotstart.observe(transformer) as calls:
        for texts in _TEXTS:
            st.encode(texts, batch_size=len(texts), show_progress_bar=False)
    return hotstart.compile_submodule(
        st,
        path,
        calls=calls.within(max={"batch": max_batch, "seq": longest}),
        split_on=split_on,
        options=options,
        cache=cache,
    )


def load(file: str | os.PathLike[str], st: Any, **kwargs: Any) -> Program:
    """Load what `compile` made, saved by `Program.save`, and put it in its place.

    Args:
        file: the artifact.
        st: a `SentenceTransformer` of the structure that was compiled.
        kwargs: as of `hotstart.load`.

    Raises:
        OptionsError: the model is none.
        HotstartError: as `hotstart.load`.
    """
    program = hotstart.load(file, _transformer(st)[1], **kwargs)
    hotstart.install(program)
    return program


def _transformer(st: Any) -> tuple[str, nn.Module]:
    """The transformer in a model, with its path.

    Raises:
        OptionsError: there is none.
    """
    first: Any = next(iter(st.children()), None)
    model = getattr(first, "model", None)
    if not hasattr(st, "encode") or not isinstance(model, torch.nn.Module):
        raise OptionsError(
            f"st: got a {type(st).__qualname__}, takes a SentenceTransformer whose first module "
            "is a transformer. Observe another module yourself, with hotstart.observe."
        )
    name = next(name for name, _ in st.named_children())
    return f"{name}.model", model
