"""Calls of torch's operators in C++: by their C functions, or by torch's dispatcher."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hotstart._torch.graphs.operator_types import OpOverload
from hotstart._torch.native.c_shims import (
    NO_DEFAULT,
    argument_kinds,
    c_functions,
    dispatcher_version,
    operator_name,
    result_kinds,
    shown_argument,
    written_arguments,
    written_by_keyword,
)
from hotstart.native.operator_arguments import Argument, Written, argument_of, is_none, word_of

_CONSTANT = re.compile(r"\baoti_torch_(?:dtype|layout|memory_format)_\w+\(\)")

_CONVERTING = (
    "aten::fill_.Scalar", "aten::histc", "aten::scatter.value_out", "aten::searchsorted.Scalar",
)  # fmt: skip
"""Operators that convert their Scalars to the dtype of a tensor, so integers may be doubles."""


class NotNative(Exception):
    """A step without a native form; the message names it and says why."""


@dataclass(frozen=True)
class OperatorCall:
    """A call in C++.

    Attributes:
        declared: declarations that it needs.
        lines: the call. It says `result_0` and so on where results go.
        results: how many tensors it gives.
        written: the arguments that it writes to.
        shown: the argument that its results are views of; None if they have their own memory.
    """

    declared: str
    lines: tuple[str, ...]
    results: int
    written: tuple[ast.expr, ...] = ()
    shown: ast.expr | None = None


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
        argument_of(number, kind, value, write)
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


def _doubles_do(
    operator: OpOverload, kinds: Sequence[str], given: Sequence[ast.expr], write: Written
) -> bool:
    """Tell whether an operator's Scalars may be passed as doubles, which C functions take.

    As a double, an integer would change the dtype of `3 ** x`, and be inexact above 2**53.
    """
    scalars = [
        value
        for kind, each in zip(kinds, given, strict=True)
        if "number" in kind or "Scalar" in kind.replace("ScalarType", "")
        for value in (each.elts if isinstance(each, ast.List | ast.Tuple) else [each])
    ]
    integers = [value for value in scalars if not (is_none(value) or _is_float(value))]
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
    """Tell whether a double represents an integer exactly; sizes are only known in calls."""
    match value:
        case ast.Constant(value=int() as number):
            return abs(number) <= 1 << 53
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _is_exact(operand)
    return False


def _direct(
    operator: OpOverload, made: Sequence[Argument | None], results: int
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
        written = word_of(kind, value, write)
        if written is None:
            raise NotNative(f"{operator} takes {ast.unparse(value)} as {kind}")
        lines.append(f"row[{number}] = {written};")
    name, overload = operator_name(operator)
    version = dispatcher_version()
    call = f'torch_call_dispatcher("{name}", "{overload}", row, {version}ULL)'
    lines.append(f'check({call}, "{operator}");')
    lines += (f"*result_{n} = reinterpret_cast<Handle>(row[{n}]);" for n in range(results))
    return OperatorCall(_DISPATCHER, tuple(lines), results)
