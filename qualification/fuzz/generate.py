"""Generate programs from seeds: lines are tried in eager mode as they are added.

A line stays if it runs at all sizes that are tried, and makes tensors that are small and, mostly,
finite.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from msgspec.structs import replace
from torch import Tensor, nn

from qualification.fuzz import operators, programs
from qualification.fuzz.programs import Call, Input, Program

RANGES = ((0, 5), (1, 17), (2, 33), (1, 4), (3, 9))
DTYPES = ("float32",) * 12 + (
    *("float64", "bfloat16", "bfloat16", "float16", "int64", "int64", "int32", "int16", "int8"),
    *("uint8", "bool", "bool", "complex64", "complex64"),
)
FLOATS = ("float32", "float64", "bfloat16", "float16")
INTEGERS = ("int64", "int32", "int16", "int8", "uint8")
LAYOUTS = ("plain",) * 8 + (
    *("transposed", "transposed", "expanded", "repeated", "gaps", "offset", "channels_last"),
)
NUMBERS = ("0", "1", "-1", "2", "0.5", "-0.0", "3.7", "1e-3", "100", "-2", "float('inf')")

NUMERIC = ("3", "-2", "2.5", "-0.0", "float('inf')", "True", "2 ** 40")
ARGUMENTS = (*NUMERIC, "None", "'half'", "(1, 2.0)", "{'a': False}", "torch.float16")
"""Arguments that are no tensors, as Python."""

VARIATIONS = (
    *("torch.rand_like({a}.float())", "F.dropout({f}, 0.3, True)", "state.add_(1).clone()"),
    *("state.mul_({r}.float().mean()) + 1", "torch.randint(0, 9, ({a}.shape[0],))"),
)
"""Lines that draw or keep state, of which no table has any."""

LARGEST = 3000
"""Elements of a tensor."""

APART = re.compile(r"\b(unbind|split|range)\(")
MOST_PARTS = 40
"""Elements along each dimension of values that a line takes apart in a loop, which is unrolled."""

PLACE = re.compile(r"\{([abcfir][23=]?|[dDPs]|n0?|t[if]?)\}")

KINDS: dict[str, Callable[[torch.dtype], bool]] = {
    "f": lambda dtype: dtype.is_floating_point,
    "i": lambda dtype: not (dtype.is_floating_point or dtype.is_complex or dtype is torch.bool),
    "r": lambda dtype: not (dtype.is_complex or dtype is torch.bool),
    "b": lambda dtype: dtype is torch.bool,
    "c": lambda dtype: dtype.is_complex,
    "a": lambda dtype: True,
}


class _Unfit(Exception):
    """There is no value for a place of a line."""


class Trial:
    """The values of a program so far, at each of the sizes that are tried."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.run()

    def run(self) -> None:
        """Run all lines that there are."""
        self._runs: list[dict[str, Any]] = []
        for call in self.program.calls:
            arguments = programs.arguments(self.program, call)
            given = zip(self.program.inputs, arguments.args, strict=True)
            holder = nn.Module()
            for name, text in self.program.modules.items():
                self._set(holder, name, text)
            values = programs.namespace(self.program) | {"self": holder, **arguments.kwargs}
            self._runs.append(values | {one.name: value for one, value in given})
        for line in self.program.lines:
            self._execute(line)

    def names(self) -> list[str]:
        """The names of all values."""
        return [name for name in self._runs[0] if programs.NAME.fullmatch(name)]

    def of(self, name: str) -> list[Tensor]:
        """A value at all sizes."""
        return [values[name] for values in self._runs]

    def shapes(self, name: str) -> list[tuple[int, ...]]:
        """The shape of a value at all sizes."""
        return [tuple(value.shape) for value in self.of(name)]

    def add(self, line: str, modules: dict[str, str] | None = None) -> bool:
        """Add a line, if it runs and makes what is fit for further lines."""
        before = self.program
        after = before.modules | (modules or {})
        if APART.search(line) and self._longest(programs.read(line)) > MOST_PARTS:
            return False
        for name, text in (modules or {}).items():
            for values in self._runs:
                self._set(values["self"], name, text)
        try:
            self._execute(line)
            if not all(self._is_fit(name) for name in programs.made(line) or self.names()):
                raise _Unfit
        except Exception:  # noqa: BLE001  whatever eager does not do is no line
            if not programs.made(line) or "self" in line:
                self.run()  # some of it may have been written
            for values in self._runs:
                for name in programs.made(line):
                    values.pop(name, None)
            return False
        self.program = replace(before, lines=(*before.lines, line), modules=after)
        return True

    def _longest(self, names: Sequence[str]) -> int:
        """The largest size of any dimension of some values."""
        return max(size for name in names for shape in self.shapes(name) for size in (0, *shape))

    def _set(self, holder: nn.Module, name: str, text: str) -> None:
        """Give a module an attribute, as the model's `__init__` does."""
        torch.manual_seed(0)
        made = eval(text, programs.namespace(self.program))
        if isinstance(made, nn.Module):
            setattr(holder, name, made.eval().requires_grad_(False))
        else:
            holder.register_buffer(name, made)

    def _execute(self, line: str) -> None:
        for values in self._runs:
            exec(line, values)  # noqa: S102  what it runs was generated here

    def _is_fit(self, name: str) -> bool:
        tensors = self.of(name)
        if not all(isinstance(one, Tensor) for one in tensors):
            return False
        if any(one.numel() > LARGEST or one.ndim > 5 for one in tensors):
            return False
        if len({(one.ndim, one.dtype) for one in tensors}) > 1:
            return False
        last = tensors[0]
        if not (last.is_floating_point() and last.numel()):
            return True
        tame = (last.isfinite() & (last.abs() < 1e5)).double().mean()
        return bool(tame > 0.5)


