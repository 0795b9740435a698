"""The entries of torch's databases, as calls of modules and functions.

Every entry becomes some cases: a callable that takes tensors, inputs of an example, and other
inputs of the same shapes. Operators become plain functions in a file of their own, since their
other arguments are constants and a program's code has to come from somewhere.
"""

from __future__ import annotations

import importlib
import inspect
import pickle
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils import _pytree as pytree

import hotstart
from qualification.compare import Inputs

SAMPLES = 2
"""So many samples of an operator in its first dtype: the first and the last."""

FURTHER_DTYPES = (torch.int64, torch.bool, torch.complex64)
"""One sample in each of these that an operator takes."""

MODULE_SAMPLES = 3

MORE_ROWS = (1, 3)
"""A dynamic dimension is called with its example's size and with so many more."""

UNINITIALISED = frozenset(
    {
        "empty",
        "empty_like",
        "empty_permuted",
        "empty_strided",
        "new_empty",
        "new_empty_strided",
    }
)
"""Operators whose results hold what was in memory: only dtypes and shapes can be compared."""


UNUSED = torch.zeros(2)
"""What functions of operators that only make tensors are called with."""


@dataclass(frozen=True)
class Case:
    """One call of an entry, in one dtype.

    Attributes:
        entry: name of the entry.
        label: tells the case from the entry's others.
        holder: a module that can be pickled, which has what is called.
        path: dotted path from the holder to it; empty for the holder itself.
        example: what it is compiled with.
        others: further calls to compare.
        dynamic_shapes: as `hotstart.compile` takes them.
        initialised: whether all values of its results are defined.
    """

    entry: str
    label: str
    holder: nn.Module
    path: str
    example: Inputs
    others: tuple[Inputs, ...] = ()
    dynamic_shapes: Mapping[str, Any] | None = None
    initialised: bool = True

    @property
    def called(self) -> Callable[..., Any]:
        """The module or function that is called."""
        found: Callable[..., Any] = attrgetter(self.path)(self.holder) if self.path else self.holder
        return found


@dataclass(frozen=True)
class Skipped:
    """A case that says nothing about hotstart, with the reason."""

    label: str
    reason: str


def names() -> dict[str, str]:
    """The database of every entry, by name."""
    found = dict.fromkeys(sorted(_operators()), "operators")
    found |= dict.fromkeys(sorted(_modules()), "modules")
    return found | dict.fromkeys(sorted(_examples()), "examples")


def cases(name: str, folder: Path, few: bool) -> Iterator[Case | Skipped]:
    """The cases of an entry; source of its functions goes to a folder that is in `sys.path`.

    Args:
        name: of the entry.
        folder: where source is written.
        few: one sample in the first dtype and one in another, for compilers that take long.
    """
    if name in _operators():
        yield from _operator_cases(name, folder, few)
    elif name in _modules():
        yield from _module_cases(name, few)
    else:
        yield _example_case(name)


# --- operators ------------------------------------------------------------------------------------


@cache
def _operators() -> dict[str, Any]:
    from torch.testing._internal import common_methods_invocations as invocations

    # The database seeds within the calls of random operators; here every call is seeded before it.
    invocations.wrapper_set_seed = _as_it_is
    return {_operator_name(info): info for info in invocations.op_db}


