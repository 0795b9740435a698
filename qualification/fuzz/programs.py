"""Random programs as data: lines of Python over values with names, and calls to try."""

from __future__ import annotations

import dataclasses
import linecache
import random
import re
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, Literal

import msgspec
import torch
import torch.nn.functional as F  # noqa: N812  as everybody calls it
from msgspec.structs import replace
from torch import Tensor, nn

import hotstart
from qualification.compare import Inputs

Sizes = Mapping[str, int]
"""Sizes of axes."""

NAME = re.compile(r"\b[xv]\d+\b")
"""How values are named: `x0` is an input, `v0` is made by a line."""

MODULE = re.compile(r"\bself\.(\w+)")

Form = Literal["tuple", "dict", "nested", "named", "record"]

FORMS: Mapping[Form, str] = {
    "dict": "{{'first': {first}, 'rest': [{rest}], 2: ({numbers})}}",
    "nested": "[({first},), {{'rest': ({rest} {numbers})}}, None]",
    "named": "Named({first}, [{rest}])",
    "record": "Record({first}, ({rest} {numbers}))",
}
"""What forward returns, if it is no tuple; the first result, those after it, and the numbers."""

CLASSES = {
    "named": """
class Named(NamedTuple):
    first: torch.Tensor
    rest: list[torch.Tensor]
""",
    "record": """
@dataclass
class Record:
    first: torch.Tensor
    rest: tuple[torch.Tensor, ...]
""",
}

BLOCKS = "nn.Sequential(*(Block() for _ in range(3)))"
"""A module, where a program has a block."""

SPECIAL = (0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e-30, 1e9, 6e4, 0.5, -1.0, 1e-8)


