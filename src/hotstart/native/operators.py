"""Calls of torch's operators in C++: by their C functions, or by torch's dispatcher."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hotstart._torch.graphs.operator_types import OpOverload
from hotstart._torch.native.c_shims import (
    NO_DEFAULT,
    argument_kinds,
    c_constant,
    c_functions,
    dispatcher_version,
    operator_name,
    result_kinds,
    shown_argument,
    written_arguments,
    written_by_keyword,
)

_CONSTANT = re.compile(r"\baoti_torch_(?:dtype|layout|memory_format)_\w+\(\)")

TensorOf = Callable[[ast.expr], str]
"""Writes the handle of a tensor."""

NumberOf = Callable[[ast.expr], str]
"""Writes an integer."""

IsReal = Callable[[ast.expr], bool]
"""Tells whether a tensor is known to hold floating-point numbers."""

_CONVERTING = (
    "aten::fill_.Scalar", "aten::histc", "aten::scatter.value_out", "aten::searchsorted.Scalar",
)  # fmt: skip
"""Operators that convert their Scalars to the dtype of a tensor, whatever these are."""


class NotNative(Exception):
    """A step that has no native form; the message says which and why."""


@dataclass(frozen=True)
class Written:
    """Write the values of an operator's call as the function that it stands in has them."""

    tensor: TensorOf
    number: NumberOf
    is_real: IsReal


@dataclass(frozen=True)
class OperatorCall:
    """A call in C++.

    Attributes:
        declared: what has to be declared before.
        lines: the call. It says `result_0` and so on where results go.
        results: how many tensors it gives.
        written: the arguments that it writes to.
        shown: the argument whose memory its results show; None if they have their own.
    """

    declared: str
    lines: tuple[str, ...]
    results: int
    written: tuple[ast.expr, ...] = ()
    shown: ast.expr | None = None


@dataclass(frozen=True, eq=False)
class _Argument:
    """An argument as C functions take it: its types, and a value for each.

    Attributes:
        types: C types, without `const`.
        values: expressions.
        before: lines that define what those refer to.
    """

    types: tuple[str, ...]
    values: tuple[str, ...]
    before: tuple[str, ...] = ()


def call_of(
    operator: OpOverload,
    args: Sequence[ast.expr],
    kwargs: dict[str, ast.expr],
    write: Written,
) -> OperatorCall:
    """Write a call of an operator.

    Raises:
        NotNative: neither a C function of torch nor its dispatcher takes such a call.
    """
    given = _bound(operator, args, kwargs)
    kinds = [kind for kind, _, _ in argument_kinds(operator)]
    returned = result_kinds(operator)
    if any(kind != "Tensor" for kind in returned):
        raise NotNative(f"{operator} returns {', '.join(returned)}")
    made = [
        _argument(number, kind, value, write, operator)
        for number, (kind, value) in enumerate(zip(kinds, given, strict=True))
    ]
    shown = shown_argument(operator)
    direct = None
    if _doubles_do(operator, kinds, given, write):
        direct = _direct(operator, made, len(returned))
    found = direct or _dispatched(operator, kinds, given, write, len(returned))
    constants = dict.fromkeys(each for line in found.lines for each in _CONSTANT.findall(line))
    return replace(
        found,
        declared="\n".join([found.declared, *(f'extern "C" int32_t {c};' for c in constants)]),
        written=tuple(given[number] for number in written_arguments(operator)),
        shown=None if shown is None else given[shown],
    )


def _bound(
    operator: OpOverload, args: Sequence[ast.expr], kwargs: dict[str, ast.expr]
) -> list[ast.expr]:
    """A value for each argument of an operator's schema."""
    given = []
    for number, (_, name, default) in enumerate(argument_kinds(operator)):
        if number < len(args):
            given.append(args[number])
        elif name in kwargs:
            given.append(kwargs[name])
        elif default is NO_DEFAULT:
            raise NotNative(f"{operator} is called without {name}")
        else:
            given.append(_expression(default))
    return given


def _expression(default: Any) -> ast.expr:
    if isinstance(default, list | tuple):
        return ast.List([_expression(each) for each in default], ast.Load())
    return ast.Constant(default)


# --- arguments ------------------------------------------------------------------------------------


def _argument(
    number: int, kind: str, value: ast.expr, write: Written, operator: OpOverload
) -> _Argument | None:
    """Write an argument of a C function; None if these take no such argument."""
    if kind.startswith("Optional["):
        return _optional(number, kind[len("Optional[") : -1], value, write)
    if kind.startswith("List["):
        return _listed(number, kind[len("List[") : -1], value, write)
    plain = _plain(kind, value, write)
    return None if plain is None else _Argument((plain[0],), (plain[1],))


