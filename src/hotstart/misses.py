"""Answer calls that a program does not take, as `Options.on_miss` says."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import torch

from hotstart import telemetry
from hotstart.errors import ContractError, HotstartError
from hotstart.model import Model, method_of
from hotstart.runtime.entry.generated_entry import Entry

if TYPE_CHECKING:
    from hotstart.options import MissPolicy

log = logging.getLogger("hotstart.program")


class AnswersCalls(Protocol):
    """The part of a program that misses need: their own, and those compiled for them.

    Attributes:
        model: the program's model; None if it has none, and a miss is an error.
    """

    model: Model | None

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the model."""
        ...

    def takes(self, /, *args: Any, **kwargs: Any) -> bool:
        """Tell whether a call is within the contract."""
        ...

    def misfit(self) -> HotstartError | None:
        """Say why the model is not what was compiled; None if it is."""
        ...


class OnMiss(msgspec.Struct, frozen=True):
    """The answer to calls outside the contract.

    Attributes:
        policy: `"error"`, `"eager"` or `"compile"`.
        build: builds a program for a model or one of its methods and the arguments of a call;
            `"compile"` needs it.
    """

    policy: MissPolicy = "error"
    build: Callable[[Model, tuple[Any, ...], dict[str, Any]], AnswersCalls] | None = None


class Misses:
    """Answers the calls that a program does not take.

    Args:
        on_miss: how.
        program: whose calls they are.

    Attributes:
        compiled: the programs that were compiled in calls, by method of the model.
    """

    def __init__(self, on_miss: OnMiss, program: AnswersCalls) -> None:
        self._on_miss = on_miss
        self._program = program
        self.compiled: dict[str, list[AnswersCalls]] = {}
        self._outgrown = False  # whether a miss has changed what the program reads
        self._compiling = threading.Lock()

    def refused(
        self, error: ContractError, entry: Entry, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Answer a call outside the contract.

        Raises:
            ContractError: with the argument, what the call passed and what the program takes.
        """
        telemetry.count("hotstart.calls.outside_contract", policy=self._on_miss.policy)
        if self._on_miss.policy == "error":
            raise error
        log.info("answers by on_miss=%r, since %s", self._on_miss.policy, error)
        return self._answer(error, entry, args, kwargs)

    def standing_in(
        self, function: Callable[..., Any], entries: Sequence[Entry]
    ) -> Callable[..., Any]:
        """Make a function that answers calls where the model is not what was compiled.

        That is where an earlier miss has changed it, since eager would go on with what that call
        left in the model, and where a module is in another mode.

        Args:
            function: answers all other calls.
            entries: those that it tries.
        """
        if self._on_miss.policy == "error" or not entries:
            return function

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._outgrown and (misfit := self._program.misfit()) is not None:
                return self._answer(misfit, entries[-1], args, kwargs)
            try:
                return function(*args, **kwargs)
            except ContractError as error:
                if not error.of_mode:
                    raise
                return self._answer(error, entries[-1], args, kwargs)

        return call

    def _answer(
        self, why: HotstartError, entry: Entry, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Answer a call by the model itself or by another program."""
        model = self._program.model  # which may have been put in place of another by now
        assert model is not None, "nothing else than an error is asked for without a model"
        fitted = self._program.misfit() is None
        method = method_of(model, entry.call.method)
        if self._on_miss.policy == "eager":
            with torch.no_grad():
                result = method(*args, **kwargs)
        else:
            result = self._compiled_for(why, entry, method, args, kwargs)(*args, **kwargs)
        if fitted and not self._outgrown and (misfit := self._program.misfit()) is not None:
            self._outgrown = True
            log.warning(
                "a call that the program does not take changed the model; while the program does "
                "not fit it, calls are answered as on_miss=%r says. If the model fills a cache, "
                "call it once with its largest sizes before it is compiled. %s",
                self._on_miss.policy,
                misfit,
            )
        return result

    def _compiled_for(
        self,
        why: HotstartError,
        entry: Entry,
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> AnswersCalls:
        """Find a program for a call, or compile one."""
        known = self.compiled.setdefault(entry.call.method, [])
        if (program := _that_takes(known, args, kwargs)) is not None:
            return program
        with self._compiling:
            if (program := _that_takes(known, args, kwargs)) is not None:
                return program  # another thread compiled it meanwhile
            log.warning("compiles inside a call, since %s", why)
            build = self._on_miss.build
            assert build is not None, "there is a compiler where the policy is to compile"
            program = build(method, args, kwargs)
            if not program.takes(*args, **kwargs):
                raise why  # no program takes this call, such as one with aliased arguments
            known.append(program)
            return program


def _that_takes(
    programs: Sequence[AnswersCalls], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> AnswersCalls | None:
    """Find a program that fits its model as it is now and takes a call."""
    fit = (program for program in programs if program.misfit() is None)
    return next((program for program in fit if program.takes(*args, **kwargs)), None)
