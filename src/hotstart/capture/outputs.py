"""What a call returns and which attributes it replaces, found by replaying Dynamo's bytecode.

Dynamo generates bytecode that calls the graph and builds the model's own result from what the
graph returns. It is run here once with stand-ins for the graph's outputs; where they end up in
the result is the structure of the result.
"""

from __future__ import annotations

import collections
import contextvars
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from msgspec.structs import replace
from torch.overrides import TorchFunctionMode

from hotstart._torch import (
    FullGraph,
    Symbols,
    axis_symbol,
    expression,
    fake_mode,
    function_mode,
    make_symbols,
    python_source,
    storage_of,
)
from hotstart.capture.arguments import Arguments, example_tensor
from hotstart.capture.weights import WeightTable
from hotstart.errors import CaptureError
from hotstart.model import Model, modules
from hotstart.records.artifact import Attributes, Map, Seq, Slot, Tree
from hotstart.records.trees import (
    Leaf,
    NotATree,
    attributes_of,
    classes,
    containers,
    describe,
    is_changeable,
    slot_names,
)

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True)
class BufferUpdate:
    """An attribute of a module that a call replaces, as BatchNorm's counter does in training.

    Attributes:
        owner: path of the module.
        name: the attribute.
        value: what it is set to.
    """

    owner: str
    name: str
    value: Tree


@dataclass(frozen=True)
class ContainerChange:
    """The contents that a call leaves in a container which the caller passed.

    Attributes:
        number: of the container, as in `Slot`.
        contents: all that a list or dict holds afterwards, or the attributes of an object that are
            set.
        removed: the attributes of an object that are deleted.
    """

    number: int
    contents: Seq | Map | Attributes
    removed: tuple[str, ...] = ()


class _Size(int):
    """Stands in for an integer the graph returns; recognised by identity."""


@dataclass(frozen=True)
class Outputs:
    """What a call returns and replaces.

    Attributes:
        result: the tree that a call returns.
        updates: the attributes it replaces.
        changes: the containers of the caller's that it changes.
        sizes: expressions over axis symbols that `result` needs and the graph does not return; in
            the tree they are numbered as if they followed the graph's own outputs.
    """

    result: Tree
    updates: tuple[BufferUpdate, ...]
    changes: tuple[ContainerChange, ...]
    sizes: tuple[sympy.Expr, ...]


def describe_outputs(
    model: Model,
    traced: FullGraph,
    returned: Sequence[str | None],
    written: Mapping[int, Slot],
    arguments: Arguments,
    fixed: Mapping[str, int],
    weights: WeightTable,
) -> Outputs:
    """Describe what a call returns, the attributes it replaces and the containers it changes.

    The bytecode is run with arguments of symbolic sizes, so that what it reads from them itself,
    such as a whole `torch.Size`, is recognised for what it is.

    Args:
        model: the model that was traced; its attributes are put back as they were.
        traced: what Dynamo made of it.
        returned: for each output of the graph, the expression of an integer, or None for a tensor.
        written: outputs that are an argument or weight itself, which the graph has written to.
        arguments: the arguments it was traced with.
        fixed: axes that were traced at one size.
        weights: the table of tensors the graph reads.

    Raises:
        CaptureError: the result holds something that cannot be rebuilt, or the call changes Python
            state other than attributes of modules, and arguments that are lists, dicts or objects
            that are their attributes.
    """
    stand_ins: list[Any] = [torch.empty(0) if e is None else _Size(7) for e in returned]
    memory = {storage_of(s) for s in stand_ins if isinstance(s, torch.Tensor)}
    views = _Views()
    numbers = {id(stand_in): index for index, stand_in in enumerate(stand_ins)}
    symbols, tensors = _symbolic_tensors(arguments, fixed)
    given = {id(tensor): index for index, tensor in enumerate(tensors)}
    values = arguments.values(tensors)
    call = arguments.passed(values)
    held = _Held(arguments, values)
    axes = {symbol: axis_symbol(axis) for axis, symbol in symbols.by_name.items()}
    sizes: list[sympy.Expr] = []

    def leaf(path: str, value: Any) -> Tree | None:
        index = numbers.get(id(value))
        if index is not None and index in written:
            return written[index]
        if index is not None:
            expr = returned[index]
            return Slot("out", index) if expr is None else Slot("size", index, expr)
        if isinstance(value, torch.SymInt):
            sizes.append(expression(value).xreplace(axes))
            return Slot("size", len(returned) + len(sizes) - 1, python_source(sizes[-1]))
        if not isinstance(value, torch.Tensor):
            return held.slot(value)
        if id(value) in given:
            return Slot("arg", given[id(value)])
        found = views.base_of(value)
        if found is not None:
            base, attribute = found
            slot = leaf(path, base)
            assert isinstance(slot, Slot)
            return replace(slot, views=(*slot.views, attribute))
        if storage_of(value) in memory:
            raise CaptureError(
                f"{path} is a {type(value).__qualname__} that wraps a result of the graph. Return "
                "the plain tensor, and wrap it outside."
            )
        if views.made(value):
            raise CaptureError(
                f"{path} is a tensor that is made when the result is built, by code that is no "
                "part of the graph. Compute it in forward, or outside."
            )
        return Slot("weight", weights.slot(value, path))

    def graph(*inputs: Any) -> tuple[Any, ...]:
        return tuple(stand_ins)

    before = _attributes(model)
    others = traced.objects_changed(*call)
    own = _own_mappings(model)
    states = {name: _state(obj) for name, obj in others.items() if id(obj) not in own}
    contents = [_contents(obj) for obj in others.values()]
    try:
        with function_mode(views):
            result = traced.replay(graph, *call)
        changes = held.changes(leaf)
        if changes and arguments.shared:
            raise CaptureError(
                f"forward changes what it is given, and the example has one container as "
                f"{' and as '.join(arguments.shared)}. Pass a container of its own in each place."
            )
        after = _attributes(model)
        changed = list(_changes(before, after))
        touched = [
            name
            for name, state in states.items()
            if _differs(others[name], state, held.slot(others[name]) is not None)
        ]
    except RuntimeError as error:  # the stand-ins are empty, so `.item()` fails
        raise CaptureError(
            "forward returns a number computed from tensor sizes that is not an integer. "
            "Return the sizes and compute it outside."
        ) from error
    finally:
        _restore(before, model)
        for obj, content in zip(others.values(), contents, strict=True):
            _put_back(obj, content)
    if touched:
        names = ", ".join(map(traced.plain_name, touched))
        raise CaptureError(
            f"forward changes Python state that outlives the call ({names}). A program computes "
            "tensors only: move the change out of forward, or call the model once before it is "
            "compiled if that fills a cache."
        )
    registered = {
        (path, name)
        for path, kinds in after.items()
        for old, new in zip(before[path][1:], kinds[1:], strict=True)
        for name in new.keys() - old.keys()
    }
    gone = [f"{path or 'the model'}.{name}" for path, name in _removed(before, after)]
    if gone:
        raise CaptureError(
            f"forward deletes {', '.join(gone)}. Set it to None, or move the change out of forward."
        )
    updates = []
    for owner, name, value in changed:
        if (owner, name) in registered:
            raise CaptureError(
                f"forward registers {name!r} with {owner or 'the model'}. Do so in __init__, or "
                "call the model once before it is compiled."
            )
        tree = _tree(value, f"{owner}.{name}" if owner else name, leaf)
        updates.append(BufferUpdate(owner, name, tree))
    return Outputs(_tree(result, "the result", leaf), tuple(updates), changes, tuple(sizes))