def _optional(number: int, kind: str, value: ast.expr, write: Written) -> _Argument | None:
    if kind.startswith("List[") or kind == "Device":
        return None
    plain = _plain(kind, value, write) if not _is_none(value) else (_C_TYPES.get(kind), "")
    if plain is None or plain[0] is None:
        return None
    if _is_none(value):
        return _Argument((f"{plain[0]}*",), ("nullptr",))
    name = f"given_{number}"
    before = f"{_variable(plain[0])} {name} = {plain[1]};"
    return _Argument((f"{plain[0]}*",), (f"&{name}",), (before,))


def _listed(number: int, kind: str, value: ast.expr, write: Written) -> _Argument | None:
    if not isinstance(value, ast.List | ast.Tuple):
        return None
    name, count = f"given_{number}", str(len(value.elts))
    if kind.startswith("Optional["):
        inner = kind[len("Optional[") : -1]
        c_type = _C_TYPES.get(inner)
        if c_type is None:
            return None
        before, places = [], []
        for place, each in enumerate(value.elts):
            if _is_none(each):
                places.append("nullptr")
                continue
            plain = _plain(inner, each, write)
            if plain is None:
                return None
            before.append(f"{c_type} {name}_{place} = {plain[1]};")
            places.append(f"&{name}_{place}")
        before.append(f"const {c_type}* {name}[] = {{{', '.join(places) or 'nullptr'}}};")
        return _Argument((f"{c_type}**", "int64_t"), (name, count), tuple(before))
    items = [_plain(kind, each, write) for each in value.elts]
    c_type = _C_TYPES.get(kind)
    if c_type is None or any(item is None for item in items):
        return None
    written = ", ".join(item[1] for item in items if item is not None)
    array = f"{c_type} {name}[] = {{{written or '0'}}};"
    return _Argument((f"{c_type}*", "int64_t"), (name, count), (array,))


def _variable(c_type: str) -> str:
    """The type of a variable that is passed by its address."""
    return f"const {c_type}" if c_type == "char*" else c_type


_C_TYPES = {
    "Tensor": "Handle", "int": "int64_t", "SymInt": "int64_t", "float": "double",
    "number": "double", "Scalar": "double", "bool": "int32_t", "str": "char*",
    "ScalarType": "int32_t", "Layout": "int32_t", "MemoryFormat": "int32_t",
}  # fmt: skip


def _plain(kind: str, value: ast.expr, write: Written) -> tuple[str, str] | None:
    """The C type of a value that is neither a list nor optional, and the value."""
    c_type = _C_TYPES.get(kind)
    if c_type is None or _is_none(value):
        return None
    if kind == "Tensor":
        return c_type, write.tensor(value)
    if c_type == "int64_t":
        return c_type, write.number(value)
    if c_type == "double":
        return c_type, _real(value, write)
    if kind == "str":
        text = _constant(value)
        return ("char*", _quoted(text)) if isinstance(text, str) else None
    if kind == "bool":
        flag = _constant(value)
        return (c_type, str(int(flag))) if isinstance(flag, bool | int) else None
    name = c_constant(kind, ast.unparse(value))
    return None if name is None else (c_type, name)


def _real(value: ast.expr, write: Written) -> str:
    match value:
        case ast.Constant(value=bool() as flag):
            return str(float(flag))
        case ast.Constant(value=int() | float() as number):
            return _double(float(number))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return f"-{_real(operand, write)}"
        case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value=str() as text)]):
            return _double(float(text))
    return f"static_cast<double>({write.number(value)})"


def _double(number: float) -> str:
    if number != number:
        return '__builtin_nan("")'
    if number in (float("inf"), float("-inf")):
        return "-__builtin_inf()" if number < 0 else "__builtin_inf()"
    return number.hex()


def _quoted(text: str) -> str:
    return '"' + "".join(c if c.isalnum() or c in "_ .:" else f"\\{ord(c):03o}" for c in text) + '"'


def _constant(value: ast.expr) -> Any:
    return value.value if isinstance(value, ast.Constant) else None


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None


