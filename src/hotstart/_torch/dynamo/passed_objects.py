"""Record where traced code could tell a passed object from its stand-in.

A model is traced with stand-ins of the lists, dicts and objects that it is passed. Code that
reaches the caller's object through a global, the model or a closure, or that compares an argument
with it by identity, behaves differently than in eager, now or in a later call. So does code that
compares tensors by identity. Private names, of torch 2.11 to 2.15:
`variables.lazy.LazyVariableTracker.create` and `variables.builder.VariableBuilder.__call__`, by one
of which Dynamo takes in each object; `vt_identity_compare` of `variables.builtin` and
`variables.object_protocol`, which answers `is`, `==` of objects that do not say what it means for
them, and `in`, from 2.13 on; `variables.builtin.BuiltinVariable.call_function`, which answers all
operators: `is` of tensors, and up to 2.12 of objects.
"""

from __future__ import annotations

import contextlib
import importlib.util
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from hotstart._torch.in_between import in_between

_TORCH = Path(torch.__file__).parent
_IDENTITY = (operator.is_, operator.is_not)
_COMPARISONS = (*_IDENTITY, operator.eq, operator.ne)


@contextlib.contextmanager
def recording_passed_objects(
    passed: Mapping[int, tuple[str, object]], self_name: str | None
) -> Iterator[dict[str, str]]:
    """Collect where a trace of this thread reaches passed objects by other names, or compares them.

    Args:
        passed: the caller's objects, each with its name, by identity.
        self_name: the variable that holds the traced module; None for a plain function.

    Yields:
        By name of an argument, another of Dynamo's names that may refer to it.
    """
    found: dict[str, str] = {}
    from torch._dynamo.variables import builder, lazy

    def note(value: Any, source: Any) -> None:
        if id(value) in passed:
            found.setdefault(passed[id(value)][0], getattr(source, "name", ""))

    def take_in(build: Any, self: Any, value: Any) -> Any:
        note(value, self.source)
        return build(self, value)

    def meet(create: Any, value: Any, source: Any, **options: Any) -> Any:
        note(value, source)
        return create(value, source, **options)

    def compare(left: Any, right: Any) -> None:
        for argument, other in ((left, right), (right, left)) if left is not right else ():
            name = _argument(argument, self_name)
            if name is not None and _is_from_before(other):
                found.setdefault(name, other.source.name)

    with contextlib.ExitStack() as entered:
        if passed:
            entered.enter_context(in_between(builder.VariableBuilder, "__call__", take_in))
            entered.enter_context(in_between(lazy.LazyVariableTracker, "create", meet))
        entered.enter_context(_seeing_comparisons(compare))
        yield found


@contextlib.contextmanager
def _seeing_comparisons(see: Callable[[Any, Any], None]) -> Iterator[None]:
    """Call a function with the variables of Dynamo's whose identity a trace compares."""
    from torch._dynamo.variables import builtin

    def compare(compared: Any, left: Any, right: Any) -> Any:
        see(left, right)
        return compared(left, right)

    def call(function: Any, self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
        if len(args) == 2 and self.fn in _COMPARISONS:
            operands = [each.realize() for each in args]
            if _compares_tensors(self.fn, tx, *operands) or (
                not asked and _compares_identity(self.fn, *operands)
            ):
                see(*operands)
        return function(self, tx, args, kwargs)

    modules: list[Any] = [builtin]
    if importlib.util.find_spec("torch._dynamo.variables.object_protocol") is not None:
        modules.append(importlib.import_module("torch._dynamo.variables.object_protocol"))
    asked = [each for each in modules if hasattr(each, "vt_identity_compare")]
    with contextlib.ExitStack() as entered:
        for module in asked:
            entered.enter_context(in_between(module, "vt_identity_compare", compare))
        entered.enter_context(in_between(builtin.BuiltinVariable, "call_function", call))
        yield


def _compares_tensors(function: Any, tx: Any, left: Any, right: Any) -> bool:
    """Tell whether an operator asks which tensor its operands are, but for torch's own code.

    `nn.MultiheadAttention` asks whether keys are queries, and computes the same in fewer steps.
    """
    from torch._dynamo.variables import TensorVariable

    are_tensors = isinstance(left, TensorVariable) and isinstance(right, TensorVariable)
    by_torch = Path(tx.f_code.co_filename).is_relative_to(_TORCH)
    return function in _IDENTITY and are_tensors and not by_torch


def _compares_identity(function: Any, left: Any, right: Any) -> bool:
    """Tell whether an operator asks which object its operands are; torch up to 2.12."""
    from torch._dynamo.variables import UserDefinedObjectVariable

    return function in _IDENTITY or all(
        isinstance(each, UserDefinedObjectVariable) and type(each.value).__eq__ is object.__eq__
        for each in (left, right)
    )


def _is_from_before(variable: Any) -> bool:
    """Tell whether a variable of Dynamo's is a container, object or tensor from before the call."""
    from torch._dynamo import variables

    private: Any = variables
    kinds = (
        private.ListVariable,
        private.ConstDictVariable,
        private.SetVariable,
        private.UserDefinedObjectVariable,
        private.TensorVariable,
    )
    return isinstance(variable, kinds) and variable.source is not None


def _argument(variable: Any, self_name: str | None) -> str | None:
    """The name of a container, object or tensor that is passed; None for what is not."""
    if not _is_from_before(variable):
        return None
    name = str(variable.source.name)
    found = re.match(r"L\['(\w+)'\]", name)
    return None if found is None or found[1] == self_name else re.sub(r"^L\['(\w+)'\]", r"\1", name)
