"""Arguments are bound as Python binds them for the model's own forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import hotstart
from hotstart import ContractError

EAGER = hotstart.Options(compiler="op_by_op")
X, Y = torch.arange(3.0), torch.ones(3)


def build(function: Any, *args: Any, **kwargs: Any) -> hotstart.Program:
    return hotstart.compile(function, args, kwargs, options=EAGER)


def plain(x, y=None, *, scale=2.0):
    return x * scale if y is None else x * scale + y


def test_arguments_go_by_position_or_by_name() -> None:
    program = build(plain, X, Y)
    expected = plain(X, Y)
    for result in (program(X, Y), program(X, y=Y), program(y=Y, x=X), program(X, Y, scale=2.0)):
        assert torch.equal(result, expected)


def test_defaults_are_filled_in() -> None:
    program = build(plain, X)
    assert torch.equal(program(X), plain(X))
    assert torch.equal(program(X, None), plain(X))


def test_one_argument_given_twice_is_an_error_of_the_call() -> None:
    with pytest.raises(TypeError, match="multiple values"):
        build(plain, X, Y)(X, x=X)


def positional_only(x, y, /, z=None):
    return x - y if z is None else x - y + z


def test_positional_only_arguments_have_no_name() -> None:
    program = build(positional_only, X, Y)
    assert torch.equal(program(X, Y), X - Y)
    with pytest.raises(ContractError):
        program(X, y=Y)


def variadic(x, *rest, last=None):
    for tensor in rest:
        x = x * 2 + tensor
    return x if last is None else x - last


def test_variadic_arguments_are_part_of_the_contract() -> None:
    program = build(variadic, X, Y, X, last=Y)
    assert torch.equal(program(X, Y, X, last=Y), variadic(X, Y, X, last=Y))
    for call in ((X,), (X, Y), (X, Y, X, Y)):
        with pytest.raises(ContractError) as caught:
            program(*call, last=Y)
        assert caught.value.argument == "rest"


def test_what_follows_a_missing_argument_does_not_take_its_place() -> None:
    def scaled(x, scale=2.0, *rest):
        return x * scale

    program = hotstart.compile(
        scaled, (X,), options=hotstart.Options(compiler="op_by_op", on_miss="eager")
    )
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        program(scale=3.0)
    with pytest.raises(ContractError, match="x: got nothing"):
        build(scaled, X)(scale=3.0)


def test_no_variadic_arguments_is_a_contract_too() -> None:
    program = build(variadic, X)
    assert torch.equal(program(X), X)
    with pytest.raises(ContractError):
        program(X, Y)


def keywords(x, **options):
    for name in sorted(options):
        x = x * 2 + options[name]
    return x


@pytest.mark.parametrize(
    "names",
    [
        ["a", "b"],
        ["class", "lambda"],
        ["not an identifier", "größe", ""],
        ["self", "model", "excess", "unknown", "call", "miss"],
    ],
)
def test_keyword_arguments_of_any_name(names: list[str]) -> None:
    options = {name: torch.full((3,), float(i)) for i, name in enumerate(names)}
    program = build(keywords, X, **options)
    assert torch.equal(program(X, **options), keywords(X, **options))
    assert torch.equal(program(X, **dict(reversed(options.items()))), keywords(X, **options))
    missing = {name: t for name, t in options.items() if name != names[0]}
    with pytest.raises(ContractError) as caught:
        program(X, **missing)
    assert caught.value.got == "nothing"
    with pytest.raises(ContractError, match="more"):
        program(X, **options, more=Y)


def both(x, /, **options):
    return x + options["x"] * 2


def test_a_keyword_may_have_the_name_of_a_positional_only_parameter() -> None:
    program = build(both, X, x=Y)
    assert torch.equal(program(X, x=Y), X + Y * 2)


def shadowing(
    model, bound, miss, relayout, excess, unknown, Tensor, Parameter,  # noqa: N803
    is_grad_enabled, set_grad_enabled, run, call, float32, strided, MISSING, torch=None,  # noqa: N803
):  # fmt: skip
    return model + bound * 2 + miss + relayout + excess + unknown + Tensor + Parameter * run + call


def test_parameters_named_like_what_the_entry_uses() -> None:
    tensors = [torch.full((3,), float(i)) for i in range(15)]
    assert torch.equal(build(shadowing, *tensors)(*tensors), shadowing(*tensors))


def builtins_shadowed(len, list, int, str, float, *, bool=1, type=2.5, print="x"):
    return len[0] + list["k"] + int + str + float


def test_parameters_named_like_builtins() -> None:
    call = ([X], {"k": Y}, X, Y, X)
    program = build(builtins_shadowed, *call)
    assert torch.equal(program(*call), builtins_shadowed(*call))
    with pytest.raises(ContractError, match="print"):
        program(*call, print="y")


class Method(torch.nn.Module):
    def forward(self, this, *, self_=None):
        return this + 1


def test_a_module_is_called_without_self() -> None:
    program = build(Method().eval(), X)
    assert torch.equal(program(this=X), X + 1)


def axes(x, y):
    return x + y


def test_axes_may_be_named_like_arguments_and_builtins() -> None:
    dims = {0: hotstart.Dim("x", min=1, max=4), 1: hotstart.Dim("len", min=1, max=4)}
    program = hotstart.compile(
        axes, (torch.ones(2, 3), torch.ones(2, 3)), dynamic_shapes={"x": dims, "y": dims},
        options=EAGER,
    )  # fmt: skip
    for shape in ((1, 1), (4, 2), (2, 3)):
        assert program(torch.ones(shape), torch.ones(shape)).shape == shape
