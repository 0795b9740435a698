"""How pieces for another architecture are compiled: as those that are proven on this one."""

from __future__ import annotations

from typing import Any

import pytest

from hotstart.compilers.inductor.cross import CrossCompiler
from hotstart.compilers.job import Narrowed
from hotstart.records.artifact import Code, CompiledUnit, Proof
from hotstart.runtime.code.generated import code_of

JOB: Any = object()
NARROWED = Narrowed(condition=None)  # type: ignore[arg-type]


def unit(text: str = "same = 1", **more: Any) -> CompiledUnit:
    code: Code = code_of("unit", text)
    return CompiledUnit("key", code, **more)


class Gives:
    """A compiler that gives what it was told to, and says in which way it was asked."""

    def __init__(self, made: CompiledUnit | Narrowed, left_out: str = "") -> None:
        self.made = made
        self.left_out = left_out

    def compile(self, job: Any) -> CompiledUnit | Narrowed:
        return self.made

    def without(self, name: str) -> Gives:
        return Gives(self.made, name)

    def op_by_op(self, job: Any, reason: str) -> CompiledUnit:
        return unit("captured = 1", op_by_op=f"{self.left_out}{reason}")


def made(there: CompiledUnit | Narrowed, here: CompiledUnit | Narrowed | None) -> Any:
    proves: Any = None if here is None else Gives(here)
    compiler: Any = Gives(there)
    return CrossCompiler(compiler, proves, "aarch64").compile(JOB)


def test_a_unit_is_not_said_to_be_proven_by_the_proof_of_another() -> None:
    found = made(unit(), unit(proof=Proof(("batch=1", "batch=2"))))
    assert found.source == "same = 1"
    assert found.proof.sizes == ()
    assert "for aarch64: this is " in found.proof.skipped[0]


@pytest.mark.parametrize("here", [NARROWED, unit(op_by_op="it is wrong")])
def test_what_has_no_proven_unit_here_has_none_there(here: CompiledUnit | Narrowed) -> None:
    assert made(unit(), here) is here


def test_sizes_that_only_the_other_compile_assumes_are_split_at() -> None:
    assert made(NARROWED, unit()) is NARROWED


def test_code_that_differs_around_kernels_runs_op_by_op() -> None:
    assert made(unit("other = 1"), unit()).op_by_op == (
        "Inductor's code for it differs between architectures"
    )


@pytest.mark.parametrize("here", [None, unit("torch.ops.mkldnn._linear_pointwise(x)")])
def test_operators_of_libraries_run_as_captured(here: CompiledUnit | None) -> None:
    there = unit("torch.ops.mkldnn._linear_pointwise(x)")
    assert made(there, here).op_by_op == (
        "torch.ops.mkldnn._linear_pointwise may be another on aarch64"
    )


def test_a_pass_that_the_proof_left_out_is_left_out_there() -> None:
    here = unit(proof=Proof(without="some_pass", why="it was wrong"))
    assert made(unit(), here).proof.without == "some_pass"
    assert made(unit("other = 1"), here).op_by_op.startswith("some_pass")


def test_without_proofs_a_unit_is_what_the_compiler_gives() -> None:
    there = unit()
    assert made(there, None) is there
