"""Settings of a build besides the model and its inputs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from hotstart.errors import OptionsError
from hotstart.events import Listener
from hotstart.faults import path_of, require, require_one_of
from hotstart.targets import TargetName, best_first

CompilerName = Literal["inductor", "op_by_op"]
CaptureMode = Literal["blocks_once", "whole"]
Prove = Literal["all", "first", "off"]
MissPolicy = Literal["error", "eager", "compile"]
Pack = Literal["now", "first_call", "background", "never"]
Outputs = Literal["auto", "own", "plain"]
Form = Literal["auto", "python", "native"]
PackWeights = Literal["always"] | bool
CachePolicy = Literal["build", "require"]
Jobs = int | Literal["ray"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings of a build.

    Attributes:
        compiler: `"inductor"`, or `"op_by_op"`, which runs the pieces as captured: a fast double
            for tests and for finding out whether a problem is the compiler's.
        inductor: settings of `torch._inductor.config`, by name, in force while pieces compile.
            Custom passes are accepted; the `uuid()` each must have is part of the digests.
        on_miss: what a call outside the contract does. `"error"` raises `ContractError`, `"eager"`
            runs the model itself, `"compile"` compiles another program inside the call: for its
            sizes, and from the second such call on for ranges of those that varied. Where such a
            call leaves the model so that the program no longer fits it, as one that fills a
            cache by size does, later calls are answered in the same way.
        splits: how many further variants a declared one may be split into, all told, where the
            model or the compiler decides by size; more is a `RangeError`. From the fifth on each
            is warned of. 0: a declared range that is not served as a whole is an error.
        capture: `"blocks_once"` traces a block of the model once, and takes it down again for each
            call of one that is proven to give the same; `"whole"` traces every call. Both give the
            same graph, and `"whole"` takes longer the more blocks there are.
        pack_weights: whether what depends on weights alone is computed once, when weights are
            bound, and weights are packed: put into the order that kernels read them in. Linears
            are packed where that is faster on this processor at the sizes that are tuned for; with
            AVX2 alone none in float32 is, since hotstart's kernel is faster on weights as they are.
            `"always"` packs all of them, and reads nothing else. Results differ by rounding from
            those of `torch.compile`.
        tune: whether the ways to compute linears are measured while building, few rows apart from
            many, and the fastest are taken: takes several times as long as without. What
            was measured is kept with the pieces, so another build that finds them measures nothing.
            Builds on an idle machine choose best; two builds need not give the same bytes.
        target: the processor that the program is built for: this machine's (`"native"`), or every
            one of a level of x86-64: `"x86-64-v3"` for AVX2 (Intel's since 2013, AMD's since 2015),
            `"x86-64-v4"` for AVX-512, `"x86-64-v2"` for SSE4.2, where kernels are written without
            vectors. The machine that builds must be of that level itself, since programs are run
            while they are built. Torch's own kernels use all that the machine has that runs them.
            `"aarch64"` is 64-bit Arm, with Advanced SIMD; nothing is packed or tuned for it. An
            x86-64 builds for it with a cross compiler, beside a target that it runs itself:
            `("native", "aarch64")`. Several, such as `("x86-64-v3", "x86-64-v4")`, go into one
            file, and a load takes the best that its machine runs; here they are kept in that order,
            the best first.
        form: what joins the pieces of a variant and calls their kernels: `"native"` code, which is
            compiled with the program, or generated `"python"`. Both give the same bits. `"auto"`
            is native where every step has a native form, else Python; see `program.report`.
        prove: which compiled units are compared with the operators they were made from, at several
            sizes, while building: `"all"` of them, the `"first"` of every different piece, or none
            (`"off"`). One that differs runs op by op; see `program.report`.
        debug_dir: folder that gets the graph, the pieces and the stitched code as files, and for
            each different piece a script that compares it with eager mode: `hotstart repro`.
        device: where the tensors of a model or of inputs on the meta device will be at run time.
        jobs: how many processes compile pieces at a time, this one included; the C++ compilers that
            each of them runs are as many, divided among them. 1: all pieces compile in this
            process. Default: one for each core and 1 GiB that this process, or its container, may
            use. `"ray"`: pieces compile on the machines of a Ray cluster, which this process is
            connected to or which `RAY_ADDRESS` names; needs the extra `hotstart[ray]`. The program
            is the same whatever is chosen.
        on_event: called with a `hotstart.events.Event` as a build goes on.

    All but `on_miss`, `debug_dir`, `jobs` and `on_event` are part of the key of a program in a
    cache.

    Raises:
        OptionsError: a value makes no sense.

    Examples:
        >>> options = hotstart.Options(compiler="op_by_op", on_miss="eager")
        >>> program = hotstart.compile(torch.nn.ReLU(), (torch.zeros(4),), options=options)
        >>> program(torch.tensor([-1.0]))  # another size: the model answers
        tensor([0.])
    """

    __module__ = "hotstart"  # where users find it
    compiler: CompilerName = "inductor"
    inductor: Mapping[str, Any] = field(default_factory=dict)
    on_miss: MissPolicy = "error"
    splits: int = 16
    capture: CaptureMode = "blocks_once"
    pack_weights: PackWeights = True
    tune: bool = False
    target: TargetName | Sequence[TargetName] = "native"
    form: Form = "auto"
    prove: Prove = "all"
    debug_dir: str | os.PathLike[str] | None = None
    device: str = "cpu"
    jobs: Jobs | None = None
    on_event: Listener | None = None

    def __post_init__(self) -> None:
        require_one_of("compiler", self.compiler, CompilerName)
        require_one_of("capture", self.capture, CaptureMode)
        if not isinstance(self.pack_weights, bool) and self.pack_weights != "always":
            raise OptionsError(
                f"pack_weights: got {self.pack_weights!r}, takes True, False or 'always'"
            )
        if not isinstance(self.tune, bool):
            raise OptionsError(f"tune: got {self.tune!r}, takes True or False")
        if self.tune and not self.pack_weights:
            raise OptionsError("tune: got True with pack_weights=False, which leaves no choice")
        targets = self._requested_targets()
        # In one form, so that equal options are equal, and have one key.
        object.__setattr__(self, "target", targets[0] if len(targets) == 1 else targets)
        require_one_of("form", self.form, Form)
        require_one_of("prove", self.prove, Prove)
        require_one_of("on_miss", self.on_miss, MissPolicy)
        if isinstance(self.splits, bool) or not isinstance(self.splits, int) or self.splits < 0:
            raise OptionsError(f"splits: got {self.splits!r}, takes an int of 0 or more")
        require("inductor", self.inductor, Mapping, "a mapping of config names")
        if not isinstance(self.device, str) or not self.device:
            raise OptionsError(f"device: got {self.device!r}, takes a name such as 'cpu'")
        if self.debug_dir is not None and Path(path_of("debug_dir", self.debug_dir)).is_file():
            raise OptionsError(f"debug_dir: {self.debug_dir} is a file, takes a folder")
        jobs = self.jobs
        count = isinstance(jobs, int) and not isinstance(jobs, bool) and jobs >= 1
        if not (jobs is None or jobs == "ray" or count):
            raise OptionsError(f"jobs: got {jobs!r}, takes an int of 1 or more, or 'ray'")
        if self.on_event is not None and not callable(self.on_event):
            raise OptionsError(f"on_event: got {self.on_event!r}, takes a function of an event")

    @property
    def targets(self) -> tuple[TargetName, ...]:
        """The processors that the program is built for, the best first."""
        return self._requested_targets()

    def _requested_targets(self) -> tuple[TargetName, ...]:
        given: Any = self.target
        targets = given if isinstance(given, list | tuple) else (given,)
        for target in targets:
            require_one_of("target", target, TargetName)
        if not targets or len(set(targets)) < len(targets):
            raise OptionsError(
                f"target: got {given!r}, takes one of {get_args(TargetName)}, or different ones"
            )
        return best_first(targets)
