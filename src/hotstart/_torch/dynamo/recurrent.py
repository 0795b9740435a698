"""Trace recurrent layers over sequences of any length, which torch takes apart step by step.

LSTMs have an operator of oneDNN's for whole sequences. GRUs and plain RNNs are loops over steps in
C++: traced as one operator, they serve every length. Pieces leave them out, and they run as in
eager: what Inductor makes of 32 steps takes a minute to compile.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

import torch
from torch import fx

from hotstart._torch.in_between import with_entries

_NAMES = ("gru", "rnn_tanh", "rnn_relu")


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
    given = node.args[0]
    length = _length(given.meta["example_value"], bool(node.args[-1])) if _is_node(given) else 1
    return isinstance(length, torch.SymInt) or length > 1


def _is_node(given: Any) -> TypeGuard[fx.Node]:
    return isinstance(given, fx.Node)


def _functions() -> tuple[Any, ...]:
    return tuple(getattr(torch._VF, name) for name in _NAMES)


def _as_one(unrolled: Callable[..., Any]) -> Callable[..., Any]:
    """Compute nothing but shapes, in this thread; others compile what they find."""
    thread = threading.get_ident()

    def whole(
        given: torch.Tensor,
        state: torch.Tensor,
        params: list[torch.Tensor],
        has_biases: bool,
        layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        kind = given.device.type
        is_open = isinstance(_length(given, batch_first), torch.SymInt)
        others = threading.get_ident() != thread or torch.is_autocast_enabled(kind)
        if not is_open or others:
            taken_apart: tuple[torch.Tensor, torch.Tensor] = unrolled(
                given, state, params, has_biases, layers, dropout, train, bidirectional, batch_first
            )
            return taken_apart
        steps = given.transpose(0, 1) if batch_first else given
        features = state.shape[2] * (2 if bidirectional else 1)
        result = given.new_empty((steps.shape[0], steps.shape[1], features))
        last = state.new_empty(state.shape)
        return (result.transpose(0, 1) if batch_first else result), last

    return whole


def _length(given: torch.Tensor, batch_first: bool) -> int | torch.SymInt:
    """The length of a sequence; 1 for anything else, such as packed ones."""
    return given.shape[1 if batch_first else 0] if given.dim() == 3 else 1
