"""Where the time of a call goes: `hotstart.profile` and `hotstart.profiler_ranges`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Call, Dim, Options, Program
from hotstart.cli import main
from hotstart.errors import ContractError, OptionsError
from hotstart.profiling.made_up_call import made_up_calls
from hotstart.profiling.parts import PieceProfile
from hotstart.profiling.record import Profile

EAGER = Options(compiler="op_by_op")
X = torch.randn(3, 8)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(x)))


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x.cumsum(0)


def model() -> Stack:
    torch.manual_seed(0)
    return Stack().eval()


ROWS = {"x": {0: Dim("rows", min=1, max=8)}}


@pytest.fixture(scope="module")
def program() -> Program:
    return hotstart.compile(model(), (X,), dynamic_shapes=ROWS, options=EAGER, split_on=["cumsum"])


@pytest.fixture(scope="module")
def native() -> Program:
    return hotstart.compile(model(), (X,), dynamic_shapes=ROWS)


def profile(program: Program, *args: Any, **settings: Any) -> Profile:
    return hotstart.profile(program, args, **{"repeats": 3, **settings})


def all_operations(pieces: tuple[PieceProfile, ...]) -> int:
    return sum(kernel.operations or 0 for piece in pieces for kernel in piece.kernels)


def linear_operations(rows: int) -> int:
    return 3 * 2 * rows * 8 * 16 * 2


@pytest.mark.thorough
def test_every_piece_that_runs_is_there_with_its_layers(native: Program) -> None:
    found = profile(native, X)
    shown = [(piece.name, piece.layers) for piece in found.pieces]
    assert shown == [(p.name, p.layers) for p in native.pieces if p.kind == "compiled"]
    assert found.variant == "rows=1..8"
    assert found.native
    assert len({piece.unit for piece in found.pieces}) < len(found.pieces), "blocks are equal"


def test_times_are_of_what_contains_what(native: Program) -> None:
    found = profile(native, X, repeats=9)
    assert found.seconds > 0
    for piece in found.pieces:
        assert sum(kernel.seconds for kernel in piece.kernels) > 0
        assert all(kernel.count == 1 for kernel in piece.kernels)
    assert (found.threads, found.repeats) == (torch.get_num_threads(), 9)


@pytest.mark.thorough
@pytest.mark.parametrize("rows", [1, 5])
def test_operations_of_linears_are_counted(program: Program, native: Program, rows: int) -> None:
    for each in (program, native):
        found = profile(each, torch.randn(rows, 8))
        assert all_operations(found.pieces) == linear_operations(rows)


def test_operators_of_one_name_are_told_apart_by_what_they_give(program: Program) -> None:
    found = profile(program, torch.randn(5, 8))
    given = [kernel.result for kernel in found.pieces[0].kernels if "linear" in kernel.name]
    assert given == 3 * ["5 x 16", "5 x 8"]
    assert all(re.search(rf"linear\s+{sizes} ", str(found)) for sizes in given)


def test_bytes_are_those_of_arguments_and_results(program: Program) -> None:
    block = profile(program, X).pieces[0]
    first = next(kernel for kernel in block.kernels if kernel.name == "linear")
    assert first.bytes == 4 * (X.numel() + 16 * 8 + 16 + 3 * 16)


def test_what_is_called_between_pieces_is_there(program: Program) -> None:
    *_, between = profile(program, X).pieces
    assert (between.name, between.unit) == ("", "")
    assert [kernel.name for kernel in between.kernels if "cumsum" in kernel.name]


def test_a_program_is_as_it_was_afterwards(native: Program) -> None:
    before = native(X)
    profile(native, X)
    hotstart.profiler_ranges(native)(X)
    assert torch.equal(native(X), before)


def test_the_watched_form_gives_the_same(program: Program, native: Program) -> None:
    for each in (program, native):
        assert torch.equal(hotstart.profiler_ranges(each)(X), each(X))


@pytest.mark.thorough
def test_calls_have_names() -> None:
    calls = {
        "one": Call(args=(torch.randn(1, 8),)),
        "many": Call(args=(X,), dynamic_shapes={"x": {0: Dim("rows", min=2, max=8)}}),
    }
    program = hotstart.compile(model(), calls=calls, options=EAGER)
    found = profile(program, X, call="many")
    assert (found.call, found.variant) == ("many", "rows=2..8")
    assert {piece.name.partition(".")[0] for piece in found.pieces} == {"many"}
    assert profile(program, torch.randn(1, 8)).call == "one"
    with pytest.raises(OptionsError, match="no call 'few'; there are: one, many"):
        profile(program, X, call="few")


def test_a_call_outside_of_the_contract_is_refused(program: Program) -> None:
    with pytest.raises(ContractError):
        profile(program, torch.randn(9, 8))


@pytest.mark.parametrize("repeats", [0, True, 1.5])
def test_repeats_is_a_number_of_calls(program: Program, repeats: Any) -> None:
    with pytest.raises(OptionsError, match="repeats: got"):
        profile(program, X, repeats=repeats)


def test_what_is_no_program_is_refused() -> None:
    with pytest.raises(OptionsError, match="import torch before it is loaded"):
        hotstart.profile(model(), (X,))  # type: ignore[arg-type]


def test_it_is_plain_data_and_text(native: Program) -> None:
    found = profile(native, X)
    assert json.loads(json.dumps(found.to_dict()))["version"] == 1
    lines = str(found).splitlines()
    assert lines[0].startswith("rows=1..8: ")
    assert any(line.startswith("piece_0 .. piece_2 (3)  blocks.0 and 2 more") for line in lines)
    assert any(re.search(r" piece_0 +3 ", line) for line in lines), "kernels of equal pieces"


def test_pieces_are_ranges_of_torchs_profiler(native: Program) -> None:
    ranged = hotstart.profiler_ranges(native)
    with torch.profiler.profile() as trace:
        ranged(X)
    names = {event.key for event in trace.key_averages()}
    assert {f"piece_{n} blocks.{n}" for n in range(3)} <= names


def test_made_up_calls_are_of_the_sizes_that_are_asked_for(program: Program) -> None:
    (call,) = program.artifact.calls
    args, kwargs = next(made_up_calls(call, {"rows": 5}))
    (x,) = [*args, *kwargs.values()]
    assert x.shape == (5, 8)
    assert program.takes(*args, **kwargs)
    for sizes in ({}, {"rows": 5, "columns": 1}):
        with pytest.raises(OptionsError, match=r"takes one for each axis: rows=1\.\.8"):
            next(made_up_calls(call, sizes))


# --- the command line -----------------------------------------------------------------------------

SHOP = """
import torch
from tests.integration.test_profile import X, model

