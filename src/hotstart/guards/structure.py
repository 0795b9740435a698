"""Compare modules and other objects with what a trace saw of them."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import torch

from hotstart._torch.processes.ranks import group_text
from hotstart._torch.running.hooks import global_hooks
from hotstart._torch.running.operators import operator_code, operator_schemas
from hotstart.guards.functions import class_name
from hotstart.guards.objects import Describer, Unknowable
from hotstart.guards.one_line import digest, tensor_text
from hotstart.model import IN_PLACE_OF, Finder, Model, contents
from hotstart.records.artifact import Requirements
from hotstart.records.guards import Change, Guard, Step, written

MISSING = "nothing"
"""The text of what is not there."""

_OWN = "the program's own"
_LONG = 200

Code: TypeAlias = tuple[tuple[str, str], ...]
"""Functions, each by name and as a text of its code."""


def misfits(
    requirements: Requirements, finder: Finder, look: Look, hooks_of_root: bool
) -> list[Change]:
    """List all that differs between a model's modules and those of the build.

    Args:
        requirements: what was read of them.
        finder: finds the modules.
        look: what they are now.
        hooks_of_root: whether a call of the program stands for the root's hooks, too.
    """
    problems: list[Change] = []
    fitting: list[type | None] = [None] * len(requirements.kinds)
    split = [_by_class(kind.guards) for kind in requirements.kinds]
    for path, number in requirements.modules:
        module = finder.module(path)
        kind = requirements.kinds[number]
        if module is None:
            problems.append((path or "model", f"a {kind.cls}", MISSING))
            continue
        if type(module) is not fitting[number]:
            found = class_name(type(module))
            if not same_class(kind.cls, found):
                problems.append((path or "model", f"a {kind.cls}", found))
                continue
            of_class = [*_differing(look, path, module, split[number][0])]
            problems += of_class
            fitting[number] = None if of_class else type(module)
        problems += _differing(look, path, module, split[number][1])
        if kind.own or look.has_own_code(module):
            hooks = bool(path) or hooks_of_root
            problems += _of_code(path or "model", kind.own, look.own_code(module, hooks))
    problems += _of_code("every module", requirements.hooks, look.global_hooks())
    return problems


def operator_misfits(requirements: Requirements, look: Look) -> list[Change]:
    """Every operator whose schemas or compiled code differ from the build's."""
    found = ((name, expected, look.operator(name)) for name, expected in requirements.operators)
    return [
        (f"operator {name}", expected, given or MISSING)
        for name, expected, given in found
        if given != expected
    ]


def differs(guard: Guard, found: str) -> bool:
    """Tell whether something is known not to be what a guard says."""
    if not guard.text or found in (guard.text, _OWN):
        return False
    match guard.kind:
        case "class":
            return not same_class(guard.text, found)
        case "function" | "code":
            return not _same_code(guard.text, found)
        case "method":  # those of further bases were not reached
            expected, given = guard.text.split("; "), found.split("; ")
            same = len(expected) <= len(given) and all(map(_same_code, expected, given))
            return not same
    return True


