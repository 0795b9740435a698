"""Stitched code: what a user sees of it, in tracebacks, in `program.code` and in files."""

from __future__ import annotations

import ast
import io
import linecache
import pdb  # noqa: T100  what is tested
import re
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import hotstart
from hotstart import Dim

EAGER = hotstart.Options(compiler="op_by_op")


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x):
        x = x + self.attention(x)
        return x + self.mlp(x)


class Model(nn.Module):
    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.layers = nn.ModuleList([Block() for _ in range(depth)])

    def forward(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return x


IDS = torch.arange(6).reshape(2, 3)
SEQ = {"ids": {1: Dim("seq", min=1, max=8, sizes=[1])}}


def build(model: Any, *args: Any, **more: Any) -> hotstart.Program:
    return hotstart.compile(model, args, **{"options": EAGER, **more})


def own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if frame.filename.startswith("hotstart/")]


def test_a_traceback_shows_the_stitched_line_and_the_layer() -> None:
    program = build(Model().eval(), IDS)
    with pytest.raises(IndexError) as caught:
        program(torch.full((2, 3), 99))
    entry, stitched, unit = own_frames(caught.value)
    assert entry.filename.startswith("hotstart/entry_")
    assert stitched.filename.startswith("hotstart/stitched_static_")
    assert "piece_0(args)" in str(stitched.line)
    assert "# embed" in str(unit.line)


def test_a_traceback_shows_the_inlined_operator_and_its_layer() -> None:
    class Lookup(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(4, 2)

        def forward(self, ids):
            return self.table(ids * 2) + 1

    program = build(Lookup().eval(), IDS[:1] * 0, split_on=["aten::embedding"])
    with pytest.raises(IndexError) as caught:
        program(torch.full((1, 3), 9))
    _, stitched = own_frames(caught.value)
    assert "embedding(" in str(stitched.line)
    assert "# table" in str(stitched.line)


def test_the_line_cache_keeps_generated_code() -> None:
    program = build(Model().eval(), IDS)
    linecache.checkcache()
    (stitched,) = program.artifact.calls[0].stitched
    assert "".join(linecache.getlines(stitched.code.filename)) == program.code["static"]


def test_a_debugger_that_steps_into_stitched_code_shows_its_lines() -> None:
    program = build(Model(depth=1).eval(), IDS, options=replace(EAGER, form="python"))
    program(IDS)  # a first call binds weights
    told, asked = io.StringIO(), io.StringIO("step\n" * 150 + "continue\n")
    debugger = pdb.Pdb(stdin=asked, stdout=told, nosigint=True, readrc=False)
    debugger.use_rawinput = False
    debugger.runcall(program, IDS)
    stops = re.findall(r"> \S*/stitched_static_\w+\.py\((\d+)\)run\(\).*\n(.*)", told.getvalue())
    lines = program.code["static"].splitlines()
    assert len(stops) > 3
    assert [shown for _, shown in stops] == [f"-> {lines[int(n) - 1].strip()}" for n, _ in stops]


@pytest.mark.thorough
def test_code_is_shown_by_variant() -> None:
    program = build(Model().eval(), IDS, dynamic_shapes=SEQ)
    assert list(program.code) == ["seq=2..8", "seq=1"]
    for name, source in program.code.items():
        assert source.startswith(f"# Stitched by hotstart for {name}.")
        ast.parse(source)


def test_layers_that_are_alike_call_the_same_unit() -> None:
    program = build(Model(depth=5).eval(), IDS)
    lines = program.code["static"].splitlines()
    units = {line.split()[0]: line.split()[2].split("(")[0] for line in lines if " = unit_" in line}
    by_layer = {
        line.split("# ")[1]: units[line.split("(args)")[0].split()[-1]]
        for line in lines
        if "(args)  # layers." in line
    }
    assert set(by_layer) >= {f"layers.{n}" for n in range(1, 5)}
    assert len({by_layer[f"layers.{n}"] for n in range(1, 5)}) == 1


def test_weights_are_read_once_however_often_they_are_used() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()

        def forward(self, x):
            return self.block(self.block(x))

    source = build(Twice().eval(), torch.randn(2, 3, 8)).code["static"]
    (unpacking,) = (
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign) and ast.unparse(node.value) == "weights"
    )
    names = [name.id for name in ast.walk(unpacking) if isinstance(name, ast.Name)]
    weights = [name for name in names if name.startswith("block")]
    assert len(weights) == 6
    assert len(set(weights)) == 6


