"""Which values a variant is tried on, and in which order; how two processes hand them over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim
from hotstart.records.artifact import StitchedCall
from hotstart.runtime.made_up import KINDS
from hotstart.runtime.weights.model_weights import weights_of
from hotstart.saving import inputs
from hotstart.saving.check_process import Attempt, SharedFolder, said
from hotstart.saving.examples import KEPT_BYTES, Example, given_example, kept_example, within
from hotstart.saving.inputs import Real, choices, real_weights, tensors, weights

EAGER = hotstart.Options(compiler="op_by_op")
BATCH = Dim("batch", max=8, sizes=[1])


class Indexed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((4, 3), 2.0))
        self.register_buffer("index", torch.tensor([3, 1]))
        self.register_buffer("count", torch.tensor(7))

    def forward(self, batch: dict[str, Tensor], *, scale: Tensor) -> Tensor:
        self.count += 1
        return self.weight[self.index[batch["ids"]]] * batch["x"][:, :1] * scale + self.count


IDS, MORE, SCALE = torch.tensor([1, 0, 1, 1, 0]), torch.randn(5, 2), torch.tensor([4.0])
ARGS: tuple[Any, ...] = ({"x": MORE, "ids": IDS},)


@pytest.fixture(scope="module")
def program() -> hotstart.Program:
    sizes = {"batch": {"x": {0: BATCH}, "ids": {0: BATCH}}}
    return hotstart.compile(
        Indexed().eval(), ARGS, {"scale": SCALE}, dynamic_shapes=sizes, options=EAGER
    )


def only_call(program: hotstart.Program) -> StitchedCall:
    (call,) = program.artifact.calls
    return call


def tried(program: hotstart.Program, number: int, *examples: Example) -> list[inputs.Inputs]:
    call = only_call(program)
    real = Real({"": examples or program.examples[""]}, {})
    return choices(call, call.stitched[number].variant, real)


def test_the_example_is_kept_by_slot(program: hotstart.Program) -> None:
    (example,) = program.examples[""]
    assert example.sizes == {"batch": 5}
    kept = dict(zip([s.path for s in only_call(program).contract.tensors], example.tensors,
                    strict=True))  # fmt: skip
    for path, value in (("batch['x']", MORE), ("batch['ids']", IDS), ("scale", SCALE)):
        tensor = kept[path]
        assert tensor is not None
        assert torch.equal(tensor, value)
        assert tensor.data_ptr() != value.data_ptr()


def test_what_has_no_values_or_is_too_large_is_not_kept(program: hotstart.Program) -> None:
    contract = only_call(program).contract
    found = kept_example(contract, ({"x": MORE.to("meta"), "ids": IDS},), {"scale": SCALE})
    assert [t is None for t in found.tensors] == [True, False, False]
    assert found.sizes == {"batch": 5}
    large = {"x": MORE[:1].expand(KEPT_BYTES // 8, 2), "ids": IDS}  # takes no memory
    found = kept_example(contract, (large,), {"scale": SCALE})
    assert [t is None for t in found.tensors] == [True, False, False]
    assert within([MORE, None, IDS, SCALE], 43) == {3}
    assert within([MORE, None, IDS, SCALE], 44) == {0, 3}


def test_a_default_that_is_a_tensor_is_no_argument() -> None:
    def f(x: Tensor, by: Tensor = SCALE) -> Tensor:
        return x * by

    (example,) = hotstart.compile(f, (MORE,), options=EAGER).examples[""]
    assert len(example.tensors) == 1


def test_small_sizes_of_the_example_come_first_and_made_up_values_last(
    program: hotstart.Program,
) -> None:
    about = [one.about for one in tried(program, 0)]
    assert about[:3] == [
        "the example at batch=3, floating-point numbers made up",
        "the example at batch=3",
        "the example",
    ]
    assert about[3:] == [f"made up, {kind}" for kind in KINDS]
    alone = [one.about for one in tried(program, 1)]  # the example's own size is not served
    assert alone[:2] == [
        "the example at batch=1, floating-point numbers made up", "the example at batch=1"
    ]  # fmt: skip
    assert len(alone) == 2 + len(KINDS)


def test_values_are_cut_down_or_repeated_to_a_size(program: hotstart.Program) -> None:
    contract = only_call(program).contract
    mixed, small, own, *_ = tried(program, 0)
    x, ids, scale = tensors(contract, small)
    assert torch.equal(x, MORE[:3])
    assert torch.equal(ids, IDS[:3])
    assert torch.equal(scale, SCALE)
    assert torch.equal(tensors(contract, own)[0], MORE)
    x, ids, _ = tensors(contract, mixed)
    assert torch.equal(ids, IDS[:3])
    assert not torch.equal(x, MORE[:3])
    longer = inputs.Inputs("", {"batch": 8}, example=program.examples[""][0])
    assert torch.equal(tensors(contract, longer)[1], torch.cat([IDS, IDS[:3]]))
    nothing = Example({"batch": 0}, (MORE[:0], IDS[:0], SCALE))
    assert not tensors(contract, inputs.Inputs("", {"batch": 2}, example=nothing))[1].any()


def test_every_run_has_memory_of_its_own(program: hotstart.Program) -> None:
    contract = only_call(program).contract
    own = tried(program, 0)[2]
    for tensor in tensors(contract, own):
        tensor.zero_()
    assert torch.equal(tensors(contract, own)[0], MORE)


def test_what_a_user_gave_for_the_sizes_of_a_variant_is_all_there_is(
    program: hotstart.Program,
) -> None:
    given = given_example(only_call(program).contract, ARGS, {"scale": SCALE})
    assert [one.about for one in tried(program, 0, given)] == ["check_inputs"]
    others = [one.about for one in tried(program, 1, given)]
    assert others[1] == "check_inputs at batch=1"
    assert len(others) == 2 + len(KINDS)


def test_indices_of_a_model_are_real_and_its_numbers_only_if_asked_for(
    program: hotstart.Program,
) -> None:
    requirements, model = program.artifact.requirements, program.model
    assert isinstance(model, Indexed)
    by_name = {spec.name: slot for slot, spec in enumerate(requirements.weights)}

    def held(model: Indexed) -> list[Any]:
        return weights_of(model, program.artifact).values()

    few = real_weights(requirements, held(model), floats=False)
    assert set(few) == {by_name["index"], by_name["count"]}
    assert set(real_weights(requirements, held(model), floats=True)) == set(by_name.values())
    made = weights(requirements, {}, few)
    assert made[by_name["index"]].data_ptr() == model.index.data_ptr()
    assert made[by_name["count"]].tolist() == 7
    assert made[by_name["count"]].data_ptr() != model.count.data_ptr()  # calls write to it
    assert not torch.equal(made[by_name["weight"]], model.weight)
    assert real_weights(requirements, held(Indexed().to("meta")), floats=True) == {}


DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
    torch.float8_e5m2, torch.complex64, torch.complex128, torch.int64, torch.int32, torch.int16,
    torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool,
]  # fmt: skip


def test_values_of_every_dtype_and_layout_reach_the_other_process(tmp_path: Path) -> None:
    made = [torch.ones(6).to(dtype) for dtype in DTYPES]
    made += [torch.randn(4, 6).t(), torch.randn(9)[2:5], torch.tensor(3), torch.zeros(0, 2)]
    example = Example({"batch": 4}, (*made, None), given=True)
    shared = SharedFolder(tmp_path)
    shared.keep(Real({"a": (example,)}, {3: made[0]}))
    found = shared.real()
    (other,) = found.examples["a"]
    assert (other.sizes, other.given, other.tensors[-1]) == ({"batch": 4}, True, None)
    for mine, theirs in zip(made, other.tensors, strict=False):
        assert theirs is not None
        assert (mine.dtype, mine.stride(), mine.tolist()) == (
            theirs.dtype, theirs.stride(), theirs.tolist()
        )  # fmt: skip
    assert found.weights[3].tolist() == made[0].tolist()


def test_attempts_are_read_as_they_ended(tmp_path: Path) -> None:
    shared = SharedFolder(tmp_path)
    assert shared.attempts() == []
    for attempt in (
        Attempt(0, 0, "trying"), Attempt(0, 0, "raised", "a: b"), Attempt(0, 1, "trying"),
        Attempt(0, 1, "ran"), Attempt(1, 0, "trying"),
    ):  # fmt: skip
        shared.note(attempt)
    assert shared.attempts() == [
        Attempt(0, 0, "raised", "a: b"), Attempt(0, 1, "ran"), Attempt(1, 0, "trying"),
    ]  # fmt: skip


def test_errors_are_told_in_a_line() -> None:
    assert said(ValueError("one\n  two")) == "ValueError: one two"
    assert said(KeyError()) == "KeyError"
    assert len(said(ValueError("x" * 1000))) < 350