class Look:
    """Looks at modules. One object is for many of them, as what they are is worked out once.

    Args:
        own: tensors that the program itself reads, whatever they hold by now.
    """

    def __init__(self, own: Iterable[torch.Tensor] = ()) -> None:
        self._own = {id(tensor): tensor for tensor in own}
        self._describer = Describer()
        self._methods: dict[type, frozenset[str]] = {}
        self._shared: dict[tuple[int, str, tuple[Step, ...]], tuple[Any, str]] = {}

    def global_hooks(self) -> Code:
        """The hooks that run at every call of any module."""
        held = global_hooks().items()
        return tuple((name, self._describer.member_text(h)) for name, hooks in held
                     for h in hooks.values())  # fmt: skip

    def operator(self, name: str) -> str:
        """An operator by its schemas, and by a hash of the code that compilers run; or nothing."""
        schemas = operator_schemas(name)
        code = digest(map(self._describer.member_text, operator_code(name)))
        return f"{'; '.join(schemas)} {code}".strip() if schemas else ""

    def has_own_code(self, module: torch.nn.Module) -> bool:
        """Tell whether a module has hooks, or methods in place of its class'."""
        held = vars(module)
        if held["_forward_hooks"] or held["_forward_pre_hooks"]:
            return True
        return not self._methods_of(type(module)).isdisjoint(held)

    def own_code(self, module: torch.nn.Module, hooks: bool) -> Code:
        """These methods, and these hooks where they count."""
        found = self.own_functions(module, hooks)
        return tuple((name, self._describer.member_text(value)) for name, value in found)

    def own_functions(self, module: torch.nn.Module, hooks: bool) -> list[tuple[str, Any]]:
        """The functions themselves, by name."""
        held = vars(module)
        own = sorted(self._methods_of(type(module)).intersection(held))
        found = [(name, held[name]) for name in own if not _runs_the_class(module, name)]
        for name in ("_forward_pre_hooks", "_forward_hooks") if hooks else ():
            found += [(name, hook) for hook in held[name].values()]
        return found

    def _methods_of(self, cls: type) -> frozenset[str]:
        known = self._methods.get(cls)
        if known is None:
            defined = (name for name, value in vars(cls).items() if callable(value))
            inherited = (self._methods_of(base) for base in cls.__bases__)
            known = self._methods[cls] = frozenset(defined).union(*inherited)
        return known

    def text(self, kind: str, steps: tuple[Step, ...], start: Any) -> str:
        """The text that a guard of a kind has now; empty if nothing can be said.

        What many modules hold, as a configuration, is looked at once.
        """
        try:
            if len(steps) > 1:
                held = follow(start, steps[:1])
                asked = (id(held), kind, steps[1:])
                if asked not in self._shared:
                    # With the object, so that no other one gets its identity.
                    self._shared[asked] = held, self.text(kind, steps[1:], held)
                return self._shared[asked][1]
            if kind in ("attribute", "own", "contains"):
                return "there" if leads(start, kind, steps) else "not there"
            if kind == "method":
                *way, (_, name) = steps
                return self._describer.method_text(follow(start, tuple(way)), str(name)) or MISSING
            return self._of(kind, follow(start, steps))
        except (AttributeError, LookupError, TypeError):
            return MISSING

    def _of(self, kind: str, value: Any) -> str:
        match kind:
            case "length":
                return str(len(value))
            case "keys":
                return f"keys {digest(map(self._describer.member_text, value))}"
            case "class":
                return class_name(type(value))
            case "code":
                return self._describer.member_text(value)
            case "function" if hasattr(value, "__qualname__"):
                return self._describer.function_text(value)
            case "group":
                return group_text(value)
            case "tensor" if isinstance(value, torch.Tensor):
                return _OWN if id(value) in self._own else contents_text(value)
            case "value" | "inside":
                return self._describer.text(value) or inside(value)
        return ""


def inside(value: Any) -> str:
    """The contents of an object as text, hashed if long; empty if they cannot be described."""
    try:
        parts = [f"{name} {text}".strip() for name, text in Describer().describe("", value)]
    except Unknowable:
        return ""
    text = ", ".join(parts)
    return text if len(text) < _LONG else digest(parts)


def contents_text(tensor: torch.Tensor) -> str:
    """A tensor with its contents; empty if it has none to read."""
    found = contents(tensor)
    if found is None:
        return ""
    return f"{tensor_text(tensor)} {hashlib.blake2b(found, digest_size=16).hexdigest()}"


def environment_text(name: str) -> str:
    """The text of a variable of the environment."""
    return repr(os.environ[name]) if name in os.environ else MISSING


def follow(start: Any, steps: tuple[Step, ...]) -> Any:
    """Follow attributes and items from an object.

    Properties of modules are not read: their code may change buffers, as spectral norm's does.

    Raises:
        AttributeError, LookupError, TypeError: there is no such way.
    """
    for how, name in steps:
        match how:
            case "attribute":
                start = _attribute(start, str(name))
            case "item":
                start = _item(start, name)
            case "key" | "entry":
                keys = list(dict.keys(start) if isinstance(start, dict) else start)
                key = keys[int(name)]
                start = key if how == "key" else dict.__getitem__(start, key)
            case "class":
                start = type(start)
    return start


