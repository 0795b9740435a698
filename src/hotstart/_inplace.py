"""Ways to compile part of a model, and to compile in a first call. See `runtime.inplace`."""

from __future__ import annotations

import functools
import inspect
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, overload

import torch

from hotstart._api import compile
from hotstart.errors import OptionsError
from hotstart.events import Listener
from hotstart.options import Options
from hotstart.runtime.inplace import install, program_of, put, require_no_grad, uncompiled
from hotstart.runtime.program import Program

Compiled = TypeVar("Compiled", bound=Callable[..., Any])


def compile_submodule(
    model: torch.nn.Module,
    path: str,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Mapping[str, Any] | None = None,
    split_on: Any = "auto",
    options: Options | None = None,
    jobs: int | None = None,
    on_event: Listener | None = None,
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
        split_on: as in `hotstart.compile`.
        options: as in `hotstart.compile`.
        jobs: as in `hotstart.compile`.
        on_event: as in `hotstart.compile`.

    Returns:
        The program, for its report, and to be saved. In another process, what was saved is put in
        place by `hotstart.install(hotstart.load(file, model.encoder))`.

    Raises:
        OptionsError: there is no such module, or its `forward` was replaced by something else.
        HotstartError: whatever `hotstart.compile` raises; nothing is replaced then.
    """
    program = compile(
        uncompiled(_module_at(model, path), "forward"),
        args,
        kwargs,
        dynamic_shapes=dynamic_shapes,
        split_on=split_on,
        options=options,
        jobs=jobs,
        on_event=on_event,
    )
    install(program)
    return program


@overload
def compiled(target: Compiled, /) -> Compiled: ...
@overload
def compiled(
    *,
    dynamic_shapes: Mapping[str, Any] | None = ...,
    split_on: Any = ...,
    options: Options | None = ...,
    jobs: int | None = ...,
    on_event: Listener | None = ...,
) -> Callable[[Compiled], Compiled]: ...
def compiled(target: Any = None, /, **settings: Any) -> Any:
    """Compile a module class, function or method in its first call, which is the example.

    Later calls run the program; `Options(on_miss=...)` says what those do that it does not take.
    Each instance of a class has a program of its own. Threads that call first at the same time
    compile once. A call that would need autograd is a `ContractError`.

    A class stays what it is: its instances are pickled, copied, moved, and put into `train()` or
    `eval()` as ever, and a subclass with a `forward` of its own runs that. The program of a module
    is `module.forward.program`, that of a function `function.program`, both after the first call.
    What was decorated is `__wrapped__` of the function, or of the class' `forward`.

    Args:
        target: the class, function or method, where there is nothing to set.
        settings: `dynamic_shapes`, `split_on`, `options`, `jobs` and `on_event`, as in
            `hotstart.compile`.

    Raises:
        OptionsError: what is decorated is no module class with a `forward`, function or method, or
            a setting does not exist.
    """
    unknown = sorted(set(settings) - _SETTINGS)
    if unknown:
        raise OptionsError(f"compiled: got {unknown[0]!r}, takes {', '.join(sorted(_SETTINGS))}")
    if target is None:
        return functools.partial(_decorated, settings=settings)
    return _decorated(target, settings)


_SETTINGS = frozenset({"dynamic_shapes", "split_on", "options", "jobs", "on_event"})


def _decorated(target: Any, settings: Mapping[str, Any]) -> Any:
    if inspect.isfunction(target):
        return CompiledFunction(target, settings)
    if isinstance(target, type) and issubclass(target, torch.nn.Module):
        original = target.forward
        if inspect.isfunction(original) and original is not torch.nn.Module.forward:
            target.forward = _compiling_method(original, settings)
            return target
    raise OptionsError(
        f"compiled: got {target!r}, takes a subclass of torch.nn.Module with a forward of its own, "
        "a function, or a method where it is defined"
    )


class CompiledFunction:
    """A function or method that is compiled in its first call; see `compiled`.

    Attributes:
        program: the program of a function, once there is one; methods have one for each object.
    """

    program: Program | None

    def __init__(self, function: types.FunctionType, settings: Mapping[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.program = None
        self.__hotstart_original__ = function
        self._settings = settings
        self._method = _compiling_method(function, settings, self)
        self._compiling = threading.RLock()

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        """The method of an object, or this itself where it is looked up in the class."""
        return self if owner is None else self._method.__get__(owner)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function."""
        if torch.compiler.is_compiling():
            return self.__hotstart_original__(*args, **kwargs)
        require_no_grad(self.__hotstart_original__, args, kwargs)
        if self.program is None:
            with self._compiling:
                if self.program is None:
                    self.program = compile(
                        self.__hotstart_original__, args, kwargs, **self._settings
                    )
        return self.program(*args, **kwargs)


def _compiling_method(
    original: types.FunctionType,
    settings: Mapping[str, Any],
    attribute: CompiledFunction | None = None,
) -> types.FunctionType:
    """A method that compiles itself in its first call on an object, then leaves its place.

    Args:
        original: what is compiled.
        settings: how.
        attribute: what a class has under the name of the method; None for the method itself.
    """
    name = original.__name__
    compiling = threading.RLock()

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        # A subclass that overrides the method reaches this by super(): its own is what it calls.
        overridden = inspect.getattr_static(type(self), name) is not (attribute or call)
        if torch.compiler.is_compiling() or overridden:
            return original(self, *args, **kwargs)
        method = types.MethodType(original, self)
        require_no_grad(method, args, kwargs)
        with compiling:
            program = program_of(self, name)
            if program is None:
                program = compile(method, args, kwargs, **settings)
                put(self, name, program)
        return program(*args, **kwargs)

    call.__dict__["__hotstart_original__"] = original
    made: Any = call
    return made  # type: ignore[no-any-return]


def _module_at(model: torch.nn.Module, path: str) -> torch.nn.Module:
    if not isinstance(model, torch.nn.Module):
        raise OptionsError(f"model: got a {type(model).__qualname__}, takes a torch.nn.Module")
    if not isinstance(path, str):
        raise OptionsError(f"path: got {path!r}, takes a dotted path as text, such as 'encoder'")
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        names = ", ".join(name for name, _ in model.named_children())
        raise OptionsError(
            f"path: got {path!r}, but {error}. The model's own modules are: {names}"
        ) from None