class _Held:
    """The containers among the arguments of a call, and what they held before it."""

    def __init__(self, arguments: Arguments, values: Sequence[Any]) -> None:
        pairs = zip(arguments.parameters, values, strict=True)
        found = (one for p, value in pairs for one in containers(p.tree, value, p.name))
        self._found = {
            id(value): (number, path, tree, value, _contents(value), _state(value))
            for number, (path, tree, value) in enumerate(found)
            if is_changeable(tree)
        }

    def slot(self, value: Any) -> Slot | None:
        """The slot of one of them; None for anything else."""
        found = self._found.get(id(value))
        return None if found is None else Slot("object", found[0])

    def changes(self, leaf: Leaf) -> tuple[ContainerChange, ...]:
        """What is different now.

        Raises:
            CaptureError: a container was changed that is no list, dict or object that is its
                attributes.
        """
        return tuple(
            _change(number, path, tree, value, before, leaf)
            for number, path, tree, value, before, state in self._found.values()
            if state != _state(value)
        )


def _change(
    number: int, path: str, tree: Tree, value: Any, before: Any, leaf: Leaf
) -> ContainerChange:
    if isinstance(tree, Attributes):
        after = attributes_of(value)
        changed = tuple(
            (name, _tree(item, f"{path}.{name}", leaf))
            for name, item in after.items()
            if name not in before or before[name] is not item
        )
        removed = tuple(name for name in before if name not in after)
        return ContainerChange(number, Attributes(tree.cls, changed), removed)
    contents = _tree(value, path, lambda at, v: None if v is value else leaf(at, v))
    if not isinstance(contents, Seq | Map):
        raise CaptureError(
            f"forward changes {path}, a {type(value).__qualname__} that the caller passed; lists, "
            "dicts, dataclasses and objects that are their attributes can be changed. Pass one of "
            "those, or return the new value."
        )
    return ContainerChange(number, contents)