def _doubles_do(
    operator: OpOverload, kinds: Sequence[str], given: Sequence[ast.expr], write: Written
) -> bool:
    """Tell whether an operator's Scalars mean the same as doubles, which C functions take.

    An integer as a double would give `3 ** x` another dtype, and be another number beyond 2**53.
    """
    scalars = [
        value
        for kind, each in zip(kinds, given, strict=True)
        if "number" in kind or "Scalar" in kind.replace("ScalarType", "")
        for value in (each.elts if isinstance(each, ast.List | ast.Tuple) else [each])
    ]
    integers = [value for value in scalars if not (_is_none(value) or _is_float(value))]
    if not integers:
        return True
    if not all(_is_exact(value) for value in integers):
        return False
    name, overload = operator_name(operator)
    if f"{name}.{overload}".rstrip(".") in _CONVERTING or name.startswith("mkldnn::"):
        return True
    out = [
        value for value, is_out in zip(given, written_by_keyword(operator), strict=True) if is_out
    ]
    return bool(out) and all(map(write.is_real, out))


def _is_float(value: ast.expr) -> bool:
    match value:
        case ast.Constant(value=float()) | ast.Call(func=ast.Name(id="float")):
            return True
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _is_float(operand)
    return False


def _is_exact(value: ast.expr) -> bool:
    """Tell whether a double holds an integer; sizes, which calls compute, may not fit."""
    match value:
        case ast.Constant(value=int() as number):
            return abs(number) <= 1 << 53
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _is_exact(operand)
    return False


# --- calls ----------------------------------------------------------------------------------------


def _direct(
    operator: OpOverload, made: Sequence[_Argument | None], results: int
) -> OperatorCall | None:
    """Call a C function of torch; None if there is none that takes these arguments."""
    arguments = [argument for argument in made if argument is not None]
    if len(arguments) < len(made):
        return None
    # C functions take what is written to by keyword first.
    out = written_by_keyword(operator)
    arguments.sort(key=lambda argument: not out[made.index(argument)])
    types = [each for argument in arguments for each in argument.types]
    values = [each for argument in arguments for each in argument.values]
    for function in c_functions(operator):
        rest = function.types[len(types) :]
        if list(function.types[: len(types)]) == types and rest in ((), ("Handle*",) * results):
            given = [*values, *(f"result_{number}" for number in range(len(rest)))]
            declared = f'extern "C" Status {function.name}({", ".join(function.declared)});'
            call = f'check({function.name}({", ".join(given)}), "{operator}");'
            before = (line for argument in arguments for line in argument.before)
            return OperatorCall(declared, (*before, call), len(rest))
    return None


_DISPATCHER = (
    'extern "C" Status torch_call_dispatcher(const char*, const char*, uint64_t*, uint64_t);'
)


def _dispatched(
    operator: OpOverload,
    kinds: Sequence[str],
    given: Sequence[ast.expr],
    write: Written,
    results: int,
) -> OperatorCall:
    """Call an operator through the dispatcher, which takes its arguments in a row of numbers.

    Raises:
        NotNative: an argument is of a kind that the dispatcher does not take in this form.
    """
    lines = [f"uint64_t row[{max(len(given), results, 1)}];"]
    for number, (kind, value) in enumerate(zip(kinds, given, strict=True)):
        word = _word(kind, value, write)
        if word is None:
            raise NotNative(f"{operator} takes {ast.unparse(value)} as {kind}")
        lines.append(f"row[{number}] = {word};")
    name, overload = operator_name(operator)
    version = dispatcher_version()
    call = f'torch_call_dispatcher("{name}", "{overload}", row, {version}ULL)'
    lines.append(f'check({call}, "{operator}");')
    lines += (f"*result_{n} = reinterpret_cast<Handle>(row[{n}]);" for n in range(results))
    return OperatorCall(_DISPATCHER, tuple(lines), results)


def _word(kind: str, value: ast.expr, write: Written) -> str | None:
    """Write an argument as one number of the dispatcher's."""
    if kind.startswith("Optional["):
        if _is_none(value):
            return "0"
        word = _word(kind[len("Optional[") : -1], value, write)
        return None if word is None else f"boxed({word})"
    if kind == "Tensor":
        return f"shared({write.tensor(value)})"
    if kind in ("int", "SymInt"):
        return f"static_cast<uint64_t>({write.number(value)})"
    if kind.startswith("List["):
        return _row(kind[len("List[") : -1], value, write)
    plain = _plain(kind, value, write)
    if plain is None:
        return None
    if kind == "float":
        return f"bits({plain[1]})"
    if kind in ("bool", "ScalarType", "Layout", "MemoryFormat"):
        return f"static_cast<uint64_t>({plain[1]})"
    return None


def _row(kind: str, value: ast.expr, write: Written) -> str | None:
    """Write a list of the dispatcher's."""
    if kind not in ("int", "SymInt", "Tensor") or not isinstance(value, ast.List | ast.Tuple):
        return None
    words = [_word(kind, each, write) for each in value.elts]
    return f"listed({{{', '.join(map(str, words))}}})"
