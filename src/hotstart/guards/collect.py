"""Guards on what a trace read besides tensors, from those that Dynamo put.

Classes, constants and lengths are part of the compiled code as much as operators are: another
activation, another epsilon or one more layer would be another program with the same weights. So are
globals, closures and the environment. hotstart runs without Dynamo's guards; these are data, which
any process can compare.
"""

from __future__ import annotations

import contextlib
import enum
import sys
import types
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from hotstart._torch.dynamo.full_graph import FullGraph
from hotstart._torch.dynamo.guards import Read
from hotstart._torch.graphs.symbols import is_fake
from hotstart._torch.processes.collectives import asks_for_rank
from hotstart._torch.processes.ranks import is_initialized
from hotstart._torch.subclasses.inner_tensors import inner_names
from hotstart.first_call.memo import NO_MEMO, Memo
from hotstart.guards.compare import python_module
from hotstart.guards.functions import class_name, module_name
from hotstart.guards.group_reads import GroupsRead, seen_of_process
from hotstart.guards.ran_code import Ran, code_guards, method_guards, named_guards, target_guard
from hotstart.guards.structure import (
    Look,
    environment_text,
    follow,
    is_method,
    runs_hooks,
)
from hotstart.guards.ways import ways
from hotstart.model import Model, ModelIndex
from hotstart.records.groups import GroupPlace, GroupStart
from hotstart.records.guards import Guard, Kind, ModuleKind, Seen, Start, Step

_CONSTANTS = (bool, int, float, complex, str, type(None), torch.dtype, torch.device)
_DATA = (bool, int, float, complex, str, bytes, type(None), range, slice, enum.Enum, Collection,
         torch.dtype, torch.device)  # fmt: skip
"""Types that are compared by their contents; other objects are compared by their class."""

_CODE = (types.FunctionType, types.MethodType, property, classmethod, staticmethod)
_TRAINING: tuple[Step, ...] = (("attribute", "training"),)
_TRACER = "torch._dynamo."
"""Python modules whose functions replace Python's own while tracing only."""

_OWN_DICTS = ("__dict__", "_buffers", "_parameters", "_modules")
"""Attributes of modules with entries that are attributes, too."""

_REGISTRIES = {("transformers.utils.output_capturing", "_CAN_RECORD_REGISTRY")}
"""Global dicts with an entry for every class of model that was made, of which code reads its own:
(module, name)."""

Origin = tuple[Start, str, Any]
"""Where steps start outside of the model's modules: kind of start, name, object."""


@dataclass(frozen=True)
class ReadInTrace:
    """Reads of a trace: modules, other objects, code and groups.

    Attributes:
        modules: what of each module of the model, by its path.
        seen: what outside of them.
        codes: the code that ran, without torch's and Python's own.
        loose: code of it that no guard covers.
        groups: the groups of processes that were read, by their names in this process, with the
            places that other processes have, too.
        asks_for_rank: whether code may have asked which rank this process has.
    """

    modules: Mapping[str, ModuleKind] = field(default_factory=dict)
    seen: tuple[Seen, ...] = ()
    codes: frozenset[types.CodeType] = frozenset()
    loose: frozenset[types.CodeType] = frozenset()
    groups: Mapping[str, tuple[GroupPlace, ...]] = field(default_factory=dict)
    asks_for_rank: bool = False


def collect(
    index: ModelIndex, target: Model, traced: FullGraph, memo: Memo = NO_MEMO
) -> ReadInTrace:
    """Collect what a trace of a model, or of one of its methods, read.

    What is in a memo is left out: nothing depends on it.
    """
    ran, look = Ran(traced.codes), Look()
    reads = _Reads(index, traced, ran, look)
    subclasses: set[type] = set()
    for read in traced.reads:
        known = _is_known_weight(read[0], traced.object_named(read[1]), index, subclasses)
        if not known and not _is_in_memo(memo, traced, read):
            reads.add(read)
    made: dict[str, ModuleKind] = {}
    for path, (module, guards) in reads.modules.items():
        guards.update(method_guards(look, ran, module, ()))
        own = look.own_code(module, bool(path) or runs_hooks(index.model))
        ran.cover(*(value for _, value in look.own_functions(module, hooks=True)))
        made[path] = ModuleKind(class_name(type(module)), tuple(sorted(guards, key=repr)), own)
    functions = [traced.object_named(name) for kind, name, _ in traced.reads if kind == "function"]
    by_rank = is_initialized() and asks_for_rank(traced.codes, functions)
    outside = {
        *reads.outside,
        *(_environment(name) for name in traced.environment),
        *target_guard(look, ran, target),
        *named_guards(look, ran),
        *seen_of_process(traced.codes, functions, by_rank),
    }
    seen = tuple(sorted(outside, key=repr))
    return ReadInTrace(made, seen, ran.codes, frozenset(ran.left), reads.groups.found(), by_rank)


