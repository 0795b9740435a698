"""Describe code objects: what they do, and where they are in a file.

Nothing here imports torch, so that a file can be asked about without it.
"""

from __future__ import annotations

import hashlib
import marshal
import opcode
import types
from collections.abc import Iterator

_BY_VALUE = 2
"""The last of marshal's formats in which constants look the same whether they are shared or not."""

_FLAGS = 0x3FF
"""The flags that say how code runs: kinds of parameters, generators, coroutines. Others say which
features of Python a file asked for, and whether there is a docstring."""

_LOAD_CONST, _EXTENDED = opcode.opmap["LOAD_CONST"], opcode.opmap["EXTENDED_ARG"]


def code_digest(code: types.CodeType) -> str:
    """A hash of what a code object does, wherever it is from and whatever is said about it."""
    constants = [  # none of which is a list
        [code_digest(c)] if isinstance(c, types.CodeType) else c for c in code.co_consts
    ]
    if constants and type(constants[0]) is str and not _loads_first(code):
        constants[0] = None  # a docstring
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    does = (code.co_code, constants, shape, code.co_flags & _FLAGS, names, code.co_exceptiontable)
    try:
        written = marshal.dumps(does, _BY_VALUE)
    except ValueError:  # a constant that no source makes, of which nothing else is known
        written = repr(does).encode()
    return hashlib.blake2b(written, digest_size=16).hexdigest()


def _loads_first(code: types.CodeType) -> bool:
    """Tell whether code may use its first constant, which is its docstring if it has one."""
    step, at = bytes([_LOAD_CONST, 0]), -1
    while (at := code.co_code.find(step, at + 1)) >= 0:
        if at % 2 == 0 and not (at and code.co_code[at - 2] == _EXTENDED):
            return True
    return False


def codes_in(code: types.CodeType) -> Iterator[types.CodeType]:
    """A code object and all that are defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes_in(constant)


def digests_in(source: bytes, names: frozenset[str]) -> dict[str, set[str]]:
    """The digests of the functions in a source file that have some qualified names.

    A name may be defined several times, under conditions.

    Raises:
        SyntaxError, ValueError: it is no source of this version of Python.
    """
    found: dict[str, set[str]] = {}
    for code in codes_in(compile(source, "<source>", "exec", dont_inherit=True)):
        if code.co_qualname in names:
            found.setdefault(code.co_qualname, set()).add(code_digest(code))
    return found