def generate(seed: int) -> Program:
    """The program of a seed."""
    chance = random.Random(seed)
    warnings.simplefilter("ignore")
    with torch.no_grad():
        program = _begun(seed, chance)
        trial = Trial(program)
        wanted = chance.choice((3, 5, 8, 8, 12, 16))
        for _ in range(12 * wanted):
            _try(trial, chance)
            if len(trial.program.lines) >= wanted:
                break
        return programs.pruned(_varied(_finished(trial, chance)))


def _begun(seed: int, chance: random.Random) -> Program:
    """Inputs, axes and sizes to try."""
    axes = {name: chance.choice(RANGES) for name in "mn"[: chance.choice((1, 1, 2))]}
    fixed = [chance.choice((1, 2, 3, 4, 7, 8, 16)) for _ in range(2)]
    inputs = []
    for number in range(chance.choice((1, 2, 2, 3))):
        sizes = [*axes, *axes, *fixed]
        shape = tuple(chance.choice(sizes) for _ in range(chance.choice((0, 1, 2, 2, 3, 3, 4, 4))))
        if number == 0:
            shape = shape or (chance.choice(sizes),)
            shape = (next(iter(axes)), *shape[1:])
        elif chance.random() < 0.4:
            shape = inputs[0].shape
        inputs.append(Input(f"x{number}", chance.choice(DTYPES), shape, chance.choice(LAYOUTS)))
    used = {size for one in inputs for size in one.shape}
    axes = {name: ends for name, ends in axes.items() if name in used}
    calls = tuple(
        Call(sizes, seed=seed * 100 + at) for at, sizes in enumerate(_sizes(axes, chance))
    )
    return Program(seed, axes, tuple(inputs), {}, (), (), calls)


def _sizes(axes: dict[str, tuple[int, int]], chance: random.Random) -> list[dict[str, int]]:
    """Sizes to try: some between, both ends, and what is small."""
    between = [
        {a: chance.randint(min(lo + 2, hi), hi) for a, (lo, hi) in axes.items()} for _ in "12"
    ]
    least = {axis: lo for axis, (lo, _) in axes.items()}
    most = {axis: hi for axis, (_, hi) in axes.items()}
    small = [
        {
            a: s if lo <= s <= hi and chance.random() < 0.7 else between[0][a]
            for a, (lo, hi) in axes.items()
        }
        for s in (0, 1, 2)
    ]
    unique = {
        tuple(sizes.items()): sizes for sizes in (between[0], least, most, *small, between[1])
    }
    return list(unique.values())


