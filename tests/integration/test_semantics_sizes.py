"""Declared ranges that begin at 0, where forward or an operator treats a size of 0 otherwise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool1d

from hotstart import Dim
from tests.semantics import assert_same, both, check, mostly_eager

pytestmark = pytest.mark.usefixtures("kept_pieces")

R = torch.randn
ROWS = {"x": {0: Dim("rows", min=0, max=16)}}
SIZES = (3, 0, 1, 2, 16)


@mostly_eager
def test_forward_that_asks_for_a_size_of_0(compiler: str) -> None:
    def f(x: Tensor) -> Tensor:
        if x.shape[0] == 0:
            return x.new_full((1, 4), -5.0)
        return x.sum(0, keepdim=True)

    check(f, *((R(n, 4),) for n in SIZES), compiler=compiler, dynamic_shapes=ROWS, tolerance=1e-5)


@both
def test_a_dimension_that_is_dropped_where_its_size_is_1(compiler: str) -> None:
    calls = [(torch.randn(rows, 1, 4),) for rows in (3, 0, 1, 16)]
    check(lambda x: x.squeeze(0) * 2, *calls, dynamic_shapes=ROWS, compiler=compiler)


@mostly_eager
def test_forward_that_asks_if_a_size_is_true(compiler: str) -> None:
    def f(x: Tensor) -> Tensor:
        return x * 2 if x.shape[0] else x.new_ones(2, 4)

    check(f, *((R(n, 4),) for n in SIZES), compiler=compiler, dynamic_shapes=ROWS)


@mostly_eager
def test_the_larger_of_a_size_and_1(compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, int]:
        count = max(x.shape[0], 1)
        return x.sum(0) / count, count

    check(f, *((R(n, 4),) for n in SIZES), compiler=compiler, dynamic_shapes=ROWS, tolerance=1e-5)


@mostly_eager
def test_rows_that_are_padded_to_an_even_number(compiler: str) -> None:
    def f(x: Tensor) -> Tensor:
        if x.shape[0] % 2:
            x = nn.functional.pad(x, (0, 0, 0, 1))
        return x.reshape(x.shape[0] // 2, 2, 4).mean(1)

    check(f, *((R(n, 4),) for n in SIZES), compiler=compiler, dynamic_shapes=ROWS, tolerance=1e-5)


@both
def test_a_batch_of_0_that_linears_fold_into_rows(compiler: str) -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 4)).eval()
    shapes = {"input": {0: Dim("batch", min=0, max=16)}}
    calls = [(R(n, 5, 8),) for n in SIZES]
    check(model, *calls, compiler=compiler, dynamic_shapes=shapes, tolerance=1e-5)


@mostly_eager
def test_rows_of_a_part_whose_size_follows_from_that_of_the_whole(compiler: str) -> None:
    def f(x: Tensor) -> Tensor:
        return torch.stack([row * 2 for row in (x.chunk(3)[-1] + 1).unbind()])

    shapes = {"x": {0: Dim("rows", min=1, max=4)}}
    check(f, *((R(n, 4),) for n in (4, 1, 2, 3)), compiler=compiler, dynamic_shapes=shapes)


@mostly_eager
def test_operators_that_torch_takes_apart_for_one_size(compiler: str) -> None:
    def f(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        pooled = max_pool1d(y, 2), max_pool1d(y[0], 3, stride=1, padding=1, ceil_mode=True)
        taken = (
            x.take_along_dim(x.argsort(0), 0),
            torch.take_along_dim(x, x[:1].argmax(-1, True), -1),
        )
        return *pooled, *taken, torch.take_along_dim(x, x.argmax())

    shapes = {"x": {0: Dim("rows", min=2, max=16)}, "y": {2: Dim("length", min=2, max=16)}}
    calls = [(R(n, 4), R(2, 3, n)) for n in (5, 2, 3, 16)]
    program = check(f, *calls, compiler=compiler, dynamic_shapes=shapes)
    assert not program.report.splits


@pytest.mark.thorough
@mostly_eager
def test_products_of_what_is_transposed_are_no_guards_on_sizes_of_1(compiler: str) -> None:
    weight, bias = R(6, 4), R(6)

    def f(x: Tensor, y: Tensor, shared: Tensor) -> tuple[Tensor, ...]:
        q, k, v = (each.unflatten(-1, (2, 4)).transpose(1, 2) for each in (x, y, y * 2))
        scores = q @ k.transpose(-2, -1)
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v, shared)
        linear = torch.nn.functional.linear(q, weight, bias)
        return (
            scores,
            scores.softmax(-1) @ v,
            attended,
            linear,
            x.transpose(0, 1) @ torch.ones(8, 3),
        )

    batch, rows, others = Dim("batch", max=4), Dim("rows", max=8), Dim("others", max=8)
    shapes = {"x": {0: batch, 1: rows}, "y": {0: batch, 1: others}, "shared": {2: rows, 3: others}}
    calls = [
        (R(b, n, 8), R(b, m, 8), R(1, 2, n, m))
        for b, n, m in ((2, 5, 3), (1, 1, 1), (1, 8, 1), (4, 1, 8), (1, 2, 3))
    ]
    program = check(f, *calls, compiler=compiler, dynamic_shapes=shapes, tolerance=1e-4)
    if compiler == "op_by_op":
        assert not program.report.splits


@mostly_eager
@pytest.mark.filterwarnings("ignore:torch.chain_matmul is deprecated")
def test_products_of_several_matrices_in_the_order_of_fewest_operations(compiler: str) -> None:
    def f(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return (
            torch.linalg.multi_dot([x[0], x.T, x, y[0, :, 0]]),
            torch.linalg.multi_dot([x, x.T, x]),
            torch.chain_matmul(x.T, x, y[0], y[0].T),
            torch.kron(x, y[:, :2]),
            torch.kron(y, x),
        )

    shapes = {"x": {0: Dim("rows", min=2, max=32)}}
    calls = [(R(n, 4), R(3, 4, 5)) for n in (5, 2, 3, 32)]
    program = check(f, *calls, compiler=compiler, dynamic_shapes=shapes, tolerance=1e-4)
    assert len(program.report.splits) == 2  # orders for few rows, 4 and many


@mostly_eager
def test_pooled_rows_are_contiguous(compiler: str) -> None:
    def f(x: Tensor) -> Tensor:
        return max_pool1d(x, 3, stride=1)

    x = R(4, 6, 5).mT
    program = check(f, (x,), compiler=compiler)
    assert program(x).stride() == f(x).stride()


@both
def test_operators_whose_sizes_are_plain_integers(compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, ...]:
        n = x.shape[0]
        grid = torch.linspace(0.5, n - 0.5, n, dtype=x.dtype)
        return (
            x + grid[:, None],
            torch.linspace(-n, n, steps=n + 1).sin(),
            torch.logspace(0, 1, n),
            torch.hann_window(n, periodic=False),
            nn.functional.one_hot(x.argmax(0), n).sum(1),
            nn.functional.one_hot(x.argmax(0), num_classes=n + 1),
        )

    calls = [(R(n, 4),) for n in (5, 1, 2, 16)]
    shapes = {"x": {0: Dim("rows", min=1, max=16)}}
    program = check(f, *calls, compiler=compiler, dynamic_shapes=shapes, tolerance=1e-5)
    assert not program.report.splits


@mostly_eager
def test_an_operator_whose_size_follows_from_data(compiler: str) -> None:
    def f(x: Tensor) -> Tensor:
        return torch.linspace(0, 1, int((x > 0).sum()))

    check(f, (R(8, 4),), (R(8, 4),), compiler=compiler)


@pytest.mark.thorough
def test_rows_that_begin_where_no_size_bounds_are_compiled() -> None:
    def f(x: Tensor) -> Tensor:
        return (x - x[x.shape[0] - 1 :, None]).mean(1)  # all of it where there is nothing

    shapes = {"x": {0: Dim("rows", min=0, max=5)}}
    calls = [(R(n),) for n in (3, 0, 1, 5)]
    program = check(f, *calls, compiler="inductor", dynamic_shapes=shapes, tolerance=1e-5)
    assert not program.report.op_by_op


@pytest.mark.thorough
@mostly_eager
def test_positions_and_grids_of_any_size(compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, ...]:
        n = x.shape[0]
        lower, upper = torch.tril_indices(n, n), torch.triu_indices(n, 4, offset=1)
        grid = nn.functional.affine_grid(torch.eye(2, 3)[None], [1, 1, n, 4], align_corners=False)
        return (
            (x @ x.T)[lower[0], lower[1]],
            x[upper[0], upper[1]],
            torch.tril_indices(n, 3, -1, dtype=torch.int32),
            torch.combinations(x[:, 0]),
            torch.combinations(torch.arange(4), 3, with_replacement=True),
            torch.fft.fftfreq(n, 0.5),
            torch.fft.rfftfreq(n),
            torch.kaiser_window(n),
            nn.functional.grid_sample(x[None, None], grid, align_corners=False),
        )

    calls = [(R(n, 4),) for n in (5, 1, 2, 16)]
    shapes = {"x": {0: Dim("rows", min=1, max=16)}}
    program = check(f, *calls, compiler=compiler, dynamic_shapes=shapes, tolerance=1e-5)
    if compiler == "op_by_op":
        assert not program.report.splits


@mostly_eager
def test_windows_of_pooling_as_large_as_an_image(compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, ...]:
        height, width = x.shape[2:]
        rows, pooled = x[:, 0], nn.functional.max_pool2d(x, x.shape[2:])
        return (
            nn.functional.max_pool1d(rows, rows.size(2)).squeeze(2),
            nn.functional.avg_pool1d(rows, width // 2, stride=1, ceil_mode=True),
            pooled,
            nn.functional.avg_pool2d(x, kernel_size=(height, width)) + pooled,
            nn.functional.avg_pool2d(x, (1, width)),
            nn.functional.max_pool2d(x, (-(-height // 2), 2), padding=(0, 1)),
            nn.functional.max_pool2d(x, half := -(-height // 2), half, padding=height % 2),
            nn.functional.max_pool3d(x, (1, height, width)),
        )

    sizes = ((2, 6, 8), (1, 3, 4), (3, 9, 9), (1, 9, 4))
    axes = {2: Dim("height", min=3, max=9), 3: Dim("width", min=4, max=9)}
    shapes = {"x": {0: Dim("batch", min=1, max=3), **axes}}
    calls = [(R(batch, 3, height, width),) for batch, height, width in sizes]
    program = check(f, *calls, compiler=compiler, dynamic_shapes=shapes, tolerance=1e-5)
    if compiler == "op_by_op":
        assert not program.report.splits


def test_pooled_images_are_channels_last_as_these() -> None:
    def f(x: Tensor) -> Tensor:
        return nn.functional.max_pool2d(x, (x.shape[2] // 2, 2)) * 2

    calls = [(R(2, 3, n, 4).contiguous(memory_format=torch.channels_last),) for n in (6, 4, 8)]
    shapes = {"x": {2: Dim("height", min=4, max=8)}}
    program = check(f, *calls, dynamic_shapes=shapes)
    assert [program(*call).stride() for call in calls] == [f(*call).stride() for call in calls]


@mostly_eager
def test_tensors_of_sizes_and_places_in_shapes(compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, ...]:
        height, width = x.shape
        return (
            x.sum() * torch.Tensor([width, height, 1]),
            torch.LongTensor([width, height]),
            torch.FloatTensor([height]),
            *torch.unravel_index(x.argmax(), (height, width)),
            *torch.unravel_index(x.argsort(1), x.shape),
        )

    shapes = {"x": {0: Dim("height", min=2, max=9), 1: Dim("width", min=2, max=9)}}
    calls = [(R(*size),) for size in ((3, 5), (2, 2), (9, 9))]
    program = check(f, *calls, compiler=compiler, dynamic_shapes=shapes, tolerance=1e-5)
    assert not program.report.splits


@mostly_eager
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex")
def test_sound_of_any_length_out_of_its_spectrum(compiler: str) -> None:
    def f(x: Tensor) -> Tensor:
        window = torch.hann_window(16)
        spectrum = torch.stft(x, 16, 4, window=window, return_complex=True)
        return torch.istft(spectrum * 2, 16, 4, window=window, length=x.shape[-1])

    shapes = {"x": {0: Dim("batch", min=1, max=3), 1: Dim("length", min=16, max=99)}}
    calls = [(R(batch, n),) for batch, n in ((2, 40), (1, 16), (3, 99))]
    program = check(f, *calls, compiler=compiler, dynamic_shapes=shapes, tolerance=1e-4)
    assert not program.report.splits


@pytest.mark.thorough
@mostly_eager
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex")
@pytest.mark.filterwarnings("ignore:`torch._prims_common.check` is deprecated")  # in a lowering
def test_statistics_and_matrices_of_any_size(compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, ...]:
        square = x @ x.T
        return (
            torch.cov(x),
            torch.cov(x.T, correction=0),
            torch.cov(x[:, 0]),
            torch.corrcoef(x),
            torch.corrcoef(torch.complex(x, x.cos())),
            torch.vander(x[:, 0]),
            torch.vander(x[0].long(), N=3, increasing=True),
            torch.complex(x, x).mean(0),
            torch.complex(x, x).mean(),
            square.fill_diagonal_(0.5),
        )

    calls = [(R(n, 4),) for n in (5, 2, 3, 16)]
    shapes = {"x": {0: Dim("rows", min=2, max=16)}}
    program = check(f, *calls, compiler=compiler, dynamic_shapes=shapes, tolerance=1e-3)
    if compiler == "op_by_op":
        assert not program.report.splits


def test_a_covariance_without_degrees_of_freedom() -> None:
    shapes = {"x": {1: Dim("count", min=1, max=16)}}

    def f(x: Tensor) -> Tensor:
        return torch.cov(x)

    calls = [(R(3, n),) for n in (5, 2, 16)]
    program = check(f, *calls, dynamic_shapes=shapes)
    one = R(3, 1)
    with pytest.warns(UserWarning, match="degrees of freedom"):
        assert_same(program(one), f(one))


@pytest.mark.thorough
def test_a_slice_whose_end_is_within_at_every_size() -> None:
    def f(x: Tensor) -> Tensor:
        n = x.shape[0]
        return x.repeat(n)[: n * (n - 1)] + 1  # no interval of n tells that 0 <= n * (n - 1)

    shapes = {"x": {0: Dim("rows", min=1, max=16)}}
    check(f, *((R(n),) for n in (5, 1, 16)), compiler="inductor", dynamic_shapes=shapes)
