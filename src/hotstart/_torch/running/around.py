"""Get between the operators that code calls."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any


def around_operators(
    call: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any],
) -> contextlib.AbstractContextManager[Any]:
    """Call a function in place of each operator, in this thread; inside of it, operators run.

    `TorchDispatchMode` (2.11 to 2.15) is how torch's own tools do this; it costs an import that a
    process which only runs programs does without.

    Args:
        call: takes the operator, its arguments and its keyword arguments, and returns the result.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    class Around(TorchDispatchMode):
        supports_higher_order_operators = True

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return call(func, args, kwargs or {})

    mode: Any = Around
    around: contextlib.AbstractContextManager[Any] = mode()
    return around