class _Views(TorchFunctionMode):
    """Notes every tensor that bytecode makes, and of a view by attribute, what it was taken of.

    Dynamo does not return `x.mT` from the graph where it knows how to get at `x`: the bytecode
    takes the view.
    """

    def __init__(self) -> None:
        super().__init__()
        self._taken: dict[int, tuple[torch.Tensor, torch.Tensor, str]] = {}
        self._made: dict[int, torch.Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if not isinstance(made, torch.Tensor) or any(made is arg for arg in args):
            return made
        self._made[id(made)] = made
        if getattr(func, "__name__", "") == "__get__" and storage_of(made) == storage_of(args[0]):
            self._taken[id(made)] = (made, args[0], func.__self__.__name__)
        return made

    def made(self, tensor: torch.Tensor) -> bool:
        """Whether bytecode has made a tensor."""
        return id(tensor) in self._made

    def base_of(self, view: torch.Tensor) -> tuple[torch.Tensor, str] | None:
        """The tensor and the attribute that gave a view; None for anything else."""
        taken = self._taken.get(id(view))
        return None if taken is None else taken[1:]


def _symbolic_tensors(
    arguments: Arguments, fixed: Mapping[str, int]
) -> tuple[Symbols, list[torch.Tensor]]:
    """Fake arguments with a symbol for every axis that is not fixed."""
    bounds = {
        dim.name: (dim.min, dim.max, arguments.example_sizes[dim.name])
        for dim in arguments.axes
        if dim.name not in fixed
    }
    symbols = make_symbols(bounds)
    sizes = {axis: symbols.integer(symbol) for axis, symbol in symbols.by_name.items()}
    with fake_mode(symbols.env):
        return symbols, [example_tensor(spec, {**sizes, **fixed}) for spec in arguments.tensors]


def _tree(value: Any, path: str, leaf: Leaf) -> Tree:
    try:
        tree = describe(value, path, leaf)
    except NotATree as error:
        raise CaptureError(
            f"{error.path} is {error.found}, which cannot be rebuilt from tensors. Return tensors, "
            "constants, tuples, lists, dicts, dataclasses, objects that are their attributes, or "
            "types registered with torch.utils._pytree."
        ) from error
    for cls in classes(tree):
        if not _importable(cls):
            raise CaptureError(
                f"{path} holds a {cls.__qualname__}, which no import leads to. Define the class at "
                "the top of a module."
            )
    return tree


def _importable(cls: type) -> bool:
    """Whether an import leads to a class, so that generated code can name it."""
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is cls


_Attributes = dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]


def _attributes(model: Model) -> _Attributes:
    return {
        path: (dict(vars(module)), dict(module._parameters), dict(module._buffers))
        for path, module in modules(model)
    }


def _changes(before: _Attributes, after: _Attributes) -> Iterator[tuple[str, str, Any]]:
    for path, kinds in after.items():
        for old, new in zip(before[path], kinds, strict=True):
            for name, value in new.items():
                if name not in old or old[name] is not value:
                    yield path, name, value


def _removed(before: _Attributes, after: _Attributes) -> Iterator[tuple[str, str]]:
    for path, kinds in before.items():
        kept = {name for kind in after.get(path, ()) for name in kind}
        yield from ((path, name) for kind in kinds for name in kind if name not in kept)


def _restore(before: _Attributes, model: Model) -> None:
    for path, module in modules(model):
        attributes, parameters, buffers = before[path]
        for live, saved in (
            (vars(module), attributes),
            (module._parameters, parameters),
            (module._buffers, buffers),
        ):
            for name in [n for n in live if n not in saved]:
                del live[name]
            for name, value in saved.items():
                if live.get(name) is not value:
                    live[name] = value


def _own_mappings(model: Model) -> set[int]:
    """The identities of objects whose changes show up as changes of attributes of modules."""
    return {
        id(mapping)
        for _, module in modules(model)
        for mapping in (module, vars(module), module._parameters, module._buffers)
    }


def _differs(obj: Any, state: object, described: bool) -> bool:
    """Whether a change of an object is one that nothing else describes."""
    if state == _state(obj):
        # Dynamo's bytecode leaves out changes of the order alone.
        return isinstance(obj, collections.OrderedDict)
    return not described


def _state(obj: Any) -> object:
    """What an object that is no module holds, to be compared after a call.

    A change that is undone before forward returns, such as a context variable's, does not count.
    """
    if isinstance(obj, contextvars.ContextVar):
        return id(obj.get(None))
    if isinstance(obj, dict):
        return [(key, id(value)) for key, value in obj.items()]
    if isinstance(obj, list | set | tuple | collections.deque):
        return [id(value) for value in obj]
    if hasattr(obj, "__dict__") or slot_names(type(obj)):
        return {(key, id(value)) for key, value in attributes_of(obj).items()}
    return object()  # equal to nothing: what cannot be compared counts as changed


def _contents(obj: Any) -> Any:
    """A shallow copy of what a container or an object holds; None for what is neither."""
    if isinstance(obj, list | dict | set):
        return obj.copy()
    return attributes_of(obj)


def _put_back(obj: Any, contents: Any) -> None:
    """Undo what the replay did to a container or an object."""
    if isinstance(obj, list):
        obj[:] = contents
    elif isinstance(obj, dict | set):
        obj.clear()
        obj.update(contents)
    elif hasattr(obj, "__dict__"):
        vars(obj).clear()
        vars(obj).update(contents)