def _attribute(holder: Any, name: str) -> Any:
    if isinstance(holder, torch.nn.Module) and isinstance(getattr(type(holder), name, 0), property):
        raise AttributeError(f"{name} is a property of {type(holder).__qualname__}")
    try:
        return getattr(holder, name)
    except ValueError as error:  # of a variable that is closed over and was deleted
        raise AttributeError(str(error)) from None


def _item(holder: Any, key: str | int) -> Any:
    """An item as a container holds it, whatever its class makes of that.

    Raises:
        LookupError, TypeError: there is none.
    """
    match holder:
        case dict() if key not in dict.keys(holder):
            raise KeyError(key)
        case dict():
            return dict.__getitem__(holder, key)
        case list():
            return list.__getitem__(holder, key)  # type: ignore[index]  # a TypeError is announced
        case tuple():
            return tuple.__getitem__(holder, key)  # type: ignore[index]
    return holder[key]


def leads(start: Any, kind: str, steps: tuple[Step, ...]) -> bool:
    """Tell whether the last of some steps leads to an attribute, to one of its own, or to an item.

    Raises:
        AttributeError, LookupError, TypeError: those before do not lead anywhere.
    """
    *way, (_, last) = steps
    holder = follow(start, tuple(way))
    match kind:
        case "contains":
            return last in holder
        case "own":
            return last in vars(holder)
    return hasattr(holder, str(last))


def runs_hooks(model: Model) -> bool:
    """Tell whether a call of a model runs its root's hooks; that of a method does not."""
    return not inspect.ismethod(model)


def _runs_the_class(module: torch.nn.Module, name: str) -> bool:
    """Tell whether an object's own method is its class', or hotstart's in place of that."""
    function = getattr(vars(module)[name], "__func__", None)
    function = getattr(function, IN_PLACE_OF, function)
    return function is inspect.getattr_static(type(module), name)


def is_method(cls: type, name: str) -> bool:
    """Tell whether a class has code of this name, which an object's own attribute hides."""
    return callable(getattr(cls, name, None))


def _of_code(what: str, expected: Code, found: Code) -> Iterator[Change]:
    same = len(expected) == len(found) and all(
        name == other and _same_code(text, here)
        for (name, text), (other, here) in zip(expected, found, strict=True)
    )
    if not same:
        wanted, given = (", ".join(map(" ".join, code)) or "none" for code in (expected, found))
        yield f"hooks and methods of {what}", wanted, given


def _by_class(guards: Iterable[Guard]) -> tuple[list[Guard], list[Guard]]:
    """Guards that hold for all modules of a class if they do for one, and the others."""
    split: tuple[list[Guard], list[Guard]] = ([], [])
    for guard in guards:
        split[not guard.steps or guard.steps[0][0] != "class"].append(guard)
    return split


def _differing(look: Look, path: str, module: Any, guards: Iterable[Guard]) -> Iterator[Change]:
    for guard in guards:
        found = look.text(guard.kind, guard.steps, module)
        if differs(guard, found):
            yield written(path, guard.kind, guard.steps), guard.text, found


def _same_code(expected: str, found: str) -> bool:
    """Tell whether two texts of functions, a name and maybe a hash, are of the same."""
    wanted, *code = expected.split(" ")
    name, *own = found.split(" ")
    return (code == own or not code) and same_class(wanted, name)


def same_class(expected: str, found: str) -> bool:
    """A script's classes are in `__main__` in one process and in a module in another."""
    if expected == found:
        return True
    here, there = (name.removeprefix("__main__.") for name in (expected, found))
    return (here != expected and f".{found}".endswith(f".{here}")) or (
        there != found and f".{expected}".endswith(f".{there}")
    )
