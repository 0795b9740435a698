"""Options of the backend, and what it refuses."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.exc
import torch.fx.experimental._config
from torch import Tensor, nn

import hotstart
from hotstart.backend import hotstart as backend
from tests.integration.backend.calls import EAGER, Block, assert_same, check, compiled


def inner(error: pytest.ExceptionInfo[Any]) -> Any:
    return error.value.inner_exception


# --- options --------------------------------------------------------------------------------------


def test_operators_to_split_at_need_not_be_in_every_graph() -> None:
    def broken(x: Tensor) -> Tensor:
        y = torch.relu(x.sin()).cos()
        torch._dynamo.graph_break()
        return y.exp()

    events: list[Any] = []
    options = {**EAGER, "split_on": ["aten::relu"], "on_event": events.append}
    check(compiled(broken, options), broken, (torch.randn(3),))
    pieces = [event.detail["pieces"] for event in events if event.kind == "build_finished"]
    assert pieces == ["3", "1"]


def test_what_was_compiled_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "hotstart"):
        compiled(torch.sin)(torch.randn(3))
    assert "[0/0] compiled in" in caplog.text


def test_debug_files_of_each_graph(tmp_path: Path) -> None:
    call = compiled(torch.sin, {**EAGER, "debug_dir": tmp_path}, dynamic=False)
    for size in (3, 4):
        call(torch.randn(size))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0_0", "0_1"]
    assert (tmp_path / "0_1" / "hotstart" / "graph_0.txt").exists()


# --- refusals -------------------------------------------------------------------------------------


def refused(fn: Any, *args: Any, options: dict[str, Any] = EAGER, **kwargs: Any) -> Any:
    call = compiled(fn, options, **kwargs)
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed) as raised:
        call(*args)
    return inner(raised)


def test_training_is_refused_before_anything_is_compiled() -> None:
    events: list[Any] = []
    error = refused(Block(), torch.randn(3, 8), options={**EAGER, "on_event": events.append})
    assert isinstance(error, hotstart.CaptureError)
    assert "torch.no_grad()" in str(error)
    assert not [event for event in events if event.kind.startswith("unit")]


def test_an_argument_that_would_come_to_require_grad_is_refused() -> None:
    def write(x: Tensor, w: Tensor) -> Tensor:
        x.mul_(w)
        return x.detach().sum()

    error = refused(write, torch.ones(3), torch.ones(3, requires_grad=True))
    assert isinstance(error, hotstart.CaptureError)


@pytest.mark.parametrize("name", ["no_such", "on_miss", "device"])
def test_an_unknown_option_is_named_with_those_there_are(name: str) -> None:
    error = refused(torch.sin, torch.ones(3), options={name: 1})
    assert isinstance(error, hotstart.OptionsError)
    assert name in str(error)
    for known in ("cache", "compiler", "prove", "split_on"):
        assert re.search(rf"takes .*\b{known}\b", str(error))


def test_a_mode_is_refused() -> None:
    call = torch.compile(torch.sin, backend=backend, mode="max-autotune")
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed) as raised:
        call(torch.ones(3))
    assert isinstance(inner(raised), hotstart.OptionsError)


def test_a_name_of_no_operator_is_refused() -> None:
    error = refused(torch.sin, torch.ones(3), options={**EAGER, "split_on": ["aten::no_such"]})
    assert isinstance(error, hotstart.PartitionError)


def test_inputs_that_are_no_plain_tensors_are_refused() -> None:
    error = refused(lambda x: x * 2, torch.randn(3, dtype=torch.cfloat).conj())
    assert isinstance(error, hotstart.CaptureError)
    assert "resolve_conj" in str(error)


@torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)
def test_sizes_that_depend_on_data_are_refused_and_hotstart_compile_is_named() -> None:
    error = refused(lambda x: x[x > 0] * 2, torch.randn(5))
    assert isinstance(error, hotstart.CaptureError)
    assert "use hotstart.compile(model, ...), which does" in str(error)
    assert "capture_dynamic_output_shape_ops" in str(error)


def test_a_graph_that_is_not_dynamos_is_refused() -> None:
    module = torch.fx.symbolic_trace(nn.ReLU())
    with pytest.raises(hotstart.CaptureError, match=r"torch\.compile"):
        backend(module, [torch.ones(3)], options=EAGER)


def test_arguments_that_come_to_overlap_one_that_is_written_are_refused() -> None:
    def write(a: Tensor, b: Tensor) -> Tensor:
        a.add_(1)
        return b * 2

    call = compiled(write, dynamic=True)
    check(call, write, (torch.randn(8), torch.randn(8)))
    memory = torch.randn(32)
    check(call, write, (memory[:8], memory[8:16]))  # one storage, and nothing in common
    overlap = r"a: got a tensor that overlaps b"
    with torch.no_grad(), pytest.raises(hotstart.ContractError, match=overlap):
        call(memory[:8], memory[4:12])


def test_arguments_that_overlap_from_the_start() -> None:
    def write(memory: Tensor) -> Tensor:
        a, b = memory[:8], memory[4:12]
        return step(a, b)

    @torch.compiler.disable
    def outer(memory: Tensor) -> Tensor:
        return call(memory[:8], memory[4:12])

    def step(a: Tensor, b: Tensor) -> Tensor:
        a.add_(1)
        return b * 2

    call = compiled(step, {}, dynamic=True)
    for _ in range(2):
        mine, theirs = torch.arange(16.0), torch.arange(16.0)
        assert_same(outer(mine), write(theirs))
        assert_same(mine, theirs)
