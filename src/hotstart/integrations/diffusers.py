"""Images with `diffusers`: the denoiser and the decoder of a pipeline run compiled code.

from hotstart.integrations.diffusers import compile, load, save

programs = compile(pipe, [{"prompt": "a cat", "num_inference_steps": 2}])
save(programs, "folder")  # pipe(prompt) runs them from now on

load("folder", pipe)  # in another process
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import hotstart
from hotstart import OptionsError, Program
from hotstart.submodule import uncompiled

_DENOISERS = ("transformer", "unet")


def compile(
    pipe: Any,
    calls: Sequence[Mapping[str, Any]],
    *,
    min: Mapping[str, int] | None = None,
    max: Mapping[str, int] | None = None,
    **settings: Any,
) -> dict[str, Program]:
    """Compile the denoiser of a pipeline and its VAE, and put the programs in their places.

    Args:
        pipe: a pipeline of diffusers with a `transformer` or `unet`; a `vae` is optional.
        calls: the arguments of calls of the pipeline, made one after the other to learn how it
            calls both. Two steps of each do. Sizes that are the same in all calls are static, as
            usual for images; give calls with several prompts for a batch that is dynamic.
        min: the smallest size of axes, as in `ObservedCalls.within`, where a model has them.
        max: the largest size of axes.
        settings: `split_on`, `options` and `cache`, as in `hotstart.compile`.

    Returns:
        The programs by name, such as `transformer` and `vae.decode`.

    Raises:
        OptionsError: the pipeline has no denoiser, or bounds do not fit what was observed.
        HotstartError: as `hotstart.compile`; nothing is put in place then.
    """
    parts = _parts(pipe)
    with hotstart.observe(parts) as seen:
        for each in calls:
            pipe(**each)
    programs = {}
    for name in parts:
        if len(seen[name]):
            programs[name] = seen[name].compile(
                min=_of_axes(seen[name], min), max=_of_axes(seen[name], max), **settings
            )
    for program in programs.values():
        hotstart.install(program)
    return programs


def save(programs: Mapping[str, Program], folder: str | os.PathLike[str], **kwargs: Any) -> None:
    """Write each program to a file of its name in a folder, which is made.

    Args:
        programs: what `compile` returned.
        folder: the folder.
        kwargs: as of `Program.save`.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    for name, program in programs.items():
        program.save(place / f"{name}.hot", **kwargs)


def load(folder: str | os.PathLike[str], pipe: Any, **kwargs: Any) -> dict[str, Program]:
    """Load what `save` wrote, and put the programs in their places.

    Args:
        folder: the folder.
        pipe: a pipeline of the structure that was compiled.
        kwargs: as of `hotstart.load`.

    Raises:
        OptionsError: the pipeline has no denoiser, or the folder has no program.
        HotstartError: as `hotstart.load`; nothing is put in place then.
    """
    files = {name: Path(folder) / f"{name}.hot" for name in _parts(pipe)}
    there = [name for name, file in files.items() if file.is_file()]
    if not there:
        raise OptionsError(f"{folder}: expected {' or '.join(files)} with .hot, found neither")
    parts = _parts(pipe)
    programs = {name: hotstart.load(files[name], parts[name], **kwargs) for name in there}
    for program in programs.values():
        hotstart.install(program)
    return programs


def _parts(pipe: Any) -> dict[str, Any]:
    """The methods of a pipeline that are compiled, by name.

    Raises:
        OptionsError: it has no denoiser.
    """
    models = ((name, getattr(pipe, name, None)) for name in _DENOISERS)
    found = {name: model for name, model in models if isinstance(model, torch.nn.Module)}
    if not found:
        raise OptionsError(
            f"pipe: got a {type(pipe).__qualname__}, takes a pipeline of diffusers with a "
            f"{' or '.join(_DENOISERS)}"
        )
    parts = {name: uncompiled(model, "forward") for name, model in found.items()}
    vae = getattr(pipe, "vae", None)
    return parts if vae is None else {**parts, "vae.decode": uncompiled(vae, "decode")}


def _of_axes(calls: hotstart.ObservedCalls, sizes: Mapping[str, int] | None) -> dict[str, int]:
    """The bounds of axes that calls have: the denoiser and the VAE have others."""
    return {name: size for name, size in (sizes or {}).items() if name in calls.axes}
