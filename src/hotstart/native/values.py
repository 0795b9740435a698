"""Write the names of generated Python, and expressions over them, in C++."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field

from hotstart.native.operands import Arguments, Number, Piece, Place, Several, Surroundings, Value
from hotstart.native.operators import NotNative
from hotstart.native.sizes import write_condition, write_number


@dataclass
class Values:
    """Writes expressions, and keeps account of variables.

    Attributes:
        lines: what was written.
        held: names that are bound, in the order of their places.
        read: names that something was done with, besides deleting them.
    """

    around: Surroundings
    lines: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    read: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.names: dict[str, Value] = {}
        self._count = 0
        self._temporary: list[str] = []

    def given_number(self, name: str, cpp: str) -> None:
        """Name an integer that the function is given."""
        self.names[name] = Number(cpp)

    def given_tensor(self, name: str, cpp: str, number: int) -> None:
        """Name a tensor that the function is given."""
        self.names[name] = Place(cpp, names=1, given=number)

    # --- values -----------------------------------------------------------------------------------

    def number(self, value: ast.expr) -> str:
        """Write an integer.

        Raises:
            NotNative: it is none, or not computed as sizes are.
        """
        return write_number(value, self._known_number)

    def condition(self, value: ast.expr) -> str:
        """Write a condition over integers.

        Raises:
            NotNative: it is none.
        """
        return write_condition(value, self._known_number)

    def _known_number(self, value: ast.expr) -> str | None:
        match value:
            case ast.Name(id=name):
                found = self._lookup(name)
                return found.cpp if isinstance(found, Number) else None
            case ast.Call(
                func=ast.Attribute(value=base, attr="storage_offset"), args=[], keywords=[]
            ):
                return f"offset({self._tensor(base).handle})"
        return None

    def _numbers(self, value: ast.expr) -> str:
        if not isinstance(value, ast.Tuple | ast.List):
            raise NotNative(f"{ast.unparse(value)} is not a tuple")
        return f"{{{', '.join(map(self.number, value.elts))}}}"

    def _argument(self, value: ast.expr) -> Number | Place:
        if isinstance(value, ast.Name):
            found = self._lookup(value.id)
            if isinstance(found, Number | Place):
                return found
        if isinstance(value, ast.Call):
            return self._argument_tensor(value)
        return Number(self.number(value))

    def _argument_tensor(self, value: ast.expr) -> Place:
        """A tensor among the arguments of a call; views get a variable for as long as it takes."""
        match value:
            case ast.Call(func=ast.Name(id="reinterpret_tensor")):
                base, written = self._view(value)
                name = self._new_variable("Tensor v")
                self._temporary.append(f"Tensor {name} = {written};")
                return Place(name, viewed=base)
        return self._tensor(value)

    def _tensor(self, value: ast.expr) -> Place:
        match value:
            case ast.Name(id=name):
                found = self._lookup(name)
                if isinstance(found, Place):
                    return found
            case ast.Call(func=ast.Name(id="reinterpret_tensor")):
                base, written = self._view(value)
                return Place(self._new_tensor(written), viewed=base)
        raise NotNative(f"{ast.unparse(value)} is not a tensor that C++ has")

    def _is_real(self, value: ast.expr) -> bool:
        """Tell whether a tensor is known to hold floating-point numbers."""
        match value:
            case ast.Call(func=ast.Name(id="reinterpret_tensor"), args=[base, *_]):
                return self._is_real(base)
        return self._tensor(value).real

    def _view(self, call: ast.Call) -> tuple[Place, str]:
        of, sizes, strides, further = call.args
        base = self._tensor(of)
        shape = f"{self._numbers(sizes)}, {self._numbers(strides)}"
        return base, f"viewed({base.handle}, {shape}, {self.number(further)})"

    def _lookup(self, name: str) -> Value:
        self.read.add(name)
        if name in self.names:
            return self.names[name]
        if name in self.around.bound or name in self.around.pieces:
            if name not in self.held:
                self.held.append(name)
            place = self.held.index(name)
            if name in self.around.pieces:
                return Piece(place)
            self.names[name] = Place(f"b.tensor({place})", names=1, bound=place)
            return self.names[name]
        raise NotNative(f"C++ has no value for {name}")

    # --- variables --------------------------------------------------------------------------------

    def _define(self, name: str, value: Value) -> None:
        if name in self.names:
            self._forget(name)
        self.names[name] = value

    def _forget(self, name: str) -> None:
        match self.names.pop(name, None):
            case Place() as place:
                self._dropped(place)
            case Several(places):
                for place in places:
                    self._dropped(place)
            case Number() | Arguments():
                pass
            case _:
                raise NotNative(f"C++ has no value for {name}")

    def _dropped(self, place: Place) -> None:
        place.names -= 1
        if place.names == 0 and not place.held:
            self.lines.append(f"{place.cpp}.reset();")

    def _handed_over(self, place: Place, again: bool) -> str:
        if place.held or again or place.given is not None:
            return f"Tensor({place.handle}, false).share()"
        return f"std::move({place.cpp})"

    def _new_variable(self, start: str) -> str:
        self._count += 1
        return f"{start.rsplit(' ', 1)[-1]}{self._count}"

    def _new_tensor(self, written: str) -> str:
        name = self._new_variable("Tensor v")
        self.lines.append(f"Tensor {name} = {written};" if written else f"Tensor {name};")
        return name

    def _new_number(self, written: str) -> str:
        name = self._new_variable("int64_t n")
        self.lines.append(f"const int64_t {name} = {written};")
        return name

    def _with_temporaries(self, lines: Sequence[str]) -> None:
        """Write lines in a block of their own, with the views that they mention."""
        temporary, self._temporary = self._temporary, []
        self.lines += ["{", *(f"  {line}" for line in (*temporary, *lines)), "}"]
