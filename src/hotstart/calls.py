"""The calls a program is built for."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hotstart.errors import OptionsError
from hotstart.faults import require


@dataclass(frozen=True, kw_only=True)
class Call:
    """One way to call a model, by example.

    Attributes:
        args: positional example inputs, as in `hotstart.compile`.
        kwargs: keyword example inputs.
        dynamic_shapes: which dimensions are dynamic, as in `hotstart.compile`.
        method: dotted path from the model to what is called, such as `encode` or
            `encoder.forward`; empty for the model itself.
    """

    __module__ = "hotstart"  # where users find it
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] | None = None
    dynamic_shapes: Mapping[str, Any] | None = None
    method: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.args, Sequence) or isinstance(self.args, str | bytes):
            raise OptionsError(
                f"args: got a {type(self.args).__qualname__}, takes a tuple or list of arguments, "
                "such as (x,)"
            )
        if not isinstance(self.method, str):
            raise OptionsError(f"method: got {self.method!r}, takes a dotted path as text")
        for name in ("kwargs", "dynamic_shapes"):
            value = getattr(self, name)
            if value is not None and not _by_name(value):
                raise OptionsError(
                    f"{name}: got a {type(value).__qualname__}, takes a mapping whose keys are "
                    "names of arguments"
                )


class LearntCalls(abc.ABC):
    """Calls of a model that were learnt, and that propose what to build for them."""

    @abc.abstractmethod
    def compile_observed(self, **settings: Any) -> Any:
        """Compile the model that they were learnt of; settings as of `hotstart.compile`."""

    @abc.abstractmethod
    def propose(self, *, device: str = "cpu") -> dict[str, Call]:
        """The calls to build for, on a device."""

    @abc.abstractmethod
    def require_served(self, program: Any) -> None:
        """Raise an OptionsError if a program refuses a call that was observed."""

    @abc.abstractmethod
    def surroundings(self, model: Callable[..., Any]) -> contextlib.AbstractContextManager[None]:
        """The state in which a model is built for them."""


def _by_name(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def requested_calls(only: Call, calls: Mapping[str, Call] | None) -> dict[str, Call]:
    """The calls to build for, by name: those that were named, or one without a name.

    Raises:
        OptionsError: both ways were used, or a name is none.
    """
    if calls is None:
        return {"": only}
    if only != Call():
        raise OptionsError(
            "calls: got args, kwargs or dynamic_shapes besides; give each call its own, in a "
            "hotstart.Call"
        )
    require("calls", calls, Mapping, "a mapping from names to hotstart.Call")
    if not calls:
        raise OptionsError("calls: got none, takes at least one hotstart.Call by name")
    for name, call in calls.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise OptionsError(f"calls: got name {name!r}, takes an identifier such as 'decode'")
        require(f"calls[{name!r}]", call, Call, "a hotstart.Call")
    return dict(calls)
