"""A compiled model that can be called."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import torch

from hotstart.errors import ArtifactError, ContractError, HotstartError, ModelMismatch
from hotstart.events import Clock, Listener
from hotstart.misses import Misses, OnMiss
from hotstart.model import Model
from hotstart.records.artifact import Artifact
from hotstart.records.layout import fit, strides_fit
from hotstart.records.report import Report, Summary
from hotstart.records.shapes import dense_strides
from hotstart.runtime.base_program import BaseProgram
from hotstart.runtime.bind import Binding
from hotstart.runtime.code.unit_functions import Forms
from hotstart.runtime.entry.generated_entry import Entry
from hotstart.runtime.entry.tensor_arguments import TensorArguments
from hotstart.runtime.heap import trim_heap

if TYPE_CHECKING:
    from hotstart.records.details import Details
    from hotstart.reporting.document import Document
    from hotstart.saving.examples import Example

log = logging.getLogger(__name__)


class Targets(msgspec.Struct, frozen=True):
    """The processors that a program was built for, where there are several.

    Attributes:
        names: all of them, the best first; none where there is but one.
        others: returns the artifacts for those that the program at hand is not for.
    """

    names: Sequence[str] = ()
    others: Callable[[], Sequence[Artifact]] = tuple


ONE_TARGET = Targets()


class Program(BaseProgram):
    """A model compiled for inference. Call it as the model is called.

    A program computes without autograd: its results never require grad, whatever the inputs.
    It uses the model's own tensors, and notices when they are replaced; or those of a checkpoint.
    Calls are thread-safe and re-entrant. Made by `hotstart.compile` and `hotstart.load`.

    Where several calls were compiled, `program(...)` runs the first of the model's own whose
    contract takes the arguments, and `program["name"](...)` runs the one of that name.

    Attributes:
        model: the model whose weights it runs with; None where it was loaded with `weights`.
        artifact: everything it is made of, as data; where it was built for several targets, for
            the one of them that it runs.
        examples: the calls it was compiled for, by name, for the check at save; none where it was
            loaded.
    """

    __module__ = "hotstart"  # where users find it

    def __init__(
        self,
        artifact: Artifact,
        model: Model | None,
        binding: Binding,
        made: Summary,
        clock: Clock,
        on_miss: OnMiss,
        examples: Mapping[str, Sequence[Example]] | None = None,
        targets: Targets = ONE_TARGET,
        details: Details | None = None,
    ) -> None:
        super().__init__(artifact)
        self.model = model
        self._made = made
        self._clock = clock
        self.examples = examples or {}
        self._targets = targets
        self._details = details
        self._misses = Misses(on_miss, self)
        self._binding = binding
        arguments = TensorArguments(model, self._relayout)
        for call, first, meets in self._calls():
            meeting = binding.meeting if meets else None
            self._add(Entry(call, first, arguments, binding, meeting))
        self._call = self._function(self._own)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the model.

        Raises:
            ContractError: the call is outside the contract and `on_miss` is `"error"`.
            ModelMismatch: the model's tensors do not fit what was compiled.
        """
        return self._call(*args, **kwargs)

    def save(
        self,
        file: str | os.PathLike[str],
        *,
        sign_key: str | os.PathLike[str] | None = None,
        check: bool = True,
        check_inputs: Any = None,
        on_event: Listener | None = None,
    ) -> None:
        """Write everything but the weights to one file, which `hotstart.load` starts from.

        Tensors of the model that no checkpoint holds are written, too: buffers that are not
        persistent, and plain attributes. What was built for several targets is written for all of
        them, also by a program that was loaded, as long as its file is there.

        The file is written under another name first and then renamed: there is the old one or the
        new one, never half of it.

        Args:
            file: path of the artifact, by custom ending in `.hot`.
            sign_key: file of a private key, as `hotstart keygen` makes; the artifact is signed.
            check: run every piece from the file in a process of its own and compare the results
                with this program's, bit by bit, else within a tolerance. Takes some seconds.
            check_inputs: arguments to check with, `(args, kwargs)`, or a list of such pairs, for
                models that do not take any values; by name where calls have names. Without, the
                values of the example are used, if it had any, and made-up ones.
            on_event: called with a `hotstart.events.Event` of the check, also by another thread.

        Raises:
            ArtifactError: the program holds something that cannot be said as data, the comparison
                failed, it runs on no inputs that were found, or the file cannot be written.
            ContractError: `check_inputs` are outside the contract.
            OptionsError: `check_inputs` are no arguments, or for a call that there is not; or this
                machine cannot run, so not check, the code for a target.
        """
        from hotstart.artifact import disk
        from hotstart.artifact.signing import signer
        from hotstart.saving import (  # a program that only runs never needs it
            CheckInputs,
            checked_parts,
        )
        from hotstart.saving.check_inputs import given_examples
        from hotstart.saving.left_out import with_left_out

        sign = None if sign_key is None else signer(sign_key)
        source = self._binding.source
        examples = {**self.examples, **given_examples(self._entries, check_inputs, check)}
        wanted = CheckInputs(source, examples, listener=on_event) if check else None
        artifacts = [with_left_out(each, source) for each in self.artifacts()]
        disk.write(file, checked_parts(*artifacts, sign=sign, check=wanted))

    def artifacts(self) -> list[Artifact]:
        """List what it is made of for each target that it was built for, the best first.

        Raises:
            ArtifactError: it was loaded, and its file is not there any more.
        """
        by_name = {each.fingerprint["target"]: each for each in self._targets.others()}
        if not by_name:
            return [self.artifact]
        by_name[self.artifact.fingerprint["target"]] = self.artifact
        return [by_name[name] for name in self._targets.names]

    def save_weights(self, file: str | os.PathLike[str]) -> None:
        """Write the weights as this program uses them, for `hotstart.load(..., weights=file)`.

        That is what packing makes of weights, and those that are read as they are. A load maps the
        file and packs nothing, and processes on a machine share its pages. It is for this program,
        this version of torch and this kind of processor; a load that it does not fit refuses it.
        Weights of which only the packed form is read are not in it as they were.

        The file is written under another name first and then renamed. No call may change weights
        meanwhile.

        Args:
            file: path of the file, by custom ending in `.weights`.

        Raises:
            ArtifactError: a weight is not in the memory of the CPU, or the file cannot be written.
            ModelMismatch: the model's tensors do not fit what was compiled.
        """
        from hotstart.artifact import disk
        from hotstart.saving.prepared_file import prepared_weights

        left_out = {one.slot for one in self._binding.source.left_out()}
        found = self._binding.packable()
        disk.write(file, prepared_weights(self.artifact, found, left_out))

    @property
    def report(self) -> Report:
        """The record of what was compiled, reused, loaded and made of weights, with times."""
        target = self.artifact.fingerprint["target"] if self._targets.names else ""
        return Report.of(self._made, self._clock, self._binding.packed, target, self._targets.names)

    def document(self, file: str | os.PathLike[str] | None = None) -> Document:
        """Describe how it was made and what is in it, as one record.

        `hotstart.reporting` writes it as JSON, as text and as a page; where the program was built,
        it has the operators, lines and kernels of every piece, which an artifact does not hold.

        Args:
            file: the artifact that it was saved in; the document is shown for that file then.

        Raises:
            ArtifactError: the program holds something that cannot be said as data, or the file
                cannot be read.
        """
        from hotstart.reporting import document

        if file is None:
            shown = document.document_of_artifact(self.artifact)
        else:
            shown = document.document_of_file(file, self.artifact.fingerprint.get("target"))
        kind: document.Kind = "build" if self.examples else "load"
        return document.with_times(shown, kind, self.report, self._details, self.relayouts)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A program is neither copied nor pickled.

        Raises:
            ArtifactError: always; it says how to get another program.
        """
        raise ArtifactError(
            "expected a program to be saved, found an attempt to copy or pickle it. Call "
            "program.save(file), and hotstart.load(file, model) with the model or the copy of it "
            "that the other program is to run with, here or in another process."
        )

    def refresh(self) -> None:
        """Compare the model and all else that was read with what was compiled, and fetch weights.

        Calls notice nearly every change by themselves; `docs/artifact.md` lists those they do not.

        Raises:
            ModelMismatch: with everything that is not what was compiled.
            ContractError: a module is in another mode, training or evaluation, than at the build.
        """
        self._binding.refresh()

    def release_unpacked(self) -> int:
        """Free the model's copies of weights that this program has packed and reads nowhere else.

        The model can be called only through programs then: what asks for the values of such a
        weight is a `ModelMismatch` that says so. `load_state_dict(..., assign=True)` gives the
        model weights again. Weights that were left unpacked (`hotstart.load(pack="never")`, or
        `"background"` before it is done) stay.

        Returns:
            How many bytes were given back, as far as nobody else holds the tensors.

        Raises:
            ModelMismatch: the model's tensors do not fit what was compiled.
        """
        freed = self._binding.release()
        trim_heap()
        return freed

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The tensors it runs with now, by the model's names; those that calls write to, too.

        Nothing is compared. Those that the model does not have (any more) are left out. Where only
        what was packed of a weight is left, a stand-in of its shape is in its place: to ask for its
        values is a `ModelMismatch`.
        """
        specs = self.artifact.requirements.weights
        values = zip(specs, self._binding.source.values(), strict=True)
        return {spec.name: value for spec, value in values if isinstance(value, torch.Tensor)}

    def in_forms(self, forms: Forms) -> Program:
        """The same program on the same weights, whose variants run in other forms, to measure them.

        Calls outside the contract are errors.
        """
        binding = self._binding.in_forms(self.artifact, forms)
        return Program(self.artifact, self.model, binding, self._made, self._clock, OnMiss())

    def __repr__(self) -> str:
        model = self.model
        name = type(model).__name__ if isinstance(model, torch.nn.Module) else repr(model)
        name = "without a model" if model is None else name
        return f"Program({name}, inference only, {self._summary()})"

    # --- what the entry calls ---------------------------------------------------------------------

    def _relayout(self, tensor: torch.Tensor, dim_order: Sequence[int], path: str) -> torch.Tensor:
        """Copy an argument into the compiled layout; counted, and logged once for each argument."""
        strides = dense_strides(tensor.shape, dim_order)
        if tensor.stride() == strides:
            return tensor
        if not strides_fit(tensor, strides):
            self._count_copy(path, tensor.stride())
        return fit(tensor.detach(), strides)

    # --- calls that do not fit --------------------------------------------------------------------

    def _missed(
        self, error: ContractError, entry: Entry, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return self._misses.refused(error, entry, args, kwargs)

    def _function(self, entries: Sequence[Entry]) -> Callable[..., Any]:
        return self._misses.standing_in(super()._function(entries), entries)

    def misfit(self) -> HotstartError | None:
        """Say why the model is not what was compiled; None if it is."""
        try:
            self._binding()
        except (ContractError, ModelMismatch) as error:
            return error
        return None
