"""`hotstart.compile(cache=...)`: found again if nothing that matters changed, and only then."""

from __future__ import annotations

import contextlib
import copy
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options, Store
from tests.integration import changing, changing_helpers
from tests.integration.changing import Changing

X = torch.randn(3, 4)
EAGER = Options(compiler="eager")
BATCH = {"x": {0: Dim("batch", min=2, max=8)}}
Patch = pytest.MonkeyPatch


def model() -> Changing:
    torch.manual_seed(0)
    return Changing().eval()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that has the model as it is."""
    made = Store(tmp_path_factory.mktemp("store"), check=False)
    assert asked(made, model()) == "compiled"
    return made


def asked(store: Store, model: Any, x: Tensor = X, **more: Any) -> str:
    """Compile with a cache; whether the program was loaded or compiled. It has to be right."""
    settings = {"options": EAGER, "dynamic_shapes": BATCH, **more}
    program = hotstart.compile(model, (x,), cache=store, **settings)
    with torch.no_grad():
        torch.testing.assert_close(program(x), model(x))
    actions = {unit.action for unit in program.report.units}
    return "loaded" if actions == {"loaded"} else "compiled"


# --- what does not matter -------------------------------------------------------------------------


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


@pytest.mark.parametrize("change", SAME)
def test_what_does_not_matter_is_a_hit(
    change: Callable[[Changing, Patch], None], store: Store, monkeypatch: Patch
) -> None:
    changed = model()
    change(changed, monkeypatch)
    assert asked(store, changed) == "loaded"


def test_another_object_of_the_same_model_is_a_hit(store: Store) -> None:
    assert asked(store, copy.deepcopy(model())) == "loaded"


def test_what_is_loaded_serves_every_size(store: Store) -> None:
    m = model()
    program = hotstart.compile(m, (X,), cache=store, options=EAGER, dynamic_shapes=BATCH)
    for size in (2, 8):
        x = torch.randn(size, 4)
        assert torch.equal(program(x), m(x))
    with pytest.raises(hotstart.ContractError):
        program(torch.randn(9, 4))


# --- what matters ---------------------------------------------------------------------------------


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


def environment(m: Changing, patch: Patch) -> None:
    patch.setenv("HOTSTART_TEST_DOUBLE", "1")


def dtype(m: Changing, _: Patch) -> None:
    m.double()


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
    item_of_a_global, environment, untied, training, hook, one_more_layer, adapter, new_parameter,
)  # fmt: skip


@pytest.mark.parametrize("change", DIFFERENT)
def test_what_may_matter_is_a_miss(
    change: Callable[[Changing, Patch], None], store: Store, monkeypatch: Patch
) -> None:
    changed = model()
    change(changed, monkeypatch)
    assert asked(store, changed) == "compiled"
    assert asked(store, changed) == "loaded"
    monkeypatch.undo()
    assert asked(store, model()) == "loaded"


@pytest.mark.parametrize(
    "changed",
    [
        lambda: torch._dynamo.config.patch(skip_nnmodule_hook_guards=False),
        lambda: torch._inductor.config.patch(epilogue_fusion=False),
        lambda: torch._inductor.config.patch({"cpp.simdlen": 256}),
        lambda: torch.device("cpu:0"),
        deterministic,
        lambda: torch.autocast("cpu"),
    ],
    ids=["dynamo", "inductor", "cpp", "default device", "deterministic", "autocast"],
)
def test_settings_of_torch_may_matter(changed: Callable[[], Any], store: Store) -> None:
    with changed():
        key = hotstart.compute_key(model(), (X,), dynamic_shapes=BATCH, options=EAGER)
        assert store.probe(key) == []
    key = hotstart.compute_key(model(), (X,), dynamic_shapes=BATCH, options=EAGER)
    assert store.probe(key) != []


@pytest.mark.parametrize(
    "asked_for",
    [
        {"dynamic_shapes": {"x": {0: Dim("batch", min=2, max=9)}}},
        {"dynamic_shapes": {"x": {0: Dim("batch", min=2, max=8, ranges=[(2, 4), (5, 8)])}}},
        {"dynamic_shapes": None},
        {"options": Options(compiler="eager", splits=3)},
        {"split_on": ["aten::linear"]},
        {"extra_key": "another"},
    ],
    ids=["range", "ranges", "static", "options", "split_on", "extra_key"],
)
def test_what_is_asked_for_matters(asked_for: dict[str, Any], store: Store) -> None:
    assert asked(store, model(), **asked_for) == "compiled"
    assert asked(store, model(), **asked_for) == "loaded"


def test_the_example_matters(store: Store) -> None:
    assert asked(store, model(), torch.randn(5, 4)) == "compiled"  # tuned for another size
    assert asked(store, model(), torch.randn(3, 4)) == "loaded"
