"""Arguments and weights that are written to, and results that share memory with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim
from tests.semantics import assert_same, both, build, check, mostly_eager, shares_memory

pytestmark = pytest.mark.usefixtures("kept_pieces")

R = torch.randn
AT_MATMUL = {"split_on": ["aten::matmul"]}


# --- views of what is written, across a cut ---------------------------------------------------


@both
def test_a_view_of_a_written_argument_sees_writes_after_a_cut(compiler: str) -> None:
    def f(cache: Tensor, x: Tensor) -> Tensor:
        cache.add_(1)
        first = cache[0]
        y = x @ x
        cache.mul_(2)
        return first + y @ y

    check(f, (R(4, 4), R(4, 4)), compiler=compiler, tolerance=1e-4, **AT_MATMUL)


@mostly_eager
def test_a_write_through_a_view_reaches_the_argument_after_a_cut(compiler: str) -> None:
    def f(cache: Tensor, x: Tensor) -> Tensor:
        cache.add_(1)
        second = cache[1]
        y = x @ x
        second.mul_(2)
        return second + y @ y

    check(f, (R(4, 4), R(4, 4)), compiler=compiler, tolerance=1e-4, **AT_MATMUL)


@both
def test_a_piece_of_nothing_but_views(compiler: str) -> None:
    def f(cache: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        second = cache[1]
        y = x @ x
        second.mul_(2)
        return second + y @ y, cache.sum()

    check(f, (R(4, 4), R(4, 4)), compiler=compiler, tolerance=1e-4, **AT_MATMUL)


@mostly_eager
def test_views_of_arguments_whose_sizes_vary(compiler: str) -> None:
    def f(cache: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        cache.add_(1)
        tail = cache[1:]
        y = x @ x.t()
        tail.mul_(2)
        return tail.t(), y @ y

    batch = {0: Dim("batch", min=2, max=8)}
    calls = [(R(n, 4), R(n, 4)) for n in (3, 2, 8)]
    dims = {"cache": batch, "x": batch}
    check(f, *calls, compiler=compiler, tolerance=1e-4, dynamic_shapes=dims, **AT_MATMUL)


class Cache(nn.Module):
    """Writes into its buffers step by step, and attends to what is there."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(1, 2, 8, 4))

    def forward(self, q: Tensor, position: Tensor) -> Tensor:
        keys = self.keys.index_copy_(2, position, q)
        found = nn.functional.scaled_dot_product_attention(q, keys, keys)
        keys = keys.index_copy_(2, position + 1, found)
        return nn.functional.scaled_dot_product_attention(found, keys, keys)


@both
def test_a_cache_that_is_written_between_the_cuts(compiler: str) -> None:
    calls = [(R(1, 2, 1, 4), torch.tensor([n])) for n in (0, 3, 6)]
    cut = ["aten::scaled_dot_product_attention"]
    program = check(Cache(), *calls, compiler=compiler, tolerance=1e-5, split_on=cut)
    assert program.report.op_by_op == ()


# --- results that share memory ----------------------------------------------------------------


