"""Collect the functions of units and variants as one program in C++."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hotstart.records.artifact import Kernel


@dataclass
class Program:
    """C++ program, as far as it is written.

    Attributes:
        kernels: those that it calls, in the order of its table.
        bodies: the functions, in order.
        shapes: of each, how many sizes, tensors and results it has.
        conditions: for each variant its condition over sizes in C++; empty for one that has none.
    """

    kernels: dict[str, Kernel] = field(default_factory=dict)
    bodies: list[str] = field(default_factory=list)
    shapes: list[tuple[int, int, int]] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)
    _declared: dict[str, None] = field(default_factory=dict)

    def add(self, lines: Iterable[str], shape: tuple[int, int, int]) -> int:
        """Add a body; its number."""
        number = len(self.bodies)
        head = f"void body_{number}(const Bound& b, const int64_t* n, Tensor* a, Tensor* r) {{"
        self.bodies.append("\n".join([head, *(f"  {line}" for line in lines), "}"]))
        self.shapes.append(shape)
        return number

    def declare(self, line: str) -> None:
        """Note a declaration of a function of torch's."""
        self._declared[line] = None

    def kernel_number(self, kernel: Kernel) -> int:
        """The number of a kernel in the table."""
        self.kernels.setdefault(kernel.name, kernel)
        return list(self.kernels).index(kernel.name)

    def source(self) -> str:
        """The program as one file."""
        shapes = ", ".join(f"{{{sizes}, {args}, {made}}}" for sizes, args, made in self.shapes)
        bodies = ", ".join(f"body_{number}" for number in range(len(self.bodies)))
        return "\n\n".join(
            [
                _text("interface.h"),
                _text("program.cpp"),
                "\n".join(self._declared),
                "namespace {",
                f"void* kernels[{max(len(self.kernels), 1)}];",
                *self.bodies,
                f"const Body bodies[] = {{{bodies}}};",
                f"const Shape shapes[] = {{{shapes}}};",
                self._conditions(),
                "}  // namespace",
                f"constexpr int kernel_count = {len(self.kernels)}, "
                f"body_count = {len(self.bodies)}, variant_count = {len(self.conditions)};",
                _text("interface.cpp"),
                _text("module.cpp"),
            ]
        )

    def _conditions(self) -> str:
        """Write the conditions of variants as a row of functions; a null pointer for none."""
        written = [
            f"[](const int64_t* n) -> bool {{ return {each}; }}" if each else "nullptr"
            for each in self.conditions
        ]
        return (
            f"bool (*const conditions[])(const int64_t*) = {{{', '.join(written) or 'nullptr'}}};"
        )


def _text(name: str) -> str:
    return (Path(__file__).parent / name).read_text()
