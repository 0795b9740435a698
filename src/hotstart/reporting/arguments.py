"""The arguments of a call as rows, as a caller writes them. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hotstart.records.contract import Contract, Parameter
from hotstart.records.nested import Const, Map, Slot, Tree, children

_HOW = {"positional_only": "by position only", "keyword": "by keyword only"}


def argument_rows(contract: Contract) -> list[Sequence[str]]:
    """Name, dtype, shape, device and notes of each argument, and of all that is in it."""
    return [row for p in contract.parameters for row in _parameter(p, contract)]


def _parameter(parameter: Parameter, contract: Contract) -> Iterator[Sequence[str]]:
    notes = [_HOW[parameter.kind]] if parameter.kind in _HOW else []
    if parameter.has_default and parameter.tree == Const(parameter.default):
        notes.append("may be left out")
    star = "*" if parameter.kind == "var_positional" else ""
    return _argument(parameter.tree, star + parameter.name, contract, notes)


def _argument(
    tree: Tree, path: str, contract: Contract, notes: Sequence[str] = ()
) -> Iterator[Sequence[str]]:
    """Rows for an argument: itself, and what is in it."""
    match tree:
        case Slot("arg", slot):
            tensor = contract.tensors[slot]
            if tensor.dim_order != tuple(sorted(tensor.dim_order)):
                notes = [*notes, f"dimensions lie in the order {_tuple(tensor.dim_order)}"]
            if slot in contract.mutated_args:
                notes = [*notes, "is written to"]
            shape = _tuple(tensor.shape)
            yield tensor.path, tensor.dtype, shape, tensor.device, ", ".join(notes)
        case Slot():
            raise ValueError(f"{path} is no argument")
        case Const(value):
            yield path, "constant", _value(value), "", ", ".join(notes)
        case _:
            whole, parts = path.lstrip("*"), children(tree, path.lstrip("*"))
            yield path, tree.cls.__qualname__, f"of {len(parts)}", "", ", ".join(notes)
            for part in parts:
                # A file has keys as `values.encode` made them.
                where = f"{whole}[{_value(part.key)}]" if isinstance(tree, Map) else part.path
                yield from _argument(part.value, where, contract)


def _value(data: Any) -> str:
    """Write a value that `values.encode` encoded as a user would."""
    match data:
        case {"float": str(text)} | {"int": str(text)} | {"complex": str(text)}:
            return text
        case {"torch": str(text)}:
            return f"torch.{text}"
        case {"enum": [str(cls), name]}:
            return f"{cls.rpartition(':')[2]}.{name}"
        case {"tuple": [*items]}:
            return _tuple(map(_value, items))
        case {"list": [*items]}:
            return f"[{', '.join(map(_value, items))}]"
        case dict():
            ((kind, content),) = data.items()
            return f"{kind} {content}"
    return repr(data)


def _tuple(items: Iterable[object]) -> str:
    parts = [str(item) for item in items]
    return f"({parts[0]},)" if len(parts) == 1 else f"({', '.join(parts)})"
