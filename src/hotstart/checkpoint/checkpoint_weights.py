"""The weights of a program that has no model: those of a checkpoint, which it holds itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch

from hotstart._torch.running.modes import apart
from hotstart.checkpoint.matching import match, near
from hotstart.checkpoint.tensors import Checkpoint
from hotstart.dtypes import dtype_of
from hotstart.errors import ModelMismatch
from hotstart.guards.structure import Look, operator_misfits
from hotstart.guards.wrapping import wrapping_changes
from hotstart.records.artifact import Artifact, TakenApart, WeightSpec
from hotstart.records.guards import Change
from hotstart.records.layout import fit
from hotstart.records.standalone import LeftOut
from hotstart.runtime.entry.refusal_words import to_convert
from hotstart.runtime.tensors import TensorMemory, describe_tensor
from hotstart.runtime.weights.model_weights import COUNTER, other_dtypes, problems_of
from hotstart.runtime.weights.owners import HeldTensors
from hotstart.runtime.weights.released import Released
from hotstart.runtime.weights.weight_source import Fetched

_ADVICE = (
    "Use a checkpoint of the model that was compiled, or pass its tensors by these names as a "
    "mapping."
)
_NOT_HELD = (
    "nothing. The file does not hold what checkpoints leave out, as files of caches and of older "
    "versions do not: load it with a model, and save the program"
)
_NOT_SAVED = (
    "nothing, since no checkpoint has it, and it had no value when the program was saved. Save the "
    "program while its model has weights, or load it with a model"
)


class HeldWeights(HeldTensors):
    """The tensors of a checkpoint, and those that the artifact brings: a `Source`.

    They belong to the program: calls write to them, and nothing else does, unless the checkpoint
    is a mapping of the caller's.

    Args:
        artifact: says which tensors are needed.
        checkpoint: has them.
    """

    def __init__(self, artifact: Artifact, checkpoint: Checkpoint) -> None:
        super().__init__(artifact.requirements.weights, checkpoint.where)
        self._requirements = artifact.requirements
        self._apart = {
            name: one for one in artifact.requirements.taken_apart for name in (one.name, *one.ties)
        }
        self._naming = artifact.naming
        self._captured = dict(artifact.captured)
        self._knows_left_out = artifact.left_out is not None
        self._slots_left_out = [one.slot for one in artifact.left_out or ()]
        self._left_out = {
            one.slot: one.tensor
            for one in artifact.left_out or ()
            if not self._brings(checkpoint, self._specs[one.slot])
        }
        self._checkpoint = checkpoint
        self._names: dict[int, str] = {}  # of those that come from the checkpoint
        written = any(spec.mutated for spec in self._specs)
        self._written = written or checkpoint.shared

    def fetch(self) -> Fetched:
        """Return the tensors; those of the checkpoint are looked up once.

        Raises:
            ModelMismatch: tensors that are missing, ambiguous or do not fit, each named; operators
                that are not those of the build.
            ArtifactError: a file of the checkpoint cannot be read.
        """
        if not self.tensors:
            # Calls in any mode write to them, whatever mode this is called in.
            with torch.inference_mode(False), apart():
                self.tensors = self._found()
        changes, tensors = self.changes, list(self.tensors)
        problems = [
            problem
            for spec, tensor in zip(self._specs, tensors, strict=True)
            if spec.kind != "captured"
            for problem in problems_of(spec, tensor)
        ] or TensorMemory().misplaced(self._specs, tensors)
        if problems:
            raise ModelMismatch(problems, self._about)
        return Fetched(
            tensors, lambda: self.changes == changes, self._counters(tensors), self._written
        )

    def forget(self) -> None:
        """Do nothing: nobody else has these tensors, and the file is as it was when mapped."""

    def release(self, memory: Collection[int]) -> tuple[dict[int, torch.Tensor], int]:
        """Replace tensors of the checkpoint by stand-ins, as `Source` says."""
        stand_ins: dict[int, torch.Tensor] = {}
        freed: dict[int, int] = {}
        for slot, name in self._names.items():
            tensor = self.tensors[slot]
            if slot in self._slots_left_out:
                continue  # saved with the program
            if type(tensor) is Released or tensor.untyped_storage().data_ptr() not in memory:
                continue
            freed[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            path = self._specs[slot].name
            stand_ins[id(tensor)] = self.tensors[slot] = Released.of(tensor, path)
            self._checkpoint.discard(name)
        return stand_ins, sum(freed.values())

    def values(self) -> Sequence[Any]:
        """List the tensors as they are now, by slot; who has them may write to them."""
        with self._setting:
            if not self._written:
                self._written = True
                self.changes += 1  # so that the next call looks if they were written to
        return self.tensors

    def left_out(self) -> list[LeftOut]:
        """List the tensors that came with the artifact, as they are now."""
        return [LeftOut(slot, self.tensors[slot]) for slot in self._slots_left_out]

    # --- the checkpoint ---------------------------------------------------------------------------

    def _found(self) -> list[Any]:
        """Look up all tensors.

        Raises:
            ModelMismatch: as `fetch`.
        """
        specs = self._specs
        wanted = {
            slot: spec
            for slot, spec in enumerate(specs)
            if spec.kind != "captured" and slot not in self._left_out
        }
        names = self._matched(wanted)
        taken = {name for found in names.values() for name in found}
        problems: list[Change] = []
        tensors: list[Any] = []
        for slot, spec in enumerate(specs):
            if spec.kind == "captured":
                tensors.append(self._captured[slot])
            elif slot in self._left_out:
                tensors.append(_own(spec, self._left_out[slot]))
                if self._left_out[slot] is None:
                    problems.append((spec.name, _described(spec), _NOT_SAVED))
            elif not names[slot]:
                tensors.append(None)
                problems.append((spec.name, _described(spec), self._nothing(spec, taken)))
            else:
                problems += self._untied(spec, names[slot])
                tensor = self._checkpoint.tensor(names[slot][0])
                self._names[slot] = names[slot][0]
                if type(tensor) is Released:
                    tensors.append(tensor)
                    continue
                misfit = _misfit(spec, names[slot][0], tensor)
                shared = self._checkpoint.shared
                tensors.append(tensor if misfit else _fitted(spec, tensor, shared))
                problems += misfit
        problems += self._other_wrappings()
        problems += operator_misfits(self._requirements, Look())
        if problems:
            advice = to_convert(other_dtypes(specs, tensors)) or _ADVICE
            if wanted and not taken:
                advice = f"None of its names is one that the program needs. {_ADVICE}"
            raise ModelMismatch(problems, self._about, advice)
        return tensors

    def _matched(self, wanted: Mapping[int, WeightSpec]) -> Mapping[int, Sequence[str]]:
        """Find the names that the checkpoint has for some tensors, by slot."""
        there = self._checkpoint.names()
        if not self._checkpoint.whole:
            return match(wanted, there, self._naming)
        return {slot: [spec.name] if spec.name in there else [] for slot, spec in wanted.items()}

    @staticmethod
    def _brings(checkpoint: Checkpoint, spec: WeightSpec) -> bool:
        """Tell whether a checkpoint has a tensor that checkpoints leave out."""
        return checkpoint.whole and spec.name in checkpoint.names()

    def _nothing(self, spec: WeightSpec, taken: Collection[str]) -> str:
        """Say what a checkpoint has in place of a tensor."""
        if spec.kind != "parameter" and not self._knows_left_out:
            return _NOT_HELD
        similar = near(spec, self._checkpoint, taken)
        return f"nothing of that name; near: {', '.join(similar)}" if similar else "nothing"

    def _untied(self, spec: WeightSpec, names: Sequence[str]) -> list[Change]:
        """List names of one tied weight under which a checkpoint has another tensor."""
        first, *others = names
        return [
            (spec.name, f"one tensor, which {first} and {other} share", "two that differ")
            for other in others
            if not self._checkpoint.same(first, other)
            and not _equal(self._checkpoint.tensor(first), self._checkpoint.tensor(other))
        ]

    def _other_wrappings(self) -> Iterator[Change]:
        """Compare the tensors of subclasses that a checkpoint has with those of the build."""
        met: set[int] = set()
        for slot in self._names:
            for one, tensor, _ in self._whole(slot):
                if id(tensor) not in met:
                    met.add(id(tensor))
                    expected = self._requirements.wrappings[one.wrapping]
                    yield from wrapping_changes(one.name, expected, tensor)

    def _whole(self, slot: int) -> Iterator[tuple[TakenApart, torch.Tensor, list[str]]]:
        """Find the tensor of a subclass that an inner tensor of the checkpoint is of.

        Gives what the build says of it, the tensor, and the attributes that lead to the inner one.
        """
        for name in (self._specs[slot].name, *self._specs[slot].ties):
            outer = name
            while outer := outer.rpartition(".")[0]:
                if outer not in self._apart:
                    continue
                rest = name.removeprefix(outer)
                tensor = self._checkpoint.taken_apart(self._names[slot].removesuffix(rest))
                if tensor is not None:
                    yield self._apart[outer], tensor, rest.split(".")[1:]

    def _counters(self, tensors: Sequence[torch.Tensor]) -> Mapping[int, Sequence[torch.Tensor]]:
        found: dict[int, list[torch.Tensor]] = {}
        for slot, spec in enumerate(self._specs):
            counting = found.setdefault(id(tensors[slot]), [])
            beside = f"{spec.name.rpartition('.')[0]}.{COUNTER}".lstrip(".")
            if spec.kind == "buffer" and beside in self._slots:
                counting.append(tensors[self._slots[beside]])
            for _, tensor, path in self._whole(slot) if slot in self._names else ():
                for attribute in path:
                    counting.append(tensor)
                    tensor = getattr(tensor, attribute)
        return found


def _fitted(spec: WeightSpec, tensor: torch.Tensor, shared: bool) -> torch.Tensor:
    """A tensor on the device and in the layout of the build, and the program's own if need be."""
    return _laid_out(spec, tensor, spec.mutated and shared)