def test_arguments_that_nothing_reads_are_released_at_once() -> None:
    def model(x, unused, also):
        return x.sin() + 1

    program = build(model, *torch.randn(3, 2), split_on=["aten::sin"])
    (line,) = (
        line.strip()
        for line in program.code["static"].splitlines()
        if line.strip().startswith("del ") and "unused" in line
    )
    assert line == "del unused, also"
    x = torch.randn(2)
    assert torch.equal(program(x, x, x), x.sin() + 1)


NAMES = ["torch", "math", "args", "class_", "len", "weights", "bind", "fit"]


@pytest.mark.parametrize("name", NAMES)
def test_arguments_and_weights_may_have_any_name(name: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"def forward(self, {name}): return self.run({name})", scope)

    class Named(nn.Module):
        forward = scope["forward"]

        def __init__(self) -> None:
            super().__init__()
            self.register_parameter(name, nn.Parameter(torch.randn(3, 3)))

        def run(self, x):
            weight = self._parameters[name]
            x = F.scaled_dot_product_attention(x, weight, weight, scale=float("inf")) + weight
            return torch.full_like(x, float("nan"), dtype=torch.float64), x

    model = Named().eval()
    program = build(model, torch.ones(3, 3), split_on=["aten::scaled_dot_product_attention"])
    x = torch.randn(3, 3)
    assert torch.equal(program(x)[1].nan_to_num(), model(x)[1].detach().nan_to_num())


def test_a_hostile_module_name_stays_a_comment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # no name of a module has a dot, as a path may

    class Hostile(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleDict({"x\nopen('hit', 'w')\n#": nn.ReLU()})

        def forward(self, x):
            for layer in self.layers.values():
                x = layer(x)
            return x + 1

    program = build(Hostile().eval(), torch.randn(3), split_on=["aten::relu"])
    assert torch.equal(program(torch.zeros(3)), torch.ones(3))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.thorough
def test_debug_files_are_what_runs(tmp_path: Path) -> None:
    options = hotstart.Options(compiler="op_by_op", debug_dir=tmp_path)
    program = build(Model().eval(), IDS, dynamic_shapes=SEQ, options=options)
    folder = tmp_path / "hotstart"
    names = {path.name for path in folder.iterdir()}
    assert {"entry.py", "graph_0.txt", "pieces_0.txt"} <= names
    assert {"stitched_seq_1.py", "stitched_seq_2_to_8.py"} <= names
    assert (folder / "stitched_seq_1.py").read_text() == program.code["seq=1"]
    assert (folder / "entry.py").read_text() == program.entry_code
    assert len([name for name in names if name.startswith("unit_")]) >= 2
    with pytest.raises(IndexError) as caught:
        program(torch.full((2, 1), 99))
    shown = [Path(f.filename) for f in traceback.extract_tb(caught.value.__traceback__)]
    assert (folder / "stitched_seq_1.py").resolve() in shown


def test_nothing_of_fx_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    program = build(Model().eval(), IDS)
    monkeypatch.setattr(torch.fx.GraphModule, "__call__", None)
    monkeypatch.setattr(torch.fx.Interpreter, "run", None)
    assert program(IDS).shape == (2, 3, 8)


def test_inlined_operators_get_the_traced_strides() -> None:
    def model(x):
        y = x.transpose(0, 1).sin()  # keeps the strides of its input
        return y.reshape(-1) * 2

    program = build(model, torch.randn(3, 4), split_on=["aten::sin"])
    x = torch.randn(3, 4)
    assert torch.equal(program(x), model(x))
