"""Trace functions of the standard library whose code Dynamo cannot trace."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable, Iterator
from typing import Any

from hotstart._torch.in_between import in_between


def _logger(_: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Get the logger of a name, which is made where there is none, as in every process."""
    from torch._dynamo.variables.misc import LoggingLoggerVariable

    given = [*args, *kwargs.values()]
    if not all(each.is_python_constant() for each in given):
        return None
    return LoggingLoggerVariable(logging.getLogger(*(each.as_python_constant() for each in given)))


def _copied(tx: Any, args: list[Any], _: dict[str, Any]) -> Any:
    """Copy a list or dict; other objects are copied as their class says."""
    if len(args) != 1 or args[0].python_type() not in (list, dict):
        return None
    return args[0].call_method(tx, "copy", [], {})


_TRACED: dict[Callable[..., Any], Callable[..., Any]] = {
    logging.getLogger: _logger,
    copy.copy: _copied,
}


@contextlib.contextmanager
def standard_functions() -> Iterator[None]:
    """Call these functions for what they do.

    `UserFunctionVariable` (2.11 to 2.15) traces their code: `getLogger` compares names of loggers,
    and `copy` looks up methods of C.
    """
    from torch._dynamo.variables.functions import UserFunctionVariable

    def call(known: Any, self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
        traced = _TRACED.get(self.fn)
        made = None if traced is None else traced(tx, list(args), dict(kwargs))
        return known(self, tx, args, kwargs) if made is None else made

    with in_between(UserFunctionVariable, "call_function", call):
        yield