@both
def test_results_that_view_a_written_argument_share_its_memory(compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x.add_(1)
        return x[1], x.t(), x

    program = build(f, R(3, 4), compiler=compiler)
    x = R(3, 4)
    row, transposed, same = program(x)
    assert same is x
    row.zero_()
    assert_same((row, transposed), (x[1], x.t()))


@both
def test_results_that_view_a_weight_share_its_memory(compiler: str) -> None:
    class Views(nn.Linear):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return super().forward(x), self.weight.t(), self.weight

    model = Views(4, 3)
    _, transposed, weight = build(model, R(2, 4), compiler=compiler)(R(2, 4))
    assert weight is model.weight
    assert shares_memory(transposed, model.weight)
    assert not transposed.requires_grad


# Inductor says that it runs complex numbers as eager does.
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex")
@both
def test_a_view_of_another_dtype_shares_memory_that_is_written(compiler: str) -> None:
    def f(x: Tensor) -> Tensor:
        x.mul_(2)
        return torch.view_as_real(x)

    x = R(2, 3, dtype=torch.complex64)
    assert shares_memory(build(f, x.clone(), compiler=compiler)(x), x)


def test_a_detached_argument_is_no_argument() -> None:
    program = build(lambda x: x.detach(), R(3))
    x = R(3, requires_grad=True)
    assert program(x) is not x
    assert not program(x).requires_grad


@mostly_eager
def test_one_tensor_in_several_places_is_one_object(compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        y = x + 1
        return y, {"again": y}

    left, right = build(f, R(3), compiler=compiler)(R(3))
    assert left is right["again"]


@mostly_eager
def test_what_may_be_a_copy_is_one_where_eager_makes_one(compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x.contiguous(), x.to(torch.float32), x.reshape(12)

    x = R(3, 4)
    assert all(shares_memory(y, x) for y in build(f, x, compiler=compiler)(x))
    transposed = R(4, 3).t()
    program = build(f, transposed, compiler=compiler)
    contiguous, same, flat = program(transposed)
    assert shares_memory(same, transposed)
    assert not shares_memory(contiguous, transposed)
    assert not shares_memory(flat, transposed)


# --- what is written ---------------------------------------------------------------------------


@mostly_eager
def test_writes_through_views_of_an_argument(compiler: str) -> None:
    def f(x: Tensor) -> Tensor:
        x[0].mul_(2)
        x.t()[1].zero_()
        x.detach()[2].add_(1)
        x.data[0].add_(3)
        return x * 2

    check(f, (R(3, 4),), compiler=compiler)


@mostly_eager
def test_writes_through_data_alone_reach_an_argument_that_is_copied(compiler: str) -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x.data.add_(1)
            return x * 2

    program = build(Model(), torch.zeros(3, 4), compiler=compiler)
    x = torch.zeros(4, 3).t()
    assert_same(program(x), torch.full((3, 4), 2.0))
    assert_same(x, torch.ones(3, 4))


@pytest.mark.thorough
def test_weights_that_are_written_to_through_data_are_not_packed_for_good(tmp_path: Path) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.linear = nn.Linear(32, 32)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.gelu(self.linear(x))

        def step(self, x: Tensor) -> Tensor:
            self.linear.weight.data.add_(1)
            return torch.sin(x)

    x, eager = torch.rand(2, 32), Model().eval()
    calls = {"forward": hotstart.Call(args=(x,)), "step": hotstart.Call(args=(x,), method="step")}
    options = hotstart.Options(pack_weights="always")
    with torch.no_grad():
        program = hotstart.compile(Model().eval(), calls=calls, options=options)
        program.save(tmp_path / "model.hot")
        program.save_weights(tmp_path / "model.weights")
        program = hotstart.load(tmp_path / "model.hot", weights=tmp_path / "model.weights")
        for _ in range(2):
            assert_same(program["forward"](x), eager(x), 1e-4)
            assert_same(program["step"](x), eager.step(x), 1e-6)


@mostly_eager
def test_writes_from_one_argument_to_another(compiler: str) -> None:
    def f(x: Tensor, y: Tensor, out: Tensor) -> Tensor:
        x.copy_(y)
        y.zero_()
        torch.add(x, 1, out=out)
        return out

    check(f, (R(2, 4), R(2, 4), R(2, 4)), compiler=compiler)


@mostly_eager
def test_a_parameter_that_forward_writes_to(compiler: str) -> None:
    class Decay(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.weight.mul_(0.5)
            return super().forward(x)

    model, reference = Decay(4, 3), Decay(4, 3)
    reference.load_state_dict(model.state_dict())
    check(model, (R(2, 4),), compiler=compiler, tolerance=1e-6, reference=reference)
    assert_same(model.weight.detach(), reference.weight.detach())


@mostly_eager
def test_buffers_that_share_memory_one_of_which_is_written(compiler: str) -> None:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            whole = R(8, 4)
            self.register_buffer("left", whole[1:4])
            self.register_buffer("right", whole[2:5])

        def forward(self, x: Tensor) -> Tensor:
            self.left.add_(x)
            return x + self.right

    check(Windows(), (R(3, 4),), compiler=compiler)


def test_a_tensor_whose_memory_is_replaced_is_refused() -> None:
    def f(x: Tensor, y: Tensor) -> Tensor:
        x.data = y
        return x + 1

    with pytest.raises(hotstart.CaptureError, match=r"x\.data = y[\s\S]*memory[\s\S]*copy_"):
        build(f, R(3), R(3))


@pytest.mark.parametrize("change", ["t_", "unsqueeze_", "resize_", "set_"])
def test_a_shape_that_is_changed_in_place_is_refused(change: str) -> None:
    given: dict[str, tuple[object, ...]] = {"unsqueeze_": (0,), "resize_": (4,)}

    def f(x: Tensor, y: Tensor) -> Tensor:
        getattr(x, change)(*(given.get(change, () if change == "t_" else (y,))))
        return x + 1

    with pytest.raises(hotstart.CaptureError, match=change):
        build(f, R(3, 4), R(3, 4))


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.as_strided((2, 2), (1, 1), 1),
        lambda x: torch.as_strided(x[1:], (2, 2), (1, 1), storage_offset=0),
        lambda x: torch.as_strided_scatter(x, x[:4].view(2, 2), (2, 2), (2, 1), 1),
    ],
)
def test_a_place_in_the_memory_of_an_argument_is_refused(read: Callable[[Tensor], Tensor]) -> None:
    def f(x: Tensor) -> Tensor:
        return read(x) + 1

    with pytest.raises(hotstart.CaptureError, match=r"storage_offset[\s\S]*leave the offset out"):
        build(f, R(8))


@both
def test_strides_are_counted_from_where_an_argument_begins(compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, Tensor]:
        mine = x * 2
        return x[1:].as_strided((2, 2), (1, 1)) + 1, mine.as_strided((2, 2), (2, 1), 1) + 1

    program = build(f, R(8), compiler=compiler)
    x = R(12)[4:]
    assert_same(program(x), f(x))


@pytest.mark.parametrize("training", [False, True])
@mostly_eager
def test_batch_norm(training: bool, compiler: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train(training)
    check(model, (R(2, 3, 6, 6),), compiler=compiler, tolerance=1e-5)


def test_a_python_counter_is_refused() -> None:
    class Counts(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x * self.calls

    with pytest.raises(hotstart.CaptureError, match=r"sets the model\.calls"):
        build(Counts(), R(2))


@both
def test_what_is_written_through_an_expanded_view(compiler: str) -> None:
    def f(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x.expand_as(x).add_(1)
        y.expand(-1, 4).copy_(x)
        return x * 2, y + (x - y)

    x = torch.tensor([[torch.inf, 1e9, -torch.inf, 1.0]])
    check(f, (x, x + 1e-3), (torch.randn(1, 4), x), compiler=compiler, tolerance=1e-6)
