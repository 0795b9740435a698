"""What comparing a unit with its operators notices, and what it rightly leaves alone."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor, nn

from hotstart import Dim
from hotstart.compilers import Job, OpByOpCompiler
from hotstart.compilers.proof.trial import NotComparable, Trial
from hotstart.compilers.proof.trial_edges import numbers_of
from hotstart.compilers.proof.trial_inputs import Values
from hotstart.compilers.proof.trial_runs import Operators, Run
from hotstart.compilers.proof.trial_sizes import sizes_to_try
from hotstart.records.artifact import CompiledUnit, Preparation
from hotstart.records.dims import variants
from hotstart.runtime.code.generated import code_of, unit_code
from hotstart.specialize.part_jobs import make_job
from hotstart.specialize.parts import VariantPart
from tests.capturing import planned

ROWS = Dim("rows", max=8)
MOST = 1 << 20


def job_of(model: Callable[..., Any], *args: Any, rows: Dim | None = None) -> Job:
    """The one piece of a model, to be compiled for all rows of its first argument."""
    dynamic: Mapping[str, Any] | None = None if rows is None else {"x": {0: rows}}
    plan = planned(model, *args, split_on=[], dynamic=dynamic)
    (piece,) = plan.pieces
    (variant,) = variants([rows] if rows is not None else [])
    hints = {"rows": len(args[0])} if rows is not None else {}
    part = VariantPart(variant, variant.choices, hints)
    return make_job(plan.graph.at(variant), piece, part, OpByOpCompiler())


def changed(job: Job, before: str, after: str) -> CompiledUnit:
    """The operators of a job as a unit, with a change."""
    return edited(OpByOpCompiler().compile(job), before, after)


def edited(unit: CompiledUnit, before: str, after: str) -> CompiledUnit:
    """A unit with other code."""
    assert before in unit.source
    return replace(unit, code=unit_code(unit.key, unit.source.replace(before, after)))


def returning(job: Job, each: str) -> CompiledUnit:
    """The operators of a job as a unit that makes something else of every output `t`."""
    unit = OpByOpCompiler().compile(job)
    (outputs,) = re.findall(r"return (\(.*,\))", unit.source)
    return changed(job, f"return {outputs}", f"return tuple({each} for t in {outputs})")


def found(job: Job, unit: CompiledUnit) -> list[str]:
    """What differs, at each of the sizes that are tried."""
    trial = Trial(job)
    differences = (trial.difference(unit, sizes) for sizes in sizes_to_try(job, MOST))
    return [str(difference) for difference in differences if difference is not None]


def double(x: Tensor) -> Tensor:
    return x.sin() * 2.0


def test_the_operators_themselves_differ_in_nothing() -> None:
    job = job_of(double, torch.zeros(4, 3), rows=ROWS)
    assert found(job, OpByOpCompiler().compile(job)) == []


def test_another_operator_is_noticed_at_every_size() -> None:
    job = job_of(double, torch.zeros(4, 3), rows=ROWS)
    differences = found(job, changed(job, "sin", "cos"))
    assert len(differences) == len(sizes_to_try(job, MOST))
    assert all("output 0 differs by" in difference for difference in differences)


def test_both_ends_one_an_odd_size_and_the_examples_are_tried() -> None:
    job = job_of(double, torch.zeros(4, 3), rows=Dim("rows", min=0, max=16))
    assert [sizes["rows"] for sizes in sizes_to_try(job, MOST)] == [0, 1, 3, 4, 16]


def test_an_end_that_is_too_large_gives_way_to_a_smaller_size() -> None:
    job = job_of(double, torch.zeros(4, 100), rows=Dim("rows", max=1 << 20))
    sizes = [sizes["rows"] for sizes in sizes_to_try(job, MOST)]
    assert sizes[:3] == [1, 3, 4]
    assert 100 < sizes[-1] < MOST // 100


def test_what_is_wrong_at_one_size_only_is_noticed_there() -> None:
    job = job_of(double, torch.zeros(4, 3), rows=ROWS)
    (difference,) = found(job, returning(job, "t + (len(t) == 3)"))
    assert difference.endswith(" at rows=3")


@pytest.mark.parametrize("change", ["t.double()", "t[1:]"])
def test_another_dtype_or_shape_is_noticed(change: str) -> None:
    job = job_of(double, torch.zeros(4, 3))
    assert "not torch.float32 [4, 3]" in found(job, returning(job, change))[0]


def test_a_unit_that_raises_is_noticed() -> None:
    job = job_of(double, torch.zeros(4, 3))
    assert "raises ZeroDivisionError" in found(job, changed(job, "args.clear()", "1 / 0"))[0]


def test_a_unit_that_writes_to_a_weight_is_noticed_and_others_find_it_as_it_was() -> None:
    job = job_of(nn.Linear(3, 3, bias=False), torch.zeros(4, 3))
    trial, operators = Trial(job), OpByOpCompiler().compile(job)
    weight = re.findall(r"linear\(l_input, (\w+)", operators.source)[0]
    writes = changed(job, "args.clear()", f"args.clear(); {weight}[-1, -1] += 1e-3")
    trial.difference(writes, {})
    assert str(trial.written_weight()) == "input 1 is written to"
    assert trial.difference(operators, {}) is None
    assert trial.written_weight() is None


def test_a_weight_that_the_operators_write_to_is_none_that_only_the_unit_writes_to() -> None:
    job = job_of(nn.BatchNorm1d(3), torch.zeros(4, 3))
    trial = Trial(job)
    assert trial.difference(OpByOpCompiler().compile(job), {}) is None
    assert trial.written_weight() is None


@pytest.mark.parametrize("bound", [1e6, 3e4, 250.0, 1e-2])
def test_what_is_wrong_only_beyond_a_number_that_operators_are_called_with_is_noticed(
    bound: float,
) -> None:
    job = job_of(lambda x: (x * 3 + 1).clamp(max=bound).relu(), torch.zeros(4, 3))
    unit = changed(job, f"max={bound!r}", f"max={bound * 1.25!r}")
    assert "output 0 differs" in found(job, unit)[0]


def test_a_number_that_stands_for_infinity_keeps_no_other_from_being_tried() -> None:
    def masked(x: Tensor) -> Tensor:
        return ((x * 3).clamp(max=1e6).masked_fill(x > 0, torch.finfo(x.dtype).min)).exp().log1p()

    def bounded(x: Tensor) -> tuple[Tensor, Tensor]:
        return (x * 3).clamp(max=1e6), x.masked_fill(x > 0, torch.finfo(x.dtype).min).softmax(-1)

    assert max(numbers_of(job_of(masked, torch.zeros(4, 3)))) == 1e6
    job = job_of(bounded, torch.zeros(4, 3))
    assert "output 0 differs" in found(job, changed(job, "max=1000000.0", "max=1e7"))[0]


def test_integers_that_wrap_around_are_compared() -> None:
    job = job_of(lambda x: (x + 100) > 50, torch.zeros(40, dtype=torch.uint8))
    assert "output 0 differs" in found(job, changed(job, "l_x + 100", "(l_x.int() + 100)"))[0]


def test_rows_of_bytes_without_a_zero_are_compared() -> None:
    job = job_of(lambda x: x.amin(-1), torch.zeros(24, 24, dtype=torch.uint8))
    assert "output 0 differs" in found(job, changed(job, "amin(-1)", "amin(-1) * 0"))[0]


def test_negative_integers_are_compared() -> None:
    job = job_of(lambda x: x // 2, torch.zeros(40, dtype=torch.int64))
    truncates = "__import__('torch').div(l_x, 2, rounding_mode='trunc')"
    assert "output 0 differs" in found(job, changed(job, "l_x // 2", truncates))[0]


def test_integers_that_may_index_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(x: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        return at * 2 + 1, torch.ops.aten._unsafe_index(x, [at - 1])

    job = job_of(rows, torch.zeros(4, 3), torch.ones(3, dtype=torch.int64))
    seen: list[int] = []
    fresh = Values.fresh

    def noted(self: Values) -> list[Tensor]:
        made = fresh(self)
        seen.extend(int(t.abs().max()) for t in made if t.dtype is torch.int64)
        return made

    monkeypatch.setattr(Values, "fresh", noted)
    assert found(job, OpByOpCompiler().compile(job)) == []
    assert max(seen) == 1


def test_operators_that_raise_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    job = job_of(lambda x: torch.linalg.cholesky(x - 100.0), torch.eye(3))
    with pytest.raises(NotComparable):
        Trial(job).difference(OpByOpCompiler().compile(job), {})
    assert capfd.readouterr() == ("", "")


def write(x: Tensor, y: Tensor) -> Tensor:
    x.mul_(3.0)
    return y + 1.0


def test_an_input_that_is_not_written_or_written_otherwise_is_noticed() -> None:
    job = job_of(write, torch.zeros(4, 3), torch.zeros(4, 3))
    assert "input 0 differs" in found(job, changed(job, "3.0", "4.0"))[0]


def test_a_result_in_the_memory_of_an_input_is_noticed() -> None:
    job = job_of(double, torch.zeros(4, 3))
    unit = changed(job, "return (mul,)", "return (args_0.copy_(mul),)")
    unit = edited(unit, "args.clear()", "args_0 = args[0]")
    assert "input 0 and output 0 share memory" in found(job, unit)[0]


def test_results_that_share_memory_and_should_not_are_noticed() -> None:
    def twice(x: Tensor) -> tuple[Tensor, Tensor]:
        return x + 1.0, x + 1.0

    job = job_of(twice, torch.zeros(4, 3))
    unit = OpByOpCompiler().compile(job)
    (first, second) = re.findall(r"return \((\w+), (\w+)\)", unit.source)[0]
    shared = changed(job, f"return ({first}, {second})", f"return ({first}, {first})")
    assert "output 0 and output 1 share memory" in found(job, shared)[0]


def test_memory_that_nothing_was_written_to_is_not_compared() -> None:
    def partly(x: Tensor) -> Tensor:
        made = torch.empty(4, 3)
        made[1:] = x[1:]
        return made

    job = job_of(partly, torch.zeros(4, 3))

    def with_row(row: int) -> CompiledUnit:
        return returning(job, f"t.index_fill(0, t.new_tensor([{row}]).long(), 7.0)")

    assert found(job, with_row(0)) == []
    assert "output 0 differs" in found(job, with_row(1))[0]


def test_memory_that_an_operator_leaves_unwritten_for_wrong_inputs_is_not_compared() -> None:
    def bags(ids: Tensor, offsets: Tensor, table: Tensor) -> Tensor:
        return torch.nn.functional.embedding_bag(ids, table, offsets, mode="sum")

    longs = {"dtype": torch.long}
    job = job_of(bags, torch.zeros(1, **longs), torch.zeros(3, **longs), torch.zeros(9, 32))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with more, another kernel writes zeros
    try:
        assert found(job, OpByOpCompiler().compile(job)) == []
    finally:
        torch.set_num_threads(threads)


def test_a_unit_that_reads_memory_that_nothing_was_written_to_is_noticed() -> None:
    job = job_of(double, torch.zeros(4, 3))
    unit = returning(job, "t + t.new_empty(t.shape) * 0.0")
    assert "output 0 differs by inf" in found(job, unit)[0]


def test_a_unit_that_reads_beyond_its_inputs_is_noticed() -> None:
    job = job_of(double, torch.zeros(4, 3))
    beyond = "l_x.as_strided((4, 3), (3, 1), l_x.storage_offset() + 12)"
    assert "output 0 differs" in found(job, changed(job, "l_x.sin()", f"l_x.sin() + {beyond}"))[0]


def test_random_numbers_are_not_compared_and_what_does_not_follow_from_them_is() -> None:
    def noisy(x: Tensor) -> tuple[Tensor, Tensor]:
        return x + torch.rand(4, 3), x * 2.0

    job = job_of(noisy, torch.zeros(4, 3))
    assert found(job, changed(job, "= rand(4, 3)", "= rand(4, 3) * rand(4, 3)")) == []
    assert "output 1 differs" in found(job, changed(job, "2.0", "3.0"))[0]


def test_the_callers_random_numbers_stay_what_they_were() -> None:
    def noisy(x: Tensor) -> Tensor:
        return x + torch.rand(4, 3)

    job = job_of(noisy, torch.zeros(4, 3))
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    found(job, OpByOpCompiler().compile(job))
    assert torch.equal(torch.rand(1), expected)


def test_rounding_is_told_from_a_wrong_result_by_float64() -> None:
    def cancel(x: Tensor) -> Tensor:
        return (x + 1000.0) - 1000.0

    job = job_of(cancel, torch.zeros(64, 64))
    exact = changed(job, "+ 1000.0", "+ 0.0")
    exact = edited(exact, "- 1000.0", "- 0.0")
    assert (
        found(job, exact) == []
    )  # further from the operators than they allow, nearer to the truth
    wrong = changed(job, "- 1000.0", "- 1000.01")
    assert "where rounding explains" in found(job, wrong)[0]


def test_what_the_last_digit_of_inputs_may_change_is_no_fault() -> None:
    def saturated(x: Tensor) -> Tensor:
        return torch.tanh(x[:, 0] - x[:, 1])

    job = job_of(saturated, torch.zeros(512, 2))
    (left, right) = re.findall(r"= (\w+) - (\w+)", OpByOpCompiler().compile(job).source)[0]
    thrice = changed(job, f"{left} - {right}", f"({left} * 3.0 - {right} * 3.0) / 3.0")
    assert found(job, thrice) == []
    wrong = edited(thrice, "/ 3.0", "/ 3.003")
    assert "where rounding explains" in found(job, wrong)[0]


def test_inputs_that_operators_refuse_when_they_differ_in_the_last_digit_explain_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Operators.in_float64

    def refused(self: Operators, values: Values, *, nudged: int | None = None) -> Any:
        return {} if nudged is not None else run(self, values)

    monkeypatch.setattr(Operators, "in_float64", refused)
    job = job_of(double, torch.zeros(4, 3))
    assert "where rounding explains" in found(job, returning(job, "t * 1.001"))[0]


def test_a_difference_that_other_values_do_not_show_is_no_fault() -> None:
    job = job_of(double, torch.zeros(4, 3))
    assert found(job, returning(job, "t + float(t.abs().max() < 0.9)")) == []


def test_what_is_wrong_for_many_values_and_not_all_is_noticed() -> None:
    job = job_of(double, torch.zeros(4, 3))
    assert "output 0 differs" in found(job, returning(job, "t + float(t.abs().max() > 0.9)"))[0]


def test_operators_that_take_no_made_up_input_are_named() -> None:
    def picky(x: Tensor) -> Tensor:
        return torch.linalg.cholesky(x - 100.0)

    job = job_of(picky, torch.eye(3))
    trial = Trial(job)
    with pytest.raises(NotComparable, match="cholesky"):
        trial.difference(OpByOpCompiler().compile(job), {})


def test_operators_that_take_small_numbers_only_are_compared_with_these() -> None:
    def small(x: Tensor) -> Tensor:
        return torch.linalg.cholesky(torch.eye(3) + (x + x.mT) * 0.1) + x.sin()

    job = job_of(small, torch.zeros(3, 3))
    assert found(job, OpByOpCompiler().compile(job)) == []
    assert "output 0 differs" in found(job, changed(job, "sin", "cos"))[0]


@torch.library.custom_op("hotstart_trial::waiting", mutates_args=())
def waiting(x: Tensor) -> Tensor:
    """Stands for one that waits for other processes, where no graph shows it."""
    return x + 1


@waiting.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@pytest.mark.parametrize("several", [True, False])
def test_own_operators_do_not_run_where_they_may_wait_for_other_processes(
    several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(lambda x: waiting(x) * 2, torch.zeros(4, 3))
    monkeypatch.setattr("hotstart.compilers.proof.trial.has_other_processes", lambda: several)
    expected = pytest.raises(NotComparable, match="wait for other processes")
    with expected if several else contextlib.nullcontext():
        assert Trial(job).difference(OpByOpCompiler().compile(job), {}) is None


def test_values_are_found_that_operators_take() -> None:
    def table(x: Tensor, at: Tensor, m: Tensor) -> Tensor:
        rows = torch.nn.functional.one_hot(at - 1, 8)
        return x[at] + torch.linalg.cholesky(m).sum() + rows.sum()

    job = job_of(table, torch.zeros(4, 3), torch.ones(3, dtype=torch.int64), torch.eye(3))
    with pytest.raises(NotComparable):  # ones for the one, a definite matrix for the other
        Trial(job).difference(OpByOpCompiler().compile(job), {})

    def rows_only(x: Tensor, at: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(at - 1, 8).sum() + x

    job = job_of(rows_only, torch.zeros(4, 3), torch.ones(3, dtype=torch.int64))
    assert found(job, OpByOpCompiler().compile(job)) == []


def packing_unit(job: Job, packed: str, plain: str) -> CompiledUnit:
    """A unit of a linear that takes its weight as one expression makes it, or another."""
    source = """
