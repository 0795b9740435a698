"""Results of a program have the types and the identities of the model's own."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any, NamedTuple

import pytest
import torch
import torch.utils._pytree as pytree
from transformers.modeling_outputs import BaseModelOutput

from tests.unit.programs import ANY, build


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Result:
    value: Any
    name: str = "result"
    extra: Any = None


class Custom:
    def __init__(self, parts: list[Any], tag: str) -> None:
        self.parts, self.tag = parts, tag


pytree.register_pytree_node(
    Custom, lambda c: (c.parts, c.tag), lambda parts, tag: Custom(list(parts), tag)
)


def flat(value: Any) -> Any:
    """A result in a form that can be compared, with the types of everything in it."""
    kind = type(value)
    if isinstance(value, torch.Tensor):
        return kind, value.tolist()
    if isinstance(value, Custom):
        return kind, flat(value.parts), value.tag
    if isinstance(value, dict):
        return kind, [(k, flat(v)) for k, v in value.items()]
    if isinstance(value, tuple | list):
        return kind, [flat(v) for v in value]
    if dataclasses.is_dataclass(value):
        return kind, [(f.name, flat(getattr(value, f.name))) for f in dataclasses.fields(value)]
    return kind, value


RESULTS = {
    "tensor": lambda x: x + 1,
    "tuple": lambda x: (x + 1, x),
    "single": lambda x: (x + 1,),
    "list": lambda x: [x + 1, [x + 2], ()],
    "dict": lambda x: {"a": x + 1, 2: (x + 2, None), "c": {}},
    "ordered": lambda x: collections.OrderedDict([("z", x + 1), ("a", x)]),
    "namedtuple": lambda x: Point(x + 1, Point(x, y="text")),
    "dataclass": lambda x: Result(x + 1, extra=[x]),
    "ModelOutput": lambda x: BaseModelOutput(last_hidden_state=x + 1, hidden_states=(x, x * 2)),
    "registered": lambda x: Custom([x + 1, {"k": x}], "tag"),
    "topk": lambda x: torch.topk(x, 1),
    "constants": lambda x: (x + 1, None, 1.5, float("inf"), torch.float16, "s", slice(2), 1j, True),
    "repeated": lambda x: [y := x + 1, y, (y,)],
    "nested": lambda x: ({"a": [Point(x + 1, (x,))]}, [Result(x * 2)]),
    "sizes": lambda x: (x + 1, x.shape[0], x.shape[0] * 2 + 1, x.numel()),
    "shape": lambda x: (x + 1, x.shape, x.size()),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_results_have_the_models_own_types(kind: str) -> None:
    model = RESULTS[kind]
    program = build(model, torch.randn(3), dynamic_shapes={"x": {0: ANY}})
    for size in (1, 3, 16):
        x = torch.randn(size)
        assert flat(program(x)) == flat(model(x))


def test_the_same_tensor_stays_the_same_object() -> None:
    first, second, (third,) = build(RESULTS["repeated"], torch.randn(3))(torch.randn(3))
    assert first is second is third
