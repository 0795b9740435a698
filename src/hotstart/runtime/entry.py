"""Generate the function a program is called through.

It has the parameters of the model's forward, so that Python itself binds the arguments; it checks
them against the contract, picks the variant, and calls it. Whatever does not fit goes to `miss`
with everything the call passed; nothing has run by then. Where an argument was copied into the
compiled layout and is written to, the entry copies it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import msgspec
import torch

from hotstart import _torch
from hotstart.records.artifact import Contract, TensorSpec
from hotstart.records.shapes import Variant
from hotstart.runtime.checks import Checks
from hotstart.runtime.names import written_tuple
from hotstart.runtime.signature import Signature


class Hooks(msgspec.Struct, frozen=True):
    """What an entry calls.

    Attributes:
        model: the model, for its `training` flag.
        bound: gives the functions of all variants of all calls.
        relayout: gives a tensor in the compiled layout; takes its order of dimensions and its path.
    """

    model: Any
    bound: Callable[[], Sequence[Callable[..., Any]]]
    relayout: Callable[[torch.Tensor, Sequence[int], str], torch.Tensor]


class Entry:
    """The source of an entry, and the objects it refers to.

    Attributes:
        source: defines `call`.
        objects: those objects, by name, all but the one that is given calls that do not fit.
        miss: the name of that one.
        checks: the checks of a call, which tell as well why it is not taken.
    """

    def __init__(
        self, contract: Contract, variants: Sequence[Variant], hooks: Hooks, first: int
    ) -> None:
        """`first` is the number of the first variant's function among those `hooks.bound` gives."""
        self._contract = contract
        self._hooks = hooks
        signature = Signature(contract.parameters)
        self._scope = signature.scope
        self.checks = Checks(contract, variants, hooks.model, signature)
        self.miss = self._scope.new("miss")
        self._refuse = f"return {self.miss}({signature.everything})"
        lines = [*signature.pops, *self._check()]
        if len(variants) == 1 and not variants[0].where:
            lines += self._run(str(first))
        else:
            chosen = self._scope.new("chosen")
            lines += [*self._choose(variants, first, chosen), *self._run(chosen)]
        body = "\n".join(f"    {line}" for line in lines)
        self.source = f"def call({signature.source}):\n{body}\n"
        self.objects = self._scope.objects

    def _check(self) -> Iterator[str]:
        for kind, steps in groupby(self.checks.steps, type):
            sources = [step if isinstance(step, str) else step.source for step in steps]
            if kind is str:
                yield from sources
            else:
                first, *others = sources
                yield from ("if not (", f"    {first}", *(f"    and {c}" for c in others), "):")
                yield f"    {self._refuse}"

    def _choose(self, variants: Sequence[Variant], first: int, chosen: str) -> Iterator[str]:
        """Choose the most specific variant that serves the call: sizes come after ranges."""
        word = "if"
        for index, variant in reversed([*enumerate(variants)]):
            yield f"{word} {self.checks.sizes.serves(variant)}:"
            yield f"    {chosen} = {first + index}"
            word = "elif"
        yield from ("else:", f"    {self._refuse}")

    def _copy(self, spec: TensorSpec, name: str) -> Iterator[str]:
        """Copy a tensor whose layout is not the compiled one; cheap where it is."""
        if not spec.shape or spec.layout != "copied":
            return
        if spec.dim_order == tuple(range(len(spec.shape))):
            test = f"not {name}.is_contiguous()"
        elif spec.dim_order == (0, 2, 3, 1):
            channels_last = self._scope.of_torch(torch.channels_last)
            test = f"not {name}.is_contiguous(memory_format={channels_last})"
        else:
            test = f"{name}.stride() != {self._strides(spec)}"
        relayout = self._scope.refer("relayout", self._hooks.relayout)
        yield f"if {test}:"
        yield f"    {name} = {relayout}({name}, {spec.dim_order!r}, {spec.path!r})"

    def _strides(self, spec: TensorSpec) -> str:
        """The strides of a tensor without gaps in the compiled order of dimensions."""
        strides = [""] * len(spec.shape)
        known, factors = 1, ""
        for dim in reversed(spec.dim_order):
            strides[dim] = f"{known}{factors}" if known != 1 or not factors else factors[3:]
            size = spec.shape[dim]
            if isinstance(size, int):
                known *= size
            else:
                factors += f" * {self.checks.sizes.variables[size]}"
        return written_tuple(strides)

    def _run(self, chosen: str) -> Iterator[str]:
        """Call the variant's function without autograd, and write back what it changed."""
        new, contract, tensors = self._scope.new, self._contract, self.checks.tensors
        # Further names for tensors, which go on standing for what the caller passed.
        given = [(new(f"{tensors[n]}_as_given"), tensors[n]) for n in contract.given]
        written = [(new(f"{tensors[n]}_written"), tensors[n]) for n in contract.mutated_args]
        yield from (f"{kept} = {tensor}" for kept, tensor in (*given, *written))
        for spec, name in zip(contract.tensors, tensors, strict=True):
            yield from self._copy(spec, name)
        axes = [self.checks.sizes.variables[dim.name] for dim in contract.axes]
        objects = [self.checks.containers[number][1] for number in contract.objects]
        arguments = ", ".join([*axes, *tensors, *(kept for kept, _ in given), *objects])
        function, result = new("run"), new("result")
        answer = [f"return {function}({arguments})"]
        if written:
            answer = [f"{result} = {function}({arguments})"]
            for kept, tensor in written:
                answer += [f"if {tensor} is not {kept}:", f"    {kept}.copy_({tensor})"]
            answer.append(f"return {result}")
        answer = [f"    {line}" for line in answer]
        enabled = self._scope.refer("is_grad_enabled", torch.is_grad_enabled)
        enable = self._scope.refer("set_grad_enabled", _torch.set_grad_enabled())
        yield f"{function} = {self._scope.refer('bound', self._hooks.bound)}()[{chosen}]"
        yield from (f"if not {enabled}():", *answer, f"{enable}(False)")
        yield from ("try:", *answer, "finally:", f"    {enable}(True)")