import torch
def bind(made):
    def call(args):
        (x,) = args
        args.clear()
        return (torch.nn.functional.linear(x, made),)
    return call
"""
    functions = (
        f"def prepare(w):\n    return ({packed},)\ndef unpacked(w):\n    return ({plain},)\n"
    )
    preparation = Preparation(code_of("prepare_for_a_test", functions), (0,), packs=True)
    return CompiledUnit(job.key, unit_code(job.key, source), kept=(), preparations=(preparation,))


@pytest.mark.parametrize(("packed", "plain"), [("w", "w"), ("w", "w * 2"), ("w * 2", "w")])
def test_a_unit_is_compared_with_and_without_packing(packed: str, plain: str) -> None:
    job = job_of(nn.Linear(3, 3, bias=False), torch.zeros(4, 3))
    assert bool(found(job, packing_unit(job, packed, plain))) == ("2" in packed + plain)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The runs of operators, each by the values that it was given."""
    made: list[object] = []
    run = Operators.run

    def noted(self: Operators, values: Values, **how: Any) -> Run:
        made.append(values)
        return run(self, values, **how)

    monkeypatch.setattr(Operators, "run", noted)
    return made


def test_operators_run_once_for_each_set_of_values(runs: list[object]) -> None:
    job = job_of(nn.Linear(3, 3, bias=False), torch.zeros(4, 3))
    assert Trial(job).difference(packing_unit(job, "w", "w"), {}) is None
    assert len(runs) == len(set(runs)) == 4


def test_what_rounding_explains_takes_one_run_with_other_memory(runs: list[object]) -> None:
    def cancel(x: Tensor) -> Tensor:
        return (x + 1000.0) - 1000.0

    job = job_of(cancel, torch.zeros(64, 64))
    exact = edited(changed(job, "+ 1000.0", "+ 0.0"), "- 1000.0", "- 0.0")
    assert Trial(job).difference(exact, {}) is None
    assert set(Counter(runs).values()) == {1, 2}  # the largest values hide the rounding
