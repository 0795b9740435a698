"""Nothing but errors of ours, and of the user's own code, leaves the library."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Call, Dim, HotstartError, Options
from hotstart.faults import defect, typed

X = torch.ones(2, 4)
EAGER = Options(compiler="op_by_op")
DIM = Dim("b", max=4)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Adds:
    def __call__(self, x: Tensor) -> Tensor:
        return x + 1


def build(model: Any = None, *args: Any, **settings: Any) -> Callable[..., Any]:
    """A build that is run later; or something else that takes what a build takes."""
    given = {"args": args or (X,), "options": EAGER, **settings}
    called = Model() if model is None else model
    return lambda use=hotstart.compile: use(called, **given)


def replaced(forward: Any) -> nn.Module:
    """A model whose own `forward` was replaced in the object."""
    model = Model()
    model.forward = forward
    return model


def hooked() -> nn.Module:
    """A model whose `forward` was replaced as accelerate does it."""
    model = Model()
    old = model.forward

    def new_forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return old(*args, **kwargs)

    model.forward = functools.update_wrapper(functools.partial(new_forward, model), old)
    return model


def with_forward(forward: Any) -> nn.Module:
    """A model of a class with some `forward`."""
    made: type[nn.Module] = type("Made", (nn.Module,), {"forward": forward})
    return made()


def generates(self: Any, x: Tensor) -> Any:
    yield x


async def waits(self: Any, x: Tensor) -> Tensor:
    return x


@torch._dynamo.assume_constant_result
def constant(x: Tensor) -> Any:
    return x.sum().item()


@torch.jit.script
def scripted(x: Tensor) -> Tensor:
    return x + 1


def holds_itself() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch: nested tensors are a prototype
    NESTED = torch.nested.nested_tensor([X, X[:1]])


def holding(tensor: Tensor) -> nn.Module:
    model = Model()
    model.register_buffer("held", tensor)
    return model


def second(value: Any) -> Callable[..., Any]:
    return build(lambda x, y: x + 1, X, value)


MODELS: dict[str, Callable[..., Any]] = {
    "partial": build(replaced(functools.partial(Model().forward))),
    "hooks of accelerate": build(hooked()),
    "function of C": build(replaced(torch.relu)),
    "builtin": build(replaced(abs)),
    "object": build(replaced(Adds())),
    "nothing": build(replaced(None)),
    "number": build(replaced(3)),
    "class": build(replaced(nn.ReLU)),
    "scripted": build(replaced(scripted)),
    "function of C in the class": build(with_forward(torch.relu)),
    "partial in the class": build(with_forward(functools.partial(lambda x: x + 1))),
    "generator": build(with_forward(generates)),
    "coroutine": build(with_forward(waits)),
    "no forward": build(nn.Module()),
    "raises": build(with_forward(lambda self, x: {}["mine"])),
    "constant of contents": build(lambda x: x * constant(x)),
    **{
        f"a {type(model).__name__} as model": build(model)
        for model in (torch.relu, abs, functools.partial(abs), Adds(), scripted, "m", X, 3)
    },
    "a class as model": build(nn.ReLU),
    "an operator as model": build(torch.ops.aten.relu.default),
    "a ufunc as model": build(np.sin),
}

ARGUMENTS: dict[str, Callable[..., Any]] = {
    "array": second(np.ones(3)),
    "object": second(Adds()),
    "set": second({1}),
    "function": second(torch.relu),
    "itself": second(holds_itself()),
    "huge": build(lambda x, y: x * y, X, 10**40),
    "too few": build(lambda x, y: x),
    "too many": build(None, X, X),
    "args tensor": build(args=X),
    "args text": build(args="x"),
    "args None": build(args=None),
    "kwargs list": build(kwargs=[1]),
    "kwargs by number": build(kwargs={1: X}),
    "shapes list": build(dynamic_shapes=[1]),
    "shapes number": build(dynamic_shapes=3),
    "shapes by number": build(dynamic_shapes={0: {0: DIM}}),
    "dimension by text": build(dynamic_shapes={"x": {"0": DIM}}),
    "dimension by fraction": build(dynamic_shapes={"x": {0.5: DIM}}),
    "dimension text": build(dynamic_shapes={"x": {0: "b"}}),
    "method": build(args=(), calls={"a": Call(args=(X,), method="nope")}),
    "method that is none": build(args=(), calls={"a": Call(args=(X,), method="training")}),
    "calls list": build(args=(), calls=[1]),
    "calls of tuples": build(args=(), calls={"a": (X,)}),
    "split_on": build(split_on=3),
    "split_on nothing": build(split_on=[None]),
    "options number": build(options=3),
    "options dict": build(options={"compiler": "op_by_op"}),
    "device": build(options=Options(compiler="op_by_op", device="nope")),
    "debug_dir": build(options=Options(compiler="op_by_op", debug_dir="/proc/nowhere")),
    "setting of Inductor": build(options=Options(inductor={"nope": 1})),
    "settings by anything": build(options=Options(inductor={"nope": 1, 2: 3})),
    "default nested": build(lambda x, y=NESTED: x + 1),
    "weight nested": build(holding(NESTED)),
    "module without init": build(nn.Module.__new__(nn.Module)),
}

RECORDS: dict[str, Callable[[], Any]] = {
    "cache": build(cache=3),
    "cache without a name": build(cache=""),
    "cache with a zero": build(cache="\0"),
    "key of nothing": lambda: hotstart.compute_key(None, (X,)),
    "key of options": lambda: hotstart.compute_key(Model(), (X,), options=3),
    "key of a number": lambda: hotstart.compute_key(Model(), (X,), extra_key=3),
    "call of a number": lambda: Call(args=3),
    "call by number": lambda: Call(method=3),
    "call without names": lambda: Call(kwargs=3),
    "jobs": lambda: Options(jobs="a"),
    "no jobs": lambda: Options(jobs=0),
    "listener": lambda: Options(on_event=3),
    "cache policy": lambda: hotstart.Store(policy=[]),
    "extra key": lambda: hotstart.Store(extra_key=3),
    "name": lambda: Dim(3),
    "max": lambda: Dim("b", max="a"),
    "fraction": lambda: Dim("b", max=3.5),
    "no max": lambda: Dim("b"),
    "sizes": lambda: Dim("b", sizes=3),
    "size": lambda: Dim("b", sizes=["a"]),
    "ranges": lambda: Dim("b", max=4, ranges=3),
    "range of one": lambda: Dim("b", ranges=[(1,)]),
    "range of text": lambda: Dim("b", ranges=[("a", "b")]),
    "compiler": lambda: Options(compiler=[]),
    "splits": lambda: Options(splits="a"),
    "inductor": lambda: Options(inductor=3),
    "debug_dir": lambda: Options(debug_dir=3),
    "device": lambda: Options(device=3),
    "on_miss": lambda: Options(on_miss=[]),
    "store": lambda: hotstart.Store(3),
    "cache of bytes": lambda: hotstart.Store(b"/tmp"),
    "bytes": lambda: hotstart.Store("/tmp", max_bytes="a"),
    "files": lambda: hotstart.Store("/tmp", max_files=-1),
    "age": lambda: hotstart.Store("/tmp", max_age_days="a"),
    "timeout": lambda: hotstart.Store("/tmp", remote="memory:///a", remote_timeout_s="a"),
    "probe": lambda: hotstart.Store("/tmp").probe(3),
    "probe of a part": lambda: hotstart.Store("/tmp").probe("abc"),
    "pull of a part": lambda: hotstart.Store("/tmp", remote="memory:///a").pull("abc"),
    "pull": lambda: hotstart.Store("/tmp", remote="memory:///a").pull(None),
    "remote options": lambda: hotstart.Store("/tmp", remote="memory:///a", remote_options=3),
    "remote": lambda: hotstart.Store("/tmp", remote=3),
    "remote URL": lambda: hotstart.Store("/tmp", remote="nope"),
    "install": lambda: hotstart.install(3),
    "restore": lambda: hotstart.restore(3),
    "submodule of a number": lambda: hotstart.compile_submodule(3, "linear", (X,)),
    "submodule of a function": lambda: hotstart.compile_submodule(abs, "linear", (X,)),
    "submodule by number": lambda: hotstart.compile_submodule(Model(), 3, (X,)),
    "submodule's args": lambda: hotstart.compile_submodule(Model(), "linear", 3),
    "submodule's options": lambda: hotstart.compile_submodule(Model(), "linear", (X,), options=3),
}


@pytest.mark.parametrize("case", MODELS)
def test_models_that_cannot_be_compiled(case: str) -> None:
    with pytest.raises(HotstartError):
        MODELS[case]()


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments_of_builds_that_make_no_sense(case: str) -> None:
    with pytest.raises(HotstartError):
        ARGUMENTS[case]()


@pytest.mark.parametrize("case", {**MODELS, **ARGUMENTS})
def test_a_cache_changes_no_error(case: str, tmp_path: Path) -> None:
    run = {**MODELS, **ARGUMENTS}[case]
    with pytest.raises(HotstartError) as without:
        run()
    with pytest.raises(without.type):
        run(functools.partial(hotstart.compile, cache=tmp_path))
    with contextlib.suppress(HotstartError):  # what only a trace finds has a key
        run(hotstart.compute_key)


def test_a_program_that_is_no_data_runs_and_is_not_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def add(x: Tensor, name: str = "\ud800") -> Tensor:
        return x + 1

    program = hotstart.compile(add, (X,), options=EAGER, cache=tmp_path)
    assert torch.equal(program(X), X + 1)
    assert "cannot be kept: the program cannot be written as data: UnicodeEncode" in caplog.text
    with pytest.raises(hotstart.ArtifactError, match="surrogates"):
        program.save(tmp_path / "a.hot", check=False)


@pytest.mark.parametrize("case", RECORDS)
def test_other_arguments_that_make_no_sense(case: str) -> None:
    with pytest.raises(HotstartError):
        RECORDS[case]()


@pytest.mark.parametrize("file", [3, None, "\0", "/proc/none/a.hot", "/proc"])
def test_files_that_are_none(file: Any, tmp_path: Path) -> None:
    program = build()()
    for use in (
        hotstart.inspect,
        functools.partial(hotstart.load, model=Model()),
        functools.partial(program.save, check=False),
    ):
        with pytest.raises(HotstartError):
            use(file)
    if file is not None:
        with pytest.raises(HotstartError):
            program.save(tmp_path / "a.hot", sign_key=file, check=False)


@pytest.mark.parametrize("model", [None, 3, "m", lambda x: x])
def test_models_that_a_file_is_not_for(model: Any, tmp_path: Path) -> None:
    build()().save(tmp_path / "a.hot", check=False)
    with pytest.raises(HotstartError):
        hotstart.load(tmp_path / "a.hot", model)
    with pytest.raises(HotstartError, match="trusted_keys"):
        hotstart.load(tmp_path / "a.hot", Model(), trusted_keys=3)


@pytest.mark.parametrize("use", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_program_is_not_copied(use: Callable[[Any], Any], tmp_path: Path) -> None:
    program = build()()
    with pytest.raises(hotstart.ArtifactError, match=r"program\.save\(file\), and hotstart\.load"):
        use(program)
    with pytest.raises(hotstart.ArtifactError, match=r"program\.save"):
        torch.save(program, tmp_path / "a.pt")


def test_the_advice_for_a_replaced_forward_helps() -> None:
    with pytest.raises(hotstart.CaptureError, match=r"model\.forward: got partial.*Wrap the model"):
        build(hooked())()

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = hooked()

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x)

    model = Wrapped()
    with torch.no_grad():
        assert torch.equal(build(model)()(X), model(X))


def test_the_line_of_what_torch_raises_is_named() -> None:
    with pytest.raises(hotstart.CaptureError, match=r"DataDependent.*test_faults\.py:\d+ in const"):
        build(lambda x: x * constant(x))()


@torch._dynamo.assume_constant_result
def _fails() -> Any:
    raise ZeroDivisionError("mine")


@torch._dynamo.assume_constant_result
def _fails_in_a_library() -> Any:
    return json.loads("{")


def test_what_the_users_own_code_raises_is_the_users() -> None:
    with pytest.raises(ZeroDivisionError, match="mine"):
        build(lambda x: x * _fails())()
    with pytest.raises(json.JSONDecodeError):
        build(lambda x: x * _fails_in_a_library())()

    def listen(event: Any) -> None:
        raise OverflowError("mine")

    with pytest.raises(OverflowError, match="mine"):
        build(options=Options(compiler="op_by_op", on_event=listen))()


def test_only_what_is_not_the_users_becomes_a_defect() -> None:
    with (
        pytest.raises(HotstartError, match=r"stitching failed: .*defect of hotstart") as caught,
        typed(defect("stitching")),
    ):
        torch.ops.aten.add.no_such_overload  # noqa: B018
    assert isinstance(caught.value.__cause__, AttributeError)
    with pytest.raises(AttributeError), typed(defect("stitching")):
        raise AttributeError
