"""Objects that the caller passes: what they hold is read from them, or refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.utils._pytree as pytree
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

import hotstart
from tests.integration.contents import MODE, R, Slotted, same
from tests.semantics import both, build

pytestmark = pytest.mark.usefixtures("kept_pieces")


@dataclasses.dataclass
class Doubled:
    m: Tensor
    later: Tensor = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.later = self.m + 1
        self.n = self.m * 2


@both
def test_what_post_init_made_is_read_from_the_callers_object(compiler: str) -> None:
    def f(d: Doubled, x: Tensor) -> Tensor:
        return d.n + d.later * x

    program = build(f, Doubled(R(3)), R(3), compiler=compiler)
    for _ in range(2):
        d, x = Doubled(R(3)), R(3)
        d.n.add_(1)  # not what __post_init__ would make of it
        torch.testing.assert_close(program(d, x), f(d, x))


def test_attributes_that_the_example_had_otherwise_are_refused() -> None:
    def f(d: Any, x: Tensor) -> Tensor:
        return x * 2 if getattr(d, "flag", False) else x * 3

    program = build(f, Doubled(R(3)), R(3))
    flagged, lacking, plain = Doubled(R(3)), Doubled(R(3)), Doubled(R(3))
    flagged.flag = True  # type: ignore[attr-defined]
    del lacking.n
    x = R(3)
    assert torch.equal(program(plain, x), x * 3)
    for other in (flagged, lacking):
        with pytest.raises(hotstart.ContractError, match="with attributes m, later, n"):
            program(other, x)


def test_a_result_has_what_forward_set_and_not_what_init_would_set() -> None:
    def f(x: Tensor) -> Doubled:
        d = Doubled(x)
        d.n = d.n + 1
        d.extra = x * 3  # type: ignore[attr-defined]
        return d

    x = R(3)
    found = build(f, x)(x)
    assert type(found) is Doubled
    assert same(vars(found), {"m": x, "later": x + 1, "n": x * 2 + 1, "extra": x * 3})


def test_a_model_output_with_another_attribute_is_refused() -> None:
    def f(out: BaseModelOutput) -> Tensor:
        hidden: Any = out.last_hidden_state
        return hidden * 2 if getattr(out, "extra", None) is None else hidden * 3

    program = build(f, BaseModelOutput(last_hidden_state=R(3)))
    plain, other = BaseModelOutput(last_hidden_state=R(3)), BaseModelOutput(last_hidden_state=R(3))
    other.extra = 1  # type: ignore[attr-defined]
    assert torch.equal(program(plain), f(plain))
    with pytest.raises(hotstart.ContractError, match="with attributes last_hidden_state"):
        program(other)
    with pytest.raises(hotstart.CaptureError, match="attributes besides its fields"):
        build(f, other)


def test_an_object_with_slots_is_made_in_each_call() -> None:
    def f(x: Tensor) -> Slotted:
        made = Slotted(x * 2)
        made.extra = [x.mT]
        return made

    x = R(2, 3)
    assert same(build(f, x)(x), f(x))


class Copies:
    def __init__(self, items: list[Any], more: Any) -> None:
        self.items, self.more = items, more


pytree.register_pytree_node(
    Copies,
    lambda c: ([*c.items, c.more], None),
    lambda parts, _: Copies([part + 0 for part in parts[:-1]], parts[-1]),
)


def test_a_type_whose_unflatten_function_copies_is_read_by_its_attributes() -> None:
    def f(c: Copies, x: Tensor) -> Tensor:
        return c.items[0] + c.more * x

    program = build(f, Copies([R(3)], R(3)), R(3))
    for _ in range(2):
        c, x = Copies([R(3)], R(3)), R(3)
        assert torch.equal(program(c, x), f(c, x))


class Locked(Copies):
    def __init__(self, items: list[Any]) -> None:
        super().__init__(items, None)
        self.key = object()


pytree.register_pytree_node(
    Locked, lambda c: (c.items, None), lambda parts, _: Locked([part + 0 for part in parts])
)


def test_one_that_copies_and_holds_something_else_is_refused() -> None:
    with pytest.raises(hotstart.CaptureError, match="c: got a Locked that makes tensors when"):
        build(lambda c, x: c.items[0] + x, Locked([R(3)]), R(3))


def test_an_object_that_its_module_names_is_refused() -> None:
    with pytest.raises(hotstart.CaptureError, match="mode: got a Layer"):
        build(lambda x, mode: x * 2 if mode is MODE else x, R(2), MODE)