class Input(msgspec.Struct, frozen=True):
    """An argument of forward.

    Attributes:
        name: such as `x0`.
        dtype: by name.
        shape: sizes, and names of axes.
        layout: `"plain"`, `"transposed"`, `"expanded"` (along the first dimension), `"repeated"`
            (along the last), `"gaps"`, `"offset"` or `"channels_last"`.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    layout: str = "plain"


class Call(msgspec.Struct, frozen=True):
    """Arguments that a program is called with.

    Attributes:
        sizes: of the axes.
        values: `"normal"`, `"halves"` (multiples of 0.5, with ties) or `"special"`.
        seed: of the numbers.
    """

    sizes: dict[str, int]
    values: str = "normal"
    seed: int = 0


class Program(msgspec.Struct, frozen=True):
    """A model as lines of Python, with how it is compiled and called.

    Attributes:
        seed: what it was generated from; also that of its weights.
        axes: names, least and largest sizes.
        inputs: arguments of forward.
        modules: what the model has, by attribute, as Python that makes it.
        block: the forward of a block over `x0`, which occurs three times as `self.blocks`, if any.
        block_modules: what the block has.
        lines: of forward.
        returned: names of values.
        form: what they are returned in.
        numbers: keyword arguments of forward that are no tensors, as Python.
        calls: arguments it is tried with; the first are the example's.
        split_on: where the graph is cut.
    """

    seed: int
    axes: dict[str, tuple[int, int]]
    inputs: tuple[Input, ...]
    modules: dict[str, str]
    lines: tuple[str, ...]
    returned: tuple[str, ...]
    calls: tuple[Call, ...]
    block: tuple[str, ...] = ()
    block_modules: dict[str, str] = {}
    split_on: tuple[str, ...] = ("auto",)
    form: Form = "tuple"
    numbers: dict[str, str] = {}


def made(line: str) -> tuple[str, ...]:
    """The names of the values that a line makes; none if it only writes in place."""
    left, is_assignment, _ = line.partition(" = ")
    if not is_assignment or not re.fullmatch(r"[xv]\d+(, [xv]\d+)*", left):
        return ()
    return tuple(left.split(", "))


def read(line: str) -> tuple[str, ...]:
    """The names of the values that a line reads, in order."""
    return tuple(dict.fromkeys(NAME.findall(line.partition(" = ")[2] if made(line) else line)))


def pruned(program: Program) -> Program:
    """Leave out lines, inputs, modules and axes that nothing needs; lines that write are needed."""
    needed, kept = set(program.returned), list[str]()
    for line in reversed(program.lines):
        if not made(line) or needed.intersection(made(line)):
            needed.update(read(line))
            kept.append(line)
    lines = tuple(reversed(kept))
    inputs = tuple(i for i in program.inputs if i.name in needed) or program.inputs[:1]
    used = set(MODULE.findall("\n".join(lines)))
    block = program.block if "blocks" in used else ()
    axes = {size for i in inputs for size in i.shape if isinstance(size, str)}
    return replace(
        program,
        lines=lines,
        inputs=inputs,
        block=block,
        modules={name: text for name, text in program.modules.items() if name in used},
        axes={name: ends for name, ends in program.axes.items() if name in axes},
    )


# --- as Python ------------------------------------------------------------------------------------


def source(program: Program) -> str:
    """The model as Python."""
    text = ["import torch", "import torch.nn.functional as F", "from torch import nn", "", ""]
    if program.form in CLASSES:
        imports = ["from dataclasses import dataclass", "from typing import NamedTuple"]
        text[:0] = [*imports, ""]
        text += [*CLASSES[program.form].strip().splitlines(), "", ""]
    if program.block:
        text += [*_block(program), "", ""]
    names = [i.name for i in program.inputs]
    if program.numbers:
        names += ["*", *(f"{name}={text}" for name, text in program.numbers.items())]
    result = _result(program)
    text += _module("Model", program.modules, program.lines, names, result)
    return "\n".join(text) + "\n"


def _result(program: Program) -> str:
    """What forward returns, as Python."""
    first, *others = program.returned
    if program.form == "tuple":
        return f"({', '.join(program.returned)},)" if others else first
    rest = "".join(f"{name}, " for name in others)
    numbers = "".join(f"{name}, " for name in program.numbers)
    return FORMS[program.form].format(first=first, rest=rest, numbers=numbers)


def namespace(program: Program) -> dict[str, Any]:
    """What lines and modules are evaluated in."""
    names: dict[str, Any] = {"torch": torch, "F": F, "nn": nn}
    if program.block:
        exec("\n".join(_block(program)), names)  # noqa: S102  what it runs was generated here
    return names


def _block(program: Program) -> list[str]:
    last = made(program.block[-1])[:1]
    return _module("Block", program.block_modules, program.block, ("x0",), last[0])


def _module(
    name: str,
    modules: Mapping[str, str],
    lines: Sequence[str],
    arguments: Sequence[str],
    result: str,
) -> list[str]:
    setting = [f"    self.{key} = {value}" for key, value in modules.items()]
    setting = [
        f"    self.register_buffer({key!r}, {value})" if value.startswith("torch.") else line
        for (key, value), line in zip(modules.items(), setting, strict=True)
    ]
    body = [f"    {line}" for line in lines]
    made = ["def __init__(self):", "    super().__init__()", *setting, ""] if modules else []
    forward = [f"def forward(self, {', '.join(arguments)}):", *body, f"    return {result}"]
    return [f"class {name}(nn.Module):", *(f"    {line}".rstrip() for line in made + forward)]


def script(program: Program, compiler: str, note: str) -> str:
    """A program as a script that shows what was found."""
    return f'''"""{note}"""
{source(program)}

if __name__ == "__main__":
    import msgspec

    from qualification.fuzz import measure, programs

    text = {msgspec.json.encode(program).decode()!r}
    program = msgspec.json.decode(text, type=programs.Program)
    print(measure.measure(program, {compiler!r}, print))
'''


def plain(result: Any) -> Any:
    """A result in which objects of classes of its program are tuples that begin with the name."""
    if dataclasses.is_dataclass(result) or hasattr(result, "_fields"):
        fields = getattr(result, "_fields", None) or tuple(vars(result))
        return (type(result).__name__, *(plain(getattr(result, name)) for name in fields))
    return result


# --- as objects -----------------------------------------------------------------------------------


def model(program: Program) -> nn.Module:
    """The model, with weights by its seed. Its source can be looked up, as that of a file."""
    text = source(program)
    file = f"<program {program.seed} {zlib.crc32(text.encode()):x}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    module = sys.modules["fuzzed"] = ModuleType("fuzzed")  # files name classes of results
    exec(compile(text, file, "exec"), vars(module))  # noqa: S102  what it runs was generated here
    torch.manual_seed(program.seed)
    built: nn.Module = module.Model().eval()
    return built.requires_grad_(False)


def dynamic_shapes(program: Program) -> dict[str, dict[int, hotstart.Dim]]:
    """What `hotstart.compile` is told of axes."""
    dims = {name: hotstart.Dim(name, min=lo, max=hi) for name, (lo, hi) in program.axes.items()}
    return {
        i.name: {at: dims[size] for at, size in enumerate(i.shape) if isinstance(size, str)}
        for i in program.inputs
        if any(isinstance(size, str) for size in i.shape)
    }


def arguments(program: Program, call: Call) -> Inputs:
    """The arguments of a call; those of one name are the same whatever other inputs there are."""
    made: Iterator[Tensor] = (
        tensor(one, call, [call.sizes.get(size, size) for size in one.shape])  # type: ignore[call-overload]
        for one in program.inputs
    )
    return Inputs(tuple(made), {name: eval(text) for name, text in program.numbers.items()})


def tensor(one: Input, call: Call, shape: Sequence[int]) -> Tensor:
    """Make the tensor of an input."""
    chance = random.Random(f"{call.seed} {one.name}")
    dtype: torch.dtype = getattr(torch, one.dtype)
    if one.layout == "transposed" and len(shape) > 1:
        return _values(chance, dtype, call.values, [*shape[:-2], shape[-1], shape[-2]]).mT
    if one.layout == "expanded" and shape:
        return _values(chance, dtype, call.values, [1, *shape[1:]]).expand(*shape)
    if one.layout == "repeated" and shape:
        return _values(chance, dtype, call.values, [*shape[:-1], 1]).expand(*shape)
    if one.layout == "channels_last" and len(shape) == 4:
        made = _values(chance, dtype, call.values, shape)
        return made.contiguous(memory_format=torch.channels_last)
    if one.layout == "gaps" and shape:
        return _values(chance, dtype, call.values, [*shape[:-1], 2 * shape[-1]])[..., ::2]
    if one.layout == "offset" and shape:
        return _values(chance, dtype, call.values, [shape[0] + 1, *shape[1:]])[1:]
    return _values(chance, dtype, call.values, shape)


def _values(chance: random.Random, dtype: torch.dtype, kind: str, shape: Sequence[int]) -> Tensor:
    generator = torch.Generator().manual_seed(chance.getrandbits(32))
    if dtype is torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    if not (dtype.is_floating_point or dtype.is_complex):
        info = torch.iinfo(dtype)
        made = torch.randint(max(-9, info.min), 10, shape, generator=generator).to(dtype)
        ends = [info.min, info.max, 0, 1, info.max - 1]
    elif kind == "halves":
        made = (torch.randint(-6, 7, shape, generator=generator) / 2).to(dtype)
        ends = []
    else:
        made = torch.randn(shape, generator=generator, dtype=torch.complex128).to(dtype)
        if not dtype.is_complex:
            made = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        ends = list(SPECIAL)
    if kind == "special" and made.numel() and ends:
        flat = made.reshape(-1)
        for at in range(len(flat)):
            if chance.random() < 0.3:
                flat[at] = chance.choice(ends)
        made = flat.reshape(shape)
    return made


def static(program: Program, axis: str, size: int) -> Program:
    """The same program with an axis that has one size."""
    inputs = tuple(
        replace(i, shape=tuple(size if s == axis else s for s in i.shape)) for i in program.inputs
    )
    axes = {name: ends for name, ends in program.axes.items() if name != axis}
    calls = tuple(call for call in program.calls if call.sizes.get(axis, size) == size)
    return replace(program, inputs=inputs, axes=axes, calls=calls)
