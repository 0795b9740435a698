"""The functions of a program's variants, bound to the weights they run on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import msgspec
import torch

from hotstart.options import Outputs, Pack
from hotstart.records.artifact import Artifact, Preparation, Stitched, WeightSpec
from hotstart.records.report import Packed
from hotstart.runtime.bind_groups import Groups
from hotstart.runtime.code.generated import run_code
from hotstart.runtime.code.unit_functions import Form, Forms
from hotstart.runtime.heap import keep_freed_memory
from hotstart.runtime.results import result_classes
from hotstart.runtime.shared_memory import WeightsInMemory
from hotstart.runtime.tensors import TensorMemory
from hotstart.runtime.weights.preparations import Prepared
from hotstart.runtime.weights.released import Released, memory_in_use
from hotstart.runtime.weights.weight_source import Fetched, Source

Run = Callable[..., Any]
Binder = Callable[[list[torch.Tensor], Prepared], Run]

log = logging.getLogger("hotstart")


class _Bound(msgspec.Struct, frozen=True):
    """Functions with the weights they run on.

    Attributes:
        fetched: the weights.
        current: whether they are the weights still, and hold what they held.
        runs: the functions, by variant.
        memory: where the weights lie.
    """

    fetched: Fetched
    current: Callable[[], bool]
    runs: tuple[Run, ...]
    memory: WeightsInMemory


class Packable(msgspec.Struct, frozen=True):
    """Weights with what packing makes of them.

    Attributes:
        tensors: the weights, by slot.
        prepared: what was made of them.
        in_use: addresses of the storages that functions read.
    """

    tensors: list[torch.Tensor]
    prepared: Prepared
    in_use: set[int]


def bind(
    artifact: Artifact,
    source: Source,
    pack: Pack = "first_call",
    outputs: Outputs = "own",
    prepared: Prepared | None = None,
    groups: Groups | None = None,
) -> Binding:
    """Make the functions of an artifact's variants callable with weights.

    Args:
        artifact: what to bind.
        source: gives the weights.
        pack: when weights are packed.
        outputs: the classes of results.
        prepared: what was made of the weights before.
        groups: finds groups of processes; none are given if it is left out.
    """
    groups = Groups(artifact.requirements) if groups is None else groups
    binders = _binders(artifact, Forms(artifact), source, outputs, groups)
    return Binding(source, artifact.requirements.weights, binders, pack, groups, prepared)


class Binding:
    """Hands out the variants' functions, bound to the weights that there are now.

    Binding is lazy, so that a program can be built for a model that has no weights yet. Functions
    are replaced all at once: a call that is under way keeps those it started with.

    Attributes:
        source: gives the weights.
    """

    def __init__(
        self,
        source: Source,
        specs: Sequence[WeightSpec],
        binders: Sequence[Binder],
        pack: Pack,
        groups: Groups,
        prepared: Prepared | None = None,
    ) -> None:
        self.source = source
        self._specs = specs
        self._binders = binders
        self._pack = pack
        self._groups = groups
        self._lock = threading.Lock()
        self._bound: _Bound | None = None
        self._prepared = prepared
        self._fetched: Fetched | None = None  # compared, and not bound yet

    def __call__(self) -> tuple[Run, ...]:
        """The functions, by variant.

        Raises:
            ModelMismatch: the model is not what was compiled.
        """
        bound = self._bound
        if bound is not None and bound.current():
            return bound.runs
        return self._bind().runs

    def meeting(
        self, arguments: Sequence[torch.Tensor], written: Collection[int]
    ) -> tuple[int, str] | None:
        """An argument and a weight that share memory which a call writes to, as `Meeting` says.

        The weights are those that functions were handed out for last.

        Raises:
            ModelMismatch: the model is not what was compiled.
        """
        bound = self._bound or self._bind()
        return bound.memory.meeting(arguments, written)

    def in_forms(self, artifact: Artifact, forms: Forms) -> Binding:
        """Bind the same weights to functions of other forms; what was packed of them is shared."""
        binders = _binders(artifact, forms, self.source, "auto", self._groups)
        return Binding(self.source, self._specs, binders, self._pack, self._groups, self._prepared)

    def begin(self) -> None:
        """See that the model fits, and pack its weights unless that is for the first call to do.

        Raises:
            ModelMismatch: the model is not what was compiled.
            GroupMismatch: the processes are not those that it was compiled for.
            OptionsError: a group was given that the program does not have.
        """
        self._groups.names()
        if self._pack == "first_call":
            self._fetched = self.source.fetch()
        else:
            self()

    def refresh(self) -> None:
        """Compare everything anew, also what calls do not look at, and prepare weights again.

        Raises:
            ModelMismatch: the model is not what was compiled.
        """
        with self._lock:
            self._bound = self._fetched = None
            self._prepared = None if self._prepared is None else self._prepared.of_released()
            self.source.forget()
        self()

    def release(self) -> int:
        """Free the model's copies of weights that packed ones stand for; the bytes of these.

        Raises:
            ModelMismatch: the model is not what was compiled.
        """
        self()
        with self._lock:
            bound, prepared = self._bound, self._prepared
            if bound is None or prepared is None or not bound.current():
                return 0  # another thread has changed the model
            self._bound = None
            unread = prepared.memory() - memory_in_use(bound.runs)
            stand_ins, freed = self.source.release(unread)
            self._prepared = prepared.released(stand_ins)  # also if the model no longer fits now
            self._rebind(self._prepared)
            return freed

    def packable(self) -> Packable:
        """Return the weights as they are now, and pack those that are not, for somebody else.

        Raises:
            ModelMismatch: the model is not what was compiled.
        """
        with self._lock:
            fetched = self.source.fetch()
            prepared = Prepared(True, fetched.counters, self._prepared)
            runs = tuple(bind(fetched.tensors, prepared) for bind in self._binders)
            return Packable(fetched.tensors, prepared, memory_in_use(runs))

    @property
    def packed(self) -> Packed:
        """The record of what was made of weights; empty as long as none were fetched."""
        prepared = self._prepared
        return Packed() if prepared is None else prepared.packed()

    def _bind(self) -> _Bound:
        with self._lock:
            bound = self._bound
            if bound is not None and bound.current():
                return bound  # another thread was faster
            # Forgotten first, so that nothing keeps weights alive that the model has replaced.
            self._bound = None
            bound = self._rebind(self._prepared)
        if self._pack == "background" and not _any_released(bound.fetched):
            # No daemon: a process that ends while C++ code runs in one is aborted.
            threading.Thread(target=self._pack_later, args=(bound,), name="hotstart-pack").start()
        return bound

    def _rebind(self, before: Prepared | None) -> _Bound:
        fetched, self._fetched = self._fetched, None
        if fetched is None or not fetched.current():
            fetched = self.source.fetch()
        packs = self._pack in ("now", "first_call")
        if before is not None and _any_released(fetched):
            packs = before.packs  # what was made of these weights cannot be made in another way
        prepared = Prepared(packs, fetched.counters, before)
        self._bound, self._prepared = self._with(fetched, prepared), prepared
        return self._bound

    def _with(self, fetched: Fetched, prepared: Prepared) -> _Bound:
        runs = tuple(bind(fetched.tensors, prepared) for bind in self._binders)
        prepared.finish()
        keep_freed_memory()  # that of calls, which come now, and not what packing was done in
        current = prepared.watching(fetched.current) if fetched.written else fetched.current
        memory = WeightsInMemory(TensorMemory(), self._specs, fetched.tensors)
        return _Bound(fetched, current, runs, memory)

    def _pack_later(self, unpacked: _Bound) -> None:
        """Pack weights while calls go on without, then let calls use them, if none has changed."""
        prepared = _PreparedMeanwhile(True, unpacked.fetched.counters)
        try:
            bound = self._with(unpacked.fetched, prepared)
        except _EndingError:
            return
        except Exception as error:  # noqa: BLE001  such as a lack of memory; calls go on without
            log.warning("weights stay as they are, since they cannot be packed: %r", error)
            return
        with self._lock:
            if self._bound is unpacked and unpacked.current():
                self._bound, self._prepared = bound, prepared


def _any_released(fetched: Fetched) -> bool:
    return any(type(tensor) is Released for tensor in fetched.tensors)


class _EndingError(Exception):
    """The process is about to end."""


class _PreparedMeanwhile(Prepared):
    """Makes what preparations make until the main thread has ended, so that nobody waits long."""

    def __call__(
        self, preparation: Preparation, weights: Sequence[torch.Tensor]
    ) -> Sequence[torch.Tensor | None]:
        """Prepare weights.

        Raises:
            _EndingError: nobody needs it any more.
        """
        if not threading.main_thread().is_alive():
            raise _EndingError
        return super().__call__(preparation, weights)


def _binders(
    artifact: Artifact, forms: Forms, source: Source, outputs: Outputs, groups: Groups
) -> tuple[Binder, ...]:
    stitched = (stitched for call in artifact.calls for stitched in call.stitched)
    return tuple(
        _binder(one, forms.of(number, one), source, outputs, groups)
        for number, one in enumerate(stitched)
    )


def _binder(
    stitched: Stitched, form: Form, source: Source, outputs: Outputs, groups: Groups
) -> Binder:
    make = run_code(form.code, {**form.scope, **result_classes(stitched.types, outputs)})["bind"]

    def rebind(tensors: list[Any], prepared: Prepared) -> Callable[..., Any]:
        owners = source.owners(stitched.owners)
        weights = [tensors[slot] for slot in stitched.weights]
        units = [partial(unit.bound, prepared) for unit in form.units]
        run: Callable[..., Any] = make(weights, units, groups.constants(stitched.constants), owners)
        return run

    return rebind