def _own(spec: WeightSpec, tensor: Any) -> Any:
    """A tensor of the artifact, in memory that only this slot has, where calls write to it.

    Equal tensors are in the artifact once.
    """
    return None if tensor is None else _laid_out(spec, tensor, spec.mutated)


def _laid_out(spec: WeightSpec, tensor: torch.Tensor, apart: bool) -> torch.Tensor:
    """A tensor on the device and in the layout of the build; in other memory if it has to be."""
    made = fit(tensor.to(spec.device), spec.stride)
    if not apart or made.data_ptr() != tensor.data_ptr():
        return made
    own = torch.empty_strided(made.shape, made.stride(), dtype=made.dtype, device=made.device)
    return own.copy_(made)


def _misfit(spec: WeightSpec, name: str, tensor: torch.Tensor) -> list[Change]:
    """Say why a tensor of a checkpoint is not the one that is needed."""
    where = spec.name if name == spec.name else f"{spec.name} ({name} in the checkpoint)"
    if tuple(tensor.shape) != spec.shape or tensor.layout is not torch.strided:
        return [(where, _described(spec), describe_tensor(tensor))]
    if tensor.dtype != dtype_of(spec.dtype):
        return [(where, _described(spec), describe_tensor(tensor))]
    if tensor.device.type == "meta":
        return [(where, _described(spec), f"{describe_tensor(tensor)}, which has no values")]
    return []


def _described(spec: WeightSpec) -> str:
    return f"torch.{spec.dtype} {list(spec.shape)}"


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Compare two tensors bit by bit."""
    if one.dtype != other.dtype or one.shape != other.shape or one.device != other.device:
        return False
    bits = (t.contiguous().view(-1).view(torch.uint8) for t in (one, other))
    return torch.equal(*bits)
