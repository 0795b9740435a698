"""Changes of a model, its code and its surroundings, for tests of what a cache finds."""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tests.integration import changing, changing_helpers
from tests.integration.caching import Patch
from tests.integration.changing import Changing


def other_weights(m: Changing, _: Patch) -> None:
    for parameter in m.parameters():
        nn.init.normal_(parameter)


def unread_attribute(m: Changing, _: Patch) -> None:
    m.config.name_or_path = "/another/folder"
    m.layers[0].remark = "nobody reads this"


def unread_setting(m: Changing, patch: Patch) -> None:
    patch.setitem(changing_helpers.SETTINGS, "unread", [8.0])


def unrelated_environment(m: Changing, patch: Patch) -> None:
    for name, value in (("HOME", "/elsewhere"), ("USER", "somebody"), ("LANG", "C"), ("XYZ", "1")):
        patch.setenv(name, value)


def another_folder(m: Changing, patch: Patch) -> None:
    patch.chdir("/")


def random_state(m: Changing, _: Patch) -> None:
    torch.manual_seed(123)


SAME = (
    other_weights, unread_attribute, unread_setting, unrelated_environment, another_folder,
    random_state,
)  # fmt: skip


class Adapted(nn.Module):
    """A layer with a small one beside it, as LoRA makes."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = nn.Linear(4, 2, bias=False), nn.Linear(2, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def config_value(m: Changing, _: Patch) -> None:
    m.config.alpha = 3.0


def epsilon(m: Changing, _: Patch) -> None:
    m.layers[1].norm.eps = 1e-3


def attribute_of_a_class(m: Changing, patch: Patch) -> None:
    patch.setattr(changing.Layer, "offset", 0.25)


def activation(m: Changing, _: Patch) -> None:
    m.layers[0].act = torch.tanh


def closure(m: Changing, _: Patch) -> None:
    m.layers[0].act = functools.partial(torch.mul, other=torch.tensor(2.0))


def patched_method(m: Changing, patch: Patch) -> None:
    patch.setattr(changing.Layer, "inner", lambda self, x: self.linear(x) * 10)


def patched_method_of_an_object(m: Changing, _: Patch) -> None:
    layer: Any = m.layers[0]
    layer.inner = types.MethodType(lambda self, x: self.linear(x) * 10, layer)


def patched_method_of_a_helper(m: Changing, patch: Patch) -> None:
    patch.setattr(changing.Config, "factor", lambda self: self.alpha * 7)


def patched_function(m: Changing, patch: Patch) -> None:
    patch.setattr(changing, "shifted", lambda x: x + 2)


def patched_function_of_another_file(m: Changing, patch: Patch) -> None:
    patch.setattr(changing, "scaled", lambda x: x * 0.25)


def patched_torch_module(m: Changing, patch: Patch) -> None:
    patch.setattr(nn.Linear, "forward", lambda self, x: nn.functional.linear(x, self.weight) * 2)


def global_value(m: Changing, patch: Patch) -> None:
    patch.setattr(changing, "LIMIT", 6.0)


def global_of_another_file(m: Changing, patch: Patch) -> None:
    patch.setattr(changing_helpers, "EXTRA", 4.0)


def item_of_a_global(m: Changing, patch: Patch) -> None:
    patch.setitem(changing_helpers.SETTINGS, "bias", [1.5, 2.0])


def global_tensor(m: Changing, patch: Patch) -> None:
    patch.setattr(changing, "WEIGHTS", torch.tensor([1.0, 2.0, 3.0, 5.0]))


def environment(m: Changing, patch: Patch) -> None:
    patch.setenv("HOTSTART_TEST_DOUBLE", "1")


def untied(m: Changing, _: Patch) -> None:
    m.head.weight = nn.Parameter(m.head.weight.detach().clone())


def training(m: Changing, _: Patch) -> None:
    m.train()


def hook(m: Changing, _: Patch) -> None:
    m.layers[0].register_forward_hook(lambda module, args, result: result * 2)


def one_more_layer(m: Changing, _: Patch) -> None:
    m.layers.append(changing.Layer(m.config))


def adapter(m: Changing, _: Patch) -> None:
    m.layers[0].linear = Adapted(m.layers[0].linear)


def new_parameter(m: Changing, _: Patch) -> None:
    m.extra = nn.Parameter(torch.zeros(3))


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


DIFFERENT = (
    config_value, epsilon, attribute_of_a_class, activation, closure, patched_method,
    patched_method_of_an_object, patched_method_of_a_helper, patched_function,
    patched_function_of_another_file, patched_torch_module, global_value, global_of_another_file,
    item_of_a_global, global_tensor, environment, untied, training, hook, one_more_layer, adapter,
    new_parameter,
)  # fmt: skip
