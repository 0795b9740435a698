"""A program is not found again where forward would read something else of its surroundings."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Options, Store
from hotstart.guards import objects
from tests.integration import reading
from tests.integration.caching import origin, with_
from tests.versions import knows_derived_constants

X = torch.randn(3)
EAGER = Options(compiler="op_by_op")
Patch = pytest.MonkeyPatch
Change = Callable[[Any, Patch], None]


def asked(store: Store, model: nn.Module) -> str:
    """Compile with a cache; whether the program was loaded or compiled. It has to be right."""
    program = hotstart.compile(model, (X,), cache=store, options=EAGER)
    assert torch.equal(program(X), model(X))
    return origin(program)


CHANGES: dict[str, tuple[type[nn.Module], Change]] = {
    "an attribute appears": (
        reading.AttributeOfGlobal,
        lambda m, patch: patch.setattr(reading.SETTINGS, "extra", 5.0, raising=False),
    ),
    "a key appears": (
        reading.KeyOfGlobal,
        lambda m, patch: patch.setitem(reading.TABLE, "b", 1.0),
    ),
    "a key is another": (
        reading.KeyOfGlobal,
        lambda m, patch: patch.setattr(reading, "TABLE", {"b": 1.0}),
    ),
    "a first key appears": (
        reading.KeyOfEmpty,
        lambda m, patch: patch.setitem(reading.EMPTY, "b", 1.0),
    ),
    "an item of a set is another": (
        reading.ItemOfSet,
        lambda m, patch: patch.setattr(reading, "TAGS", {"b"}),
    ),
    "an item of a tuple is another": (
        reading.ItemOfTuple,
        lambda m, patch: patch.setattr(reading, "PAIR", (1, 7)),
    ),
    "an item of a list is another": (
        reading.ItemOfList,
        lambda m, patch: patch.setattr(reading, "NAMES", ["p", "r"]),
    ),
    "another member of an enum": (
        reading.MemberOfEnum,
        lambda m, patch: patch.setattr(reading, "MODE", reading.Mode.EXACT),
    ),
    "another value of a field": (
        reading.FieldOfDataclass,
        lambda m, patch: patch.setattr(reading.SCALE, "by", 9.0),
    ),
    "an item of a list of another class": (
        reading.ItemOfOwnList,
        lambda m, patch: patch.setattr(reading, "GROUP", reading.Group([9.0])),
    ),
    "an item of a dict of another class": (
        reading.ItemOfOwnDict,
        lambda m, patch: patch.setattr(reading, "NAMED", reading.Named(a=9.0)),
    ),
    "a text of another class": (
        reading.TextOfOwnClass,
        lambda m, patch: patch.setattr(reading, "WORD", reading.Word("b")),
    ),
    "an attribute of what a class holds": (
        reading.HeldByClass,
        lambda m, patch: patch.setattr(reading.Holder.scale, "by", 9.0),
    ),
    "an item by a key that is no text": (
        reading.KeyThatIsNoText,
        lambda m, patch: patch.setitem(reading.BY_SHAPE, (3,), 9.0),
    ),
    "other keys in a loop": (
        reading.ItemsOfDict,
        lambda m, patch: patch.setattr(reading, "TABLE", {"b": 1.0}),
    ),
    "another order in a loop": (
        reading.ItemsOfDict,
        lambda m, patch: patch.setattr(reading, "TABLE", {"b": 1.0, "a": 1.0}),
    ),
    "a variable is set that a helper looks up": (
        reading.EnvironmentByHelper,
        lambda m, patch: patch.setenv("READING_SCALE", "1"),
    ),
    "the module has one more attribute": (
        reading.OwnAttribute,
        lambda m, patch: setattr(m, "extra", 1),
    ),
    "a dict of the module is another": (
        reading.OwnDict,
        lambda m, patch: setattr(m, "given", {"z": 1}),
    ),
    "a block has an object of its own": (
        reading.Sharing,
        lambda m, patch: setattr(m.blocks[2], "scale", reading.Scale(9.0)),
    ),
    "a block has an object besides the global": (
        reading.SharingWithGlobal,
        lambda m, patch: setattr(m.blocks[2], "scale", reading.Scale(9.0)),
    ),
    "a set of the module is another": (
        reading.OwnSet,
        lambda m, patch: setattr(m, "tags", {"z"}),
    ),
}


@pytest.mark.parametrize(
    ("cls", "change"),
    [
        pytest.param(*both, id=name, marks=knows_derived_constants if "text of" in name else ())
        for name, both in CHANGES.items()
    ],
)
def test_what_forward_would_read_otherwise_is_a_miss(
    cls: type[nn.Module], change: Change, tmp_path: Path, monkeypatch: Patch
) -> None:
    store = Store(tmp_path, check=False)
    assert asked(store, cls()) == "compiled"
    assert asked(store, cls()) == "loaded"
    changed = cls()
    change(changed, monkeypatch)
    assert asked(store, changed) == "compiled"
    assert asked(store, changed) == "loaded"


def test_a_hook_counts_and_the_number_it_was_given_does_not(tmp_path: Path) -> None:
    def hooked(factor: float) -> nn.Module:
        model = nn.Linear(3, 3)
        nn.init.ones_(model.weight)
        model.register_forward_hook(lambda module, args, result: result * factor)
        return model

    store = Store(tmp_path, check=False)
    assert asked(store, hooked(2.0)) == "compiled"
    assert asked(store, hooked(2.0)) == "loaded"
    assert asked(store, hooked(3.0)) == "compiled"


def test_a_model_of_another_class_made_before_is_no_miss(
    tmp_path: Path, monkeypatch: Patch, request: pytest.FixtureRequest
) -> None:
    transformers = pytest.importorskip("transformers", reason="comes with hotstart[demo]")
    monkeypatch.delattr(nn.Module, "smart_apply", raising=False)  # transformers puts it there
    capturing = importlib.import_module("transformers.utils.output_capturing")
    registry = capturing._CAN_RECORD_REGISTRY
    kept = {name: registry[name] for name in registry if "Bert" in name or "ViT" in name}
    request.addfinalizer(lambda: dict.update(registry, kept))  # its own methods take models
    for name in kept:
        del registry[name]
    store, ids = Store(tmp_path, check=False), torch.zeros(2, 5, dtype=torch.int64)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}

    def bert() -> nn.Module:
        config = transformers.BertConfig(**sizes, num_hidden_layers=1, vocab_size=32)
        made: nn.Module = transformers.BertModel(config).eval()
        return made

    plain = nn.Linear(3, 3)
    policies: tuple[Literal["build", "require"], ...] = ("build", "require")
    for policy in policies:
        cache = with_(store, policy)
        hotstart.compile(plain, (X,), cache=cache, options=EAGER)
        hotstart.compile(bert(), (ids,), cache=cache, options=EAGER)
        transformers.ViTModel(transformers.ViTConfig(**sizes, num_hidden_layers=1, image_size=32))


@pytest.mark.thorough
def test_another_attention_of_the_same_classes_is_a_miss(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="comes with hotstart[demo]")
    store, ids = Store(tmp_path, check=False), torch.zeros(2, 5, dtype=torch.int64)

    def found(attention: str) -> bool:
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
        config = transformers.LlamaConfig(
            **sizes, num_hidden_layers=2, vocab_size=32, attn_implementation=attention
        )
        model, inputs = transformers.LlamaModel(config).eval(), {"input_ids": ids}
        inputs |= {"use_cache": False}
        program = hotstart.compile(model, kwargs=inputs, cache=store, options=EAGER)
        with torch.no_grad():
            expected = model(**inputs).last_hidden_state
        torch.testing.assert_close(program(**inputs).last_hidden_state, expected)
        return origin(program) == "loaded"

    assert [found(name) for name in ("sdpa", "eager", "sdpa", "eager")] == [
        False,
        False,
        True,
        True,
    ]


class Updating(nn.Module):
    """Does what Dynamo has code of its own for."""

    def forward(self, x: Tensor) -> Tensor:
        factors = {"a": 1.0}
        factors.update(b=2.0)
        return x * sum(factors.values())


def test_what_only_traces_is_not_imported_to_find_a_program(tmp_path: Path) -> None:
    store = Store(tmp_path, check=False)
    asked(store, Updating())
    (entry,) = store.entries.all()
    seen = store.entries.seen(entry)
    assert seen
    assert not [one for one in seen if one.name.startswith("torch._dynamo")]
    assert asked(store, Updating()) == "loaded"


class Registry(nn.Module):
    """Its class holds itself."""

    known: list[Any] = []  # noqa: RUF012

    def forward(self, x: Tensor) -> Tensor:
        return x * 2


Registry.known.append(Registry)


def test_a_class_that_holds_itself_is_described(tmp_path: Path) -> None:
    store = Store(tmp_path, check=False)
    assert asked(store, Registry()) == "compiled"
    assert asked(store, Registry()) == "loaded"


class Hook:
    """Holds what it does not use."""

    def __init__(self) -> None:
        self.held = [object() for _ in range(10)]

    def __call__(self, module: nn.Module, args: Any, result: Tensor) -> Tensor:
        return result


def leading_far() -> nn.Module:
    """A model that leads to more objects than may be looked at."""
    model = nn.ReLU()
    model.register_forward_hook(Hook())
    return model


def test_a_model_that_nothing_can_be_said_of_is_built_without_the_cache(
    tmp_path: Path, monkeypatch: Patch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(objects, "MOST", 5)
    store = Store(tmp_path, check=False)
    assert asked(store, leading_far()) == "compiled"
    assert "without the cache" in caplog.text
    assert not [*tmp_path.rglob("*.hotstart")]


def test_a_strict_cache_refuses_such_a_model(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(objects, "MOST", 5)
    with pytest.raises(hotstart.StoreError):
        hotstart.compile(leading_far(), (X,), cache=Store(tmp_path, strict=True))
    with pytest.raises(hotstart.StoreError):
        hotstart.compile(leading_far(), (X,), cache=Store(tmp_path, policy="require"))


@pytest.mark.parametrize(
    "settings", [{"policy": "requre"}, {"extra_key": 3}], ids=["no such policy", "not a text"]
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(hotstart.StoreError):
        Store(tmp_path, **settings)
