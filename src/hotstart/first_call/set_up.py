"""Call a model once before it is traced or bound, where that sets up what later calls find.

The call is made with fake tensors as arguments: see `FakeArguments`. What it writes to tensors that
were there is undone, and so is all of it where anything that it leaves depends on arguments.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from hotstart._torch.dynamo.fake_arguments import FakeArguments, Fakes, Step, fakes_of, has_memory
from hotstart.dtypes import dtype_of
from hotstart.first_call.caches import Caches
from hotstart.first_call.model_state import ModelState
from hotstart.model import Model, roots
from hotstart.records.contract import Parameter, TensorSpec
from hotstart.records.dims import Dim
from hotstart.records.passing import passed
from hotstart.records.shapes import dense_strides
from hotstart.records.trees import build

log = logging.getLogger("hotstart")

_NAMED = 3
"""How many of the attributes that a first call sets are named in the log."""


@dataclass(frozen=True)
class FirstCall:
    """A call to make.

    Attributes:
        target: what is called.
        parameters: of its forward.
        tensors: the tensor arguments.
        axes: the dynamic dimensions.
        sizes: a size for each axis that the model certainly takes; the largest ones are tried
            first, so that tables that grow by size are large enough.
        by_position: how many arguments are passed by position.
    """

    target: Model
    parameters: Sequence[Parameter]
    tensors: Sequence[TensorSpec]
    axes: Sequence[Dim]
    sizes: Mapping[str, int]
    by_position: int = 0

    def at_largest(self) -> Mapping[str, int]:
        """The largest size of each axis."""
        return {dim.name: dim.max for dim in self.axes}

    def at_given(self) -> Mapping[str, int]:
        """Sizes that the model certainly takes."""
        return self.sizes

    def smallest(self) -> Mapping[str, int]:
        """The smallest size of each axis."""
        return {dim.name: dim.min for dim in self.axes}

    def make(self, mode: FakeArguments, sizes: Mapping[str, int]) -> None:
        """Call the model at some sizes; whatever the model raises is passed on."""
        tensors = [_argument(mode, spec, sizes) for spec in self.tensors]
        values = [build(p.tree, lambda slot: tensors[slot.index]) for p in self.parameters]
        args, kwargs = passed(self.parameters, values, self.by_position)
        mode.run(lambda: self.target(*args, **kwargs))


class SetUp:
    """A model after its first call.

    Attributes:
        changed: the names of what the call set.
    """

    def __init__(self, state: ModelState, changed: Sequence[str]) -> None:
        self._state = state
        self.changed = tuple(changed)

    @contextlib.contextmanager
    def or_undone(self) -> Iterator[None]:
        """Put the model back into its state before the call if what is inside raises."""
        done = False
        try:
            yield
            done = True
        finally:
            if not done:
                self._state.put_back()

    def overwrote(self, module: torch.nn.Module, name: str) -> bool:
        """Tell whether the call set an attribute of a module to another number or text."""
        return self._state.overwritten(module, name)

    def tell(self, done: str) -> None:
        """Tell the user what was called, and why."""
        more = len(self.changed) - _NAMED
        log.info(
            "the model was called once before it was %s, since its first call sets %s%s",
            done,
            ", ".join(self.changed[:_NAMED]),
            f" and {more} more" if more > 0 else "",
        )


def set_up(model: Model, calls: Sequence[FirstCall]) -> SetUp | None:
    """Make the first calls of a model, in order, if they set up what later ones find.

    Returns:
        What they changed; None if they fail, change nothing, leave anything that was computed of an
        argument, or compute something else than later calls: the model is as before then.
    """
    try:
        return _set_up(model, calls)
    except Exception as error:  # noqa: BLE001  whoever asks has an error already, and a better one
        log.debug("the first call cannot be made: %r", error)
        return None


def _set_up(model: Model, calls: Sequence[FirstCall]) -> SetUp | None:
    state, caches, runs = ModelState(model), Caches(), _Runs(model)
    for sizes_of in (FirstCall.at_largest, FirstCall.at_given):
        kept = False
        try:
            kept = runs.set_up(calls, sizes_of, state)
        finally:
            if not kept:
                state.put_back()
                caches.forget_new()
        if kept:
            changed = state.changed()
            return SetUp(state, changed) if changed else None
    if runs.outlived():
        log.warning(
            "the model was called once to be compiled, and something keeps a tensor of that call "
            "that has no values. If calls of the model fail by it, start the process anew, and "
            "call the model once before it is compiled."
        )
    return None


class _Runs:
    """Calls of a model with fake arguments."""

    def __init__(self, model: Model) -> None:
        self._model = model
        tensors = (t for m in roots(model).values() for t in (*m.parameters(), *m.buffers()))
        self._weights = [tensor for tensor in tensors if has_memory(tensor)]
        self._made: list[FakeArguments] = []

    def set_up(
        self,
        calls: Sequence[FirstCall],
        sizes_of: Callable[[FirstCall], Mapping[str, int]],
        state: ModelState,
    ) -> bool:
        """Make the calls; tell whether what they leave can stay.

        Every call computes the same after them as before, at these sizes and the smallest ones.
        """
        fakes = fakes_of(self._weights)
        sizes = [sizes_of(call) for call in calls]
        first = [self._run(fakes, call, at) for call, at in zip(calls, sizes, strict=True)]
        if not all(first):
            return False
        if not state.changed():
            return not self.outlived()
        now = ModelState(self._model)
        state.put_back()
        others = [
            (call, other)
            for number, (call, at) in enumerate(zip(calls, sizes, strict=True))
            for other in (call.smallest(), at)
            if other != at or number  # the first call of all found the state that was before
        ]
        before = [self._steps(fakes, state, call, at) for call, at in others]
        now.put_back()
        after = [self._steps(fakes, now, call, at) for call, at in others]
        later = [self._steps(fakes, now, *each) for each in zip(calls, sizes, strict=True)]
        del fakes
        return before == after and first == later and not self.outlived()

    def outlived(self) -> bool:
        """Tell whether anything keeps a tensor that has no values, besides garbage."""
        if any(each.outlived() for each in self._made):
            gc.collect()  # in a process with many objects it takes seconds
        return any(each.outlived() for each in self._made)

    def _steps(
        self, fakes: Fakes, state: ModelState, call: FirstCall, sizes: Mapping[str, int]
    ) -> list[Step] | None:
        """List what a call computes in a state, which it is put back into; None if it fails."""
        try:
            return self._run(fakes, call, sizes)
        finally:
            state.put_back()

    def _run(self, fakes: Fakes, call: FirstCall, sizes: Mapping[str, int]) -> list[Step] | None:
        """Make a call, with values of weights put back; what it computes, or None if it fails."""
        mode = FakeArguments(fakes, self._weights)
        self._made.append(mode)
        try:
            with _undisturbed():
                call.make(mode, sizes)
            return mode.steps
        except Exception as error:  # noqa: BLE001  of the model, or of torch with fake tensors
            log.debug("a call with fake tensors of sizes %s fails: %r", dict(sizes), error)
            return None
        finally:
            mode.finish()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Run code without autograd and compilers, and draw no random number from anybody."""
    numpy = sys.modules.get("numpy")
    drawn, drawn_by_numpy = random.getstate(), numpy and numpy.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    eager = contextlib.nullcontext()
    if "torch._dynamo" in sys.modules:  # else nothing is compiled
        eager = torch.compiler.set_stance("force_eager")
    try:
        with torch.random.fork_rng(devices), torch.inference_mode(False), torch.no_grad(), eager:
            yield
    finally:
        random.setstate(drawn)
        if numpy is not None:
            numpy.random.set_state(drawn_by_numpy)


def _argument(mode: FakeArguments, spec: TensorSpec, sizes: Mapping[str, int]) -> torch.Tensor:
    shape = spec.shape_at(sizes)
    strides = dense_strides(shape, spec.dim_order)
    return mode.argument(shape, strides, dtype=dtype_of(spec.dtype), device=spec.device)
