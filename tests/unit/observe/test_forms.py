"""Calls that differ in more than sizes: several calls of one program."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import OptionsError
from tests.capturing import EAGER


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 4)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, scale: float = 1.0, **more: Any
    ) -> Any:
        found = self.up(x.float()) * scale
        found = found if mask is None else found * mask[..., None]
        return {"found": found} if more.get("return_dict") else found


def encoder() -> Any:
    return Encoder().eval().requires_grad_(False)


def observed(*calls: tuple[tuple[Any, ...], dict[str, Any]]) -> hotstart.ObservedCalls:
    with hotstart.observe(encoder()) as found:
        for args, kwargs in calls:
            found.model(*args, **kwargs)
    return found


def x(batch: int = 2, **kwargs: Any) -> Tensor:
    return torch.randn(batch, 4, **kwargs)


def test_an_argument_with_the_value_of_its_default_is_one_that_was_left_out() -> None:
    calls = observed(((x(2),), {}), ((x(3), None, 1.0), {}), ((x(4),), {"scale": 1.0}))
    assert len(calls.propose()) == 1
    program = calls.compile(options=EAGER)
    for args, kwargs in (((x(2),), {}), ((x(3), None, 1.0), {}), ((x(4),), {"scale": 1.0})):
        assert torch.equal(program(*args, **kwargs), calls.model(*args, **kwargs))


def test_the_order_of_keyword_arguments_does_not_matter() -> None:
    calls = observed(((x(),), {"a": x(), "b": x()}), ((x(),), {"b": x(), "a": x()}))
    assert len(calls.propose()) == 1


def test_arguments_that_were_absent_none_or_another_constant_make_several_calls() -> None:
    made = [
        ((x(2),), {}),
        ((x(3),), {}),
        ((x(2), torch.ones(2)), {}),
        ((x(3), torch.ones(3)), {}),
        ((x(2),), {"scale": 2.0}),
        ((x(2),), {"return_dict": True}),
    ]
    calls = observed(*made)
    assert list(calls.propose()) == ["main", "main_2", "main_3", "main_4"]
    program = hotstart.compile(calls, options=EAGER)
    for args, kwargs in made:
        found, expected = program(*args, **kwargs), calls.model(*args, **kwargs)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    with pytest.raises(hotstart.ContractError):
        program(x(2), scale=3.0)


def test_true_and_one_are_other_constants() -> None:
    calls = observed(((x(),), {"flag": True}), ((x(),), {"flag": 1}), ((x(),), {"flag": 1.0}))
    assert len(calls.propose()) == 3


def test_the_call_that_was_made_most_comes_first() -> None:
    calls = observed(((x(),), {"scale": 2.0}), *[((x(),), {})] * 3)
    assert "scale" not in (calls.propose()["main"].kwargs or {})


def test_dtypes_that_varied_make_several_calls() -> None:
    calls = observed(((x(),), {}), ((x(dtype=torch.float64),), {}))
    program = hotstart.compile(calls, options=EAGER)
    for dtype in (torch.float32, torch.float64):
        value = x(dtype=dtype)
        assert torch.equal(program(value), calls.model(value))


def test_a_form_that_was_seen_once_takes_the_axes_of_another() -> None:
    calls = observed(((x(2),), {}), ((x(9),), {}), ((x(3),), {"return_dict": True}))
    program = hotstart.compile(calls, options=EAGER)
    value = x(7)
    assert torch.equal(program(value, return_dict=True)["found"], calls.model(value))


def test_a_form_that_was_seen_twice_at_one_size_is_static() -> None:
    again = ((x(3),), {"return_dict": True})
    calls = observed(((x(2),), {}), ((x(9),), {}), again, again)
    assert calls.propose()["main_2"].dynamic_shapes is None
    assert "no size varied" in str(calls)


def test_too_many_constants_are_an_error_that_names_the_argument() -> None:
    calls = observed(*(((x(),), {"scale": float(n)}) for n in range(12)))
    with pytest.raises(OptionsError, match=r"scale was 0\.0, 1\.0, .*pass it as a tensor"):
        calls.propose()
    assert "scale was" in str(calls)


def test_nothing_was_seen() -> None:
    with pytest.raises(OptionsError, match="found none that"):
        hotstart.compile(observed(), options=EAGER)


# --- layouts, modes, regions ----------------------------------------------------------------------


def test_layouts_that_varied_are_copied() -> None:
    calls = observed(((x(3),), {}), ((x(3),), {}), ((torch.randn(4, 3).t(),), {}))
    assert "layouts varied" in str(calls)
    program = hotstart.compile(calls, options=EAGER)
    value = torch.randn(4, 3).t()
    torch.testing.assert_close(program(value), calls.model(value))
    assert program.relayouts == {"x": 1}


def test_the_layout_of_most_calls_is_the_compiled_one() -> None:
    turned = [((torch.randn(4, batch).t(),), {}) for batch in (3, 4, 5)]
    calls = observed(((x(2),), {}), ((x(2),), {}), *turned)
    program = hotstart.compile(calls, options=EAGER)
    program(torch.randn(4, 6).t())
    assert program.relayouts == {}


class Reads(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.is_contiguous() else x + 2


def test_layouts_that_varied_where_forward_reads_them_are_an_error() -> None:
    with hotstart.observe(Reads().eval()) as calls:
        calls.model(torch.randn(3, 4))
        calls.model(torch.randn(4, 3).t())
    with pytest.raises(OptionsError, match="one layout"):
        hotstart.compile(calls, options=EAGER)


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


def test_another_mode_than_the_one_that_was_observed() -> None:
    model = Noisy().requires_grad_(False)
    with hotstart.observe(model) as calls:
        model(x())
    model.eval()
    with pytest.raises(OptionsError, match=r"observed in, training, found eval"):
        hotstart.compile(calls, options=EAGER)
    with hotstart.observe(model) as both:
        model(x())
        model.train()
        model(x())
    with pytest.raises(OptionsError, match="eval and training"):
        both.compile(options=EAGER)


def test_the_region_that_calls_were_made_in() -> None:
    value = x()
    with hotstart.observe(encoder()) as calls, torch.autocast("cpu", torch.bfloat16):
        expected = calls.model(value)
    program = hotstart.compile(calls, options=EAGER)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(program(value), expected)
    with hotstart.observe(calls.model) as both:
        both.model(value)
        with torch.autocast("cpu", torch.bfloat16):
            both.model(value)
    with pytest.raises(OptionsError, match="inside and some outside"):
        hotstart.compile(both, options=EAGER)


# --- structures -----------------------------------------------------------------------------------


@dataclasses.dataclass
class State:
    hidden: Tensor
    steps: list[Tensor]


class Takes(nn.Module):
    def forward(self, state: State, *rest: Tensor) -> Tensor:
        return state.hidden + sum(state.steps) + sum(rest)


def test_dataclasses_and_variadic_arguments() -> None:
    def call(n: int) -> tuple[State, Tensor]:
        return State(torch.randn(n, 4), [torch.randn(n, 4)]), torch.randn(n, 4)

    with hotstart.observe(Takes().eval()) as calls:
        calls.model(*call(2))
        calls.model(*call(5))
    program = hotstart.compile(calls, options=EAGER)
    made = call(4)
    assert torch.equal(program(*made), calls.model(*made))


class Follows(nn.Module):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return torch.cat([x, x[:1]]) * mask


def test_sizes_that_follow_from_others_are_said_where_they_cannot_be_compiled() -> None:
    with hotstart.observe(Follows().eval()) as calls:
        for size in (2, 3, 4):
            calls.model(torch.randn(size), torch.randn(size + 1))
    options = hotstart.Options(compiler="op_by_op", splits=0)
    with pytest.raises(hotstart.RangeError) as raised:
        hotstart.compile(calls, options=options)
    assert "mask_0 == batch + 1" in "".join(raised.value.__notes__)
    program = calls.compile(exact=("batch", "mask_0"), options=options)
    x, mask = torch.randn(3), torch.randn(4)
    assert torch.equal(program(x, mask), calls.model(x, mask))


# --- by hand --------------------------------------------------------------------------------------


def test_learnt_and_declared_calls_together() -> None:
    calls = observed(((x(2),), {}), ((x(3),), {}))
    value = torch.ones(2, 4)
    by_hand = hotstart.Call(args=(value,), kwargs={"scale": 3.0})
    program = hotstart.compile(
        calls.model,
        calls={**calls.within(max={"batch": 16}).propose(), "scaled": by_hand},
        options=EAGER,
    )
    assert torch.equal(program(x(16)), program(x(16))) is False
    assert torch.equal(program["scaled"](value, scale=3.0), calls.model(value, scale=3.0))
    with pytest.raises(OptionsError, match="besides"):
        hotstart.compile(calls, (value,), options=EAGER)
    with pytest.raises(OptionsError, match="give each call its own"):
        hotstart.compile(calls.model, (value,), calls=calls, options=EAGER)


def test_calls_of_a_submodule(tmp_path: Any) -> None:
    model = nn.Sequential(encoder(), nn.Linear(4, 1)).eval().requires_grad_(False)
    with hotstart.observe(model[0]) as calls:
        model(x(2))
        model(x(5))
    value = x(6)
    expected = model(value)
    hotstart.compile_submodule(model, "0", calls=calls, options=EAGER, cache=tmp_path)
    assert torch.equal(model(value), expected)
    again = hotstart.compile_submodule(model, "0", calls=calls, options=EAGER, cache=tmp_path)
    assert {unit.action for unit in again.report.units} == {"loaded"}
    hotstart.restore(model[0])
    key = hotstart.compute_key(model[0].forward, calls=calls, options=EAGER)
    assert len(hotstart.Store(tmp_path).probe(key)) == 1
    assert torch.equal(model(value), expected)
