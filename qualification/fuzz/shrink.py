"""Make a program shorter while what was found of it stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec
from msgspec.structs import replace

from qualification.fuzz import programs
from qualification.fuzz.measure import Finding
from qualification.fuzz.programs import Program

Find = Callable[[Program], Finding]


def shrunk(program: Program, finding: Finding, find: Find, tries: int) -> tuple[Program, Finding]:
    """The shortest program of which the same is found, and what is found of it.

    Args:
        program: of which something was found.
        finding: what was found.
        find: finds out about another program.
        tries: how many others are tried at most.
    """
    tried: set[bytes] = {_text(program)}
    while True:
        for candidate in _candidates(program, finding):
            if (text := _text(candidate)) in tried or len(tried) > tries:
                continue
            tried.add(text)
            found = find(candidate)
            if found.is_like(finding):
                program, finding = candidate, found
                break
        else:
            return program, finding


def _text(program: Program) -> bytes:
    return msgspec.json.encode(program)


def _candidates(program: Program, finding: Finding) -> Iterator[Program]:
    """Shorter programs, those first that are a lot shorter."""
    for candidate in _shorter(program, finding):
        yield programs.pruned(candidate)


def _shorter(program: Program, finding: Finding) -> Iterator[Program]:
    calls, lines = program.calls, program.lines
    if finding.call is not None and len(calls) > 1:
        yield replace(program, calls=(calls[finding.call],))
        if finding.call and len(calls) > 2:
            yield replace(program, calls=(calls[0], calls[finding.call]))
    if len(program.returned) > 1:
        for name in program.returned:
            yield replace(program, returned=(name,))
    for at, line in enumerate(lines[:-1]):  # what comes first that is wrong
        for name in programs.made(line):
            yield replace(program, lines=lines[: at + 1], returned=(name,))
            if any(not programs.made(other) for other in lines[at:]):
                yield replace(program, returned=(name,))
    if program.form != "tuple":
        yield replace(program, form="tuple")
    for name in program.numbers:
        others = {key: text for key, text in program.numbers.items() if key != name}
        yield replace(program, numbers=others)
    if program.split_on != ("auto",):
        yield replace(program, split_on=("auto",))
    for at in reversed(range(len(lines))):
        yield from _without_line(program, at)
    yield from _plainer(program)


def _without_line(program: Program, at: int) -> Iterator[Program]:
    """Leave out a line; what it makes is what it reads, or an input."""
    line = program.lines[at]
    rest = (*program.lines[:at], *program.lines[at + 1 :])
    if not programs.made(line):
        yield replace(program, lines=rest)
        return
    others = (*programs.read(line), *(one.name for one in program.inputs))
    for other in dict.fromkeys(others):
        yield _renamed(replace(program, lines=rest), dict.fromkeys(programs.made(line), other))


def _renamed(program: Program, names: Mapping[str, str]) -> Program:
    lines = [
        programs.NAME.sub(lambda match: names.get(match[0], match[0]), line)
        for line in program.lines
    ]
    returned = dict.fromkeys(names.get(name, name) for name in program.returned)
    return replace(program, lines=tuple(lines), returned=tuple(returned))


def _plainer(program: Program) -> Iterator[Program]:
    """Have fewer axes, smaller ranges, ordinary layouts and numbers."""
    if program.block and len(program.block) > 2:
        for at in range(1, len(program.block) - 1):
            last = programs.made(program.block[at - 1])[0]
            this = programs.made(program.block[at])[0]
            block = (*program.block[:at], *program.block[at + 1 :])
            yield replace(program, block=tuple(line.replace(this, last) for line in block))
    for axis, (lo, hi) in program.axes.items():
        for size in {call.sizes[axis] for call in program.calls}:
            yield programs.static(program, axis, size)
        sizes = [call.sizes[axis] for call in program.calls]
        narrow = (min(sizes), max(max(sizes), min(sizes) + 1))
        if (lo, hi) != narrow and hi > narrow[1]:
            yield replace(program, axes=program.axes | {axis: narrow})
    for at, one in enumerate(program.inputs):
        if one.layout != "plain":
            plain = replace(one, layout="plain")
            yield replace(program, inputs=(*program.inputs[:at], plain, *program.inputs[at + 1 :]))
        for place in range(len(one.shape)):
            fewer = replace(one, shape=(*one.shape[:place], *one.shape[place + 1 :]))
            yield replace(program, inputs=(*program.inputs[:at], fewer, *program.inputs[at + 1 :]))
    if any(call.values == "special" for call in program.calls):
        plain_calls = tuple(replace(call, values="normal") for call in program.calls)
        yield replace(program, calls=plain_calls)
