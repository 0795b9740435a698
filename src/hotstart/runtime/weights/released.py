"""Free a model's own copies of weights that a program has packed and does not read itself."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from hotstart.errors import ModelMismatch
from hotstart.runtime.code.native import Body

_ABOUT_THE_SHAPE = frozenset({"__get__", "__repr__", "__hash__", "dim", "numel", "size", "stride"})


def _freed(name: str) -> ModelMismatch:
    why = (
        "none, since program.release_unpacked() freed them. To use the model itself, load weights "
        "with load_state_dict(..., assign=True)"
    )
    return ModelMismatch([(name, "values", why)])


class Released(torch.nn.Parameter):
    """Stands for a parameter whose memory was given back; it has a shape and no values.

    Attributes:
        path: the parameter's name.
        error: makes the error for a name whose values are asked for.
    """

    path: str
    error: Callable[[str], ModelMismatch]

    @classmethod
    def of(cls, tensor: torch.Tensor, name: str) -> Released:
        """Make the stand-in of a weight."""
        made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        return cls.in_place_of(made, name, _freed)

    @classmethod
    def in_place_of(
        cls, meta: torch.Tensor, name: str, error: Callable[[str], ModelMismatch]
    ) -> Released:
        """Make the stand-in of a weight that is not there, of a tensor on the meta device."""
        released = cls(meta, requires_grad=False)
        released.path, released.error = name, error
        return released

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Released({self.path!r})"

    @classmethod
    def __torch_function__(
        cls,
        func: Any,
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Answer questions about the shape, and refuse everything else.

        Raises:
            ModelMismatch: the weight's values are asked for.
        """
        if getattr(func, "__name__", "") in _ABOUT_THE_SHAPE:
            return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        given = [*args, *(kwargs or {}).values()]
        found = next((one for one in given if isinstance(one, Released)), None)
        raise _freed("a weight") if found is None else found.error(found.path)


def memory_in_use(functions: Iterable[Any]) -> set[int]:
    """List the addresses of the storages that functions hold, by what they close over."""
    return {tensor.untyped_storage().data_ptr() for tensor in _held(functions)}


def _held(functions: Iterable[Any]) -> Iterator[torch.Tensor]:
    seen: set[int] = set()
    pending = list(functions)
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            if value.layout is torch.strided:
                yield value
        elif isinstance(value, types.FunctionType):
            pending += [cell.cell_contents for cell in value.__closure__ or ()]
        elif isinstance(value, Body):
            pending += value.held
        elif isinstance(value, list | tuple):
            pending += value
