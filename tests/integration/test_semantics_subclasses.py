"""Tensors that are more than memory with strides: refused by name, or taken apart first."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from tests.integration.wrapped import Doubled, Weighted
from tests.semantics import COMPILERS, assert_same, both, build, check

pytestmark = pytest.mark.usefixtures("kept_pieces")

R = torch.randn
EXPORT = r"torch\.export\.export\(model, args\)\.run_decompositions\(\)\.module\(\)"


class Plain(Tensor):
    """A subclass that does nothing but keep its type."""


# --- as weights ----------------------------------------------------------------------------------


def test_a_weight_of_a_class_that_says_not_what_it_is_made_of_is_refused_by_name() -> None:
    with pytest.raises(hotstart.CaptureError, match=rf"weight: got a .*Plain.*{EXPORT}"):
        build(Weighted(R(4, 4).as_subclass(Plain)), R(2, 4))


def test_a_weight_that_forward_does_not_read_may_be_anything() -> None:
    model = Weighted(R(4, 4))
    model.unread = Doubled(R(2))
    check(model, (R(2, 4),), reference=model)


def test_a_distributed_tensor_is_refused_by_name() -> None:
    pytest.importorskip("torch.distributed.tensor")
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import distribute_tensor

    init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        model = Weighted(distribute_tensor(R(4, 4), init_device_mesh("cpu", (1,))))
        model.forward = lambda x: model.weight * 2  # type: ignore[method-assign]
        with pytest.raises(hotstart.CaptureError, match=r"weight: got a .*DTensor"):
            build(model, R(2, 4))
    finally:
        destroy_process_group()


# What torch.export says about its own module.
@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")
@pytest.mark.parametrize(
    "scheme",
    [
        pytest.param("Int8WeightOnly", marks=pytest.mark.slow),
        "Int8DynamicActivationInt8Weight",
    ],
)
def test_quantised_layers_run_once_they_are_exported(scheme: str) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32)).eval()
    config = getattr(quantization, f"{scheme}Config")(set_inductor_config=False)  # for all of torch
    quantization.quantize_(model, config)
    x = R(4, 64)
    batch = {0: torch.export.Dim("batch", min=2, max=8)}
    exported = torch.export.export(model, (x,), dynamic_shapes=(batch,))
    plain = exported.run_decompositions().module()
    dims = {"input": {0: hotstart.Dim("batch", min=2, max=8)}}
    for compiler in COMPILERS:
        program = build(plain, x, compiler=compiler, dynamic_shapes=dims)
        for n in (2, 5, 8):
            some = R(n, 64)
            with torch.no_grad():
                assert_same(program(some), model(some), 1e-5)


def test_weight_only_layers_run_once_their_weights_are_unwrapped() -> None:
    quantization = pytest.importorskip("torchao.quantization")
    unwrap = pytest.importorskip("torchao.utils").unwrap_tensor_subclass
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32)).eval()
    config = quantization.Int8WeightOnlyConfig(set_inductor_config=False)  # for all of torch
    quantization.quantize_(model, config)
    x = R(4, 64)
    expected = model(x).detach()
    assert_same(build(unwrap(model), x)(x), expected, 1e-5)


# --- other layouts -------------------------------------------------------------------------------


def jagged() -> Tensor:
    return torch.nested.nested_tensor([R(2, 3), R(4, 3)], layout=torch.jagged)


def quantised() -> Tensor:
    return torch.quantize_per_tensor(R(4, 4), 0.1, 0, torch.qint8)


# torch says that nested tensors of this layout and quantised ones are on their way out.
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor")
@pytest.mark.parametrize(
    ("make", "named"),
    [
        (jagged, "nested"),
        (lambda: torch.nested.nested_tensor([R(2, 3), R(4, 3)]), "nested"),
        (lambda: R(4, 4).to_sparse(), "torch.sparse_coo"),
        (quantised, "quantized"),
        (lambda: R(4, 4).to_mkldnn(), "torch._mkldnn"),
    ],
)
def test_an_argument_of_another_layout_is_refused(make: Any, named: str) -> None:
    with pytest.raises(hotstart.CaptureError, match=f"x: got a .*{named}"):
        build(lambda x: x * 2, make())


# torch says that nested tensors of this layout and quantised ones are on their way out.
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor")
@pytest.mark.parametrize(
    ("make", "named"),
    [
        (jagged, "weight: got a nested"),
        (lambda: R(4, 4).to_sparse(), "sparse"),
        (quantised, "quantized"),
        (lambda: R(4, 4, dtype=torch.complex64).conj(), "weight: .*conjugate.*resolve_conj"),
    ],
)
def test_a_weight_of_another_layout_is_refused(make: Any, named: str) -> None:
    weight = make()
    model = Weighted(weight)
    model.forward = lambda x: model.weight * x  # type: ignore[method-assign]
    dtype = torch.complex64 if weight.is_complex() else torch.float32
    with pytest.raises(hotstart.CaptureError, match=named):
        build(model, R(4, dtype=dtype))


# --- made in forward -----------------------------------------------------------------------------


@both
def test_nested_tensors_may_be_used_in_forward(compiler: str) -> None:
    def f(values: Tensor, offsets: Tensor) -> Tensor:
        return (torch.nested.nested_tensor_from_jagged(values, offsets) * 2).values()

    check(f, (R(6, 3), torch.tensor([0, 2, 6])), compiler=compiler)


@both
def test_nested_tensors_may_be_results(compiler: str) -> None:
    def f(values: Tensor, offsets: Tensor) -> Tensor:
        return torch.nested.nested_tensor_from_jagged(values.sin(), offsets)

    offsets = torch.tensor([0, 2, 6])
    program = build(f, R(6, 3), offsets, compiler=compiler)
    values = R(6, 3)
    found = program(values, offsets)
    assert found.is_nested
    assert_same(found.values(), values.sin())
    assert len(program.report.op_by_op) == (compiler == "inductor")


def test_nested_tensors_do_not_cross_a_cut() -> None:
    def f(values: Tensor, offsets: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        nested = torch.nested.nested_tensor_from_jagged(values, offsets)
        y = x @ x
        return (nested * 2).values(), y

    with pytest.raises(hotstart.PartitionError, match="nested tensor that crosses a cut"):
        build(f, R(6, 3), torch.tensor([0, 2, 6]), R(3, 3), split_on=["aten::matmul"])


@both
def test_a_subclass_may_be_used_in_forward_across_a_cut(compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, Tensor]:
        doubled = Doubled(x.sin())
        y = x @ x
        return doubled + 1, y

    cut = ["aten::matmul"]
    check(f, (R(4, 4),), compiler=compiler, tolerance=1e-5, split_on=cut)


@both
def test_a_subclass_may_be_a_result(compiler: str) -> None:
    program = build(lambda x: Doubled(x.sin()), R(3), compiler=compiler)
    x = R(3)
    found = program(x)
    assert type(found) is Doubled
    assert_same(found.half, x.sin())


def test_a_result_that_wraps_a_tensor_is_refused() -> None:
    with pytest.raises(hotstart.CaptureError, match=r"the result is a Plain.*wrap it outside"):
        build(lambda x: x.as_subclass(Plain) + 1, R(3))