def _environment(name: str) -> Seen:
    return Seen("environment", name, Guard((), "value", environment_text(name)))


class _Reads:
    """Guards on what was read, by the module of the model that leads to it or the place outside.

    Attributes:
        modules: by path, a module with the guards on what it leads to.
        outside: guards on what no module leads to.
        groups: the groups of processes that were met.
    """

    def __init__(self, index: ModelIndex, traced: FullGraph, ran: Ran, look: Look) -> None:
        self._index, self._traced, self._ran, self._look = index, traced, ran, look
        self.modules: dict[str, tuple[torch.nn.Module, set[Guard]]] = {}
        self.outside: set[Seen] = set()
        self.groups = GroupsRead()

    def add(self, read: tuple[Read, str, Any]) -> None:
        """Guard a read from the nearest object on the way to it that other processes have, too."""
        for start, kind, steps in ways(*read):
            value = self._traced.object_named(start)
            path = self._index.path_of(value)
            self.groups.meet(value)
            if path is not None:
                own = _of_module(self._look, self._ran, value, kind, steps)
                _, guards = self.modules.setdefault(path, (value, set()))
                guards.update(self._of_group(value, "module", path, steps) or own)
                return
            origin = _origin(self._traced, start, value, steps)
            if origin is not None:
                (where, name, held), way = origin
                own = _outside(self._look, self._ran, where, name, held, kind, way)
                found = self._of_group(held, where, name, way) or own
                self.outside.update(Seen(where, name, guard) for guard in found)
                return

    def _of_group(
        self, start: Any, kind: GroupStart, name: str, steps: tuple[Step, ...]
    ) -> list[Guard]:
        """Guard the place of a group of processes in place of its attributes, if steps pass one."""
        guard = self.groups.guard(start, kind, name, steps)
        return [] if guard is None else [guard]


def _is_in_memo(memo: Memo, traced: FullGraph, read: tuple[Read, str, Any]) -> bool:
    """Tell whether one of Dynamo's names leads into a memo."""
    return bool(memo.names) and any(
        _leads_into(memo, traced.object_named(start), kind, steps)
        for start, kind, steps in ways(*read)
    )


def _leads_into(memo: Memo, start: object, kind: Kind, steps: tuple[Step, ...]) -> bool:
    steps = _by_attribute(steps)
    with contextlib.suppress(AttributeError, LookupError, TypeError):
        for number, (how, name) in enumerate(steps):
            owner = follow(start, steps[:number])
            key = list(owner)[int(name)] if how in ("key", "entry") else name
            if how != "class" and memo.holds(owner, key):
                return True
        found = follow(start, steps)
        return memo.holds(found, None) or (kind in ("length", "keys") and memo.adds_to(found))
    return False


