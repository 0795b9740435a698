"""Calls of a model with fake tensors as arguments: see `FakeArguments`."""

from __future__ import annotations

import contextlib
import gc
import logging
import random
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from hotstart._torch.dynamo.fake_arguments import FakeArguments, Fakes, Step, fakes_of, has_memory
from hotstart.dtypes import dtype_of
from hotstart.first_call.model_state import ModelState
from hotstart.model import Model, roots
from hotstart.records.contract import Parameter, TensorSpec
from hotstart.records.dims import Dim
from hotstart.records.passing import passed
from hotstart.records.shapes import dense_strides
from hotstart.records.trees import build

log = logging.getLogger("hotstart")


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


@dataclass(frozen=True)
class Ran:
    """A call that was made; equal to others that computed the same.

    Attributes:
        steps: what it computed of its arguments, and returned.
        drew: whether it drew random numbers, for what does not depend on arguments.
        wrote: whether it wrote to memory that was there before, which was put back.
    """

    steps: list[Step]
    drew: bool = field(compare=False)
    wrote: bool = field(compare=False)

    @property
    def only_computes(self) -> bool:
        """Tell whether it neither drew nor wrote."""
        return not (self.drew or self.wrote)


class FakeCalls:
    """Makes calls of a model with fake arguments, in which weights are known by their memory."""

    def __init__(self, model: Model) -> None:
        self._weights = [tensor for tensor in tensors_of(model) if has_memory(tensor)]
        self._made: list[FakeArguments] = []
        self._fakes: Fakes | None = None  # knows the fakes of weights, for calls after one another

    def compare_by_value(self, replaced: Container[int]) -> None:
        """Know some tensors, by identity, by their values from now on, as calls replace them."""
        self._weights = [tensor for tensor in self._weights if id(tensor) not in replaced]

    def outlived(self) -> bool:
        """Tell whether anything keeps a tensor that has no values, besides garbage."""
        if any(each.outlived() for each in self._made):
            self._fakes = None
            gc.collect()  # in a process with many objects it takes seconds
        self._made = [each for each in self._made if each.outlived()]
        return bool(self._made)

    def make_in(self, state: ModelState, call: FirstCall, sizes: Mapping[str, int]) -> Ran | None:
        """Make a call in a state, which the model is put back into; None if it fails."""
        try:
            return self.make(call, sizes)
        finally:
            state.put_back()

    def make(self, call: FirstCall, sizes: Mapping[str, int]) -> Ran | None:
        """Make a call, with values of weights put back; None if it fails."""
        self._fakes = self._fakes or fakes_of(self._weights)
        mode = FakeArguments(self._fakes, self._weights)
        self._made.append(mode)
        try:
            with _undisturbed():
                before = _generators()
                call.make(mode, sizes)
                return Ran(mode.steps, _generators() != before, mode.wrote())
        except Exception as error:  # noqa: BLE001  of the model, or of torch with fake tensors
            log.debug("a call with fake tensors of sizes %s fails: %r", dict(sizes), error)
            return None
        finally:
            mode.finish()


def tensors_of(model: Model) -> list[torch.Tensor]:
    """The parameters and buffers of a model."""
    return [t for m in roots(model).values() for t in (*m.parameters(), *m.buffers())]


def _generators() -> tuple[object, ...]:
    """The states of the generators of random numbers that code draws from by default."""
    numpy = sys.modules.get("numpy")
    by_numpy = numpy and [repr(each) for each in numpy.random.get_state()]
    return torch.get_rng_state().tolist(), random.getstate(), by_numpy


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
