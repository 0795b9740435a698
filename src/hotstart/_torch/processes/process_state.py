"""Take the state that torch compiles in to another process."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from hotstart._torch.processes.settings import CONFIGS, compile_state, set_in
from hotstart._torch.running.modes import autocast_state

_PLAIN = (bool, int, float, str, bytes, type(None))


@dataclass(frozen=True)
class ProcessState:
    """The state of a process.

    Attributes:
        described: all that decides how torch compiles, as text by name.
        settings: what was set in torch's configurations, by module and name.
        threads: how many threads operators run in; generated code is written for as many.
        dtype: the default dtype.
        precision: of products of float32 matrices.
        deterministic: whether only deterministic algorithms run, and whether others only warn.
        mkldnn: whether oneDNN is used.
        inference: whether inference mode is on.
        grad: whether autograd is on.
    """

    described: Mapping[str, str]
    settings: Mapping[str, Mapping[str, Any]]
    threads: int
    dtype: torch.dtype
    precision: str
    deterministic: tuple[bool, bool]
    mkldnn: bool
    inference: bool
    grad: bool


def process_state() -> ProcessState | None:
    """The state of this process; None within a mode that another process cannot be put into.

    Autocast is one. `_len_torch_function_stack` and `_len_torch_dispatch_stack` (2.11 to 2.15)
    count others.
    """
    modes = torch._C._len_torch_function_stack() + torch._C._len_torch_dispatch_stack()
    if modes or autocast_state():
        return None
    return ProcessState(
        described=_described(),
        settings={module: _set_in(module) for module in CONFIGS},
        threads=torch.get_num_threads(),
        dtype=torch.get_default_dtype(),
        precision=torch.get_float32_matmul_precision(),
        deterministic=(
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        mkldnn=bool(torch.backends.mkldnn.enabled),
        inference=torch.is_inference_mode_enabled(),
        grad=torch.is_grad_enabled(),
    )


def _described() -> dict[str, str]:
    return {**compile_state(), "threads": str(torch.get_num_threads())}


def _set_in(module: str) -> dict[str, Any]:
    """Values that were set in a configuration, if they mean the same in every process.

    Others are in the description of the state, so a process without them is not taken for equal.
    """
    return {name: value for name, value in set_in(module) if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return type(value) is dict and all(_is_plain(x) for pair in value.items() for x in pair)
    if type(value) in (list, tuple, set, frozenset):
        return all(map(_is_plain, value))
    return type(value) in _PLAIN


def set_process_state(state: ProcessState) -> list[str]:
    """Put this process into a state, for good.

    `torch._C._set_mkldnn_enabled` (2.11 to 2.15) is what an assignment to
    `torch.backends.mkldnn.enabled` calls. The assignment itself raises in a process where an import
    has frozen the flags of `torch.backends`.

    Returns:
        The names of what is not as it should be all the same; empty if all is.
    """
    for module, settings in state.settings.items():
        config = importlib.import_module(module)
        for name in {*_set_in(module)} - {*settings}:
            setattr(config, name, config._config[name].default)
        for name, value in settings.items():
            setattr(config, name, value)
    torch.set_num_threads(state.threads)
    torch.set_default_dtype(state.dtype)
    torch.set_float32_matmul_precision(state.precision)
    enabled, warns = state.deterministic
    torch.use_deterministic_algorithms(enabled, warn_only=warns)
    torch._C._set_mkldnn_enabled(state.mkldnn)
    here = _described()
    return sorted(
        name for name in {*here, *state.described} if here.get(name) != state.described.get(name)
    )


@contextlib.contextmanager
def grad_modes(state: ProcessState) -> Iterator[None]:
    """Have inference mode and autograd on or off, as in a state."""
    with torch.inference_mode(state.inference), torch.set_grad_enabled(state.grad):
        yield
