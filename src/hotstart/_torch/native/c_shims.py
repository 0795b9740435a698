"""The C functions of libtorch_cpu that call operators, and how to compile against them."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# Private: torch.utils.cpp_extension is public and finds a compiler, but not the one that Inductor
# compiles kernels with. torch 2.11 to 2.15.
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._ops import OpOverload

from hotstart._torch.inductor.cross import cross_compiler
from hotstart._torch.native.torch_library import in_place_of_libtorch
from hotstart.targets import X86_64, TargetName, architecture_of, is_foreign

NO_DEFAULT = object()
"""Stands for the default of an argument that has none."""

_HEADERS = (
    "torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h",
    "torch/csrc/inductor/aoti_torch/generated/c_shim_aten.h",
    "torch/csrc/inductor/aoti_torch/c/shim_cpu.h",
)
_DECLARATION = re.compile(r"AOTI_TORCH_EXPORT\s+AOTITorchError\s+(\w+)\(([^)]*)\);")
_LAYOUTS = ("strided", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc")
_FORMATS = ("contiguous_format", "channels_last", "channels_last_3d", "preserve_format")


@dataclass(frozen=True)
class CFunction:
    """A C function that calls an operator.

    Attributes:
        name: the function.
        types: of its parameters, without `const`; a tensor's handle is a `Handle`.
        declared: the same with `const`.
    """

    name: str
    types: tuple[str, ...]
    declared: tuple[str, ...]


def argument_kinds(operator: OpOverload) -> list[tuple[str, str, Any]]:
    """List the kind, name and default of an operator's arguments, such as `Optional[Tensor]`."""
    # Private: the schema's `real_type` is what tells a dtype from an integer. torch 2.11 to 2.15.
    return [
        (
            str(argument.real_type),
            argument.name,
            argument.default_value if argument.has_default_value() else NO_DEFAULT,
        )
        for argument in operator._schema.arguments
    ]


def result_kinds(operator: OpOverload) -> list[str]:
    """List the kinds of what an operator returns."""
    return [str(result.real_type) for result in operator._schema.returns]


def written_arguments(operator: OpOverload) -> list[int]:
    """The numbers of the arguments that an operator writes to."""
    return [
        number
        for number, argument in enumerate(operator._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


def shown_argument(operator: OpOverload) -> int | None:
    """The number of the argument whose memory the result shows; None if it has its own."""
    results = operator._schema.returns
    if not any(result.alias_info is not None for result in results):
        return None
    return next(
        number
        for number, argument in enumerate(operator._schema.arguments)
        if argument.alias_info is not None
    )


def written_by_keyword(operator: OpOverload) -> list[bool]:
    """Tell for each argument whether it is one that `out=` stands for."""
    return [argument.is_out for argument in operator._schema.arguments]


def operator_name(operator: OpOverload) -> tuple[str, str]:
    """The name and the overload as torch's dispatcher knows them."""
    schema = operator._schema
    return schema.name, schema.overload_name


def c_functions(operator: OpOverload) -> Iterator[CFunction]:
    """List the C functions whose names say that they call an operator."""
    name, overload = operator_name(operator)
    namespace, base = name.split("::")
    endings = [f"{base}_{overload}" if overload else base]
    if overload and base.endswith("_"):  # in place
        endings.append(f"{base}{overload}_")
    starts = {"aten": ("cpu_", "aten_")}.get(namespace, (f"cpu_{namespace}_", "cpu_"))
    found = _declarations()
    for start, ending in itertools.product(starts, endings):
        function = f"aoti_torch_{start}{ending}"
        if function in found:
            declared = found[function]
            types = tuple(each.replace("const ", "") for each in declared)
            yield CFunction(function, types, declared)


@functools.cache
def _declarations() -> dict[str, tuple[str, ...]]:
    """The types of the parameters of torch's C functions, by name."""
    folder = Path(torch.__file__).parent / "include"
    found = {}
    for header in _HEADERS:
        path = folder / header
        text = path.read_text() if path.exists() else ""
        for name, parameters in _DECLARATION.findall(text):
            found[name] = tuple(map(_type_of, filter(None, parameters.split(","))))
    return found


def _type_of(parameter: str) -> str:
    """The type of a parameter such as `const double** scalars`."""
    words = " ".join(parameter.split()).replace("AtenTensorHandle", "Handle")
    return re.sub(r"\s*\b\w+$", "", words).replace(" *", "*")


def c_constant(kind: str, written: str) -> str | None:
    """A dtype, layout or memory format of Python source as C functions know it; None for others."""
    name = written.removeprefix("torch.")
    if kind == "ScalarType" and isinstance(getattr(torch, name, None), torch.dtype):
        return f"aoti_torch_dtype_{str(getattr(torch, name)).removeprefix('torch.')}()"
    if kind == "Layout" and name in _LAYOUTS:
        return f"aoti_torch_layout_{name}()"
    if kind == "MemoryFormat" and name in _FORMATS:
        return f"aoti_torch_memory_format_{name}()"
    return None


def is_real(written: str) -> bool:
    """Tell whether a dtype of Python source is one of floating-point numbers."""
    dtype = getattr(torch, written.removeprefix("torch."), None)
    return isinstance(dtype, torch.dtype) and dtype.is_floating_point


def dispatcher_version() -> int:
    """The version of torch as its dispatcher wants to be told it by compiled code."""
    numbers = [int(part) for part in re.findall(r"\d+", torch.__version__)[:3]]
    return numbers[0] << 56 | numbers[1] << 48 | numbers[2] << 40


def compile_command(source: Path, made: Path, target: TargetName = "native") -> list[str]:
    """The command that compiles a native program with the compiler that made its kernels.

    It holds no loops over elements, so it is compiled for every processor of the architecture, and
    so for every target that is of this one.

    Args:
        source: the program.
        made: the shared object.
        target: the processors that it is for. What is linked in libtorch's place is put
            beside `made`.

    Raises:
        OptionsError: there is no compiler for the target.
        OSError: it is gone.
        subprocess.SubprocessError: it refuses.
    """
    compiler = cross_compiler(target) if is_foreign(target) else get_cpp_compiler()
    library = in_place_of_libtorch(compiler, made.parent)
    return [
        compiler,
        *("-std=c++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", "-w"),
        "-fno-use-linker-plugin",
        *(("-march=x86-64",) if architecture_of(target) == X86_64 else ()),
        str(source),
        *("-Wl,--no-as-needed", str(library), "-o", str(made)),
    ]
