from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hotstart.cli import app, flags, main, parse
from hotstart.cli.examples import EXAMPLES
from hotstart.cli.factory import call_factory
from hotstart.errors import OptionsError
from hotstart.options import Options
from hotstart.records.dims import DerivedDim, DerivedSize, Dim

# --- values of flags ----------------------------------------------------------------------------


def test_a_dynamic_dimension() -> None:
    found = parse.dynamic_dim("input_ids:1=seq[1..512]")
    assert found == parse.DynamicDim("input_ids", 1, DerivedSize((("seq", 1),)), (1, 512))
    batch = DerivedSize((("batch", 1),))
    assert parse.dynamic_dim("mask:0=batch") == parse.DynamicDim("mask", 0, batch, None)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8*rows", DerivedSize((("rows", 8),))),
        ("past+new", DerivedSize((("past", 1), ("new", 1)))),
        ("2*past+new-3", DerivedSize((("past", 2), ("new", 1)), -3)),
        ("seq+1", DerivedSize((("seq", 1),), 1)),
    ],
)
def test_a_dimension_that_follows_from_axes(text: str, size: DerivedSize) -> None:
    assert parse.dynamic_dim(f"x:0={text}") == parse.DynamicDim("x", 0, size, None)


def test_ranges_sizes_and_factories() -> None:
    assert parse.axis_range("seq=1..64") == ("seq", (1, 64))
    assert parse.axis_size("seq=1") == ("seq", 1)
    assert parse.factory("a.b_2.c:make") == parse.Factory("a.b_2.c", "make")
    assert str(parse.factory("a.b:make")) == "a.b:make"
    assert parse.positive("12") == 12


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (parse.dynamic_dim, ""),
        (parse.dynamic_dim, "input_ids=seq[1..512]"),
        (parse.dynamic_dim, "input_ids:1"),
        (parse.dynamic_dim, "input_ids:-1=seq[1..512]"),
        (parse.dynamic_dim, "input_ids:1=seq[1-512]"),
        (parse.dynamic_dim, "input_ids:1=seq[1..]"),
        (parse.dynamic_dim, "input_ids:1=seq[1..512]\n"),
        (parse.dynamic_dim, "input_ids:\u0661=seq"),
        (parse.dynamic_dim, "x:0=8"),
        (parse.dynamic_dim, "x:0=8*"),
        (parse.dynamic_dim, "x:0=0*seq"),
        (parse.dynamic_dim, "x:0=-seq"),
        (parse.dynamic_dim, "x:0=1+seq"),
        (parse.dynamic_dim, "x:0=past-new"),
        (parse.dynamic_dim, "x:0=past+new[1..8]"),
        (parse.axis_range, "seq=1"),
        (parse.axis_range, "seq=1..2..3"),
        (parse.axis_size, "seq=1..2"),
        (parse.axis_size, "seq"),
        (parse.factory, "module"),
        (parse.factory, "a..b:make"),
        (parse.factory, "a.b:"),
        (parse.factory, "a.b:make()"),
        (parse.factory, "2a:make"),
        (parse.positive, "0"),
        (parse.positive, "-1"),
        (parse.positive, "two"),
        (parse.positive, "²"),
    ],
)
def test_values_that_are_refused(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=re.escape(f"got {text!r}, takes ")):
        read(text)


# --- flags that belong together -----------------------------------------------------------------


def shapes(
    dynamic: list[str], ranges: tuple[str, ...] = (), sizes: tuple[str, ...] = ()
) -> dict[str, dict[int, Dim | DerivedDim]] | None:
    return parse.dynamic_shapes(
        [parse.dynamic_dim(text) for text in dynamic],
        [parse.axis_range(text) for text in ranges],
        [parse.axis_size(text) for text in sizes],
    )


def test_nothing_dynamic() -> None:
    assert shapes([]) is None


def test_ranges_and_sizes_go_to_every_dimension_of_their_axis() -> None:
    found = shapes(
        ["ids:0=batch[1..16]", "ids:1=seq[1..512]", "mask:0=batch", "mask:1=seq"],
        ranges=("seq=1..64",),
        sizes=("seq=1", "batch=1"),
    )
    batch = Dim("batch", min=1, max=16, sizes=[1])
    seq = Dim("seq", min=1, max=512, ranges=[(1, 64)], sizes=[1])
    assert found == {"ids": {0: batch, 1: seq}, "mask": {0: batch, 1: seq}}


@pytest.mark.parametrize(
    "dynamic", [["a:0=n[1..8]", "b:0=n"], ["a:0=n", "b:0=n[1..8]"], ["a:0=n[1..8]", "b:0=n[1..8]"]]
)
def test_bounds_may_come_with_any_dimension(dynamic: list[str]) -> None:
    assert shapes(dynamic) == {"a": {0: Dim("n", max=8)}, "b": {0: Dim("n", max=8)}}


