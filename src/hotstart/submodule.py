"""Programs in the places of the methods they were compiled from.

A program takes the place of a method as an attribute of the object: a bound method that shadows the
class' own. `nn.Module.__call__` finds it where it looks for `forward`, so hooks run around it, and
everything else about the module stays what it was. A copy of the object, and one that is unpickled,
runs what its class says. So does Dynamo: a larger model that holds the object is traced as if
nothing had been replaced.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.utils._pytree as pytree
from msgspec.structs import replace

from hotstart.api import compile
from hotstart.calls import Call, LearntCalls
from hotstart.capture.naming import naming_of_part
from hotstart.errors import ContractError, OptionsError
from hotstart.faults import require
from hotstart.model import IN_PLACE_OF, Model, ModelIndex, roots
from hotstart.options import Options
from hotstart.program import Program

if TYPE_CHECKING:
    from hotstart.cache.store import Store


def compile_submodule(
    model: torch.nn.Module,
    path: str,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Mapping[str, Any] | None = None,
    calls: Mapping[str, Call] | LearntCalls | None = None,
    split_on: Any = "auto",
    options: Options | None = None,
    cache: str | os.PathLike[str] | Store | None = None,
) -> Program:
    """Compile one module of a model and put the program in its place.

    The module stays in the model, with its parameters, buffers, hooks and name; only what its
    `forward` does is replaced. Calling it where autograd would be needed is a `ContractError`.

    Args:
        model: the model.
        path: the module's path from the model, such as `"encoder"` or `"layers.0.attention"`.
        args: positional example inputs of the module, not of the model.
        kwargs: keyword example inputs of the module.
        dynamic_shapes: as in `hotstart.compile`, by names of the module's parameters.
        calls: as in `hotstart.compile`, calls of the module; or what `hotstart.observe` recorded
            of it.
        split_on: as in `hotstart.compile`.
        options: as in `hotstart.compile`.
        cache: as in `hotstart.compile`.

    Returns:
        The program, for its report, and to be saved. In another process, what was saved is put in
        place by `hotstart.install(hotstart.load(file, model.encoder))`.

    Raises:
        OptionsError: there is no such module, or its `forward` was replaced by something else.
        HotstartError: whatever `hotstart.compile` raises; nothing is replaced then.
    """
    module = _module_at(model, path)
    with _without_program(module):
        program = compile(
            uncompiled(module, "forward"),
            args,
            kwargs,
            dynamic_shapes=dynamic_shapes,
            calls=calls,
            split_on=split_on,
            options=options,
            cache=cache,
        )
    naming = naming_of_part(ModelIndex(model), path)
    program.artifact = replace(program.artifact, naming=naming)
    install(program)
    return program


def install(program: Program) -> None:
    """Put a program in the place of the method it was compiled from.

    Args:
        program: one that `compile_submodule` made, here or in the process that saved it, or that
            `hotstart.compile` made from a bound method such as `model.encoder.forward`.

    Raises:
        OptionsError: the program was compiled from something else, or what it was compiled from
            was replaced by something else.
    """
    takes = "a program, as hotstart.compile_submodule or hotstart.load gives"
    require("program", program, Program, takes)
    model = program.model
    if model is None:
        raise OptionsError(
            "program: got one that was loaded with weights, takes one with a model: "
            "install(hotstart.load(file, module))"
        )
    if isinstance(model, torch.nn.Module) and all(
        call.contract.training is None for call in program.artifact.calls
    ):
        # Loaded for a module. What the program falls back to must not lead back to the program.
        model = program.model = uncompiled(model, "forward")
    if not inspect.ismethod(model):
        raise OptionsError(
            f"program: got one compiled from a {type(model).__qualname__}, takes one compiled from "
            "a bound method. Use hotstart.compile_submodule(model, path, ...), or "
            "hotstart.compile(module.forward, ...)."
        )
    put(model.__self__, model.__func__.__name__, program)


def restore(module: torch.nn.Module, method: str = "forward") -> None:
    """Let a module run its own `forward`, or another method, again if a program is in its place."""
    require("module", module, torch.nn.Module, "a torch.nn.Module")
    if program_of(module, method) is not None:
        delattr(module, method)


@contextlib.contextmanager
def _without_program(module: torch.nn.Module) -> Iterator[None]:
    """Take a program out for a while: it is no part of the module for the key in a cache."""
    before = program_of(module, "forward")
    restore(module)
    try:
        yield
    finally:
        if before is not None:
            put(module, "forward", before)


def put(owner: Any, name: str, program: Program) -> None:
    """Shadow a method of one object by a program.

    Raises:
        OptionsError: something else is there.
    """

    @functools.wraps(uncompiled(owner, name).__func__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        # A copy of the owner has this attribute too, and weights of its own.
        if torch.compiler.is_compiling() or self is not owner:
            return getattr(type(self), name)(self, *args, **kwargs)
        assert program.model is not None, "only a program with a model is put anywhere"
        _require_no_grad(program.model, args, kwargs)
        return program(*args, **kwargs)

    call.__dict__.update({"program": program, IN_PLACE_OF: uncompiled(owner, name).__func__})
    setattr(owner, name, types.MethodType(call, owner))


def program_of(owner: Any, name: str) -> Program | None:
    """The program in the place of a method; None if there is none."""
    method = _attributes(owner).get(name)
    program = getattr(method, "program", None)
    if isinstance(program, Program) and getattr(program.model, "__self__", None) is owner:
        return program
    return None  # a copy of the owner has the attribute too


def uncompiled(owner: Any, name: str) -> types.MethodType:
    """The method that a class gives its object, whatever program is in its place.

    Raises:
        OptionsError: something else is in its place.
    """
    method = _attributes(owner).get(name)
    own = getattr(type(owner), name).__get__(owner)  # what unpickling puts there as well
    if method not in (None, own) and not isinstance(getattr(method, "program", None), Program):
        raise OptionsError(
            f"{type(owner).__qualname__}: expected {name} to be what the class defines, found "
            f"{method!r} in the object. Take that out first, or compile it as a function."
        )
    return types.MethodType(inspect.getattr_static(type(owner), name), owner)


def _attributes(owner: Any) -> dict[str, Any]:
    if not hasattr(owner, "__dict__"):
        raise OptionsError(
            f"{type(owner).__qualname__}: expected an object with a __dict__ for a program to be "
            "kept in, found __slots__. Leave them out, or use hotstart.compile."
        )
    attributes: dict[str, Any] = vars(owner)
    return attributes


def _require_no_grad(model: Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise if a call needs autograd, which a program would leave out without a word."""
    if not torch.is_grad_enabled():
        return
    parameters = (p for root in roots(model).values() for p in root.parameters())
    tensors = (t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor))
    if any(tensor.requires_grad for tensors in (parameters, tensors) for tensor in tensors):
        raise ContractError(
            "autograd",
            "a call that it would have to record",
            "calls for inference",
            "call it under torch.no_grad() or torch.inference_mode(), or call "
            "requires_grad_(False) on the module",
        )


def _module_at(model: torch.nn.Module, path: str) -> torch.nn.Module:
    require("model", model, torch.nn.Module, "a torch.nn.Module")
    if not isinstance(path, str):
        raise OptionsError(f"path: got {path!r}, takes a dotted path as text, such as 'encoder'")
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        names = ", ".join(name for name, _ in model.named_children())
        raise OptionsError(
            f"path: got {path!r}, but {error}. The model's own modules are: {names}"
        ) from None
