"""Compile for another architecture, and prove the same piece on this one."""

from __future__ import annotations

import logging
import re

from msgspec.structs import replace

from hotstart.compilers.inductor.compiler import InductorCompiler
from hotstart.compilers.inductor.proven import ProvenCompiler
from hotstart.compilers.job import Job, Narrowed
from hotstart.partition.tokens import Token
from hotstart.records.artifact import CompiledUnit
from hotstart.targets import TargetName, this_architecture

log = logging.getLogger(__name__)

_OF_A_MACHINE = re.compile(
    r"[\w.]*\b(?:mkldnn|mkl|onednn)[._]\w+|\w*flex_attention\w*", re.IGNORECASE
)
"""Names of machine-dependent steps in Inductor's code: operators of libraries that torch has for
one architecture, and a template whose layout depends on the width of vectors."""


class CrossCompiler:
    """Compiles with Inductor for a target that this machine does not run.

    A unit cannot be compared with its operators here. Instead, the same piece is compiled with the
    same settings for this machine, and proven. Inductor's wrapper code must be equal for both, so
    only the kernels' vectors and the C++ compiler differ. A piece whose wrapper code differs, or
    whose proof fails in all ways, runs op by op there.

    Args:
        compiler: compiles for the target.
        alike: compiles for this machine, and proves; None: nothing is compared.
        target: what the units are for.
    """

    def __init__(
        self, compiler: InductorCompiler, alike: ProvenCompiler | None, target: TargetName
    ) -> None:
        self._compiler = compiler
        self._alike = alike
        self._target = target

    def token(self) -> Token:
        """Identify both compilers."""
        alike = () if self._alike is None else self._alike.token()
        return (self._compiler.token(), "alike", alike)

    def warm_up(self) -> None:
        """Start the background work of the compiler for the target."""
        self._compiler.warm_up()

    def compile(self, job: Job) -> CompiledUnit | Narrowed:
        """Compile a piece for the target, in the way that its proof on this machine takes."""
        compiler = self._compiler
        if self._alike is None:
            return self._for_target(compiler, job)
        proven = self._alike.compile(job)
        if isinstance(proven, Narrowed) or proven.op_by_op:
            return proven
        if proven.proof.without:
            compiler = compiler.without(proven.proof.without)
        unit = self._for_target(compiler, job)
        if isinstance(unit, Narrowed) or unit.op_by_op:
            return unit
        if unit.source != proven.source:
            return compiler.op_by_op(job, "Inductor's code for it differs between architectures")
        why = f"this is {this_architecture()}, where it was compared as compiled for it"
        proof = replace(proven.proof, sizes=(), skipped=(f"for {self._target}: {why}",))
        return replace(unit, proof=proof)

    def close(self) -> None:
        """Wait for the background work of both compilers."""
        self._compiler.close()
        if self._alike is not None:
            self._alike.close()

    def _for_target(self, compiler: InductorCompiler, job: Job) -> CompiledUnit | Narrowed:
        unit = compiler.compile(job)
        if isinstance(unit, Narrowed) or unit.op_by_op:
            return unit
        found = _OF_A_MACHINE.search(unit.source)
        if found is None:
            return unit
        return compiler.op_by_op(job, f"{found[0]} may be another on {self._target}")
