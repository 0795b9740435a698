"""One program for several ways to call a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Call, ContractError, Dim, Options, OptionsError
from hotstart.cli import main

pytestmark = pytest.mark.usefixtures("kept_pieces")

EAGER = Options(compiler="op_by_op")
BATCH = Dim("batch", max=8)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.linear(self.norm(x)))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(Layer() for _ in range(4)))
        self.head = nn.Linear(4, 2)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor, mask: Tensor | None = None, *, scale: float = 1.0) -> Tensor:
        y = self.head(self.encode(x)) * scale
        return y if mask is None else y * mask

    def encode(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def count(self, x: Tensor) -> Tensor:
        self.seen.add_(x.sum())
        return self.seen * 1


def inputs(batch: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 4), torch.randint(0, 2, (batch, 1)).float()


CALLS = {
    "plain": Call(args=(inputs(3)[0],), dynamic_shapes={"x": {0: BATCH}}),
    "masked": Call(args=inputs(3), dynamic_shapes={"x": {0: BATCH}, "mask": {0: BATCH}}),
    "encode": Call(args=(inputs(3)[0],), dynamic_shapes={"x": {0: BATCH}}, method="encode"),
    "count": Call(args=(inputs(3)[0],), method="count"),
}


def build(options: Options = EAGER, **changes: Any) -> hotstart.Program:
    torch.manual_seed(0)
    return hotstart.compile(Model().eval(), calls=CALLS, options=options, **changes)


@pytest.fixture(scope="module")
def program() -> hotstart.Program:
    return build()


def test_a_call_runs_the_first_contract_that_takes_it(program: hotstart.Program) -> None:
    for batch in (1, 3, 8):
        x, mask = inputs(batch)
        assert torch.equal(program(x), program.model(x))
        assert torch.equal(program(x, mask), program.model(x, mask))
        assert torch.equal(program(mask=mask, x=x), program.model(x, mask))


def test_what_the_first_contract_does_not_take_has_not_run(program: hotstart.Program) -> None:
    x, mask = inputs(2)
    before = x.clone(), mask.clone()
    program(x, mask)
    assert torch.equal(x, before[0])
    assert torch.equal(mask, before[1])


def test_a_call_by_name_is_of_that_contract_only(program: hotstart.Program) -> None:
    x, mask = inputs(2)
    assert torch.equal(program["masked"](x, mask), program.model(x, mask))
    with pytest.raises(ContractError, match="mask"):
        program["plain"](x, mask)


def test_methods_are_called_by_name(program: hotstart.Program) -> None:
    x, _ = inputs(5)
    assert torch.equal(program["encode"](x), program.model.encode(x))


def test_methods_share_the_state_of_the_model() -> None:
    program = build()
    x, _ = inputs(3)
    program["count"](x)
    program["count"](x)
    torch.testing.assert_close(program.model.seen, 2 * x.sum())


def test_no_such_name_is_a_key_error_that_lists_them(program: hotstart.Program) -> None:
    with pytest.raises(KeyError, match="plain, masked, encode, count"):
        program["decode"]


def test_the_error_of_an_unmatched_call_says_how_each_contract_failed(
    program: hotstart.Program,
) -> None:
    x, mask = inputs(9)
    with pytest.raises(ContractError) as caught:
        program(x, mask)
    message = str(caught.value)
    assert "plain: " in message
    assert "masked: " in message
    assert "encode" not in message, "a method is no call of the model itself"
    assert set(caught.value.calls) == {"plain", "masked"}
    assert "takes 1..8" in str(caught.value.calls["masked"])


def test_pieces_of_all_calls_share_code_where_they_are_equal(program: hotstart.Program) -> None:
    owners = {piece.name.split(".")[0] for piece in program.pieces}
    assert owners == {"plain", "masked", "encode", "count"}
    reused = {p.name: p.reused_from for p in program.pieces if p.reused_from}
    assert reused["encode.piece_0"] == "plain.piece_0"
    actions = {u.piece: u.action for u in program.report.units if u.piece.startswith("encode.")}
    assert set(actions.values()) == {"reused"}


def test_the_report_and_the_code_name_the_call(program: hotstart.Program) -> None:
    assert "masked: batch=1..8" in program.code
    assert "count: static" in {variant.name for variant in program.report.variants}
    assert "# encode\ndef call(x=" in program.entry_code


@pytest.mark.thorough
def test_all_calls_are_in_one_file(tmp_path: Path) -> None:
    built = build()
    built.save(tmp_path / "model.hot", check=False)
    loaded = hotstart.load(tmp_path / "model.hot", built.model)
    x, mask = inputs(4)
    assert torch.equal(loaded(x), built.model(x))
    assert torch.equal(loaded(x, mask), built.model(x, mask))
    assert torch.equal(loaded["encode"](x), built.model.encode(x))
    with pytest.raises(ContractError, match="masked: "):
        loaded(torch.zeros(9, 4))


@pytest.mark.thorough
def test_all_calls_are_compared_when_they_are_saved(tmp_path: Path) -> None:
    build().save(tmp_path / "model.hot")
    check = hotstart.inspect(tmp_path / "model.hot").check
    assert check["exact"]


@pytest.mark.thorough
def test_new_weights_are_noticed_by_every_call() -> None:
    program = build()
    x, mask = inputs(4)
    program(x, mask)
    program["encode"](x)
    program.model.load_state_dict(Model().state_dict(), assign=True)
    assert torch.equal(program(x, mask), program.model(x, mask))
    assert torch.equal(program["encode"](x), program.model.encode(x))


@pytest.mark.thorough
def test_a_miss_runs_the_method_that_was_called() -> None:
    program = build(Options(compiler="op_by_op", on_miss="eager"))
    x = torch.randn(9, 4)
    assert torch.equal(program(x, scale=2.0), program.model(x, scale=2.0))
    assert torch.equal(program["encode"](x), program.model.encode(x))


def test_a_miss_compiles_what_was_called() -> None:
    program = build(Options(compiler="op_by_op", on_miss="compile"))
    x = torch.randn(9, 4)
    for _ in range(2):
        assert torch.equal(program["encode"](x), program.model.encode(x))
        assert torch.equal(program(x), program.model(x))
    assert {key: len(made) for key, made in program._misses.compiled.items()} == {
        "encode": 1,
        "": 1,
    }


def test_a_program_of_methods_alone_says_so() -> None:
    only = {"encode": CALLS["encode"]}
    program = hotstart.compile(Model().eval(), calls=only, options=EAGER)
    with pytest.raises(ContractError, match=r"program\['encode'\]"):
        program(torch.zeros(3, 4))


def test_a_method_of_a_submodule() -> None:
    calls = {"first": Call(args=(torch.zeros(2, 4),), method="layers.0")}
    program = hotstart.compile(Model().eval(), calls=calls, options=EAGER)
    x = torch.randn(2, 4)
    assert torch.equal(program["first"](x), program.model.layers[0](x))


def test_takes_asks_the_calls_of_the_model(program: hotstart.Program) -> None:
    assert program.takes(*inputs(8))
    assert not program.takes(*inputs(9))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"args": (torch.zeros(2, 4),), "calls": CALLS}, "give each call its own"),
        ({"calls": {}}, "at least one"),
        ({"calls": {"not a name": Call()}}, "identifier"),
        ({"calls": {"plain": (torch.zeros(2, 4),)}}, "takes a hotstart.Call"),
        ({"calls": {"plain": Call(method="missing")}}, "missing"),
    ],
)
def test_calls_that_make_no_sense(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        hotstart.compile(Model().eval(), options=EAGER, **arguments)


@pytest.mark.thorough
def test_with_inductor() -> None:
    calls = {name: CALLS[name] for name in ("plain", "masked")}
    program = hotstart.compile(Model().eval(), calls=calls)
    with torch.no_grad():
        for batch in (1, 8):
            x, mask = inputs(batch)
            torch.testing.assert_close(program(x), program.model(x))
            torch.testing.assert_close(program(x, mask), program.model(x, mask))


def test_inspect_shows_every_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.hot"
    build().save(file, check=False)
    assert main(["inspect", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "arguments of masked\n" in shown
    assert "arguments of encode, a call of the model's encode\n" in shown
    assert "variants of count, a call of the model's count\n" in shown


def calls_of_a_model() -> tuple[nn.Module, dict[str, Call]]:
    return Model().eval(), CALLS


def test_a_factory_may_return_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    factory = f"{__name__}:calls_of_a_model"
    file = tmp_path / "model.hot"
    assert main(["build", factory, "--compiler", "op_by_op", "-o", str(file), "--no-check"]) == 0
    assert "variant masked: batch=1..8" in capsys.readouterr().out
    assert [call.name for call in hotstart.inspect(file).calls] == list(CALLS)
