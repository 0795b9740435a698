"""Trace recurrent layers over sequences of any length, which torch takes apart step by step.

Most LSTMs have an operator of oneDNN's for whole sequences. GRUs, plain RNNs and other LSTMs, such
as those with projections, are loops over steps in C++: traced as one operator, they serve every
length. They are not compiled, and run as in eager: Inductor's code for 32 steps takes a minute to
compile.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import fx

from hotstart._torch.in_between import with_entries

_NAMES = ("gru", "rnn_tanh", "rnn_relu", "lstm")

Unrolled = Callable[..., tuple[torch.Tensor, ...]]
"""Computes a layer: result and last states, given its input, states and settings."""


@contextlib.contextmanager
def recurrent_of_any_length() -> Iterator[None]:
    """Give recurrent layers shapes for a length that is not known, without taking them apart.

    Fake tensors ask `OpOverload.py_kernels` (2.11 to 2.15) how an operator that is made of others
    is computed; the functions there unroll the sequence, which makes its length a constant.
    """
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    with contextlib.ExitStack() as replaced:
        for name in _NAMES:
            kernels = getattr(torch.ops.aten, name).input.py_kernels
            if key in kernels:
                whole = _as_one(kernels[key])
                replaced.enter_context(with_entries(kernels, {key: whole}))
        yield


def loops_over_steps(node: fx.Node) -> bool:
    """Tell whether a node is a recurrent layer that a compiler would unroll, or cannot."""
    if node.op != "call_function" or node.target not in _functions():
        return False
    arguments: Any = fx.node.map_arg(node.args, lambda n: n.meta["example_value"])
    given, state, params, *settings = arguments
    length = _length(given, bool(settings[-1]))
    is_open = isinstance(length, torch.SymInt) or length > 1
    return is_open and not _has_operator(given, state, params)


def is_list_of_weights(module: torch.nn.Module, name: str) -> bool:
    """Tell whether an attribute is a list that a recurrent layer keeps of its weights.

    Where weights are computed in the call, as by weight_norm, every call makes it anew, whatever it
    was before (2.11 to 2.15).
    """
    own = name in ("_flat_weights", "_flat_weight_refs")
    return own and isinstance(module, torch.nn.RNNBase)


def _functions() -> tuple[Any, ...]:
    return tuple(getattr(torch._VF, name) for name in _NAMES)


def _has_operator(given: torch.Tensor, state: Any, params: Sequence[torch.Tensor]) -> bool:
    """Tell whether torch computes a layer by oneDNN's operator for LSTMs."""
    from torch._decomp.decompositions import (
        mkldnn_one_layer_lstm,
        select_one_layer_lstm_function,
    )

    if isinstance(state, torch.Tensor):
        return False
    return select_one_layer_lstm_function(given, state, [params]) is mkldnn_one_layer_lstm


def _as_one(unrolled: Unrolled) -> Unrolled:
    """Compute nothing but shapes and dtypes, in this thread; others compile what they find."""
    thread = threading.get_ident()

    def whole(given: torch.Tensor, state: Any, params: Any, *settings: Any) -> Any:
        is_open = isinstance(_length(given, bool(settings[-1])), torch.SymInt)
        other = threading.get_ident() != thread or _has_operator(given, state, params)
        if not is_open or other:
            return unrolled(given, state, params, *settings)
        dtypes = _dtypes(unrolled, given, state, params, settings)
        if dtypes is None:
            return unrolled(given, state, params, *settings)
        states = [state] if isinstance(state, torch.Tensor) else state
        *_, bidirectional, batch_first = settings
        steps = given.transpose(0, 1) if batch_first else given
        features = states[0].shape[2] * (2 if bidirectional else 1)
        first, *others = dtypes
        result = given.new_empty((steps.shape[0], steps.shape[1], features), dtype=first)
        last = [
            each.new_empty(each.shape, dtype=dtype)
            for each, dtype in zip(states, others, strict=True)
        ]
        return (result.transpose(0, 1) if batch_first else result), *last

    return whole


def _dtypes(
    unrolled: Unrolled, given: torch.Tensor, state: Any, params: Any, settings: Sequence[Any]
) -> list[torch.dtype] | None:
    """The dtypes of what a layer gives, which autocast may choose; None if lengths differ in them.

    They are those for one row of two and of three steps.
    """
    states = [state] if isinstance(state, torch.Tensor) else list(state)
    rows = [each.new_empty(each.shape[0], 1, each.shape[2]) for each in states]
    found = []
    for steps in (2, 3):
        sizes = (1, steps) if settings[-1] else (steps, 1)
        short = given.new_empty(*sizes, given.shape[2])
        first = rows[0] if isinstance(state, torch.Tensor) else rows
        found.append([made.dtype for made in unrolled(short, first, params, *settings)])
    return found[0] if found[0] == found[1] else None


def _length(given: torch.Tensor, batch_first: bool) -> int | torch.SymInt:
    """The length of a sequence; 1 for anything else, such as packed ones."""
    return given.shape[1 if batch_first else 0] if given.dim() == 3 else 1
