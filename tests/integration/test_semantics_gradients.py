"""Forward asks for gradients itself, by `torch.autograd.grad`, as models of forces do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import grad

import hotstart
from hotstart import Dim
from tests.integration.alone import Saved
from tests.semantics import assert_same, both, build, check, mostly_eager

pytestmark = pytest.mark.usefixtures("kept_pieces")

R = torch.randn
ATOMS, PAIRS = Dim("atoms", min=2, max=16), Dim("pairs", min=2, max=240)
ROWS = {"x": {0: Dim("rows", max=16)}}


class Potential(nn.Module):
    """An energy of atoms by their distances, and the forces on them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = nn.Embedding(5, 8)
        self.pair = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 1))

    def energy(self, positions: Tensor, kinds: Tensor, pairs: Tensor) -> Tensor:
        one, other = pairs
        apart = (positions[one] - positions[other]).norm(dim=-1, keepdim=True)
        near = torch.exp(-((apart - torch.linspace(0, 3, 8)) ** 2))
        found = self.pair(torch.cat([near, self.kind(kinds)[other]], -1))[:, 0]
        return positions.new_zeros(positions.shape[0]).index_add(0, one, found)

    def forward(self, positions: Tensor, kinds: Tensor, pairs: Tensor) -> dict[str, Tensor]:
        positions.requires_grad_(True)
        energies = self.energy(positions, kinds, pairs)
        total = energies.sum()
        (found,) = grad([total], [positions], grad_outputs=[torch.ones_like(total)])
        return {"energy": total.detach(), "of_atoms": energies.detach(), "forces": -found}


def atoms(count: int) -> tuple[Tensor, Tensor, Tensor]:
    grid = torch.cartesian_prod(torch.arange(count), torch.arange(count))
    return R(count, 3), torch.arange(count) % 5, grid[grid[:, 0] != grid[:, 1]].t()


SHAPES = {"positions": {0: ATOMS}, "kinds": {0: ATOMS}, "pairs": {1: PAIRS}}


@both
def test_forces(compiler: str) -> None:
    model = Potential().eval()
    program = build(model, *atoms(4), compiler=compiler, dynamic_shapes=SHAPES)
    assert len(program.code) == 1
    for count in (4, 2, 7, 16):
        positions, kinds, pairs = atoms(count)
        found = program(positions.clone(), kinds, pairs)
        assert not any(each.requires_grad for each in found.values())
        assert_same(found, model(positions, kinds, pairs), 1e-5)


