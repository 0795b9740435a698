"""Read from Dynamo's guards what a trace depended on.

The names of guards and their `create_fn` are those of torch 2.11 to 2.15; there is no public way to
ask what a trace read. A kind of guard that is not listed is `"unknown"`, and keeps a program out of
caches.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

Read = Literal[
    "value", "length", "keys", "class", "function", "tensor", "attribute", "own", "contains",
    "unknown",
]  # fmt: skip


def modes_read(output_graph: Any) -> tuple[str, ...]:
    """The modules whose `training` flag a trace read, from the guards it put on them."""
    names = {str(guard.name) for guard in output_graph._guards}
    ending = ".training"
    return tuple(sorted(n.removesuffix(ending) for n in names if n.endswith(ending)))


_READ: Mapping[str, Read] = {
    "CONSTANT_MATCH": "value",
    "EQUALS_MATCH": "value",
    "BOOL_MATCH": "value",
    "NONE_MATCH": "value",
    "SEQUENCE_LENGTH": "length",
    "DICT_KEYS_MATCH": "keys",
    "MAPPING_KEYS_CHECK": "keys",
    "TYPE_MATCH": "class",
    "NOT_NONE_MATCH": "class",
    "ID_MATCH": "value",
    "CLASS_MATCH": "value",
    "CONSTANT_SUBCLASS_MATCH": "value",
    "HASATTR": "attribute",
    "NOT_PRESENT_IN_GENERIC_DICT": "own",
    "DICT_CONTAINS": "contains",
    "DICT_NOT_CONTAINS": "contains",
    "SET_CONTAINS": "contains",
    "SET_NOT_CONTAINS": "contains",
    "CLOSURE_MATCH": "function",
    "FUNCTION_MATCH": "function",
    "BUILTIN_MATCH": "function",
    "TENSOR_MATCH": "tensor",
    "TENSOR_SUBCLASS_METADATA_MATCH": "tensor",
}


_CONSTANTS = (bool, int, float, complex, str, bytes, type(None))

_SAYS_NOTHING = frozenset(
    {"MODULE_MATCH", "DUPLICATE_INPUT", "NN_MODULE", "WEAKREF_ALIVE", "EMPTY_NN_MODULE_HOOKS_DICT"}
)
"""Guards on identity within a process, and on hooks, which hotstart compares by itself."""


_FLATTENED = ".__tensor_flatten__()"
"""Part of the names of inner tensors of subclasses, which are compared with the weights."""


_BACKENDS = "G['__import_einops_dot__backends']."
_TABLES = (f"{_BACKENDS}_type2backend", f"{_BACKENDS}_loaded_backends")


def is_table_of_types(name: str) -> bool:
    """Tell whether a name is of, or from, a table that einops has of kinds of tensors.

    Any call fills in what it lacks, and always with the same (0.8), so a trace does not depend on
    what is in it, and what a call adds changes no other.
    """
    return any(table in name for table in _TABLES)


def reads(output_graph: Any, scopes: Mapping[str, Any]) -> Iterator[tuple[Read, str, Any]]:
    """List what a trace read of objects, from the guards it put on their first names.

    Dynamo guards only the class of a constant whose value the trace did not need. Eager may still
    need it: transformers' attention reads `is_causal` if there is no mask, and makes a mask while
    tracing. So the value counts.
    """
    for guard in output_graph._guards:
        name = guard.create_fn_name()
        if name in _SAYS_NOTHING or _FLATTENED in guard.name or is_table_of_types(guard.name):
            continue
        given = getattr(guard.create_fn, "keywords", {})
        key = given.get("attr", given.get("key"))
        read = _READ.get(name, "unknown")
        if read == "class" and isinstance(object_named(guard.name, scopes), _CONSTANTS):
            read = "value"
        if name == "DICT_KEYS_MATCH":
            yield "length", guard.name, None
        yield read, guard.name, key


def environment_names(codes: Iterable[types.CodeType]) -> Iterator[str]:
    """The names that code may look up in the environment.

    A variable that is not set leaves no guard, so guards do not tell. Names are constants beside
    `environ` or `getenv`; a helper that looks one up may have it from any other code.
    """
    codes = tuple(codes)
    asking = [code for code in codes if {"environ", "getenv"}.intersection(code.co_names)]
    for code in codes if asking else ():
        texts = (constant for constant in code.co_consts if isinstance(constant, str))
        names = (text for text in texts if text.isidentifier())
        yield from (name for name in names if code in asking or name.isupper())


def object_named(name: str, scopes: Mapping[str, Any], unknown: Any = None) -> Any:
    """The object behind one of Dynamo's names; `unknown` if there is none."""
    try:
        return eval(name, dict(scopes))
    except (AttributeError, KeyError, IndexError, NameError, SyntaxError, TypeError):
        return unknown


def says_nothing(guard: Any) -> bool:
    """Tell whether a guard is about identity or hooks only."""
    return guard.create_fn_name() in _SAYS_NOTHING


def same_when_read(guard: Any, first: Any, second: Any) -> bool:
    """Tell whether a guard on the first object finds in the second what it found in the first."""
    given = getattr(guard.create_fn, "keywords", {})
    key = given.get("attr", given.get("key"))
    compare = _SAME.get(_READ.get(guard.create_fn_name(), "unknown"))
    try:
        return compare is not None and compare(first, second, key)
    except Exception:  # noqa: BLE001  a comparison of the user's classes may raise anything
        return False


def _same_value(first: Any, second: Any, _key: Any) -> bool:
    if first is second:
        return True
    if type(first) is not type(second):
        return False
    if type(first) in (tuple, list):
        return len(first) == len(second) and all(map(_same_value, first, second, first))
    return isinstance(first, _CONSTANTS) and repr(first) == repr(second)  # 0.0 is not -0.0


_SAME: Mapping[Read, Callable[[Any, Any, Any], bool]] = {
    "value": _same_value,
    "length": lambda a, b, _: type(a) is type(b) and len(a) == len(b),
    "keys": lambda a, b, _: type(a) is type(b) and list(a) == list(b),
    "class": lambda a, b, _: type(a) is type(b),
    "function": lambda a, b, _: a is b,
    "tensor": lambda a, b, _: type(a) is type(b),
    "attribute": lambda a, b, key: hasattr(a, key) == hasattr(b, key),
    "own": lambda a, b, key: (key in vars(a)) == (key in vars(b)),
    "contains": lambda a, b, key: (key in a) == (key in b),
}
