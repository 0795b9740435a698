"""A compiled model that can be called."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import torch

from hotstart.errors import ContractError, HotstartError
from hotstart.generated import run_source
from hotstart.ir import Artifact, PieceInfo
from hotstart.runtime.binding import Binding
from hotstart.runtime.contract import MISSING, violation
from hotstart.runtime.entry import Entry, Hooks
from hotstart.runtime.layout import dense_strides, strides_fit
from hotstart.tensors import Model

if TYPE_CHECKING:
    from hotstart.options import MissPolicy
    from hotstart.report import Report

log = logging.getLogger(__name__)


class OnMiss(msgspec.Struct, frozen=True):
    """What to do with a call outside the contract.

    Attributes:
        policy: `"error"`, `"eager"` or `"compile"`.
        build: builds a program for the arguments of a call, for `"compile"`.
    """

    policy: MissPolicy
    build: Callable[[tuple[Any, ...], dict[str, Any]], Program]


class Program:
    """A model compiled for inference. Call it as the model is called.

    A program computes without autograd: its results never require grad, whatever the inputs.
    It uses the model's own tensors, and notices when they are replaced. Calls are thread-safe and
    re-entrant. Made by `hotstart.compile` and `hotstart.load`.

    Attributes:
        model: the model whose weights it runs with.
        artifact: everything it is made of, as data.
        report: what was compiled and reused, and how long everything took.
    """

    def __init__(
        self, artifact: Artifact, model: Model, binding: Binding, report: Report, on_miss: OnMiss
    ) -> None:
        self.model = model
        self.report = report
        self.artifact = artifact
        self._on_miss = on_miss
        self._variants = tuple(stitched.variant for stitched in artifact.stitched)
        self._relayouts: dict[str, int] = {}
        self._more: list[Program] = []
        self._counting = threading.Lock()
        self._compiling = threading.Lock()
        self._hooks = hooks = Hooks(model, binding, self._miss, self._relayout)
        entry = Entry(artifact.contract, self._variants, hooks)
        self.entry_code = entry.source
        filename = f"hotstart/entry_{hashlib.sha256(entry.source.encode()).hexdigest()[:8]}.py"
        self._call = run_source(entry.source, filename, entry.scope)["call"]

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
    ) -> None:
        """Write everything but the weights to one file, which `hotstart.load` starts from.

        The file is written under another name first and then renamed: there is the old one or the
        new one, never half of it.

        Args:
            file: path of the artifact, by custom ending in `.hot`.
            sign_key: file of a private key, as `hotstart keygen` makes; the artifact is signed.
            check: run every piece from the file in a process of its own and compare the results
                with this program's, bit by bit, else within a tolerance. Takes some seconds.

        Raises:
            ArtifactError: the program holds something that cannot be said as data, the comparison
                failed, or the file cannot be written.
        """
        from hotstart.packaging import save  # a program that only runs never needs it

        save(self.artifact, file, sign_key=sign_key, check=check)

    @property
    def code(self) -> dict[str, str]:
        """The stitched source, by variant."""
        return {s.variant.name: s.source for s in self.artifact.stitched}

    @property
    def pieces(self) -> tuple[PieceInfo, ...]:
        """The pieces, with name, digest, kind, layers and what each reuses."""
        return self.artifact.pieces

    @property
    def relayouts(self) -> dict[str, int]:
        """By argument, how many calls had it copied because its layout was not the compiled one."""
        return dict(self._relayouts)

    def __repr__(self) -> str:
        model = self.model
        name = type(model).__name__ if isinstance(model, torch.nn.Module) else repr(model)
        different = len({piece.digest for piece in self.pieces if piece.kind == "compiled"})
        variants = " | ".join(variant.name for variant in self._variants)
        return (
            f"Program({name}, inference only, {len(self.pieces)} pieces of which {different} "
            f"different, variants: {variants})"
        )

    # --- what the entry calls ---------------------------------------------------------------------

    def _relayout(self, tensor: torch.Tensor, dim_order: Sequence[int], path: str) -> torch.Tensor:
        """Copy an argument into the compiled layout; counted, and logged once for each argument."""
        strides = dense_strides(tensor.shape, dim_order)
        if strides_fit(tensor, strides):
            return tensor
        with self._counting:
            if path not in self._relayouts:
                log.warning(
                    "%s: strides %s are not the compiled layout, so it is copied in every such "
                    "call; see Program.relayouts",
                    path,
                    tensor.stride(),
                )
            self._relayouts[path] = self._relayouts.get(path, 0) + 1
        made = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device)
        return made.copy_(tensor.detach())

    def _miss(
        self, values: Sequence[Any], excess: Sequence[Any], unknown: Mapping[str, Any]
    ) -> Any:
        """Answer a call that does not fit the contract, as `Options.on_miss` says.

        Raises:
            ContractError: with the argument, what the call passed and what the program takes.
        """
        training = self.model.training if isinstance(self.model, torch.nn.Module) else None
        error = violation(self.artifact.contract, self._variants, training, values, excess, unknown)
        if error is None:
            raise HotstartError(
                "the generated entry refused a call that the contract takes. This is a defect of "
                "hotstart; please report it with the value of program.entry_code."
            )
        if self._on_miss.policy == "error":
            raise error
        args, kwargs = self._as_passed(values, excess, unknown)
        if self._on_miss.policy == "eager":
            log.info("runs the model itself, since %s", error)
            with torch.no_grad():
                return self.model(*args, **kwargs)
        return self._compiled_for(error, args, kwargs)(*args, **kwargs)

    def _compiled_for(
        self, error: ContractError, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Program:
        """A program for a call that this one does not take, compiled if there is none yet."""
        with self._compiling:
            for program in self._more:
                if program.takes(*args, **kwargs):
                    return program
            log.warning("compiles inside a call, since %s", error)
            program = self._on_miss.build(args, kwargs)
            if not program.takes(*args, **kwargs):
                raise error  # no program takes this call, such as one with aliased arguments
            self._more.append(program)
            return program

    def takes(self, /, *args: Any, **kwargs: Any) -> bool:
        """Whether a call with these arguments is within the contract. Nothing is run."""
        try:
            values, excess, unknown = self._bind(args, kwargs)
        except TypeError:
            return False
        training = self.model.training if isinstance(self.model, torch.nn.Module) else None
        return (
            violation(self.artifact.contract, self._variants, training, values, excess, unknown)
            is None
        )

    def _bind(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[list[Any], list[Any], dict[str, Any]]:
        """Arguments by parameter, as the generated entry binds them."""
        left, unknown = list(args), dict(kwargs)
        values: list[Any] = []
        variadic = False
        for p in self.artifact.contract.parameters:
            if p.kind == "var_positional":
                values.append(tuple(left))
                left, variadic = [], True
            elif p.kind != "keyword" and left:
                if p.name in unknown and p.kind != "positional_only":
                    raise TypeError(f"got multiple values for argument {p.name!r}")
                values.append(left.pop(0))
            elif p.kind != "positional_only" and p.name in unknown:
                values.append(unknown.pop(p.name))
            else:
                values.append(p.default if p.has_default else MISSING)
        return values, [] if variadic else left, unknown

    def _as_passed(
        self, values: Sequence[Any], excess: Sequence[Any], unknown: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments with which the model itself is called for a call that was bound."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        parameters = self.artifact.contract.parameters
        variadic = any(p.kind == "var_positional" for p in parameters)
        for parameter, value in zip(parameters, values, strict=True):
            if value is MISSING:
                continue
            if parameter.kind == "var_positional":
                args += value
            elif parameter.kind == "positional_only" or (
                parameter.kind == "positional" and (variadic or excess)
            ):
                args.append(value)
            elif not (parameter.has_default and value is parameter.default):
                kwargs[parameter.name] = value
        return (*args, *excess), {**kwargs, **unknown}
