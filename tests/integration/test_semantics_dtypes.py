"""Every dtype that torch has on CPU, and numbers at the edges of their ranges."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from hotstart import Dim
from tests.semantics import both, check, mostly_eager

pytestmark = pytest.mark.usefixtures("kept_pieces")

R = torch.randn
COLUMNS = Dim("columns", max=64)
FLOATING = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
INTEGERS = [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8]
COMPLEX = [torch.complex64, torch.complex128]
STORED = [
    torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
    torch.uint16, torch.uint32, torch.uint64,
]  # fmt: skip
# Inductor says that it runs complex numbers as eager does.
quiet = pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for comp")


@quiet
@pytest.mark.parametrize("dtype", [*FLOATING, *INTEGERS, *COMPLEX], ids=str)
@mostly_eager
def test_arithmetic(dtype: torch.dtype, compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x + x, x * 2, x.abs()

    x = (R(3, 4) * 5).to(dtype)
    check(f, (x,), compiler=compiler, tolerance=1e-2 if dtype not in INTEGERS else 0)


@pytest.mark.parametrize("dtype", STORED, ids=str)
@mostly_eager
def test_dtypes_that_are_only_stored(dtype: torch.dtype, compiler: str) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", (R(3, 4).abs() * 5).to(dtype))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = x.float() * self.weight.float()
            return y, (y * 0.5).to(dtype)

    check(Scaled(), ((R(3, 4).abs() * 5).to(dtype),), compiler=compiler)


@mostly_eager
def test_booleans(compiler: str) -> None:
    def f(x: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        filled = x.masked_fill(mask, 1)
        return mask & (x > 0), ~mask, torch.where(mask, x, 0), filled, mask.any(), mask.sum()

    check(f, (R(3, 4), R(3, 4) > 0), compiler=compiler)


@quiet
@mostly_eager
def test_complex_weights_and_fourier_transforms(compiler: str) -> None:
    class Spectral(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(R(5, dtype=torch.complex64))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = torch.fft.rfft(x) * self.weight
            return torch.fft.irfft(y), y.conj()

    check(Spectral(), (R(2, 8),), compiler=compiler, tolerance=1e-5)


@both
def test_integers_divide_and_overflow_as_in_eager(compiler: str) -> None:
    def f(x: Tensor, y: Tensor, small: Tensor, byte: Tensor) -> tuple[Tensor, ...]:
        truncated = torch.div(x, y, rounding_mode="trunc")
        divided = (x // y, x % y, x / y, truncated, x << 1, x >> 1)
        return *divided, small * small, small + 100, small.sum(), byte - 5, -byte

    x, y = torch.tensor([-7, 7, 5]), torch.tensor([2, -2, 3])
    small = torch.tensor([127, 100, -128], dtype=torch.int8)
    byte = torch.tensor([0, 3, 255], dtype=torch.uint8)
    check(f, (x, y, small, byte), compiler=compiler)


@mostly_eager
def test_nan_infinity_and_negative_zero(compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, ...]:
        found = (x.max(), x.min(-1).values, x.isnan(), x.clamp(-1, 1), torch.relu(x), x.argmax())
        return *found, torch.nan_to_num(x), 1 / (x * 1.0), torch.copysign(x, -x)

    values = torch.tensor([[1.0, float("nan"), 0.0], [float("inf"), -float("inf"), -0.0]])
    check(f, (values,), compiler=compiler)


@mostly_eager
def test_conversions(compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, ...]:
        return x.to(torch.int8), x.long(), x.bool(), x.round().int(), x.half(), x.double()

    check(f, (torch.tensor([1.5, -2.5, 0.0, 100.4]),), compiler=compiler)


@mostly_eager
def test_promotion_with_tensors_without_dimensions(compiler: str) -> None:
    def f(x: Tensor, double: Tensor, integer: Tensor) -> tuple[Tensor, ...]:
        return x + double, x * integer, integer / 2, double.reshape(1), integer + 1

    double = torch.tensor(3.0, dtype=torch.float64)
    check(f, (R(3), double, torch.tensor(2)), compiler=compiler)


@mostly_eager
def test_tensors_without_elements(compiler: str) -> None:
    linear = nn.Linear(4, 3)

    def f(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        joined = torch.cat([x, torch.ones(2, 4)])
        return x.sum(), x + 1, joined, x.reshape(4, 0), linear(x), y @ y.t(), x.t()[:0]

    check(f, (torch.empty(0, 4), torch.empty(2, 0)), compiler=compiler)


@quiet
@both
def test_conjugates_cross_a_cut(compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        conjugate, imaginary = x.conj(), (x * 2).conj().imag
        product = x @ x
        return conjugate + product, imaginary + 1, x.conj().imag + product.real

    x = R(3, 3, dtype=torch.complex64)
    check(f, (x,), compiler=compiler, tolerance=1e-5, split_on="aten::matmul")


@both
def test_a_product_with_0_is_nan_where_eager_says_so(compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, ...]:
        return x * 0, 0 / x, (x * 0).relu() + 1, nn.functional.softshrink(x, 0.3), x.int() * 0

    special = torch.tensor([[math.nan, math.inf, -math.inf, 1.0, -0.0, 0.25]])
    calls = (R(3, 6),), (special.expand(3, 6).clone(),)
    check(f, *calls, compiler=compiler, tolerance=1e-6)


@both
def test_images_are_sampled_at_nan_and_beside_nan(compiler: str) -> None:
    def f(image: Tensor, grid: Tensor) -> Tensor:
        return nn.functional.grid_sample(image + 1, grid, align_corners=False) * 2

    image, grid = R(2, 3, 5, 6), torch.rand(2, 4, 4, 2) * 6 - 3
    nowhere, first = grid.clone(), image.clone()
    nowhere[0, 1, 1, 0] = math.nan
    first[:, :, 0, 0] = math.nan
    calls = (image, grid), (image, nowhere), (first, grid)
    check(f, *calls, compiler=compiler, tolerance=1e-5)


@both
def test_the_next_number_of_a_narrow_dtype(compiler: str) -> None:
    def f(x: Tensor, y: Tensor) -> Tensor:
        return torch.nextafter(x, y)

    x = R(3, 4).bfloat16()
    check(f, (x, x + 1), (x, x - 1), compiler=compiler)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8], ids=str)
@both
def test_the_largest_and_smallest_of_bytes(dtype: torch.dtype, compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, ...]:
        values = (x.amax(-1), x.amin(-1), x.max(), x.min(), x.amax(0, keepdim=True))
        return *values, x.argmax(-1), x.argmin(0), *x.max(-1), *x.min(0)

    limits = torch.iinfo(dtype)
    calls = [
        torch.randint(low, high + 1, (5, columns), dtype=dtype)
        for columns in (17, 1, 16, 33, 64)
        for low, high in ((1, limits.max), (limits.max - 2, limits.max), (limits.min, -1))
        if low <= high
    ]
    check(f, *((x,) for x in calls), compiler=compiler, dynamic_shapes={"x": {1: COLUMNS}})


@both
def test_quotients_of_floating_point_numbers_that_are_rounded_down(compiler: str) -> None:
    def f(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        divided = (x // 0.1, x // y, 3.0 // y, torch.div(x, y, rounding_mode="trunc"))
        return *divided, torch.div(x, -0.3, rounding_mode="floor"), x.long() // 3

    x = torch.tensor([3.0, 0.3, -0.7, 1.0, math.inf, -2.0, 0.0, 7.0])
    y = torch.tensor([0.1, 0.1, 0.1, -0.1, 1.5, math.inf, 0.0, math.inf])
    check(f, (x, y), (x.nan_to_num(posinf=5.0), y + 1), compiler=compiler)


@both
def test_numbers_whose_square_is_infinite(compiler: str) -> None:
    def f(x: Tensor) -> Tensor:
        return x.acosh()

    check(f, (torch.tensor([1.0, 2.0, 1e18, 1e20, 3e38]),), compiler=compiler, tolerance=1e-6)


@both
def test_a_power_of_negative_zero(compiler: str) -> None:
    def f(x: Tensor) -> Tensor:
        return x**-0.5

    check(f, (torch.tensor([0.0, -0.0, 4.0, math.inf]),), compiler=compiler)


@both
def test_the_remainder_by_an_infinite_number(compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, Tensor]:
        return 3.0 % x, x % 3.0

    x = torch.tensor([math.inf, -math.inf, 2.0, -2.0], dtype=torch.float64)
    check(f, (x,), compiler=compiler)


@both
def test_the_variance_of_one_number_that_is_infinite(compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, ...]:
        return x.var(-1, correction=0), *torch.var_mean(x, -1, correction=0)

    check(f, (torch.tensor([[math.inf], [math.nan], [2.0], [-math.inf]]),), compiler=compiler)


@both
def test_the_error_function_of_small_numbers(compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.erf() * 1e7, nn.functional.gelu(x)

    x = torch.tensor([1e-7, -1e-8, 1e-20, 1e-3, 0.3, 2.0, 0.0, 1e-5] * 3)
    check(f, (x,), compiler=compiler, tolerance=1e-6)


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_remainders_are_less_than_the_divisor(dtype: torch.dtype, compiler: str) -> None:
    def f(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return x % 1e-3, x % -0.3, x % y, 7.0 % y

    x = torch.tensor([299.6, -256.3, 3.0, 0.0, math.inf, math.nan, -1e-9, 1e9] * 4, dtype=dtype)
    y = torch.tensor([0.1, 0.3, -0.7, 2.0, 1.0, math.inf, -1.0, 0.0] * 4, dtype=dtype)
    check(f, (x, y), compiler=compiler)


@both
def test_small_numbers_are_not_lost_beside_1(compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, ...]:
        names = ("elu", "selu", "celu")
        made = (x.expm1(), x.atanh(), *(getattr(nn.functional, name)(x) for name in names))
        return *(one * 1e7 for one in made), *(1 / one for one in made)

    x = torch.tensor([1e-7, -1e-8, -1e-20, 1e-3, -0.3, 0.0, -0.0, -1e-5] * 3)
    check(f, (x,), compiler=compiler, tolerance=1e-5)


@both
def test_numbers_that_do_not_fit_into_a_byte(compiler: str) -> None:
    def f(x: Tensor) -> Tensor:
        return x[5:].to(torch.int8)

    check(f, (torch.tensor([0.0] * 5 + [300.7, -1.5, 0.9]),), compiler=compiler)


@pytest.mark.parametrize("factors", [{"beta": 0}, {"alpha": 0}], ids=str)
@pytest.mark.parametrize("columns", [4, 1])
@both
def test_what_is_multiplied_by_0_is_left_out(
    compiler: str, columns: int, factors: dict[str, int]
) -> None:
    def f(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.addmm(x, a, b, **factors)

    nothing = math.nan if "beta" in factors else 1.0
    a = R(1, 4) if "beta" in factors else torch.full((1, 4), math.nan)
    calls = (torch.full((columns,), nothing), a, R(4, columns))
    check(f, calls, compiler=compiler, tolerance=1e-5)
