"""What forward takes and returns, and what cannot be captured, with the line that says why."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import random
import time
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import hotstart
from hotstart import CaptureError, Dim
from tests.semantics import both, build, check, mostly_eager

pytestmark = pytest.mark.usefixtures("kept_pieces")

R = torch.randn
LOG = logging.getLogger("model")
X = (R(2, 4),)


@dataclasses.dataclass(frozen=True, eq=False)
class Output:
    logits: Tensor
    count: int
    extra: Any = None


class Pair(NamedTuple):
    left: Tensor
    right: float


# --- results -------------------------------------------------------------------------------------


def test_results_of_every_kind() -> None:
    def f(x: Tensor) -> Any:
        containers = (
            Pair(x * 2, 2.5),
            {"k": (x, "text", True), 3: None},
            collections.OrderedDict(a=x + 1),
            [x.max(0), x.sort(-1), [], {}, ()],
        )
        constants = (None, x.shape, x.shape[0], x.dtype, x.device, 1 + 2j, range(3), slice(1, 2))
        return containers, constants

    check(f, X)


def test_a_dataclass_is_built_again() -> None:
    found = build(lambda x: Output(x + 1, 3, [x, None]), *X)(*X)
    assert type(found) is Output
    assert found.count == 3
    assert torch.equal(found.logits, X[0] + 1)
    assert found.extra[0] is X[0]


@pytest.mark.parametrize("result", [lambda x: None, lambda x: x.shape[0] * 2])
@mostly_eager
def test_a_call_for_its_effect(result: Any, compiler: str) -> None:
    def f(x: Tensor) -> Any:
        x.add_(1)
        return result(x)

    dims = {"x": {0: Dim("n", min=2, max=4)}}
    check(f, (R(2, 4),), (R(3, 4),), compiler=compiler, dynamic_shapes=dims)


@dataclasses.dataclass(frozen=True)
class Nowhere:
    logits: Tensor


Nowhere.__qualname__ = "f.<locals>.Nowhere"


@pytest.mark.parametrize(
    ("result", "named"),
    [
        (lambda x: Nowhere(x + 1), "no import leads to"),
        (lambda x: (y + 1 for y in (x, x)), "iterator"),
        (lambda x: zip([x + 1], [x], strict=True), "zip"),
        (lambda x: [{1}, x + 1], r"result\[0\] is a set"),
        (lambda x: (x + 1, Nowhere), "no import leads to"),
    ],
)
def test_results_that_are_refused(result: Any, named: str) -> None:
    with pytest.raises(hotstart.CaptureError, match=named):
        build(result, *X)


# --- arguments -----------------------------------------------------------------------------------


def test_arguments_by_every_way() -> None:
    def f(x: Tensor, /, y: Tensor, *rest: Tensor, scale: float = 1.0, **more: Tensor) -> Tensor:
        return (x + y + sum(rest)) * scale + more["z"]

    program = check(f, (R(2), R(2), R(2), R(2)), kwargs={"scale": 3.0, "z": R(2)})
    with pytest.raises(hotstart.ContractError, match="scale"):
        program(R(2), R(2), R(2), R(2), scale=2.0, z=R(2))


def test_keyword_only_arguments() -> None:
    def f(*, x: Tensor, y: float = 2.0) -> Tensor:
        return x * y

    program = build(f, kwargs={"x": R(2)})
    x = R(2)
    assert torch.equal(program(x=x), f(x=x))


@pytest.mark.parametrize(
    "value",
    [
        (R(2) for _ in range(2)),
        iter([R(2)]),
        {1, 2},
        np.ones(2),
        torch.Generator(),
        torch.nn.ReLU(),
        torch.relu,
    ],
    ids=lambda value: type(value).__name__,
)
def test_arguments_that_are_refused(value: Any) -> None:
    kind = type(value).__name__
    with pytest.raises(hotstart.CaptureError, match=f"value: got a {kind}"):
        build(lambda x, value: x + 1, R(2), value)


# --- what is no graph ----------------------------------------------------------------------------


@torch.compiler.disable
def disabled(x: Tensor) -> Tensor:
    return x + 1


def broken(x: Tensor) -> Tensor:
    torch._dynamo.graph_break()
    return x + 1


@torch._dynamo.assume_constant_result
def assumed(x: Tensor) -> int:
    return int(x.sum().item())


def normed(x: Tensor) -> Tensor:
    torch.manual_seed(3)
    return x + torch.rand(4)


@pytest.mark.parametrize(
    ("function", "line"),
    [
        (lambda x: disabled(x) * 2, r"disabled\(x\) \* 2"),
        (broken, r"torch\._dynamo\.graph_break\(\)"),
        (lambda x: x * assumed(x), r"_local_scalar_dense"),
        (normed, r"torch\.manual_seed\(3\)"),
        (lambda x: torch.ones(len([*range(int(x.sum()))])), r"range\(int\(x\.sum\(\)\)\)"),
        (lambda x: x + random.random(), r"random\.random\(\)"),
        (lambda x: torch.sparse_coo_tensor(x.long(), x[0]), r"sparse_coo_tensor"),
    ],
)
def test_what_is_no_graph_is_refused_with_its_line(function: Any, line: str) -> None:
    with pytest.raises(hotstart.CaptureError, match=line) as caught:
        build(function, *X)
    assert __file__ in str(caught.value)


def halved(x: Tensor) -> Tensor:
    while x.sum() > 1:
        x = x / 2
    return x


@pytest.mark.parametrize(
    ("function", "advice"),
    [
        (lambda x: x * LOG.getEffectiveLevel(), "log outside of forward"),
        (lambda x: x * time.perf_counter(), "measure calls outside of forward"),
        (lambda x: torch.sparse_coo_tensor(x.long(), x[0]), "add up rows by index"),
        (lambda x: x * [].index(1), "see the error"),
        (halved, "where it ends a loop, do all rounds"),
    ],
)
def test_what_is_no_graph_is_refused_with_what_to_write(function: Any, advice: str) -> None:
    with pytest.raises(hotstart.CaptureError, match=advice):
        build(function, *X)


def test_a_mask_is_no_problem_where_shapes_stay() -> None:
    def f(x: Tensor) -> Tensor:
        y = x.clone()
        y[y > 0] = 1.0
        assert x.shape[0] < 9, "a size that is known"
        torch._assert_async((x < 100).all())
        return torch.where(y > 0, y, y * 2)

    check(f, X)


@pytest.mark.parametrize(
    "text",
    [
        lambda x: f"{x.sum().item()}",
        lambda x: f"{x[x > 0].shape[0]:03d} are positive",
        lambda x: f"{x.shape}",
        lambda x: f"{x[0]}",
    ],
)
def test_text_of_what_a_call_knows_is_refused(text: Any) -> None:
    with pytest.raises(CaptureError, match=r"(?s)in <lambda>.* a number that only a call knows"):
        build(lambda x: (x + 1, text(x)), *X, dynamic_shapes={"x": {0: Dim("n", min=2, max=9)}})


def test_text_of_sizes_that_nothing_reads_is_no_guard() -> None:
    def f(x: Tensor) -> Tensor:
        if x.dim() != 1:
            raise ValueError(f"{x.dim()} dimensions and {x.shape[0]} rows")
        unused = f"{x.shape[0]:>3} rows of {x.dtype}"
        return x + len([unused])

    rows = {"x": {0: Dim("n", min=1, max=9)}}
    assert len(check(f, (R(3),), (R(1),), dynamic_shapes=rows).code) == 1


def test_text_of_sizes_that_is_read_is_theirs() -> None:
    factors = {"1 rows": 2.0, "2 rows": 3.0, "3 rows": 5.0}

    def f(x: Tensor) -> Tensor:
        return x * factors[f"{x.shape[0]} rows"]

    rows = {"x": {0: Dim("n", min=1, max=3)}}
    check(f, (R(3),), (R(1),), (R(2),), dynamic_shapes=rows)


# --- what forward says ---------------------------------------------------------------------------


def logs(x: Tensor) -> Tensor:
    if LOG.isEnabledFor(logging.DEBUG):
        LOG.debug("rows: %s", x)
    LOG.warning(f"{x.shape[0]} rows")
    logging.info("of all")
    return x + 1


def gets_loggers(x: Tensor) -> Tensor:
    log = logging.getLogger(__name__)
    log.debug("rows: %s", x.shape)
    logging.getLogger().info("of all")
    logging.getLogger(name=f"{__name__}.more").warning("more")
    return x + 1


def prints(x: Tensor) -> Tensor:
    print("rows", x.shape[0], x)
    return x + 1


def warns(x: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.warn(f"{x.shape[0]} rows", FutureWarning, stacklevel=2)
    return x + 1


@pytest.mark.parametrize("says", [logs, gets_loggers, prints, warns])
@pytest.mark.filterwarnings("ignore:. rows:FutureWarning")
def test_what_forward_says_is_left_out(
    says: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    program = build(says, R(3), dynamic_shapes={"x": {0: Dim("n", min=1, max=9)}})
    capfd.readouterr()
    caplog.clear()
    x = R(2)
    assert torch.equal(program(x), x + 1)
    assert len(program.code) == 1
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_text_of_constants_or_that_nothing_keeps_is_none_of_a_call() -> None:
    def f(x: Tensor) -> tuple[Tensor, str]:
        n = (x > 0).sum().item()
        unused = f"{n} of {x}"
        return x + len([unused]), f"{x.dtype} {x.shape}"

    check(f, X)


# --- numpy ---------------------------------------------------------------------------------------


def with_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(np.sin(x.numpy()) + 1)


@both
def test_numpy_in_forward(compiler: str) -> None:
    check(with_numpy, X, compiler=compiler, tolerance=1e-6)


def calls_all_kinds(x: Tensor) -> tuple[Tensor, ...]:
    array = x.numpy()
    product = array.T @ array
    zeros = torch.from_numpy(np.zeros((2, product.shape[0]), dtype=np.int32))
    return torch.from_numpy(product.sum(axis=0) - np.linalg.norm(array)), zeros


def test_functions_methods_operators_and_attributes_of_numpy_run_op_by_op() -> None:
    check(calls_all_kinds, X, tolerance=1e-5)


# --- generators ----------------------------------------------------------------------------------


def counted(log: list[str]) -> Iterator[int]:
    try:
        yield 1
        yield 2
    finally:
        log.append("closed")


def grad_off() -> Iterator[int]:
    with torch.no_grad():
        yield 1
        yield 2


def leaves_it(x: Tensor) -> Tensor:
    log: list[str] = []
    for _ in counted(log):
        break
    return x * len(log)


@pytest.mark.parametrize("function", [leaves_it, lambda x: x * next(grad_off())])
def test_a_generator_that_python_would_close_is_refused(function: Any) -> None:
    with pytest.raises(CaptureError, match=r"(?s)generator that is left.*go on to its end"):
        build(function, *X)


def test_generators_that_end_or_have_nothing_to_close() -> None:
    def f(x: Tensor) -> Tensor:
        log: list[str] = []
        closed = counted(log)
        next(closed)
        closed.close()
        with contextlib.suppress(ValueError), contextlib.contextmanager(counted)(log):
            raise ValueError
        plain = (number for number in (5, 6))
        return x * (sum(counted(log)) + len(log) + next(plain))

    def once(x: Tensor) -> Tensor:
        linear = torch.nn.Linear
        return x * next(iter(zip((2, 3), (linear, linear), strict=True)))[0]

    check(f, X)
    check(once, X)


def turns_an_argument(x: Tensor) -> Tensor:
    return x.unsqueeze_(0) + 1


def defines_a_class(x: Tensor) -> Tensor:
    class Held:
        value = 2

    return x * Held.value


def fits(x: Tensor) -> Tensor:
    return torch.linalg.lstsq(x[:, None], x[:, None]).solution


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (turns_an_argument, "`unsqueeze_` changes the shape.*argument x.*without the underscore"),
        (defines_a_class, "forward defines a class.*outside of forward"),
        (fits, r"torch\.linalg\.lstsq gives follow from the rank.*torch\.linalg\.pinv"),
    ],
)
def test_refusals_say_what_to_write_instead(function: Any, said: str) -> None:
    with pytest.raises(CaptureError, match=f"(?s){said}"):
        build(function, *X)


class Counted(torch.nn.Module):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        type(self).calls += 1
        return x + 1


def test_an_attribute_of_a_class_that_forward_sets_is_refused_and_left_as_it_was() -> None:
    with pytest.raises(CaptureError, match=r"type\(self\)"):
        build(Counted(), *X)
    assert Counted.calls == 0


def test_a_moving_average_over_all_batches_takes_a_plain_number() -> None:
    norm = torch.nn.BatchNorm1d(3, momentum=None)
    with pytest.raises(CaptureError, match=r"(?s)torch needs a plain number.*momentum=None"):
        build(norm, torch.randn(4, 3))
