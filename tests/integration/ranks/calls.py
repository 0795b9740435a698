"""Models that call one collective, hold a group, or ask for their rank."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)


class Calls(nn.Module):
    """Calls a function on a tensor, between other operators."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x * 2 + 1) * 3


def _into(shape: Callable[[int], int], call: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    """A collective that writes to a tensor of some number of rows."""

    def run(x: Tensor) -> Tensor:
        out = x.new_empty(shape(x.shape[0]), x.shape[1])
        call(out, x)
        return out + x.sum()

    return run


def _reduced(x: Tensor) -> Tensor:
    before = x + 1
    dist.all_reduce(x, op=dist.ReduceOp.MAX)
    return x + before


def _gathered(x: Tensor) -> Tensor:
    return functional.all_gather_tensor(x, 1, dist.group.WORLD)


def _scattered(x: Tensor) -> Tensor:
    return functional.reduce_scatter_tensor(x, "sum", 0, dist.group.WORLD)


def _together(x: Tensor) -> Tensor:
    one, other = functional.all_reduce_coalesced([x, x.t() * 2], "sum", dist.group.WORLD)
    return one + other.t()


def _gathered_together(x: Tensor) -> Tensor:
    one, other = functional.all_gather_into_tensor_coalesced([x, x * 2], dist.group.WORLD)
    return one + other


def _broadcast(x: Tensor) -> Tensor:
    return functional.broadcast(x, 1, dist.group.WORLD) - x


def _twice(x: Tensor) -> Tensor:
    one = functional.all_reduce(x, "sum", dist.group.WORLD)
    x = x.mul_(5)  # what was reduced is a tensor of its own
    return functional.all_reduce(one + x, "avg", dist.group.WORLD) + one


def exchanged(x: Tensor) -> Tensor:
    """Send a tensor to the first rank and another to the second, of any number of rows."""
    return functional.all_to_all_single(
        torch.cat([x, x + 1]), [x.shape[0]] * 2, [x.shape[0]] * 2, dist.group.WORLD
    )


COLLECTIVES: dict[str, Callable[[Tensor], Tensor]] = {
    "all_reduce": _reduced,
    "all_gather_tensor": _gathered,
    "all_gather_into_tensor": _into(lambda n: 2 * n, dist.all_gather_into_tensor),
    "reduce_scatter": _scattered,
    "reduce_scatter_tensor": _into(lambda n: n // 2, dist.reduce_scatter_tensor),
    "all_to_all_single": _into(lambda n: n, dist.all_to_all_single),
    "coalesced": _together,
    "gathered together": _gathered_together,
    "broadcast": _broadcast,
    "twice": _twice,
}


def _in_place(x: Tensor) -> Tensor:
    return torch.ops._c10d_functional.wait_tensor(
        torch.ops._c10d_functional.all_reduce_(x, "sum", "0")
    )


def _not_waited_for(x: Tensor) -> Tensor:
    return torch.ops._c10d_functional.all_reduce(x, "sum", "0") + 1


def _asynchronous(x: Tensor) -> Tensor:
    work = dist.all_reduce(x, async_op=True)
    work.wait()
    return x


def _checkpointed(x: Tensor) -> Tensor:
    return torch.utils.checkpoint.checkpoint(_gathered, x, use_reentrant=False)


REFUSED: dict[str, Callable[[Tensor], Tensor]] = {
    "in place": _in_place,
    "not waited for": _not_waited_for,
    "asynchronous": _asynchronous,
    "checkpointed": _checkpointed,
}


@torch.library.custom_op("hotstart_ranks::add_up", mutates_args=())
def add_up(x: Tensor) -> Tensor:
    """Waits for other processes without that a graph shows it."""
    y = x.clone()
    dist.all_reduce(y)
    return y


@add_up.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def distributed_tensors(size: int) -> nn.Module:
    """Two linears that torch has made parallel, with tensors that are distributed."""
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    return parallelize_module(model, init_device_mesh("cpu", (size,)), plan)


# --- groups and ranks -----------------------------------------------------------------------------


class InGroup(nn.Module):
    """Adds up in a group that it holds."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        y = x + 1
        dist.all_reduce(y, group=self.group)
        return y


class InMesh(nn.Module):
    """Adds up in a dimension of a mesh that it holds."""

    def __init__(self, mesh: Any) -> None:
        super().__init__()
        self.mesh = mesh

    def forward(self, x: Tensor) -> Tensor:
        return functional.all_reduce(x + 1, "sum", (self.mesh, 1))


def in_group(group: dist.ProcessGroup) -> Callable[[Tensor], Tensor]:
    """A function that closes over its group."""

    def run(x: Tensor) -> Tensor:
        return functional.all_reduce(x + 1, "sum", group)

    return run


class InTwoGroups(nn.Module):
    def __init__(self, first: dist.ProcessGroup, second: dist.ProcessGroup) -> None:
        super().__init__()
        self.first, self.second = InGroup(first), InGroup(second)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x) * 2)


class Asks(nn.Module):
    """Asks which rank it is of."""

    def __init__(self, function: Callable[[Asks], int], mesh: Any, number: int) -> None:
        super().__init__()
        self.function, self.mesh, self.own_rank = function, mesh, number

    def forward(self, x: Tensor) -> Tensor:
        return x + self.function(self)


_own_number = dist.get_rank

ASKING: dict[str, Callable[[Asks], int]] = {
    "get_rank": lambda model: dist.get_rank(),
    "by another name": lambda model: _own_number(),
    "environment": lambda model: int(os.environ["HOTSTART_TESTS_RANK"]),
    "group": lambda model: dist.group.WORLD.rank(),
    "mesh": lambda model: model.mesh.get_local_rank(),
    "coordinate": lambda model: model.mesh.get_coordinate()[0],
    "attribute": lambda model: model.own_rank,
}


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.linear(x)
            dist.all_reduce(y)
            return self.linear(y)


class OnAView(nn.Module):
    """Adds up a view of a tensor that is read as well."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        part = y[1:3]
        dist.all_reduce(part)
        return y + part.sum() + 1


class OnAWholeView(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        z = x.clone()
        flat = z.view(-1)
        dist.all_reduce(flat)
        return z.relu() + 1


class OnAnArgument(nn.Module):
    """Changes what it is passed."""

    def forward(self, x: Tensor) -> Tensor:
        dist.all_reduce(x)
        return x + 1


class OnAWeight(nn.Module):
    """Has a part of its weight, and gathers it in each call."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(dist.get_rank())
        self.weight = nn.Parameter(torch.randn(2, 6))

    def forward(self, x: Tensor) -> Tensor:
        weight = functional.all_gather_tensor(self.weight.detach() * 2, 0, dist.group.WORLD)
        return x @ weight.t()


def regions() -> dict[str, nn.Module]:
    return {
        "autocast": Autocast().eval(),
        "view": OnAView(),
        "whole view": OnAWholeView(),
        "argument": OnAnArgument(),
        "weight": OnAWeight(),
    }
