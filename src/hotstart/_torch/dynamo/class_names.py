"""Let Dynamo evaluate `__module__` of torch's classes, which peft reads for weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from hotstart._torch.in_between import in_between


@contextlib.contextmanager
def knowing_modules_of_classes() -> Iterator[None]:
    """Let `type(weight).__module__` be a string constant while tracing.

    `TorchInGraphFunctionVariable` (2.11 to 2.15) represents `torch.nn.Parameter`, and does not know
    this attribute. The class itself is guarded already.
    """
    from torch._dynamo.variables import ConstantVariable, GetAttrVariable
    from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

    def call_method(call: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        asked = isinstance(self, GetAttrVariable) and self.name == "__module__"
        if asked and isinstance(self.obj, TorchInGraphFunctionVariable):
            module = getattr(self.obj.value, "__module__", None)
            if isinstance(self.obj.value, type) and isinstance(module, str):
                return ConstantVariable.create(module).call_method(*args, **kwargs)
        return call(self, *args, **kwargs)

    owner = next(c for c in GetAttrVariable.__mro__ if "call_method" in vars(c))
    with in_between(owner, "call_method", call_method):
        yield
