"""Decide which operators oneDNN's fuse with by sizes that are equal for all values of symbols."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hotstart._torch.graphs.symbols import expression
from hotstart._torch.in_between import in_between, with_entries

if TYPE_CHECKING:
    import sympy


@contextlib.contextmanager
def fusing_without_guards() -> Iterator[None]:
    """Let `linear(x) + y` be fused, or not, without an assumption about sizes.

    `mkldnn_fusion._is_valid_binary` (2.11 to 2.15) compares the sizes of both operands. Where they
    are symbols that puts a guard, and a graph is compiled for each way it may turn out:
    `linear(x) + positions[: x.shape[1]]` for as many sequences as steps, for one step, and so on.
    """
    from torch._inductor.fx_passes import mkldnn_fusion

    def is_valid(check: Any, match: Any, *operators: Any) -> bool:
        operands = _operands(match)
        stand_ins = _stand_ins(operands)
        with contextlib.ExitStack() as replaced:
            for node in operands:
                fake = node.meta["val"]
                plain = fake.new_empty([stand_ins[expression(size)] for size in fake.shape])
                replaced.enter_context(with_entries(node.meta, {"val": plain}))
            return bool(check(match, *operators))

    if not hasattr(mkldnn_fusion, "_is_valid_binary"):  # without oneDNN
        yield
        return
    with in_between(mkldnn_fusion, "_is_valid_binary", is_valid):
        yield


def _operands(match: Any) -> set[fx.Node]:
    """The tensors among what a pattern matched, and what that reads."""
    nodes = {operand for node in match.nodes for operand in (node, *node.all_input_nodes)}
    return {node for node in nodes if isinstance(node.meta.get("val"), torch.Tensor)}


def _stand_ins(operands: Iterable[fx.Node]) -> dict[sympy.Expr, int]:
    """An integer for each size: itself, or one that no other size has."""
    sizes = {expression(size) for node in operands for size in node.meta["val"].shape}
    numbers = {size: int(size) for size in sizes if size.is_Integer}
    unused = (number for number in itertools.count(2) if number not in numbers.values())
    return {**dict(zip(sizes - numbers.keys(), unused, strict=False)), **numbers}
