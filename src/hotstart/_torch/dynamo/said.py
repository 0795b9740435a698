"""Have Dynamo pass over what forward says: warnings, logs and prints are no part of a program."""

from __future__ import annotations

import builtins
import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from hotstart._torch.in_between import in_between

_OF_LOGGERS = frozenset(
    ("debug", "info", "warning", "warn", "error", "exception", "critical", "fatal", "log")
)

_OF_LIBRARIES = frozenset(("warning_once", "info_once", "warning_advice"))
"""Methods that transformers gives all loggers."""

_OF_ROOT = (getattr(logging, name) for name in _OF_LOGGERS if hasattr(logging, name))

SAYING: frozenset[Callable[..., Any]] = frozenset((builtins.print, warnings.warn, *_OF_ROOT))
"""Functions that a trace leaves out: Dynamo's `ignore_logging_functions` (2.11 to 2.15)."""


@contextlib.contextmanager
def loggers_say_nothing() -> Iterator[None]:
    """Leave out what a logger is told; it is enabled for no level, as if logging were off.

    `LoggingLoggerVariable` (2.11 to 2.15) raises for all methods.
    """
    from torch._dynamo.variables import ConstantVariable
    from torch._dynamo.variables.misc import LoggingLoggerVariable

    def call(known: Any, self: Any, tx: Any, name: str, *args: Any) -> Any:
        if name in _OF_LOGGERS | _OF_LIBRARIES:
            return ConstantVariable.create(None)
        if name == "isEnabledFor":
            return ConstantVariable.create(False)
        return known(self, tx, name, *args)

    with in_between(LoggingLoggerVariable, "call_method", call):
        yield
