"""Check the arguments of `compile`, `load` and `compute_key`, and pass them on."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from hotstart import telemetry
from hotstart.calls import Call, LearntCalls, requested_calls
from hotstart.errors import OptionsError
from hotstart.events import Clock
from hotstart.faults import require, require_one_of
from hotstart.options import MissPolicy, Options, Outputs, Pack

if TYPE_CHECKING:
    import torch

    from hotstart.cache.store import Store
    from hotstart.model import Model
    from hotstart.observing.missed import MissedCalls
    from hotstart.program import Program
    from hotstart.records.guards import ProgramKey
    from hotstart.specialize.piece_store import PieceStore
    from hotstart.targets import TargetName

log = logging.getLogger("hotstart")

Weights: TypeAlias = "str | os.PathLike[str] | Mapping[str, torch.Tensor]"
"""A checkpoint, as a file or folder or in memory."""


def compile(
    model: Callable[..., Any] | LearntCalls,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Mapping[str, Any] | None = None,
    calls: Mapping[str, Call] | LearntCalls | None = None,
    split_on: Any = "auto",
    options: Options | None = None,
    cache: str | os.PathLike[str] | Store | None = None,
) -> Program:
    """Compile a model for inference, ahead of time, for every size that is declared.

    Args:
        model: a module, which may be on the meta device, or a function; or the calls of one that
            `hotstart.observe` recorded, in place of `args`, `kwargs`, `dynamic_shapes` and `calls`.
        args: positional example inputs: real, fake or meta tensors, and whatever else a call
            passes. Contents of tensors do not matter. What is no tensor becomes part of the
            contract as it is.
        kwargs: keyword example inputs.
        dynamic_shapes: by name of forward's parameter, a mapping from dimension to `hotstart.Dim`
            (or `torch.export.Dim`); nested for arguments that are containers. Dimensions of the
            same name always have the same size. All others are static.
        calls: several ways to call the model, by name, each with its own example, in place of
            `args`, `kwargs` and `dynamic_shapes`. A call of the program runs the first whose
            contract takes it. What `hotstart.observe` recorded of a model of this structure
            proposes them itself.
        split_on: where the graph is cut. `"auto"` cuts at repeated blocks, such as transformer
            layers; a list of operators, by name or the operators themselves, cuts at those; a list
            with `"auto"` in it does both.
        options: see `hotstart.Options`.
        cache: a folder, the URL of a remote or a `hotstart.Store` where programs are kept. What was
            compiled before, by any process, is loaded from there if nothing that it was compiled
            for has changed. A store says what happens where nothing is found or it fails.

    Returns:
        A program that gives the same results as the model, without autograd.

    Raises:
        CaptureError: the model cannot be captured as one graph.
        RangeError: the model or the compiler decides by size in more ways than
            `options.splits` allows for, or works for some of the declared sizes only.
        PartitionError: the graph cannot be cut as asked.
        CompileError: a piece does not compile.
        OptionsError: an argument makes no sense.
        StoreError: the cache does not have what it must have, or cannot be used and has to be.

    Examples:
        >>> model = torch.nn.Linear(64, 8).eval()
        >>> batch = hotstart.Dim("batch", max=128)
        >>> example = (torch.zeros(4, 64),)
        >>> program = hotstart.compile(model, example, dynamic_shapes={"input": {0: batch}})
        >>> program(torch.zeros(100, 64)).shape
        torch.Size([100, 8])
    """
    options = _checked(options)
    only = Call(args=args, kwargs=kwargs, dynamic_shapes=dynamic_shapes)
    if isinstance(model, LearntCalls):
        if only != Call() or calls is not None:
            raise OptionsError(
                "model: got calls that were observed, and args, kwargs, dynamic_shapes or calls "
                "besides. Pass the model and calls={**observed.propose(), ...}."
            )
        learnt: Program = model.compile_observed(split_on=split_on, options=options, cache=cache)
        return learnt
    if isinstance(calls, LearntCalls):
        proposed = calls.propose(device=options.device)
        with calls.surroundings(model):
            program = _compile(model, requested_calls(only, proposed), split_on, options, cache)
        calls.require_served(program)
        return program
    return _compile(model, requested_calls(only, calls), split_on, options, cache)


def _compile(
    model: Model,
    wanted: Mapping[str, Call],
    split_on: Any,
    options: Options,
    cache: str | os.PathLike[str] | Store | None,
) -> Program:
    """Compile a model for calls by name, or find what was compiled before."""
    clock = Clock(options.on_event)
    with telemetry.traced("hotstart.compile", clock):
        return _found_or_compiled(model, wanted, split_on, options, cache, clock)


def _found_or_compiled(
    model: Model,
    wanted: Mapping[str, Call],
    split_on: Any,
    options: Options,
    cache: str | os.PathLike[str] | Store | None,
    clock: Clock,
) -> Program:
    with clock.phase("import"):
        from hotstart.capture.described import describe_calls
        from hotstart.misses import OnMiss
    with clock.phase("describe"):
        described = describe_calls(model, wanted, options)

    here = replace(options, target=options.targets[0])  # it is not saved
    compile_one = functools.partial(compile, split_on=split_on, options=here)
    on_miss = OnMiss(options.on_miss, _compiles_missed(compile_one))

    def build(kept: Mapping[TargetName, PieceStore]) -> Program:
        with clock.phase("import"):
            # Not needed where the program is found, and it takes its time.
            from hotstart.build import build_program

        program = build_program(model, described, split_on, options, on_miss, kept, clock)
        for action, count in Counter(unit.action for unit in program.report.units).items():
            telemetry.count("hotstart.units", count, action=action)
        return program

    if cache is None:
        return build({})

    with clock.phase("import"):
        from hotstart.cache.find_or_build import find_or_build
        from hotstart.cache.program_key import make_key
        from hotstart.cache.store import open_store
        from hotstart.guards.objects import Unknowable
    with clock.phase("find"):
        store = open_store(cache)
    try:
        with clock.phase("key"):
            key = make_key(model, described, split_on, options, store.extra_key)
    except Unknowable as error:
        if store.policy == "require" or store.folder.strict:
            raise
        log.warning("compiling without the cache, which cannot tell this model: %s", error)
        return build({})
    return find_or_build(store, key, model, build, on_miss, options.targets, clock)


def _compiles_missed(compile_one: Callable[..., Program]) -> Callable[..., Program]:
    """Make a function that compiles missed calls, for ranges of what varied among them."""

    @functools.cache
    def missed() -> MissedCalls:
        # Not needed where no call is missed, and it takes its time.
        from hotstart.observing.missed import MissedCalls

        return MissedCalls(compile_one)

    return lambda method, args, kwargs: missed().compile(method, args, kwargs)


def load(
    file: str | os.PathLike[str],
    model: Callable[..., Any] | None = None,
    *,
    weights: Weights | Sequence[Weights] | None = None,
    outputs: Outputs = "auto",
    trusted_keys: Sequence[str | os.PathLike[str] | bytes] | None = None,
    compare_source: bool = True,
    on_miss: MissPolicy = "error",
    pack: Pack = "now",
    groups: Mapping[str, Any] | None = None,
) -> Program:
    """Make a program from a file that `Program.save` wrote, with the weights of a model or file.

    Nothing is traced or compiled, and nothing is written. Everything is verified before anything is
    executed, but a file that verifies is code: load only what you trust, or give keys. Of a file
    with several targets the best is taken that this machine runs; `program.report.target` says
    which.

    Args:
        file: the artifact.
        model: a module or function of the structure the artifact was built from; any checkpoint.
        weights: in place of a model: a `.safetensors` file, the index of several, a file of a state
            dict (`.pt`, `.bin`), a folder with one of them, or a mapping of names to tensors; what
            `Program.save_weights` wrote, which is packed already, or `[that, the original]`, of
            which the original is used where that is not there or does not fit.
            Nothing of the model's is imported. Files are mapped, not read; nothing is written to
            them, and nobody else may: replace files, don't overwrite them.
        outputs: the classes of results: the model's `"own"`, which are imported; `"plain"` ones
            with the same fields; `"auto"`: its own where there is a model, or their module is
            imported already, else plain ones.
        trusted_keys: public keys, as files, as text or as 32 raw bytes. If given, the file must be
            signed by one of them.
        compare_source: whether functions that were traced must be what they were at the build;
            with `weights`, those whose files are found here.
        on_miss: as in `hotstart.Options`; with `weights`, `"error"`.
        pack: when weights are packed: `"now"`, before this returns; by the `"first_call"`; in the
            `"background"`, while calls run with weights as they are, and switch between two calls;
            `"never"`, which still joins the weights of linears that share an input, before this
            returns. Results differ by rounding between packed weights and others.
        groups: of a program of several processes, the groups of `torch.distributed` that it talks
            in, by the names that errors give: a `ProcessGroup`, a `DeviceMesh` of one dimension, or
            the name of a group. Those that the model holds are found there, and the group of all
            processes is `torch.distributed.group.WORLD`; others have to be given.

    Returns:
        A program that behaves as the one that was saved.

    Raises:
        ArtifactError: the file cannot be read, or needs code that is not there.
        CorruptArtifact: it is damaged, or no artifact.
        IncompatibleArtifact: it does not fit this machine, these versions or these sources; or
            prepared weights do not fit it.
        UntrustedArtifact: keys were given, and none of them signed it.
        ModelMismatch: the model's tensors, modules, hooks or operators are not those it was built
            for; or the checkpoint's tensors are not.
        GroupMismatch: a group of processes is missing, or of another size; or the program is for
            another rank.
        OptionsError: not exactly one of `model` and `weights` is given, or an argument makes no
            sense.

    Examples:
        >>> model = torch.nn.Linear(64, 8).eval()
        >>> hotstart.compile(model, (torch.zeros(4, 64),)).save("model.hot")
        >>> program = hotstart.load("model.hot", model)
        >>> program(torch.zeros(4, 64)).shape
        torch.Size([4, 8])
    """
    _require_model_or_weights(model, weights, on_miss)
    require_one_of("outputs", outputs, Outputs)
    require_one_of("on_miss", on_miss, MissPolicy)
    require_one_of("pack", pack, Pack)
    if groups is not None:
        require("groups", groups, Mapping, "a mapping of names to groups")
    clock = Clock()
    with telemetry.traced("hotstart.load", clock):
        program: Any = None
        # Other settings need torch, or are refused by the load with torch.
        usual = outputs != "own" and pack != "never" and not groups
        if usual and weights is not None and "torch" not in sys.modules:
            from hotstart.torchfree.start import load as load_without_torch

            program = load_without_torch(
                file, weights, outputs, trusted_keys, compare_source, clock
            )
        if program is None:
            with clock.phase("import"):
                from hotstart.artifact.signing import truster
                from hotstart.loading import load_file
                from hotstart.misses import OnMiss

            program = load_file(
                file,
                model,
                OnMiss(on_miss, _compiles_missed(compile)),
                weights=weights,
                outputs=outputs,
                trust=truster(trusted_keys),
                compare_source=compare_source,
                pack=pack,
                groups=groups,
                clock=clock,
            )
    telemetry.record_seconds("hotstart.load.duration", clock.wall_s())
    return cast("Program", program)


def _require_model_or_weights(model: Any, weights: Any, on_miss: MissPolicy) -> None:
    """Raise unless a load is given a model, or weights and no policy that needs a model."""
    if (model is None) == (weights is None):
        got = "neither" if model is None else "both"
        raise OptionsError(
            f"model, weights: got {got}, takes one of them: load(file, model) runs with the "
            "weights of a model, load(file, weights=...) with those of a checkpoint, without one"
        )
    if isinstance(model, str | os.PathLike | Mapping):
        raise OptionsError(
            f"model: got a {type(model).__qualname__}, takes a module or function. Pass a "
            "checkpoint as weights=..."
        )
    if weights is not None and on_miss != "error":
        raise OptionsError(
            f"on_miss: got {on_miss!r} with weights, takes 'error': there is no model to run or to "
            "compile"
        )


def _checked(options: Options | None) -> Options:
    if options is None:
        return Options()
    require("options", options, Options, "a hotstart.Options")
    return options


def compute_key(
    model: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Mapping[str, Any] | None = None,
    calls: Mapping[str, Call] | LearntCalls | None = None,
    split_on: Any = "auto",
    options: Options | None = None,
    extra_key: str = "",
) -> ProgramKey:
    """Compute the key under which a cache keeps the program of the same arguments.

    Arguments are those of `hotstart.compile`; `extra_key` is that of the `hotstart.Store`. Nothing
    is traced. `hotstart.Store.probe` lists the programs of a key.

    Raises:
        CaptureError, OptionsError: an example call does not fit the model.
        StoreError: the model holds an object that cannot be described for a key.
    """
    from hotstart.cache.program_key import make_key
    from hotstart.capture.described import describe_calls

    require("extra_key", extra_key, str, "a str")
    options = _checked(options)
    only = Call(args=args, kwargs=kwargs, dynamic_shapes=dynamic_shapes)
    around: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if isinstance(calls, LearntCalls):
        around, calls = calls.surroundings(model), calls.propose(device=options.device)
    wanted = requested_calls(only, calls)
    with around:
        return make_key(model, describe_calls(model, wanted, options), split_on, options, extra_key)
