"""Calls that `hotstart.observe` recorded, with what to build for them."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from hotstart.calls import Call, LearntCalls
from hotstart.dtypes import dtype_of
from hotstart.errors import OptionsError, RangeError
from hotstart.faults import require
from hotstart.model import Model
from hotstart.observing.axes import relations
from hotstart.observing.bounds import Bounds
from hotstart.observing.propose import propose
from hotstart.observing.recorder import Recorder
from hotstart.observing.seen import SeenTarget
from hotstart.observing.table import table

if TYPE_CHECKING:
    from hotstart.program import Program

Compile: TypeAlias = "Callable[..., Program]"
"""`hotstart.compile`."""


class ObservedCalls(LearntCalls):
    """Calls of a module or method, or of several by name, and the contract they propose.

    Made by `hotstart.observe` and by `ObservedCalls.load`. It holds no tensors. `str` of it says
    what was passed, which sizes varied, and what would be compiled.
    """

    __module__ = "hotstart"  # where users find it

    def __init__(
        self,
        seen: Mapping[str, SeenTarget],
        models: Mapping[str, Model] | None = None,
        recorders: Mapping[str, Recorder] | None = None,
        compile: Compile | None = None,
    ) -> None:
        self._kept = dict(seen)
        self._compile = compile
        self._models = dict(models or {})
        self._recorders = dict(recorders or {})
        self._bounds = Bounds()
        self._dynamic_shapes: Mapping[str, Any] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of what was observed; one empty name for a module that was given alone."""
        return tuple(self._seen)

    @property
    def model(self) -> Model:
        """The module or method that was observed.

        Raises:
            OptionsError: there are several, or the calls come from a file.
        """
        name, _ = self._only()
        if name not in self._models:
            raise OptionsError(
                "model: got calls from a file, which knows no model; pass it: "
                "hotstart.compile(model, calls=calls)"
            )
        return self._models[name]

    def __getitem__(self, name: str) -> ObservedCalls:
        """The calls of one of several."""
        if name not in self._seen:
            raise OptionsError(
                f"calls: got name {name!r}, takes one of {', '.join(map(repr, self.names))}"
            )
        one = copy.copy(self)
        for part in ("_kept", "_models", "_recorders"):
            setattr(one, part, {n: each for n, each in getattr(self, part).items() if n == name})
        return one

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the axes that are proposed.

        Raises:
            OptionsError: as `propose`.
        """
        _, target = self._only()
        proposals = propose(target, Bounds(), self._dynamic_shapes).values()
        return tuple(dict.fromkeys(axis.name for each in proposals for axis in each.axes))

    def __len__(self) -> int:
        """Count the calls that were seen, of all that was observed."""
        return sum(call.count for target in self._seen.values() for call in target.calls)

    def __str__(self) -> str:
        """Show what was seen and what would be compiled, as a table."""
        given = self._bounds, self._dynamic_shapes
        return "\n\n".join(table(name, target, *given) for name, target in self._seen.items())

    def within(
        self,
        *,
        min: Mapping[str, int] | None = None,
        max: Mapping[str, int] | None = None,
        exact: Collection[str] = (),
        multiples: Mapping[str, int] | None = None,
        follow: Collection[str] = (),
        dynamic_shapes: Mapping[str, Any] | None = None,
    ) -> ObservedCalls:
        """The same calls with other bounds, for `hotstart.compile` and `compile_submodule`.

        Args:
            min: the smallest size of axes, by name, in place of what was seen, rounded.
            max: the largest size of axes.
            exact: axes that get no range: each combination of their sizes that was seen is a call.
            multiples: axes whose sizes are all multiples of a number, with that number.
            follow: axes that followed from others in every call, as the table shows: they take
                what follows from these, and no range of their own.
            dynamic_shapes: what is dynamic of some parameters, as in `hotstart.compile`, in place
                of what was learnt. Others share these axes where they had the same sizes.

        Raises:
            OptionsError: an argument is of another type. That it does not fit what was seen shows
                in `propose`.
        """
        numbers = {"min": min, "max": max, "multiples": multiples}
        for name, given in {**numbers, "dynamic_shapes": dynamic_shapes}.items():
            require(name, given or {}, Mapping, "a mapping by name")
        for axis, factor in (multiples or {}).items():
            if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
                raise OptionsError(
                    f"multiples: got {factor!r} for {axis!r}, takes an int of 1 or more"
                )
        for name, names in (("exact", exact), ("follow", follow)):
            if isinstance(names, str):
                raise OptionsError(
                    f"{name}: got {names!r}, takes several names, such as ({names!r},)"
                )
        other = copy.copy(self)
        other._bounds = Bounds(min or {}, max or {}, exact, multiples or {}, follow)
        other._dynamic_shapes = dynamic_shapes or {}
        return other

    def compile(
        self,
        *,
        min: Mapping[str, int] | None = None,
        max: Mapping[str, int] | None = None,
        exact: Collection[str] = (),
        multiples: Mapping[str, int] | None = None,
        follow: Collection[str] = (),
        dynamic_shapes: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Program:
        """Compile what was observed, within bounds: `hotstart.compile(calls.within(...))`.

        Args:
            min: as in `within`.
            max: as in `within`.
            exact: as in `within`.
            multiples: as in `within`.
            follow: as in `within`.
            dynamic_shapes: as in `within`.
            settings: `split_on`, `options` and `cache`, as in `hotstart.compile`.

        Raises:
            OptionsError: as in `propose`; or the calls come from a file, or of several modules.
            HotstartError: as `hotstart.compile`.
        """
        bounded = self.within(
            min=min,
            max=max,
            exact=exact,
            multiples=multiples,
            follow=follow,
            dynamic_shapes=dynamic_shapes,
        )
        return bounded.compile_observed(**settings)

    def compile_observed(self, **settings: Any) -> Program:
        """Compile what was observed; settings as of `hotstart.compile`."""
        model = self.model
        assert self._compile is not None, "calls of a model are observed, by `hotstart.observe`"
        return self._compile(model, calls=self, **settings)

    def propose(self, *, device: str = "cpu") -> dict[str, Call]:
        """The calls to compile by name, to be mixed with others in `hotstart.compile(calls=...)`.

        Args:
            device: that of the build, as in `hotstart.Options`.

        Raises:
            OptionsError: nothing was seen, or what was seen differs in too many ways or cannot be
                described, or bounds do not fit it.
        """
        _, target = self._only()
        made = propose(target, self._bounds, self._dynamic_shapes)
        return {name: each.call(torch.device(device)) for name, each in made.items()}

    @contextlib.contextmanager
    def surroundings(self, model: Model) -> Iterator[None]:
        """Be in the state that the calls were made in, for a build.

        Raises:
            OptionsError: they were made in several, or the model is in another mode now.
        """
        _, target = self._only()
        if any(recorder.recording for recorder in self._recorders.values()):
            raise OptionsError(
                f"{target.about}: expected calls that are no longer observed, found that they are. "
                "Compile after the `with` block."
            )
        modes = {call.training for call in target.calls}
        regions = {call.autocast for call in target.calls}
        owner = getattr(model, "__self__", model)
        if isinstance(owner, torch.nn.Module) and modes not in ({owner.training}, {None}):
            seen = " and ".join(sorted("training" if mode else "eval" for mode in modes))
            now = "training" if owner.training else "eval"
            raise OptionsError(
                f"{target.about}: expected the mode that it was observed in, {seen}, found {now}. "
                "Call model.eval() before, and observe it again."
            )
        if len(regions) > 1:
            raise OptionsError(
                f"{target.about}: expected calls of one kind, found some inside and some outside "
                "of an autocast region. Observe them apart, and compile each."
            )
        with contextlib.ExitStack() as stack:
            for kind, dtype in next(iter(regions), ()):
                stack.enter_context(torch.autocast(kind, dtype_of(dtype)))
            try:
                yield
            except RangeError as error:
                for name, size in sorted(self._relations()):
                    error.add_note(
                        f"In every call that was observed, {name} == {size}: "
                        f"compile(follow=[{name!r}]) takes only such calls."
                    )
                raise

    def require_served(self, program: Program) -> None:
        """Raise if forward reads the layout of an argument that was seen in several.

        Raises:
            OptionsError: it does, so the program takes one of them only.
        """
        _, target = self._only()
        contracts = (call.contract for call in program.artifact.calls)
        read = {
            (spec.path, len(spec.shape)): spec.dim_order
            for contract in contracts
            for spec in contract.tensors
            if spec.layout != "copied"
        }
        for spec in (spec for call in target.calls for spec in call.tensors):
            order = read.get((spec.path, len(spec.shape)), spec.dim_order)
            if order != spec.dim_order:
                raise OptionsError(
                    f"{spec.path}: expected one layout in all calls, since forward reads strides, "
                    f"found dimensions in the order {order} and {spec.dim_order}. Pass "
                    ".contiguous(), or compile calls of either layout apart."
                )

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write what was seen as JSON, for `ObservedCalls.load` and `hotstart build --calls`.

        Raises:
            OptionsError: a call passed something that a file cannot say.
            ArtifactError: the file cannot be written.
        """
        from hotstart.observing.file import write

        write(file, self._seen)

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> ObservedCalls:
        """Read what `save` wrote. Nothing is imported or executed.

        Raises:
            ArtifactError: the file cannot be read, or is none, or its classes are not imported.
        """
        from hotstart.observing.file import read

        return cls(read(file))

    def _relations(self) -> set[tuple[str, str]]:
        _, target = self._only()
        made = propose(target, self._bounds, self._dynamic_shapes).values()
        found = (relations(each.axes).items() for each in made)
        return {(name, str(size)) for each in found for name, size in each}

    @property
    def _seen(self) -> dict[str, SeenTarget]:
        return self._kept | {name: each.seen() for name, each in self._recorders.items()}

    def _only(self) -> tuple[str, SeenTarget]:
        if len(self._seen) != 1:
            raise OptionsError(
                f"calls: expected those of one module, found {', '.join(map(repr, self.names))}. "
                f"Take them one by one, as calls[{self.names[0]!r}]."
            )
        return next(iter(self._seen.items()))
