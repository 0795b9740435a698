"""Choose the compiler that options ask for, and how much of the machine it uses."""

from __future__ import annotations

import platform

from hotstart.artifact import fingerprint
from hotstart.compilers.inductor import InductorCompiler
from hotstart.compilers.job import Compiler
from hotstart.compilers.machine import default_jobs
from hotstart.compilers.op_by_op import OpByOpCompiler
from hotstart.compilers.proven import ProvenCompiler
from hotstart.compilers.tuning import measured
from hotstart.errors import OptionsError
from hotstart.events import Clock
from hotstart.options import Options
from hotstart.targets import TargetName, missing_instructions


def make_compiler(options: Options, target: TargetName, clock: Clock) -> Compiler:
    """The compiler that options ask for, for one of their targets.

    Args:
        options: those of the build.
        target: the processor that it compiles for.
        clock: is told of the time that proofs take.

    Raises:
        OptionsError: this machine cannot run what is built for the target, or a setting of
            Inductor contradicts it.
    """
    require_target(target)
    if options.compiler == "op_by_op":
        return OpByOpCompiler()
    jobs = options.jobs if isinstance(options.jobs, int) else default_jobs()
    inductor = InductorCompiler(
        options.inductor,
        jobs,
        options.pack_weights,
        tune=measured if options.tune else None,
        target=target,
    )
    if options.prove == "off":
        return inductor
    return ProvenCompiler(inductor, options.prove, clock)


def require_target(target: TargetName) -> None:
    """Check that this machine runs what is built for a target, which proofs and the check do.

    Raises:
        OptionsError: it does not.
    """
    machine = platform.machine()
    if target == "native":
        return
    missing = missing_instructions(target, fingerprint.host()["instructions"])
    if machine != "x86_64" or missing:
        found = f"one without {', '.join(missing)}" if machine == "x86_64" else machine
        raise OptionsError(
            f"target: expected a machine that runs programs for {target}, found {found}\n"
            "do: take a lower target, or build on a machine of that level: units are run and "
            "compared while they are built"
        )
