"""Compile calls that a program did not take, for ranges of the sizes that varied among them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hotstart.errors import HotstartError
from hotstart.model import Model
from hotstart.observing.axes import relations
from hotstart.observing.bounds import Bounds
from hotstart.observing.propose import propose
from hotstart.observing.recorder import described
from hotstart.observing.seen import SeenCall, SeenTarget

if TYPE_CHECKING:
    from hotstart.program import Program

log = logging.getLogger("hotstart.program")


class MissedCalls:
    """The calls that a program did not take, and how they are compiled.

    The first of a form is compiled for its sizes. With the next, sizes that varied become ranges,
    as they do for observed calls; so axes that grow need few programs. Where the model does not
    serve such ranges, sizes that followed from others so far follow from these; where it does not
    serve that, calls of this form are compiled for their sizes alone.

    Args:
        compile_call: compiles as `hotstart.compile` does.
    """

    def __init__(self, compile_call: Callable[..., Program]) -> None:
        self._compile = compile_call
        self._seen: dict[object, dict[object, SeenCall]] = {}
        self._of_single_sizes: set[object] = set()

    def compile(self, method: Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
        """Compile a call of a model or of one of its methods.

        Raises:
            HotstartError: as `hotstart.compile`.
        """
        found = described(method, args, kwargs)
        if not isinstance(found, str):
            key, call = found
            form = (_code(method), call.form, call.training, call.autocast)
            seen = self._seen.setdefault(form, {})
            program = self._compiled(form, {**seen, key: call}, call, method, args, kwargs)
            seen[key] = call  # the model takes it
            return program
        return self._compile(method, args, kwargs)

    def _compiled(
        self,
        form: object,
        seen: Mapping[object, SeenCall],
        call: SeenCall,
        method: Model,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Program:
        """Compile a call of a form, of which these were seen, for ranges or for its sizes alone."""
        failed: HotstartError | None = None
        for shapes in () if form in self._of_single_sizes else _ranges(call, list(seen.values())):
            try:
                return self._compile(method, args, kwargs, dynamic_shapes=shapes)
            except HotstartError as error:
                failed = failed or error
        program = self._compile(method, args, kwargs)
        if failed is not None:
            log.warning("compiles calls that are missed for their sizes alone: %s", failed)
            self._of_single_sizes.add(form)
        return program


def _code(method: Model) -> object:
    """Identify the code of a method; that of a module is its class."""
    if inspect.ismethod(method):
        return method.__func__
    return method if inspect.isfunction(method) else type(method)


def _ranges(call: SeenCall, seen: list[SeenCall]) -> Iterator[dict[str, Any]]:
    """List dynamic sizes of a call among others of its form, as `hotstart.compile` takes them."""
    target = SeenTarget("", tuple(seen))
    made = propose(target, Bounds(), {}).values()
    follow = {name for each in made for name in relations(each.axes)}
    for bounds in (Bounds(), Bounds(follow=follow)) if follow else (Bounds(),):
        for proposal in propose(target, bounds, {}).values():
            shapes = proposal.dynamic_shapes() if call in proposal.seen else None
            if shapes:
                yield shapes
