"""Word the errors of calls and weights that a program does not take. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hotstart.errors import ContractError, ModelMismatch
from hotstart.records.artifact import WeightSpec
from hotstart.records.contract import Contract, Parameter, TensorSpec
from hotstart.records.dims import Size, axes_of, size_at
from hotstart.records.guards import Change
from hotstart.records.nested import Attributes, Container, Map, Record, Seq
from hotstart.records.shapes import Variant, dense_strides
from hotstart.runtime.entry.by_parameter import MISSING


def not_served(
    contract: Contract, variants: Sequence[Variant], sizes: Mapping[str, int]
) -> ContractError:
    """Explain that no variant serves the sizes of a call, as far as they are known."""
    for dim in contract.axes:
        if dim.name in sizes and not dim.serves(sizes[dim.name]):
            of = _of_first(contract, dim.name, sizes)
            return ContractError(
                first_with(contract, dim.name),
                f"axis {dim.name!r} of size {sizes[dim.name]}{of}",
                f"{dim}",
                "declare a larger Dim, or pad or split the input",
            )
    served = " or ".join(variant.name for variant in variants)
    return ContractError("sizes", str(dict(sizes)), served, "pad the input, or declare these sizes")


def other_size(
    contract: Contract, path: str, dim: int, size: Size, found: int, sizes: Mapping[str, int]
) -> ContractError:
    """Explain that a dimension has not the size that its axes ask for, which have these sizes."""
    there = f"size {size_at(size, sizes)} there"
    if isinstance(size, str):
        takes = f"{there}, the size of axis {size!r} in {first_with(contract, size)}"
        advice = "pass equal sizes, or declare another Dim there"
    else:
        known = (f"axis {a!r} of {n} in {first_with(contract, a)}" for a, n in sizes.items())
        takes = f"{there}, {size} for {' and '.join(known)}"
        advice = "pass this size, or declare another Dim there"
    return ContractError(path, f"size {found} in dimension {dim}", takes, advice)


def not_derived(path: str, dim: int, size: Size, found: int) -> ContractError:
    """Explain that a dimension has a size that does not follow from its axis."""
    (axis,) = axes_of(size)
    takes, advice = f"{size} there, for a whole number {axis!r}", "pad or crop the input"
    return ContractError(path, f"size {found} in dimension {dim}", takes, advice)


def to_fit(spec: TensorSpec, dtype: str, shape: Sequence[int]) -> str:
    """Advise on a tensor of a dtype, a rank or a size that was not compiled."""
    wanted, rank = spec.shape, len(spec.shape)
    if dtype != spec.dtype:
        to = f"convert it, as by .to(torch.{spec.dtype})"
        return f"{to}, or compile with an example of torch.{dtype}"
    if len(shape) != rank:
        dimensions = "1 dimension" if rank == 1 else f"{rank} dimensions"
        return f"pass {dimensions}, or compile with an example of {len(shape)}"
    for dim, (size, found) in enumerate(zip(wanted, shape, strict=True)):
        if isinstance(size, int) and size != found:
            return f"pass {size} in dimension {dim}, or declare a Dim for it in dynamic_shapes"
    return ""


def left_out(found: Any) -> str:
    """Advise on a call without an argument that the example had; empty if it has one."""
    if found is not MISSING and found is not None:
        return ""
    return "pass it, or compile with an example without it"


def shares_a_weight(path: str, weight: str) -> ContractError:
    """Explain that an argument shares memory with a weight, and one of them is written to."""
    return ContractError(
        path,
        f"a tensor that shares memory with the model's {weight}",
        "a tensor of its own, since the model writes to one of them",
        "pass a .clone()",
    )


def _of_first(contract: Contract, axis: str, sizes: Mapping[str, int]) -> str:
    """Say the size that the first dimension has which follows from an axis; empty if it is it."""
    all_of = (size for spec in contract.tensors for size in spec.shape)
    size = next(size for size in all_of if axes_of(size) == (axis,))
    return "" if isinstance(size, str) else f", {size} of {size_at(size, sizes)}"


def first_with(contract: Contract, axis: str) -> str:
    """The path of the first tensor that has an axis."""
    return next(s.path for s in contract.tensors if any(axes_of(n) == (axis,) for n in s.shape))


def in_words(value: Any) -> str:
    """Describe in a few words an argument that is no tensor."""
    if value is MISSING:
        return "nothing"
    if isinstance(value, list | tuple | dict):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__qualname__}"


# --- arguments ------------------------------------------------------------------------------------


def unknown_argument(name: str, found: str, parameters: Sequence[Parameter]) -> ContractError:
    """Explain that the example did not have a keyword argument, and name those that it had."""
    names = [p.name for p in parameters if p.kind not in ("positional_only", "var_positional")]
    takes = f"no argument {name!r}, only {', '.join(names) or 'positional ones'}"
    from difflib import get_close_matches  # few processes make a mistake

    near = get_close_matches(name, names, 1)
    advice = f"pass {near[0]!r}" if near else "leave it out"
    return ContractError(name, found, takes, f"{advice}, or compile with an example that has it")


def too_many(parameters: Sequence[Parameter], more: int) -> ContractError:
    """Explain that there are more positional arguments than forward has."""
    names = [p.name for p in parameters if p.kind in ("positional_only", "positional")]
    listed = f", {', '.join(names)}" if names else ""
    takes, advice = f"at most {len(names)}{listed}", "pass others by name, or leave them out"
    return ContractError("positional arguments", str(len(names) + more), takes, advice)


def other_structure(path: str, found: str, tree: Container) -> ContractError:
    """Explain that an argument is not the container that the example had."""
    advice = "pass it as in the example, or compile with an example of this form"
    return ContractError(path, found, form_of(tree), advice)


def not_as_written(path: str, found: str, value: Any) -> ContractError:
    """Explain that an argument differs from the constant that was compiled."""
    takes = f"{value!r}, as in the example"
    return ContractError(path, found, takes, "compile with an example that passes this value")


def form_of(tree: Container) -> str:
    """Describe what a container must be, one level deep."""
    match tree:
        case Seq(_, items):
            takes = f"of {len(items)}"
        case Map(_, entries):
            takes = f"with keys {[key for key, _ in entries]}"
        case Record(_, fields) | Attributes(_, fields):
            takes = f"with attributes {', '.join(name for name, _ in fields)}"
        case _:
            takes = "like the example's"
    return f"a {tree.cls.__name__} {takes}"


def same_object(containers: Sequence[Any]) -> tuple[int, ...]:
    """Two places of one container, by number; empty if there are none."""
    if len(set(map(id, containers))) == len(containers):
        return ()
    first: dict[int, int] = {}
    pairs = ((first.setdefault(id(held), n), n) for n, held in enumerate(containers))
    return next(pair for pair in pairs if pair[0] != pair[1])


def passed_twice(path: str, cls: type, other: str) -> ContractError:
    """Explain that a container that a call changes is passed in two places."""
    return ContractError(
        path,
        f"a {cls.__name__} that is {other}, too",
        "one of its own, since the model changes what it is given",
        "pass a copy",
    )


def shares_memory(path: str, other: str) -> ContractError:
    """Explain that a tensor that a call writes to shares memory with another."""
    return ContractError(
        path,
        f"a tensor that shares memory with {other}",
        "a tensor of its own, since the model writes to it",
        "pass a .clone()",
    )


def overlaps_itself(path: str, strides: Sequence[int]) -> ContractError:
    """Explain that elements of a tensor that a call writes to share memory."""
    return ContractError(
        path,
        f"a tensor whose elements share memory, strides {tuple(strides)}",
        "one whose elements are apart, since the model writes to it",
        "pass a .clone()",
    )


def not_laid_out(spec: TensorSpec, shape: Sequence[int], strides: Sequence[int]) -> ContractError:
    """Explain that a tensor has other strides, where forward reads strides."""
    order = spec.dim_order
    return ContractError(
        spec.path,
        f"strides {tuple(strides)}",
        f"strides {dense_strides(shape, order)}, since what forward does depends on them",
        f"pass {spec.path}{dense_copy(order)}, or compile with an example of this layout",
    )


# --- weights --------------------------------------------------------------------------------------

NO_PARAMETER = "no such parameter"
"""The words for a parameter that a model has and did not have at the build."""


def other_model(
    differences: Sequence[Change], dtypes: Collection[tuple[str, str]]
) -> ModelMismatch:
    """Explain that a model does not fit: its class and structure before what follows from them.

    Args:
        differences: all of them; of modules first, the model itself the first of these.
        dtypes: wanted and found, by name, of tensors that have another one.
    """
    named = {name for name, *_ in differences}
    told = [  # digests of keys say nothing where their number differs
        one for one in differences
        if not one[0].startswith("keys ") or f"len({one[0][5:]})" not in named
    ]  # fmt: skip
    name, expected, found = differences[0]
    if name == "model" and expected.startswith("a "):
        about = f"the model is a {found}, the program is of {expected}: it"
        return ModelMismatch(told, about, f"Load it with {expected}, or compile this model.")
    if any(map(_is_of_structure, differences)):
        about = "the model is of the class that was compiled, but of another structure: it"
        advice = (
            "Make it with the settings of the build, such as the number of layers, or compile it."
        )
        return ModelMismatch(told, about, advice)
    advice = to_convert(dtypes)
    return ModelMismatch(told, advice=advice) if advice else ModelMismatch(told)


def to_convert(dtypes: Collection[tuple[str, str]]) -> str:
    """Advise on floating-point weights that all have one other dtype; empty if they do not.

    Args:
        dtypes: wanted and found, by name.
    """
    if len(dtypes) != 1 or not all("float" in one for pair in dtypes for one in pair):
        return ""
    ((wanted, found),) = dtypes
    return f"Convert the weights, as by .to(torch.{wanted}), or compile the model in {found}."


def _is_of_structure(difference: Change) -> bool:
    """Tell whether a difference is a module or a parameter that is missing, or one too many."""
    what, expected, found = difference
    missing = found == "nothing" and expected.startswith("a ")
    return what.startswith("len(") or expected == NO_PARAMETER or missing


def described_weight(spec: WeightSpec) -> str:
    """Describe a weight as a table of weights asks for it."""
    shape, strides = list(spec.shape), list(spec.stride)
    return f"torch.{spec.dtype} {shape} on {spec.device}, strides {strides}"


def dense_copy(dim_order: Sequence[int]) -> str:
    """The method call that brings a tensor into an order of dimensions, without gaps."""
    formats = {(0, 2, 3, 1): "channels_last", (0, 2, 3, 4, 1): "channels_last_3d"}
    if tuple(dim_order) == tuple(range(len(dim_order))):
        return ".clone(memory_format=torch.contiguous_format)"
    if tuple(dim_order) in formats:
        return f".clone(memory_format=torch.{formats[tuple(dim_order)]})"
    back = tuple(dim_order.index(dim) for dim in range(len(dim_order)))
    return f".permute{tuple(dim_order)}.clone(memory_format=torch.contiguous_format).permute{back}"
