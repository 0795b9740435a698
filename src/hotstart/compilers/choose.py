"""Choose the compiler that options ask for, and how much of the machine it uses."""

from __future__ import annotations

from collections.abc import Collection

from hotstart._torch.inductor.cross import cross_compiler
from hotstart.artifact import fingerprint
from hotstart.compilers.inductor.compiler import InductorCompiler
from hotstart.compilers.inductor.cross import CrossCompiler
from hotstart.compilers.inductor.proven import ProvenCompiler
from hotstart.compilers.inductor.tuning import measured
from hotstart.compilers.job import Compiler
from hotstart.compilers.machine import default_jobs
from hotstart.compilers.op_by_op import OpByOpCompiler
from hotstart.errors import OptionsError
from hotstart.events import Clock
from hotstart.options import Options
from hotstart.targets import (
    X86_64,
    TargetName,
    is_foreign,
    missing_instructions,
    this_architecture,
)


def make_compiler(options: Options, target: TargetName, clock: Clock) -> Compiler:
    """The compiler that options ask for, for one of their targets.

    Args:
        options: those of the build.
        target: the processor that it compiles for.
        clock: is told of the time that proofs take.

    Raises:
        OptionsError: as `require_target`; or a setting of Inductor contradicts the target, or there
            is no compiler for it.
    """
    require_target(target)
    if is_foreign(target):
        cross_compiler(target)  # also where nothing but the native program needs it
    if options.compiler == "op_by_op":
        return OpByOpCompiler()
    jobs = options.jobs if isinstance(options.jobs, int) else default_jobs()
    if is_foreign(target):
        return _cross(options, target, jobs, clock)
    packs = target != "aarch64"  # nothing was measured there
    inductor = InductorCompiler(
        options.inductor,
        jobs,
        packs and options.pack_weights,
        tune=measured if packs and options.tune else None,
        target=target,
    )
    if options.prove == "off":
        return inductor
    return ProvenCompiler(inductor, options.prove, clock)


def _cross(options: Options, target: TargetName, jobs: int, clock: Clock) -> CrossCompiler:
    """Make the compiler for another architecture, for which nothing is packed or tuned."""
    compiler = InductorCompiler(options.inductor, jobs, target=target)
    alike = InductorCompiler(options.inductor, jobs)
    proven = None if options.prove == "off" else ProvenCompiler(alike, options.prove, clock)
    return CrossCompiler(compiler, proven, target)


def require_one_run_here(targets: Collection[TargetName]) -> None:
    """Check that this machine runs a program for one of the targets at least.

    Raises:
        OptionsError: it runs none: all are of another architecture.
    """
    if all(map(is_foreign, targets)):
        listed = ", ".join(map(repr, targets))
        raise OptionsError(
            f"target: expected one that this machine runs, found {listed}\n"
            f"do: take ('native', {listed}), or a level in its place: code for that one is run "
            "and compared, and a load takes what fits its machine"
        )


def require_target(target: TargetName) -> None:
    """Check that this machine builds for a target.

    A build runs code for its own architecture, in proofs and in the check.

    Raises:
        OptionsError: it does not.
    """
    here, missing = this_architecture(), []
    if not is_foreign(target):
        missing = missing_instructions(target, fingerprint.host()["instructions"])
    lacking = f"one without {', '.join(missing)}" if missing else ""
    if missing or (is_foreign(target) and (here, target) != (X86_64, "aarch64")):
        raise OptionsError(
            f"target: expected a machine that runs programs for {target}, found "
            f"{lacking or here}\n"
            "do: take a lower target, or build on a machine of that level: units are run and "
            "compared while they are built"
        )