def _finished(trial: Trial, chance: random.Random) -> Program:
    """The program with its results, cuts and calls."""
    program, names = trial.program, trial.names()
    read = {name for line in program.lines for name in programs.read(line)}
    ends = [name for name in names if name not in read and name.startswith("v")]
    returned = list(dict.fromkeys(chance.sample(ends, min(len(ends), 4)))) or names[-1:]
    if chance.random() < 0.3:
        returned = list(dict.fromkeys((*returned, chance.choice(names))))
    if chance.random() < 0.05:
        returned.append(returned[0])
    others = [
        Call(program.calls[at].sizes, values, program.seed * 100 + 50 + number)
        for number, (at, values) in enumerate(
            itertools.product((0, -1), ("halves", "special", "special"))
        )
    ]
    called = re.findall(r"\b(?:torch|F)\.(\w+)\(", "\n".join(program.lines))
    split_on = ("auto", chance.choice(called)) if called and chance.random() < 0.25 else ("auto",)
    return replace(
        program, returned=tuple(returned), calls=(*program.calls, *others), split_on=split_on
    )


def _varied(program: Program) -> Program:
    """The program with arguments that are no tensors, state, draws, and results in containers.

    It has a sequence of random numbers of its own, so that lines of a seed stay as they are.
    """
    chance = random.Random(f"varied {program.seed}")
    numbers = {f"k{at}": chance.choice(ARGUMENTS) for at in range(chance.choice((0, 0, 1, 2)))}
    trial = Trial(replace(program, numbers=numbers))
    templates = [f"{{a}}.float() * {name}" for name, text in numbers.items() if text in NUMERIC]
    templates += chance.sample(VARIATIONS, chance.choice((0, 0, 1)))
    returned = list(program.returned)
    for template in templates:
        made = sum(len(programs.made(line)) for line in trial.program.lines)
        state = {f"b{made}": "torch.arange(2.0)"} if "state" in template else {}
        with contextlib.suppress(_Unfit):
            line = filled(template.replace("state", f"self.b{made}"), trial, chance)
            if trial.add(f"v{made} = {line}", state):
                returned.append(f"v{made}")
    form = chance.choice(("tuple", "tuple", *programs.FORMS))
    return replace(trial.program, form=form, returned=tuple(returned))


def _try(trial: Trial, chance: random.Random) -> None:
    """Try to add a line."""
    made = sum(len(programs.made(line)) for line in trial.program.lines)
    name, kind = f"v{made}", chance.random()
    try:
        if kind < 0.06:
            _add_layer(trial, chance, name)
        elif kind < 0.07 and not trial.program.block:
            _add_blocks(trial, chance, name)
        else:
            table = chance.choices(list(operators.TABLES), list(operators.TABLES.values()))[0]
            template = chance.choice(table)
            modules = {}
            if "{buffer}" in template:
                modules = {f"b{made}": f"torch.arange({chance.choice((1, 2, 4))}.0) - 1"}
                template = template.replace("{buffer}", f"self.b{made}")
            line = filled(template, trial, chance)
            is_statement = table in operators.WRITING or template.startswith("self.")
            trial.add(line if is_statement else f"{name} = {line}", modules)
    except _Unfit:
        pass


def _add_layer(trial: Trial, chance: random.Random, name: str) -> None:
    text, called_with = chance.choice(list(operators.LAYERS.items()))
    called_with = filled(called_with, trial, chance)
    shape = trial.shapes(programs.read(called_with)[0])[0]
    sizes = {"in": shape[-1:], "channels": shape[-3:-2] if "2d" in text else shape[-2:-1]}
    for place, size in sizes.items():
        text = text.replace(f"{{{place}}}", str(*size or (1,)))
    text = text.replace("{out}", str(chance.choice((1, 3, 4, 8))))
    layer = f"m{len(trial.program.modules)}"
    taken = "[0]" if re.search("GRU|Multihead", text) else ""
    trial.add(f"{name} = self.{layer}({called_with}){taken}", {layer: text})