def _as_it_is(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _operator_name(info: Any) -> str:
    return f"{info.name}.{info.variant_test_name}" if info.variant_test_name else str(info.name)


def operator(name: str, variant: str) -> Callable[..., Any]:
    """The function of an operator of the database, or its in-place variant."""
    info = _operators()[name]
    found: Callable[..., Any] = info.inplace_variant if variant == "in place" else info.op
    return found


def _operator_cases(name: str, folder: Path, few: bool) -> Iterator[Case | Skipped]:
    info = _operators()[name]
    writer = _Writer(name)
    planned: list[_Planned] = []
    taken = list(_dtypes(info))
    for at, dtype in enumerate(taken):
        wanted = SAMPLES if at == 0 and not few else 1
        if few and at > 1:
            break
        label = str(dtype).removeprefix("torch.")
        try:
            samples, others = _samples(info, dtype, 0), _samples(info, dtype, 1)
        except Exception as error:  # noqa: BLE001  torch's own generators fail on some machines
            yield Skipped(label, f"no samples: {type(error).__name__}: {_line(error)}")
            continue
        if not samples:
            yield Skipped(label, "the database has no samples for the CPU")
            continue
        picked = _spread(len(samples), wanted)
        for number in picked:
            alike = others[number] if len(others) == len(samples) else None
            ways = _variants(info, f"{label} {number}", samples[number], alike)
            planned += ways if at == number == 0 and not few else list(ways)[:1]
        if at == 0 and not few:
            planned += _resized(info, label, samples)
    written: list[tuple[_Planned, str, Inputs]] = []
    for plan in planned:
        try:
            text, inputs = writer.function(plan.variant, plan.sample, plan.out)
        except _Unwritable as error:
            yield Skipped(plan.label, str(error))
            continue
        written.append((plan, text, inputs))
    holder = writer.holder(folder)
    for plan, function, inputs in written:
        others_of = list(plan.others)
        if plan.alike is not None:
            others_of += _same_shapes(plan, inputs)
        yield Case(
            entry=name,
            label=plan.label,
            holder=holder,
            path=function,
            example=inputs,
            others=tuple(_arguments(other, plan.out) for other in others_of),
            dynamic_shapes=_dynamic(plan, inputs),
            initialised=info.name not in UNINITIALISED,
        )


@dataclass(frozen=True)
class _Planned:
    """A sample and how it is called.

    Attributes:
        label: of the case.
        variant: `"call"` or `"in place"`.
        sample: the database's (input, args, kwargs).
        out: tensors to write to, for `out=`.
        alike: the same sample with other values.
        others: samples with other sizes.
        rows: the size that may differ, if one may.
    """

    label: str
    variant: str
    sample: tuple[Any, ...]
    out: Any = None
    alike: tuple[Any, ...] | None = None
    others: tuple[tuple[Any, ...], ...] = ()
    rows: int | None = None


def _dtypes(info: Any) -> Iterator[torch.dtype]:
    supported = info.supported_dtypes("cpu")
    by_name = sorted(supported, key=str)
    first = torch.float32 if torch.float32 in supported else next(iter(by_name), None)
    if first is not None:
        yield first
        yield from (dtype for dtype in FURTHER_DTYPES if dtype in supported and dtype != first)


def _samples(info: Any, dtype: torch.dtype, seed: int) -> list[Any]:
    torch.manual_seed(seed)
    random.seed(seed)
    found = info.sample_inputs("cpu", dtype, requires_grad=False)
    return list(found)


def _spread(count: int, wanted: int) -> list[int]:
    """Numbers of the first, the last and others between."""
    if wanted == 1:
        return [0]
    return sorted({round(at * (count - 1) / (wanted - 1)) for at in range(wanted)})


def _parts(sample: Any) -> tuple[Any, ...]:
    return sample.input, tuple(sample.args), dict(sample.kwargs)


def _variants(info: Any, label: str, sample: Any, alike: Any) -> Iterator[_Planned]:
    own = _parts(sample)
    other = None if alike is None else _parts(alike)
    yield _Planned(label, "call", own, alike=other)
    if info.inplace_variant is not None and not sample.broadcasts_input:
        yield _Planned(f"{label} in place", "in place", own, alike=other)
    if info.supports_out:
        out = _room_for(info.op, own)
        if out is not None:
            yield _Planned(f"{label} out", "call", own, out=out, alike=other)


def _room_for(function: Callable[..., Any], sample: tuple[Any, ...]) -> Any:
    """Tensors that hold what a call returns, filled with zeros; None if it returns other things."""
    given, args, kwargs = pytree.tree_map_only(Tensor, torch.clone, sample)
    try:
        with torch.no_grad():
            found = function(given, *args, **kwargs)
    except Exception:  # noqa: BLE001  torch's own samples fail in eager, too; then there is no case
        return None
    if isinstance(found, Tensor):
        return torch.zeros(found.shape, dtype=found.dtype)
    if isinstance(found, tuple) and found and all(isinstance(f, Tensor) for f in found):
        return tuple(torch.zeros(f.shape, dtype=f.dtype) for f in found)
    return None


def _resized(info: Any, label: str, samples: Sequence[Any]) -> Iterator[_Planned]:
    """A sample whose leading dimension may be another size, with two other sizes."""
    for number, sample in enumerate(samples[:8]):
        own = _parts(sample)
        first = next((t for t in pytree.tree_leaves(own) if isinstance(t, Tensor)), None)
        if first is None or first.ndim < 1 or first.layout is not torch.strided:
            continue
        rows = first.shape[0]
        if rows < 2:
            continue
        others = [_with_rows(own, rows, size) for size in (rows + n for n in MORE_ROWS)]
        if all(_runs(info.op, other) for other in others):
            yield _Planned(
                f"{label} {number} dynamic", "call", own, others=tuple(others), rows=rows
            )
            return


def _with_rows(sample: tuple[Any, ...], rows: int, size: int) -> Any:
    def resized(tensor: Tensor) -> Tensor:
        if tensor.ndim < 1 or tensor.shape[0] != rows:
            return tensor
        return torch.cat([tensor] * (1 + size // rows))[:size].clone()

    return pytree.tree_map_only(Tensor, resized, sample)


def _runs(function: Callable[..., Any], sample: tuple[Any, ...]) -> bool:
    given, args, kwargs = pytree.tree_map_only(Tensor, torch.clone, sample)
    try:
        with torch.no_grad():
            function(given, *args, **kwargs)
    except Exception:  # noqa: BLE001  sizes that eager does not take are no case
        return False
    return True


def _dynamic(plan: _Planned, inputs: Inputs) -> Mapping[str, Any] | None:
    if plan.rows is None:
        return None
    rows = hotstart.Dim("rows", min=plan.rows, max=plan.rows + MORE_ROWS[-1])
    return {
        f"t{at}": {0: rows}
        for at, tensor in enumerate(inputs.args)
        if tensor.ndim and tensor.shape[0] == plan.rows
    }


def _arguments(sample: tuple[Any, ...], out: Any) -> Inputs:
    room = pytree.tree_map_only(Tensor, torch.clone, out)
    return Inputs(tuple(_tensors_of((*sample, room)) or [UNUSED]))


def _tensors_of(value: Any) -> list[Tensor]:
    """The tensors of nested lists, tuples and dicts, each once, in order."""
    leaves = _walk(value)
    return list({id(leaf): leaf for leaf in leaves}.values())


def _walk(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _walk(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _walk(item)


def _same_shapes(plan: _Planned, inputs: Inputs) -> list[tuple[Any, ...]]:
    """The sample with other values, if it differs in nothing else."""
    assert plan.alike is not None
    texts: list[str] = []
    for sample in (plan.sample, plan.alike):
        try:
            texts.append(_Expression().text(sample))
        except _Unwritable:
            return []
    kinds = [[_kind(tensor) for tensor in _tensors_of(s)] for s in (plan.sample, plan.alike)]
    return [plan.alike] if texts[0] == texts[1] and kinds[0] == kinds[1] else []


def _kind(tensor: Tensor) -> tuple[Any, ...]:
    strides = tensor.stride() if tensor.layout is torch.strided else ()
    return tuple(tensor.shape), tensor.dtype, strides, tensor.layout


class _Unwritable(Exception):
    """An argument that no source says."""


class _Expression:
    """Arguments as source; tensors are parameters `t0`, `t1`, ..., in order."""

    def __init__(self) -> None:
        self.tensors: dict[int, Tensor] = {}
        self.constants: list[str] = []

    def text(self, value: Any) -> str:
        if isinstance(value, Tensor):
            if id(value) not in self.tensors:
                self.tensors[id(value)] = value
            return f"t{list(self.tensors).index(id(value))}"
        if type(value) is list:
            return f"[{', '.join(map(self.text, value))}]"
        if type(value) is tuple:
            return f"({''.join(self.text(item) + ', ' for item in value)})"
        if type(value) is dict and all(isinstance(key, str) for key in value):
            return f"{{{', '.join(f'{k!r}: {self.text(v)}' for k, v in value.items())}}}"
        return self._constant(value)

    def _constant(self, value: Any) -> str:
        if isinstance(value, slice):
            return f"slice({value.start!r}, {value.stop!r}, {value.step!r})"
        if type(value) in (float, complex):
            return f"{type(value).__name__}({str(value)!r})"
        if value is None or value is ... or type(value) in (bool, int, str):
            return repr(value)
        if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
            return str(value)
        if isinstance(value, torch.device):
            return f"torch.device({str(value)!r})"
        try:
            pickled = pickle.dumps(value)
        except Exception as error:
            kind = type(value).__qualname__
            raise _Unwritable(f"an argument is a {kind}, which cannot be written down") from error
        self.constants.append(f"pickle.loads({pickled!r})")
        return f"@{len(self.constants) - 1}@"


class _Writer:
    """Writes the functions of an entry into one file."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._module = "case_" + "".join(c if c.isalnum() else "_" for c in name)
        self._functions: list[str] = []
        self._constants: list[str] = []

    def function(self, variant: str, sample: tuple[Any, ...], out: Any) -> tuple[str, Inputs]:
        """Write a function that makes this call; its name, and the tensors to call it with."""
        given, args, kwargs = sample
        expression = _Expression()
        texts = [expression.text(given), *map(expression.text, args)]
        for key, value in kwargs.items():
            if not key.isidentifier():
                raise _Unwritable(f"an argument is named {key!r}")
            texts.append(f"{key}={expression.text(value)}")
        if out is not None:
            texts.append(f"out={expression.text(out)}")
        tensors = list(expression.tensors.values()) or [UNUSED]
        body = ", ".join(texts)
        name = f"call_{len(self._functions)}"
        for at, constant in enumerate(expression.constants):
            body = body.replace(f"@{at}@", f"{name}_{at}")
            self._constants.append(f"{name}_{at} = {constant}")
        parameters = ", ".join(f"t{at}" for at in range(len(tensors)))
        called = "in_place" if variant == "in place" else "op"
        self._functions.append(f"def {name}({parameters}):\n    return {called}({body})\n")
        return name, Inputs(tuple(tensors))

    def holder(self, folder: Path) -> nn.Module:
        """Write the file, and make a module whose attributes are the functions."""
        holder = ["class Holder(torch.nn.Module):", "    pass", ""]
        holder += [f"Holder.call_{n} = staticmethod(call_{n})" for n in range(len(self._functions))]
        source = "\n".join(
            [
                "import pickle",
                "import torch",
                f"from {__name__} import operator",
                f"op = operator({self._name!r}, 'call')",
                f"in_place = operator({self._name!r}, 'in place')",
                *self._constants,
                "",
                *self._functions,
                *holder,
                "",
            ]
        )
        (folder / f"{self._module}.py").write_text(source)
        importlib.invalidate_caches()
        sys.modules.pop(self._module, None)
        made: nn.Module = importlib.import_module(self._module).Holder()
        return made


# --- modules --------------------------------------------------------------------------------------


@cache
def _modules() -> dict[str, Any]:
    from torch.testing._internal.common_modules import module_db

    return {info.name if "." in info.name else f"nn.{info.name}": info for info in module_db}


def _module_cases(name: str, few: bool) -> Iterator[Case | Skipped]:
    info = _modules()[name]
    modes = [False, *([True] if info.train_and_eval_differ and not few else [])]
    for training in modes:
        label = "training" if training else "float32"
        try:
            samples, others = (_module_samples(info, training, seed) for seed in (0, 1))
        except Exception as error:  # noqa: BLE001  torch's own generators fail on some machines
            yield Skipped(label, f"no samples: {type(error).__name__}: {_line(error)}")
            continue
        wanted = 1 if few or training else MODULE_SAMPLES
        for number in _spread(len(samples), wanted) if samples else ():
            sample = samples[number]
            if sample.forward_input is None:
                continue
            torch.manual_seed(number)
            made = sample.constructor_input
            module = info.module_cls(*made.args, **made.kwargs).float().train(training)
            case = Case(name, f"{label} {number}", module, "", _forward(sample))
            if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
                with torch.no_grad():
                    module(*case.example.args, **case.example.kwargs)
            if len(others) == len(samples) and others[number].forward_input is not None:
                other = _forward(others[number])
                if _shapes(other) == _shapes(case.example):
                    case = replace(case, others=(other,))
            yield case


def _module_samples(info: Any, training: bool, seed: int) -> list[Any]:
    torch.manual_seed(seed)
    random.seed(seed)
    return list(
        info.module_inputs_func(
            info, device="cpu", dtype=torch.float32, requires_grad=False, training=training
        )
    )


def _forward(sample: Any) -> Inputs:
    return Inputs(tuple(sample.forward_input.args), dict(sample.forward_input.kwargs))


def _shapes(inputs: Inputs) -> list[Any]:
    leaves = pytree.tree_leaves((inputs.args, dict(inputs.kwargs)))
    return [_kind(leaf) if isinstance(leaf, Tensor) else repr(leaf) for leaf in leaves]


# --- examples -------------------------------------------------------------------------------------


@cache
def _examples() -> dict[str, Any]:
    from torch._export.db.examples import all_examples

    return {f"export.{name}": case for name, case in all_examples().items()}


def _example_case(name: str) -> Case | Skipped:
    found = _examples()[name]
    model = found.model() if inspect.isclass(found.model) else found.model
    example = Inputs(tuple(found.example_args), dict(found.example_kwargs or {}))
    other = pytree.tree_map_only(Tensor, _other_values, (example.args, dict(example.kwargs)))
    return Case(name, "example", model, "", example, (Inputs(*other),))


def _other_values(tensor: Tensor) -> Tensor:
    return torch.rand_like(tensor) if tensor.is_floating_point() else tensor.clone()


def _line(error: BaseException) -> str:
    said = str(error).strip().splitlines()
    return said[0].strip() if said else "says nothing"
