"""Record the calls of a method while others call it, and leave no trace of that."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from msgspec.structs import replace

from hotstart._torch.running.modes import autocast_state
from hotstart.capture.arguments import describe_arguments
from hotstart.errors import HotstartError
from hotstart.model import IN_PLACE_OF
from hotstart.observing.seen import SeenCall, SeenTarget

_CPU = torch.device("cpu")  # for tensors of the meta device, of which no call has any that computes


class Recorder:
    """Collects the calls of one method, from any thread.

    A call that is made while the same thread is inside another one is part of that one. A call
    that raises is not collected: eager refuses it, too.

    Attributes:
        recording: whether it is in the place of the method.
    """

    def __init__(self, about: str) -> None:
        self.recording = False
        self._about = about
        self._seen: dict[object, SeenCall] = {}
        self._refused: dict[str, None] = {}
        self._lock = threading.Lock()
        self._inside = threading.local()

    def seen(self) -> SeenTarget:
        """The calls that were collected so far."""
        with self._lock:
            return SeenTarget(self._about, tuple(self._seen.values()), tuple(self._refused))

    def call(self, method: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Make a call, and collect it if it returns."""
        if getattr(self._inside, "call", False):
            return method(*args, **kwargs)
        self._inside.call = True
        try:
            found = described(method, args, kwargs)  # before: the call may change its arguments
            result = method(*args, **kwargs)
        finally:
            self._inside.call = False
        self._add(found)
        return result

    def _add(self, found: tuple[object, SeenCall] | str) -> None:
        with self._lock:
            if isinstance(found, str):
                self._refused[found] = None
                return
            key, call = found
            known = self._seen.get(key)
            self._seen[key] = call if known is None else replace(known, count=known.count + 1)


def described(
    method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[object, SeenCall] | str:
    """Describe a call, with what tells it from others; the reason if it cannot be described."""
    try:
        # Number arguments of **kwargs by name: calls that differ in their order are one.
        found = describe_arguments(method, args, dict(sorted(kwargs.items())), None, _CPU)
        owner = getattr(method, "__self__", None)
        call = SeenCall(
            parameters=found.parameters,
            tensors=found.tensors,
            strides=found.strides,
            by_position=found.by_position,
            training=owner.training if isinstance(owner, torch.nn.Module) else None,
            autocast=autocast_state(),
        )
        return (call.form, call.shapes, call.layouts, call.training, call.autocast), call
    except HotstartError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - of an argument's class; the call itself goes on
        return f"{type(error).__qualname__} while an argument was described: {error}."


class _Watch:
    """A recorder in the place of a method of one object.

    Attributes:
        before: what was there as an attribute of the object; None if the class' own was.
    """

    def __init__(self, owner: Any, name: str, recorder: Recorder) -> None:
        self.owner, self.name, self.recorder = owner, name, recorder
        self.before: Any = vars(owner).get(name)

    def method(self) -> Callable[..., Any]:
        """The method without the recorder."""
        found = self.before
        method: Callable[..., Any] = _of_class(self.owner, self.name) if found is None else found
        return method

    def put(self) -> None:
        """Begin to record."""
        watch, method = self, self.method()

        @functools.wraps(getattr(method, "__func__", method))
        def recorded(owner: Any, *args: Any, **kwargs: Any) -> Any:
            # A copy of the owner has this attribute too; what is traced is no call.
            if owner is not watch.owner:
                return _of_class(owner, watch.name)(*args, **kwargs)
            if torch.compiler.is_compiling():
                return watch.method()(*args, **kwargs)
            return watch.recorder.call(watch.method(), args, kwargs)

        recorded.__dict__["watch"] = self
        if inspect.ismethod(method):
            recorded.__dict__.setdefault(IN_PLACE_OF, method.__func__)
        # In its __dict__, since an object may take no attributes, as those of frozen dataclasses.
        vars(self.owner)[self.name] = types.MethodType(recorded, self.owner)

    def take_out(self) -> None:
        """Put back what was there, also where another watch was put in place since."""
        above: _Watch | None = None
        here = getattr(vars(self.owner).get(self.name), "watch", None)
        while isinstance(here, _Watch) and here is not self:
            above, here = here, getattr(here.before, "watch", None)
        if here is not self:
            return  # something else took its place, and keeps it
        if above is not None:
            above.before = self.before
        elif self.before is None:
            del vars(self.owner)[self.name]
        else:
            vars(self.owner)[self.name] = self.before


def _of_class(owner: Any, name: str) -> Any:
    """The method that a class gives its object, which may be a static one or any descriptor's."""
    found: Any = inspect.getattr_static(type(owner), name)
    try:
        return found.__get__(owner, type(owner)) if hasattr(found, "__get__") else found
    except AttributeError:  # as that of traced modules, which have it by `__getattr__`
        return type(owner).__getattr__(owner, name)


@contextlib.contextmanager
def recording(owner: Any, name: str, recorder: Recorder) -> Iterator[None]:
    """Record the calls of a method of one object."""
    watch = _Watch(owner, name, recorder)
    watch.put()
    recorder.recording = True
    try:
        yield
    finally:
        recorder.recording = False
        watch.take_out()
