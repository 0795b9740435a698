"""Run the blocks of a page in one namespace, as a reader would in one session."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import hotstart
from tests.docs.blocks import Block

_PROMISED = re.compile(r"\s*# (?:hotstart\.)?(\w+): (.*)")
"""A comment below a statement that says which error it raises, and what that says."""


class NotRaised(AssertionError):
    """A page promises an error, and the statement above raised none, or another."""


def run(block: Block, names: dict[str, Any], replaced: Mapping[str, str]) -> None:
    """Execute a block, with tracebacks that lead to the page.

    A statement above a comment such as `# hotstart.ContractError: input: got ...` has to raise
    that error, with a message that has all text up to the dots.

    Args:
        block: the code.
        names: what it may use, and what it defines.
        replaced: texts to put in place of others, such as a folder that is there.

    Raises:
        NotRaised: no such error was raised.
    """
    text = block.text
    for old, new in replaced.items():
        text = text.replace(old, new)
    lines = text.splitlines()
    for statement in ast.parse(text).body:
        promised = _promised(lines, statement)
        ast.increment_lineno(statement, block.line - 1)
        code = compile(ast.Module([statement], []), block.page, "exec")
        if promised is None:
            exec(code, names)
        else:
            _must_raise(code, names, *promised)


def _promised(lines: list[str], statement: ast.stmt) -> tuple[type[Exception], str] | None:
    """Read the error that the comment below a statement promises."""
    assert statement.end_lineno is not None
    below = lines[statement.end_lineno] if statement.end_lineno < len(lines) else ""
    found = _PROMISED.fullmatch(below)
    kind = getattr(hotstart, found[1], None) if found else None
    if found is None or not isinstance(kind, type) or not issubclass(kind, Exception):
        return None
    return kind, found[2].partition("...")[0].strip()


def _must_raise(code: Any, names: dict[str, Any], kind: type[Exception], says: str) -> None:
    found = ""
    try:
        exec(code, names)
    except kind as error:
        found = " ".join(str(error).split())
    if not found or says not in found:
        raise NotRaised(f"expected {kind.__name__}: {says!r}, found: {found!r}")


def commands(block: Block) -> Iterator[list[str]]:
    """Yield the commands of hotstart in a block of a shell, as words."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words[:1] == ["hotstart"] and words[1:]:
            yield words[1:]
