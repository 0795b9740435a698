"""The signature of a generated entry. Imports no torch."""

from __future__ import annotations

import keyword
from collections.abc import Sequence

from hotstart.records.contract import Parameter
from hotstart.runtime.code.identifiers import Scope, written_tuple
from hotstart.runtime.entry.by_parameter import MISSING


class Signature:
    """The signature of a generated entry.

    Attributes:
        source: what stands between the parentheses of its `def`.
        pops: statements that get arguments whose names cannot be parameters.
        variables: one for each parameter.
        excess: the variable of positional arguments beyond those.
        unknown: the variable of keyword arguments that the example did not have.
        everything: all that a call passed, as arguments of another call.
        scope: names for all else in an entry.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        scope = self.scope = Scope()
        # Parameters keep the names forward gives them; all other names avoid these.
        self.variables = [_variable(parameter.name, scope) for parameter in parameters]
        scope.exactly("call")
        self.excess, self.unknown = scope.new("excess"), scope.new("unknown")
        self.pops: list[str] = []
        positional: list[str] = []
        named: list[str] = []
        variadic, only = "", 0
        for p, name in zip(parameters, self.variables, strict=True):
            if p.kind == "var_positional":
                variadic = name
                continue
            missing = scope.refer("MISSING", MISSING)
            default = scope.constant(p.default, f"{name}_default") if p.has_default else missing
            if name != p.name:
                self.pops.append(f"{name} = {self.unknown}.pop({p.name!r}, {default})")
                continue
            (named if p.kind == "keyword" else positional).append(f"{name}={default}")
            only += p.kind == "positional_only"
        if only:
            positional.insert(only, "/")
        star = f"*{variadic or self.excess}"
        self.source = ", ".join([*positional, star, *named, f"**{self.unknown}"])
        excess = "()" if variadic else self.excess
        self.everything = f"{written_tuple(self.variables)}, {excess}, {self.unknown}"


def _variable(name: str, scope: Scope) -> str:
    """A variable for a parameter; `**kwargs` may hold names that are no identifiers, or taken."""
    free = name.isidentifier() and not keyword.iskeyword(name) and not scope.taken(name)
    return scope.exactly(name) if free else scope.new(name)