def _by_attribute(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The same steps, with entries of a module's own dicts as attributes of it."""
    made: list[Step] = []
    skipped = False
    for how, name in steps:
        if name in _OWN_DICTS:
            skipped = True
        else:
            made.append(("attribute" if skipped else how, name))
            skipped = False
    return tuple(made)


def _is_known_weight(read: str, value: Any, index: ModelIndex, subclasses: set[type]) -> bool:
    """Tell whether a read is of a weight that a program takes from the model, and compares then.

    The class of a tensor subclass is compared for each weight, its methods for the first.
    """
    if read not in ("tensor", "class") or not index.places_of(value):
        return False
    if read == "class" and (not inner_names(value) or type(value) not in subclasses):
        subclasses.add(type(value))
        return False
    return True


def merged(all_found: Iterable[Mapping[str, ModuleKind]]) -> dict[str, ModuleKind]:
    """Merge what several graphs of a model read of its modules."""
    made: dict[str, ModuleKind] = {}
    for found in all_found:
        for path, kind in found.items():
            known = made.setdefault(path, kind)
            if known != kind:
                every = sorted({*known.guards, *kind.guards}, key=repr)
                made[path] = ModuleKind(kind.cls, tuple(every), kind.own)
    return made


# --- of modules -----------------------------------------------------------------------------------


def _of_module(
    look: Look, ran: Ran, module: torch.nn.Module, kind: Kind, steps: tuple[Step, ...]
) -> Iterator[Guard]:
    """The guards on something that steps lead to from a module, if it counts and is there."""
    with contextlib.suppress(AttributeError, LookupError, TypeError):
        compared = _compared(kind, steps, module)
        steps = by_key(module, steps)
        if compared is not None:
            yield Guard(steps, compared, look.text(compared, steps, module))
            yield from code_guards(look, ran, module, compared, steps)


def _compared(kind: Kind, steps: tuple[Step, ...], module: torch.nn.Module) -> Kind | None:
    """Choose what is compared of a thing that was read; None if it is known otherwise.

    Raises:
        AttributeError, LookupError, TypeError: it is not there any more.
    """
    if kind == "own" and len(steps) == 1:
        return None if is_method(type(module), str(steps[0][1])) else kind
    if kind == "attribute" or kind == "own" or kind == "contains":
        return None if _of_class_code(module, steps[:-1]) else kind
    value = follow(module, steps)
    if _of_class_code(module, steps):
        return None
    match kind:
        case "length" | "keys":
            counts = hasattr(value, "__len__")
        case "class":
            counts = bool(steps) and type(value).__module__ != "builtins"
            counts = counts and not is_fake(value)  # stands for a weight on meta
        case "function":
            counts = hasattr(value, "__qualname__")
        case "inside" | "tensor" | "unknown":
            counts = bool(steps)
        case _:
            counts = bool(steps) and isinstance(value, _DATA) and steps != _TRAINING
            counts = counts and not isinstance(value, torch.nn.Module | torch.Tensor | type)
            kind = "value" if type(value) in _CONSTANTS else "inside"
    return kind if counts else None


def by_key(start: object, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The same steps, with values of dicts by their keys where these are texts.

    Numbers as keys may be of this process only, as those of hooks are.
    """
    made: tuple[Step, ...] = ()
    for how, name in steps:
        step: Step = (how, name)
        if how == "entry":
            with contextlib.suppress(AttributeError, LookupError, TypeError):
                key = follow(start, (*made, ("key", name)))
                step = ("item", key) if type(key) is str else step
        made = (*made, step)
    return made


def _of_class_code(start: object, steps: tuple[Step, ...]) -> bool:
    """Tell whether steps lead to a function of a class, or into one: it is known with the class."""
    classes = False
    for number, (how, _) in enumerate(steps, start=1):
        classes = classes or how == "class"
        with contextlib.suppress(AttributeError, LookupError, TypeError):
            if classes and isinstance(follow(start, steps[:number]), _CODE):
                return True
    return False


# --- outside of them ------------------------------------------------------------------------------


def _origin(
    traced: FullGraph, start: str, value: Any, steps: tuple[Step, ...]
) -> tuple[Origin, tuple[Step, ...]] | None:
    """Find an object that other processes have too, and the steps from it to what was read."""
    if isinstance(value, types.ModuleType) and python_module(value.__name__) is value:
        return ("python", str(module_name(value.__name__)), value), steps
    if not steps:
        return None
    (_, first), *rest = steps
    if start == "G" and not str(first).startswith("__builtins_dict"):
        way: tuple[Step, ...] = (("attribute", first), *rest)
        return ("python", str(module_name(traced.home)), sys.modules.get(traced.home)), way
    if start == "L" and first in traced.free:
        return ("closure", "", traced.scopes["L"]), steps
    if start == "L" and first == traced.self_name:
        return ("self", "", traced.scopes["L"][first]), tuple(rest)
    if start == "L" and first == traced.self_among and rest and rest[0] == ("item", 0):
        return ("self", "", traced.scopes["L"][first][0]), tuple(rest[1:])
    return None


def _outside(
    look: Look, ran: Ran, where: Start, name: str, start: Any, kind: Kind, steps: tuple[Step, ...]
) -> Iterator[Guard]:
    """The guards on something outside of modules, if it counts."""
    if where == "self" and not steps:
        yield from method_guards(look, ran, start, ())
    if _counts(where, name, kind, steps) and not _of_class_code(start, steps):
        steps = by_key(start, steps)
        if kind == "value" and not _is_plain(start, steps):
            kind = "inside"
        yield Guard(steps, kind, look.text(kind, steps, start))
        yield from code_guards(look, ran, start, kind, steps)


def _is_plain(start: Any, steps: tuple[Step, ...]) -> bool:
    """Tell whether steps lead to a constant, or nowhere."""
    with contextlib.suppress(AttributeError, LookupError, TypeError):
        return isinstance(follow(start, steps), (*_CONSTANTS, type))
    return True


def _counts(where: Start, name: str, kind: Kind, steps: tuple[Step, ...]) -> bool:
    """Tell whether something is not known already from torch's version."""
    if not steps:
        return False
    if where != "python":
        return True
    if name.startswith(_TRACER):
        return False
    if (name, steps[0][1]) in _REGISTRIES:
        return (kind != "length" or len(steps) > 1) and steps[-1][0] != "key"
    given = name == "os" or name.partition(".")[0] == "torch"
    return kind in ("function", "tensor") or not given