def filled(template: str, trial: Trial, chance: random.Random) -> str:
    """A line of a template, with values and numbers in its places."""
    chosen: dict[str, str] = {}
    names = trial.names()
    recent = [*names, *names[-4:], *names[-2:]]
    places = PLACE.findall(template)
    first = next((place for place in places if place[0] in KINDS), None)
    main = _main(first, trial, recent, chance)
    rank = len(trial.shapes(main)[0])
    dim = chance.randrange(-rank, rank) if rank else 0
    for place in dict.fromkeys(places):
        if place == first:
            chosen[place] = main
        elif place[0] in KINDS:
            chosen[place] = _partner(place, main, trial, recent, chance)
        elif place == "d":
            chosen[place] = str(dim)
        elif place == "D":
            dims = chance.sample(range(rank), chance.randint(min(1, rank), rank))
            chosen[place] = repr(tuple(dims))
        elif place == "P":
            chosen[place] = ", ".join(map(str, chance.sample(range(rank), rank)))
        elif place in ("n", "n0"):
            chosen[place] = f"{main}.shape[{dim if place == 'n' else 0}]"
        elif place == "s":
            chosen[place] = chance.choice(NUMBERS)
        else:
            dtypes = {"t": DTYPES, "ti": INTEGERS, "tf": FLOATS}[place]
            chosen[place] = f"torch.{chance.choice(dtypes)}"
    return PLACE.sub(lambda match: chosen[match[1]], template)


def _main(place: str | None, trial: Trial, names: Sequence[str], chance: random.Random) -> str:
    fit = KINDS[place[0] if place else "a"]
    return _chosen([name for name in names if fit(trial.of(name)[0].dtype)], chance)


def _partner(
    place: str, main: str, trial: Trial, names: Sequence[str], chance: random.Random
) -> str:
    fit = KINDS[place[0]]
    if place.endswith("="):
        same_dtype = place[0] != "i"
        found = [
            name
            for name in names
            if trial.shapes(name) == trial.shapes(main)
            and (
                trial.of(name)[0].dtype == trial.of(main)[0].dtype
                if same_dtype
                else fit(trial.of(name)[0].dtype)
            )
        ]
    else:
        found = [n for n in names if fit(trial.of(n)[0].dtype) and _broadcast(trial, n, main)]
    return _chosen(found, chance)


def _broadcast(trial: Trial, one: str, other: str) -> bool:
    try:
        for left, right in zip(trial.shapes(one), trial.shapes(other), strict=True):
            torch.broadcast_shapes(left, right)
    except RuntimeError:
        return False
    return True


def _chosen(found: Sequence[str], chance: random.Random) -> str:
    if not found:
        raise _Unfit
    return chance.choice(found)


def _add_blocks(trial: Trial, chance: random.Random, name: str) -> None:
    """Add a block of a few lines, three times in a row, over a value."""
    given = _main("f", trial, trial.names(), chance)
    tensors, shapes = trial.of(given), trial.shapes(given)
    if tensors[0].dtype != torch.float32 or not shapes[0]:
        raise _Unfit
    width = shapes[0][-1]
    lines = (
        ["v0 = self.linear(x0)"] if len({shape[-1] for shape in shapes}) == 1 else ["v0 = x0 * 2"]
    )
    for number in range(1, chance.randint(2, 4)):
        template = chance.choice(operators.lines(operators.UNARY))
        if set(PLACE.findall(template)) <= {"f"}:
            lines.append(f"v{number} = " + template.replace("{f}", programs.made(lines[-1])[0]))
    lines.append(f"v9 = (x0 + torch.tanh({programs.made(lines[-1])[0]})).float()")
    block = {"linear": f"nn.Linear({width}, {width})"} if "self" in lines[0] else {}
    before = trial.program
    trial.program = replace(before, block=tuple(lines), block_modules=block)
    if not trial.add(f"{name} = self.blocks({given})", {"blocks": programs.BLOCKS}):
        trial.program = before