def test_dimensions_that_follow_from_axes() -> None:
    rows, past, new = Dim("rows", max=64), Dim("past", min=0, max=9), Dim("new", max=4)
    found = shapes(["x:0=8*rows[1..64]", "k:0=past[0..9]", "y:0=new[1..4]", "m:0=past+new-1"])
    assert found == {"x": {0: 8 * rows}, "k": {0: past}, "y": {0: new}, "m": {0: past + new - 1}}
    assert shapes(["a:0=rows[1..64]", "b:0=rows+rows"]) == {"a": {0: rows}, "b": {0: 2 * rows}}
    with pytest.raises(OptionsError, match=re.escape("write 'x:0=8*rows[1..512]'")):
        shapes(["x:0=8*rows"])
    with pytest.raises(OptionsError, match=r"takes them at one --dynamic of the axis alone$"):
        shapes(["x:0=past+new"])


def test_bounds_may_come_from_ranges_and_sizes() -> None:
    assert shapes(["a:0=n"], ("n=2..8",), ("n=1",)) == {"a": {0: Dim("n", 1, 8, [(2, 8)], [1])}}


@pytest.mark.parametrize(
    ("dynamic", "ranges", "sizes", "message"),
    [
        (["a:0=n[1..8]", "b:0=n[1..9]"], (), (), "got bounds [1..8] and [1..9]"),
        (["a:0=n[1..8]", "a:0=m[1..8]"], (), (), "--dynamic a:0 was given twice"),
        (["a:0=n[1..8]"], ("m=1..2",), (), "--range m=...: no --dynamic names this axis"),
        (["a:0=n[1..8]"], (), ("m=1",), "they name: n"),
        ([], (), ("m=1",), "they name: none"),
        (["a:0=n"], (), (), "got no bounds of axis 'n'"),
        (["a:0=n[8..1]"], (), (), "min=8 is above max=1"),
        (["a:0=n[1..8]"], ("n=1..9",), (), "lies outside"),
    ],
)
def test_flags_that_contradict_each_other(
    dynamic: list[str], ranges: tuple[str, ...], sizes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(OptionsError, match=re.escape(message)):
        shapes(dynamic, ranges, sizes)


@pytest.mark.parametrize(
    ("ops", "rule"),
    [
        ([], "auto"),
        (["auto"], "auto"),
        (["aten::mm", "aten::mm"], ("aten::mm",)),
        (["aten::mm", "auto"], ("aten::mm", "auto")),
    ],
)
def test_split_rule(ops: list[str], rule: str | tuple[str, ...]) -> None:
    assert parse.split_rule(ops) == rule


# --- whole command lines ------------------------------------------------------------------------


def test_defaults_of_build() -> None:
    given = app.read(["build", "pkg.module:make"])
    assert given.factory == parse.Factory("pkg.module", "make")
    assert flags.settings(given).arguments == {
        "dynamic_shapes": None, "split_on": "auto", "options": Options(),
    }  # fmt: skip
    assert [given.debug_dir, given.jobs, given.output, given.sign_key] == 4 * [None]
    assert [given.no_check, given.json, given.traceback] == 3 * [False]


def test_every_flag_of_build() -> None:
    line = (
        "build m:f --dynamic x:0=n[1..8] --range n=1..4 --size n=1 --split-on aten::mm "
        "--split-on aten::bmm --compiler op_by_op --splits 2 --prove first "
        "--pack-weights no --target x86-64-v3 --target x86-64-v2 "
        "--debug-dir out --jobs 3 -o a/model.hot --sign-key team --no-check --json --traceback"
    )
    given = app.read(line.split())
    assert given.factory == parse.Factory("m", "f")
    assert flags.settings(given).arguments == {
        "dynamic_shapes": {"x": {0: Dim("n", max=8, ranges=[(1, 4)], sizes=[1])}},
        "split_on": ("aten::mm", "aten::bmm"),
        "options": Options(
            compiler="op_by_op",
            splits=2,
            pack_weights=False,
            target=("x86-64-v2", "x86-64-v3"),
            prove="first",
        ),
    }
    assert (given.debug_dir, given.jobs) == (Path("out"), 3)
    assert app.read(["build", "m:f", "--jobs", "ray"]).jobs == "ray"
    assert (given.output, given.sign_key) == (Path("a/model.hot"), Path("team"))
    assert [given.no_check, given.json, given.traceback] == 3 * [True]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("inspect m.hot", {"file": Path("m.hot"), "json": False}),
        ("inspect --json m.hot", {"file": Path("m.hot"), "json": True, "target": None}),
        ("inspect --target x86-64-v3 m.hot", {"target": "x86-64-v3"}),
        ("verify m.hot", {"trusted_key": None}),
        (
            "verify m.hot --trusted-key a.pub --trusted-key b.pub --json",
            {"trusted_key": ["a.pub", "b.pub"], "json": True},
        ),
        ("load-check m.hot", {"no_source": False, "json": False, "traceback": False}),
        (
            "load-check --no-source m.hot --json --traceback",
            {"no_source": True, "json": True, "traceback": True},
        ),
        ("keygen team", {"file": Path("team"), "json": False}),
        ("keygen build", {"command": "keygen", "file": Path("build")}),
    ],
)
def test_the_other_commands(line: str, expected: dict[str, object]) -> None:
    given = vars(app.read(line.split()))
    assert {name: given[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "COMMAND"),
        ("guess", "invalid choice"),
        ("build", "PACKAGE.MODULE:FUNCTION"),
        ("build module", "got 'module', takes PACKAGE.MODULE:FUNCTION"),
        ("build m:f --dynamic x=n", "takes ARGUMENT:DIM=AXIS[LOW..HIGH]"),
        ("build m:f --dynamic x:0=n", "--dynamic x:0=n: got no bounds of axis 'n', takes them at"),
        ("build m:f --size n=1", "no --dynamic names this axis"),
        ("build m:f --compiler gcc", "invalid choice"),
        ("warm m:f --on cluster", "invalid choice"),
        ("build m:f --jobs 0", "takes a whole number of 1 or more, or 'ray'"),
        ("build m:f --sign-key team", "--sign-key is for --output"),
        ("build m:f --no-check", "--no-check is for --output"),
        ("inspect", "FILE"),
        ("build m:f --guess", "hotstart build: error: unrecognized arguments: --guess"),
        ("verify m.hot --trusted-key", "expected one argument"),
        ("load-check a.hot b.hot", "unrecognized arguments"),
        ("keygen", "PRIVATE_KEY_FILE"),
    ],
)
def test_usage_errors_exit_with_2(
    line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(line.split())
    assert exit_info.value.code == 2
    shown = capsys.readouterr().err
    usage, error, see = shown.splitlines()
    assert usage.startswith("usage: hotstart")
    assert message in error
    assert re.fullmatch(r"see hotstart.* --help", see)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["--version"])
    assert exit_info.value.code == 0
    assert capsys.readouterr().out.startswith("hotstart ")


