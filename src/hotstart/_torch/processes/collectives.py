"""Operators that other processes take part in, and code that asks which process it runs in.

Private names of torch 2.11 to 2.15: the namespaces of the operators that Dynamo and functional
collectives make of calls of `torch.distributed`.
"""

from __future__ import annotations

import contextlib
import re
import types
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import fx

from hotstart._torch.running.around import around_operators

_FUNCTIONAL = frozenset({"_c10d_functional", "_c10d_functional_autograd"})
_COLLECTIVES = _FUNCTIONAL | {"c10d", "symm_mem", "_dtensor", "fsdp"}
"""Namespaces of operators (2.11 to 2.15) that return once other processes call them, too."""

_WAITS = frozenset({"wait_tensor", "wait_tensors"})  # the latter from 2.15 on
_TAKEN = _WAITS | {
    "all_reduce", "all_reduce_coalesced", "all_gather_into_tensor",
    "all_gather_into_tensor_coalesced", "reduce_scatter_tensor", "reduce_scatter_tensor_coalesced",
    "all_to_all_single", "broadcast",
}  # fmt: skip
"""Collectives that give new tensors, and whose group is a text; those in place are left out."""

_RANK_NAMES = frozenset(
    {
        "rank", "get_rank", "get_local_rank", "get_node_local_rank", "get_group_rank",
        "get_global_rank", "get_process_group_ranks", "get_coordinate", "_sym_get_coordinate",
        "_coordinate_on_dim", "_is_current_rank_part_of_mesh",
    }
)  # fmt: skip
"""Names under which torch's code asks which process it runs in."""

_RANKS = frozenset({"rank", "ranks", "coordinate"})
_WORLD_NAMES = frozenset({"get_world_size"})
_WORD = re.compile("[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_OF_A_MATRIX = re.compile("(?<![a-z])(lora|matrix)_rank(?![a-z])")
_TORCH = torch.__path__[0]


def communicates(node: fx.Node) -> bool:
    """Tell whether a node calls an operator that waits for other processes."""
    return getattr(node.target, "namespace", "") in _COLLECTIVES or (
        isinstance(node.target, torch._ops.OpOverloadPacket)
        and node.target._qualified_op_name.partition("::")[0] in _COLLECTIVES
    )


def collective_name(node: fx.Node) -> str:
    """The name of such an operator, such as `_c10d_functional.all_reduce`."""
    return str(node.target).removesuffix(".default")


def waits(node: fx.Node) -> bool:
    """Tell whether a node waits for the result of a collective."""
    return communicates(node) and collective_name(node).partition(".")[2] in _WAITS


def is_taken(node: fx.Node) -> bool:
    """Tell whether programs take a collective: it gives new tensors, and its group is a text."""
    namespace, _, name = collective_name(node).partition(".")
    if namespace not in _FUNCTIONAL or name not in _TAKEN:
        return False
    return name in _WAITS or isinstance(node.args[-1], str)


def collectives_inside(module: fx.GraphModule) -> Iterator[fx.Node]:
    """Yield the collectives in the sub-graphs of a graph: bodies of higher-order operators."""
    for inner in module.modules():
        if isinstance(inner, fx.GraphModule) and inner is not module:
            yield from filter(communicates, inner.graph.nodes)


@contextlib.contextmanager
def without_other_processes() -> Iterator[None]:
    """Have collectives give what they would if all processes had the same tensors, in this thread.

    A sum is the tensor of this process alone: results have the right shapes, and no process waits.
    """

    def alone(func: Any, args: Any, kwargs: Any) -> Any:
        if getattr(func, "namespace", "") in _COLLECTIVES:
            return _alone(func._schema.name.partition("::")[2], *args, **kwargs)
        return func(*args, **kwargs)

    with around_operators(alone):
        yield


def _alone(name: str, given: Any, *args: Any, **kwargs: Any) -> Any:
    """Compute what a collective gives where all processes of its group pass the same."""
    if name in _WAITS:
        return given
    if isinstance(given, list | tuple):
        return [_alone(name.removesuffix("_coalesced"), one, *args, **kwargs) for one in given]
    match name:
        case "all_reduce" | "broadcast":
            return given.clone(memory_format=torch.contiguous_format)
        case "all_gather_into_tensor":
            return torch.cat([given] * int(args[0]))
        case "reduce_scatter_tensor":
            return given[: given.shape[0] // int(args[1])].clone()
        case "all_to_all_single":
            rows = torch.arange(sum(map(int, args[0])), device=given.device)
            return given[rows % max(given.shape[0], 1)]
    raise NotImplementedError(f"{name} has no stand-in")


def asks_for_rank(codes: Iterable[types.CodeType], functions: Iterable[Any]) -> bool:
    """Tell whether code may ask which rank its process has.

    Dynamo makes the answer a constant and leaves no guard (2.11 to 2.15), so names decide. Of code
    that is not torch's, each counts that has the word in it, such as `tp_rank` or `LOCAL_RANK`.

    Args:
        codes: all code that was traced, torch's own included.
        functions: those that were read, which code may know by another name.
    """
    return any(map(_asks_for_rank, codes)) or not _RANK_NAMES.isdisjoint(_names_of(functions))


def _asks_for_rank(code: types.CodeType) -> bool:
    names = _names_in(code)
    if not _RANK_NAMES.isdisjoint(names):
        return True
    if code.co_filename.startswith(_TORCH):
        return False
    return any(not _RANKS.isdisjoint(_words(name)) for name in names if name.isidentifier())


def _words(name: str) -> list[str]:
    """The words of a name, without ranks that are those of a matrix."""
    found: list[str] = _WORD.findall(_OF_A_MATRIX.sub("", name))
    return [word.lower() for word in found]


def asks_for_world_size(codes: Iterable[types.CodeType], functions: Iterable[Any]) -> bool:
    """Tell whether code may ask how many processes there are; a constant to Dynamo, too."""
    names = set().union(_names_of(functions), *map(_names_in, codes))
    return not _WORLD_NAMES.isdisjoint(names)


def _names_of(functions: Iterable[Any]) -> set[str]:
    return {str(getattr(function, "__name__", "")) for function in functions}


def _names_in(code: types.CodeType) -> set[str]:
    texts = (constant for constant in code.co_consts if isinstance(constant, str))
    return {*code.co_names, *texts}
