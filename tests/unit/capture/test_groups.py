"""Groups of processes in graphs, in a group of one: no other process is needed to name it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import hotstart
from hotstart.errors import CaptureError, GroupMismatch
from hotstart.records.groups import GroupName, GroupPlace, GroupSlot, GroupSpec

OP_BY_OP = hotstart.Options(compiler="op_by_op")


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """One process that takes part in `torch.distributed`."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


class Sum(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x + 1
        dist.all_reduce(y)
        return y * 2


class Asking(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + (dist.get_rank() if dist.is_initialized() else 5)


def compiled(model: torch.nn.Module) -> hotstart.Program:
    return hotstart.compile(model, (torch.ones(2, 3),), options=OP_BY_OP)


def test_collectives_are_called_between_pieces_whatever_is_split_on() -> None:
    program = hotstart.compile(Sum(), (torch.ones(2, 3),), split_on=[], options=OP_BY_OP)
    kinds = [piece.kind for piece in program.artifact.pieces]
    assert kinds == ["compiled", "inlined", "compiled"]
    (stitched,) = program.artifact.calls[0].stitched
    assert "all_reduce(y, 'sum', world)" in stitched.source
    assert stitched.constants == (GroupSlot(0),)
    assert not any("all_reduce" in unit.source for unit in program.artifact.units)


def test_a_group_is_known_by_its_size_and_not_by_its_name() -> None:
    (spec,) = compiled(Sum()).artifact.requirements.groups
    place = GroupPlace(
        "python", "torch.distributed", (("attribute", "group"), ("attribute", "WORLD"))
    )
    assert spec == GroupSpec(key="world", size=1, world=True, places=(place,))


@pytest.mark.thorough
def test_a_program_is_bound_to_the_world_of_later(tmp_path: object) -> None:
    program, file = compiled(Sum()), f"{tmp_path}/sum.hot"
    program.save(file)
    x = torch.ones(2, 3)
    dist.destroy_process_group()
    with pytest.raises(GroupMismatch, match=r"not initialised"):
        hotstart.load(file, Sum())
    with pytest.raises(GroupMismatch, match=r"not initialised"):
        program(x)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    assert torch.equal(hotstart.load(file, Sum())(x), torch.full((2, 3), 4.0))
    assert torch.equal(program(x), torch.full((2, 3), 4.0))


class InWorldAndGroup(torch.nn.Module):
    """Adds up in the group of all processes, and in one that it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.group = dist.group.WORLD

    def forward(self, x: Tensor) -> Tensor:
        y = x + 1
        dist.all_reduce(y)
        dist.all_reduce(y, group=self.group)
        return y


@pytest.mark.thorough
def test_a_group_that_was_the_world_is_not_taken_for_it(tmp_path: object) -> None:
    model, file = InWorldAndGroup(), f"{tmp_path}/world.hot"
    compiled(model).save(file)
    assert torch.equal(hotstart.load(file, model)(torch.ones(2, 3)), torch.full((2, 3), 2.0))
    model.group = dist.new_group([0])
    with pytest.raises(GroupMismatch, match="the group that it is elsewhere, found another group"):
        hotstart.load(file, model)


def test_a_group_that_was_destroyed_is_not_taken_for_a_later_one_of_its_name() -> None:
    model = InWorldAndGroup()
    model.group = dist.new_group([0])
    program, x = compiled(model), torch.ones(2, 3)
    dist.destroy_process_group()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    later = dist.new_group([0])
    assert later.group_name == model.group.group_name
    with pytest.raises(GroupMismatch, match="found one that was destroyed"):
        program(x)
    model.group = later
    assert torch.equal(program(x), torch.full((2, 3), 2.0))


def test_whether_there_are_other_processes_is_a_guard(tmp_path: object) -> None:
    program, file = compiled(Asking()), f"{tmp_path}/asking.hot"
    program.save(file)
    found = {one.name: one.guard.text for one in program.artifact.requirements.seen
             if one.start == "ranks"}  # fmt: skip
    assert found == {"initialized": "True", "rank": "0", "world size": "1"}
    assert program.artifact.native is None
    dist.destroy_process_group()
    for given in ({"model": Asking()}, {"weights": {}}):
        with pytest.raises(hotstart.ModelMismatch, match=r"initialized of torch\.distributed"):
            hotstart.load(file, **given)  # type: ignore[arg-type]
    assert torch.equal(compiled(Asking())(torch.ones(2, 3)), torch.full((2, 3), 6.0))


def test_a_model_that_asks_for_nothing_has_no_such_guards() -> None:
    class Plain(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.relu() + 1

    requirements = compiled(Plain()).artifact.requirements
    assert not requirements.know_ranks()
    assert not any(one.start == "ranks" for one in requirements.seen)


def test_a_collective_that_is_not_waited_for_is_refused() -> None:
    class Early(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ops._c10d_functional.all_reduce(x, "sum", "0") + 1

    with pytest.raises(CaptureError, match="not waited for exactly once"):
        compiled(Early())


def test_a_group_that_is_not_there_is_refused() -> None:
    class Elsewhere(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.ops._c10d_functional.all_reduce(x, "sum", "elsewhere")
            return torch.ops._c10d_functional.wait_tensor(y)

    with pytest.raises(CaptureError, match=r"group 'elsewhere': expected a group"):
        compiled(Elsewhere())


def test_a_group_that_the_program_does_not_have_is_an_error(tmp_path: object) -> None:
    file = f"{tmp_path}/sum.hot"
    compiled(Sum()).save(file, check=False)
    with pytest.raises(hotstart.OptionsError, match="got 'tp', takes 'world'"):
        hotstart.load(file, Sum(), groups={"tp": dist.group.WORLD})
    with pytest.raises(hotstart.OptionsError, match="takes a mapping of names"):
        hotstart.load(file, Sum(), groups=["tp"])  # type: ignore[arg-type]


def test_names_of_groups_are_text_to_operators() -> None:
    name = GroupName.of(dist.group.WORLD.group_name, "world", 1, GroupSlot(0))
    given = torch.ops._c10d_functional.all_reduce(torch.ones(2), "sum", name)
    assert torch.equal(torch.ops._c10d_functional.wait_tensor(given), torch.ones(2))
