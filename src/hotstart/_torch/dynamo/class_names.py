"""Have Dynamo know which module a class of torch's is of, as peft asks of weights' classes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from hotstart._torch.in_between import in_between


@contextlib.contextmanager
def knowing_modules_of_classes() -> Iterator[None]:
    """Let methods of `type(weight).__module__` be those of a text.

    `TorchInGraphFunctionVariable` (2.11 to 2.15) stands for `torch.nn.Parameter`, and takes this
    attribute for something unknown. Which class it is is guarded already.
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