@pytest.mark.thorough
def test_forces_of_a_loaded_program_and_one_without_torch(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("forces")
    saved = Saved(folder, Potential(), *atoms(4), dynamic_shapes=SHAPES)
    saved.program.save(folder / "checked.hot")
    loaded = hotstart.load(folder / "checked.hot", Potential().eval())
    args = atoms(5)
    assert_same(loaded(*args), saved.program(*args))
    found = saved.same(
        """
positions = np.sin(np.arange(9)).reshape(3, 3)
pairs = array([[0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 0, 1]], "int64")
found.append(tried(program, array(positions), array([0, 1, 2], "int64"), pairs))
"""
    )
    assert list(found[0]) == ["energy", "of_atoms", "forces"]


NET = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


def in_a_block(x: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (found,) = grad(NET(leaf).sum(), leaf)
    return found


def by_attribute(x: Tensor) -> Tensor:
    x.requires_grad = True
    return grad((x**2).sum(), x)[0]


def second(x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    (first,) = grad((x**4).sum(), x, create_graph=True)
    (found,) = grad(first.pow(2).sum(), x)
    return first.detach(), found


def stress(x: Tensor) -> dict[str, Tensor]:
    strain = torch.zeros(3, 3)
    strain.requires_grad_(True)
    x.requires_grad_(True)
    moved = x + x @ (0.5 * (strain + strain.T))
    energy = ((moved[:, None] - moved[None]).pow(2).sum(-1) + 1e-3).sqrt().sum()
    forces, found = grad([energy], [moved, strain], allow_unused=True)
    return {"energy": energy.detach(), "forces": -forces, "stress": found}


def unused(x: Tensor) -> tuple[Tensor, bool]:
    x, other = x.detach().requires_grad_(), torch.ones(2).requires_grad_()
    found, none = grad((x**2).sum(), [x, other], allow_unused=True)
    return found, none is None


def without_in_between(x: Tensor) -> Tensor:
    x.requires_grad_()
    with torch.no_grad():
        weight = x.norm(dim=-1, keepdim=True)
    return grad((weight * x**2).sum(), x)[0]


def several_blocks(x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        doubled = x * 2
    with torch.enable_grad():
        doubled.requires_grad_()
        (one,) = grad((doubled**3).sum(), doubled)
    more = one + 1
    with torch.enable_grad():
        leaf = more.detach().requires_grad_()
        (other,) = grad(leaf.sin().sum(), leaf)
    return one, other


def steps(x: Tensor) -> Tensor:
    for _ in range(3):
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (found,) = grad(NET(leaf).sum(), leaf)
        x = x - 0.1 * found
    return x


def with_parts(x: Tensor) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    one, other = (x**2).split([1, 2], 1)
    values, places = x.topk(2)
    first, second = (grad(each.sum(), x, retain_graph=True)[0] for each in (other, values))
    return one.detach(), places, first, second


def writes(x: Tensor) -> Tensor:
    y = x.detach().requires_grad_() * 2
    kept = y.clone()
    y.mul_(kept).relu_()
    leaf = kept.detach().requires_grad_()
    return grad((y.detach() * leaf).sum(), leaf)[0]


def asks_for_none(x: Tensor) -> Tensor:
    x.requires_grad_()
    return (x * 2).detach() + torch.vmap(torch.sin)(x.detach())


FORWARDS: list[Callable[[Tensor], Any]] = [
    in_a_block, by_attribute, second, stress, unused, without_in_between, several_blocks, steps,
    with_parts, writes, asks_for_none,
]  # fmt: skip


@pytest.mark.parametrize("f", FORWARDS, ids=lambda f: f.__name__)
@mostly_eager
def test_gradients_of_forward(f: Callable[[Tensor], Any], compiler: str) -> None:
    program = build(f, R(5, 3), compiler=compiler, dynamic_shapes=ROWS)
    for rows in (5, 1, 16):
        x = R(rows, 3)
        for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
            with mode():
                found = program(x.clone())
            with torch.inference_mode(False), torch.enable_grad():
                assert_same(found, f(x.clone()), 1e-5)


class Descends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (found,) = grad(self.linear(x).pow(2).sum(), x)
        return x.detach() - 0.1 * found


def test_blocks_that_compute_gradients() -> None:
    model = nn.Sequential(*(Descends() for _ in range(4))).eval()
    shapes = {"input": {0: Dim("rows", max=16)}}
    check(model, (R(5, 3),), (R(1, 3),), dynamic_shapes=shapes, tolerance=1e-6)


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (lambda x: grad((x**2).sum(), x)[0], "that it requires none of.* call x.requires_grad_"),
        (lambda x: x.requires_grad_().sum().backward(), "backward.*torch.autograd.grad, which"),
        (
            lambda x: torch.func.grad(lambda v: v.sum())(by_attribute(x)),
            "by torch.autograd.grad, and by torch.func or torch.vmap.*use torch.func for both",
        ),
        (lambda x: grad(torch.ones(2).sum(), x.requires_grad_())[0], "does not require grad"),
    ],
)
def test_gradients_that_are_refused(f: Any, expected: str) -> None:
    with pytest.raises(hotstart.CaptureError, match=f"(?s){expected}"):
        build(f, R(3))
    assert torch._C._functorch.get_dynamic_layer_stack_depth() == 0
    build(lambda x: torch.func.grad(lambda v: (v**2).sum())(x), R(3))


class Tripled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad_output * 3 * x


def of_a_function(x: Tensor) -> Tensor:
    x.requires_grad_()
    return grad(Tripled.apply(x).sum(), x)[0]


@pytest.mark.thorough
def test_functions_with_a_backward_of_their_own() -> None:
    program = build(of_a_function, R(5, 3), compiler="inductor", dynamic_shapes=ROWS)
    x = R(2, 3)
    assert_same(program(x), 3 * x, 1e-6)
    with pytest.raises(hotstart.HotstartError, match=r"differentiates a torch.autograd.Function"):
        build(of_a_function, R(5, 3), dynamic_shapes=ROWS)


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm1d(3), nn.Conv1d(1, 4, 3, padding=1)
        self.recurrent = nn.GRU(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x.requires_grad_()
        y = self.conv(self.norm(x)[:, None]).transpose(1, 2)
        y, _ = self.recurrent(y)
        y = nn.functional.scaled_dot_product_attention(y, y, y)
        return grad(y.pow(2).sum(), x)[0]


@both
def test_gradients_through_layers(compiler: str) -> None:
    torch.manual_seed(0)
    model = Layers().eval()
    program = build(model, R(5, 3), compiler=compiler, dynamic_shapes=ROWS)
    for rows in (5, 1, 16):
        x = R(rows, 3)
        assert_same(program(x.clone()), model(x.clone()), 1e-5)
