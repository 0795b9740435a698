"""Pipelines of `transformers`: the model of one runs compiled code, learnt from how it is called.

Users import both functions from `hotstart.integrations.transformers`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

import hotstart
from hotstart import OptionsError, Program
from hotstart.submodule import uncompiled


def compile_pipeline(
    pipe: Any,
    inputs: Sequence[Any],
    *,
    min: Mapping[str, int] | None = None,
    max: Mapping[str, int] | None = None,
    **settings: Any,
) -> Program:
    """Compile the model of a pipeline for what it is passed, and put the program in its place.

    Pipelines that generate text are for `compile_generator`.

    Args:
        pipe: what `transformers.pipeline` returns, such as one that classifies texts.
        inputs: what the pipeline is called with, one after the other, to learn how it calls the
            model: inputs of several lengths, and lists of them where it is to run batches.
        min: the smallest size of axes, as in `ObservedCalls.within`.
        max: the largest size of axes.
        settings: `split_on`, `options` and `cache`, as in `hotstart.compile`.

    Returns:
        The program, for its report, and to be saved. `hotstart.restore(pipe.model)` takes it out.

    Raises:
        OptionsError: the pipeline has no model, or bounds do not fit what was observed.
        HotstartError: as `hotstart.compile`.
    """
    model = _model(pipe)
    with hotstart.observe(uncompiled(model, "forward")) as calls:
        for each in inputs:
            if isinstance(each, list):
                pipe(each, batch_size=len(each))
            else:
                pipe(each)
    program = calls.compile(min=min, max=max, **settings)
    hotstart.install(program)
    return program


def load_pipeline(file: str | os.PathLike[str], pipe: Any, **kwargs: Any) -> Program:
    """Load what `compile_pipeline` made, saved by `Program.save`, and put it in its place.

    Args:
        file: the artifact.
        pipe: a pipeline whose model has the structure that was compiled.
        kwargs: as of `hotstart.load`.

    Raises:
        OptionsError: the pipeline has no model.
        HotstartError: as `hotstart.load`.
    """
    program = hotstart.load(file, _model(pipe), **kwargs)
    hotstart.install(program)
    return program


def _model(pipe: Any) -> Any:
    model = getattr(pipe, "model", None)
    if not callable(pipe) or not isinstance(model, torch.nn.Module):
        raise OptionsError(
            f"pipe: got a {type(pipe).__qualname__}, takes a pipeline of transformers, which has a "
            "model"
        )
    return model