# --- factories and exit statuses ----------------------------------------------------------------

FACTORIES = """
import hotstart
import hotstart.errors

def good():
    return print, [1, 2], {"x": 3}

def bare():
    return print, (), None

def pair():
    return print, ()

def text():
    return 3, (), None

def several():
    return print, {"one": 1, "two": 2}

def decided():
    return {"model": print, "args": (), "options": hotstart.Options(), "split_on": "auto"}

def failing():
    raise hotstart.errors.CaptureError("line 7: a graph break; move the print out of forward")

def interrupted():
    raise KeyboardInterrupt

number = 3
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the working folder, as a user has it."""
    name = "factories_of_a_test"
    (tmp_path / f"{name}.py").write_text(FACTORIES)
    (tmp_path / "needs_more.py").write_text("import hotstart_has_no_such_module\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield name
    sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("good", (print, {"args": (1, 2), "kwargs": {"x": 3}})),
        ("bare", (print, {"args": (), "kwargs": {}})),
        ("several", (print, {"calls": {"one": 1, "two": 2}})),
    ],
)
def test_factories(factories: str, function: str, expected: tuple[Any, ...]) -> None:
    assert call_factory(parse.Factory(factories, function)) == expected


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("{}:pair", "returned (builtin_function_or_method, tuple), takes (model, args, kwargs)"),
        ("{}:text", "returned (int, tuple, NoneType), takes (model, args, kwargs)"),
        ("{}:number", "has no function 'number'"),
        ("{}:missing", "has no function 'missing'"),
        ("no_such_module_here:make", "no module named 'no_such_module_here'"),
        ("no_such_module_here.deep:make", "no module named 'no_such_module_here'"),
        ("{}:failing", "line 7: a graph break"),
    ],
)
def test_errors_exit_with_1(
    factories: str, factory: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", factory.format(factories)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert message in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("{}:decided --compiler inductor --tune", "--compiler, --tune: got this and 'options' of"),
        ("{}:decided --split-on aten::mm", "--split-on: got this and 'split_on' of"),
        ("{}:several --dynamic x:0=n[1..8]", "--dynamic: got this and 'calls' of"),
    ],
)
@pytest.mark.parametrize("command", ["build", "explain", "bisect", "warm"])
def test_a_flag_for_what_the_factory_decides_is_an_error(
    factories: str, command: str, flags: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, *flags.format(factories).split()]) == 1
    shown = capsys.readouterr()
    assert message in shown.out + shown.err
    assert f"{factories}:" in shown.out + shown.err


def test_a_traceback_on_request(factories: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", f"{factories}:failing", "--traceback"]) == 1
    assert "in failing" in capsys.readouterr().err


def test_what_a_users_module_misses_is_not_our_error(factories: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="hotstart_has_no_such_module"):
        main(["build", "needs_more:make"])


def test_ctrl_c_exits_with_130(factories: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", f"{factories}:interrupted"]) == 130


@pytest.mark.parametrize("command", EXAMPLES)
def test_examples_in_the_help_of_a_command_are_commands(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert f"examples:{EXAMPLES[command]}\n" in capsys.readouterr().out
    lines = EXAMPLES[command].replace("\\\n", "").strip().splitlines()
    for line in lines:
        _, *words = shlex.split(re.split(r" [|>#]", line)[0])
        assert app.read(words).run
    assert any(line.split()[1] == command for line in lines)


def test_every_command_has_examples() -> None:
    assert list(EXAMPLES) == list(app._COMMANDS)