def encoder():
    return model(), (X,), None
"""


@pytest.fixture
def saved(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "profiled_shop.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    program.save("encoder.hot", check=False)
    torch.save(model().state_dict(), "weights.pt")
    return tmp_path


def test_profile_of_a_factorys_example(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = (
        "profile encoder.hot --factory profiled_shop:encoder --repeats 2 --json --trace t.json"
    )
    assert main(command.split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["repeats"] == 2
    trace = json.loads((saved / "t.json").read_text())
    assert "piece_0 blocks.0, blocks.1, blocks.2" in {
        event.get("name") for event in trace["traceEvents"]
    }


def test_profile_of_a_made_up_call(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "profile encoder.hot --weights weights.pt --size rows=7 --repeats 2"
    assert main(command.split()) == 0
    assert capsys.readouterr().out.startswith("rows=1..8: ")


def test_profile_as_a_page(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "profile encoder.hot --weights weights.pt --size rows=7 --repeats 2 --html p.html"
    assert main(command.split()) == 0
    said = capsys.readouterr()
    assert said.out.startswith("rows=1..8: ")
    assert "wrote p.html" in said.err
    page = (saved / "p.html").read_text()
    assert "<h1>encoder.hot</h1>" in page
    assert "blocks.0" in page


def test_a_page_that_cannot_be_written_is_told_before_anything_is_measured(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "profile encoder.hot --weights weights.pt --size rows=7 --html nowhere/p.html"
    assert main(command.split()) == 1
    assert "Nothing was measured" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--weights weights.pt", "got none, takes one for each axis: rows=1..8"),
        ("--weights weights.pt --size rows=9", "rows"),
        ("--weights weights.pt --size rows=3 --call other", "call: got 'other'"),
    ],
    ids=["no size", "out of range", "no such call"],
)
def test_profile_says_what_it_needs(
    saved: Path, capsys: pytest.CaptureFixture[str], flags: str, message: str
) -> None:
    assert main(f"profile encoder.hot {flags}".split()) == 1
    assert message in capsys.readouterr().err
