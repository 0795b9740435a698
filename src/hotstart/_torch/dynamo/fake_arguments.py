"""Run a call in which arguments, and everything computed from them, are fake tensors.

Everything else is computed: a table that the call makes from constants or weights has its values.
So a first call costs no more than its set-up, however large its arguments are.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.utils._pytree as pytree
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from hotstart._torch.graphs.symbols import failures_unlogged, is_fake
from hotstart._torch.subclasses.inner_tensors import context_of, inner_names
from hotstart._torch.subclasses.subclass_calls import is_wrapper

if TYPE_CHECKING:
    from torch._subclasses.fake_tensor import FakeTensorMode

Fakes: TypeAlias = "FakeTensorMode"
"""The mode that owns fake tensors, with the fakes of real tensors."""

LIMIT = 1 << 30
"""Bound on the bytes of a tensor that is computed."""

_DEPTH = 4
"""So deep are attributes of objects looked at that calls return."""

_FILLED = 1 << 26
"""Bound on the bytes of a fake tensor of which only the form counts."""

_aten = torch.ops.aten
_BY_FORM = frozenset({_aten.zeros_like, _aten.ones_like, _aten.full_like, _aten.new_zeros,
                      _aten.new_ones, _aten.new_full})  # fmt: skip
"""Operators that read nothing of their first argument but its form."""

Step = tuple[Any, ...]
"""An operator on fake tensors, with its inputs; equal for equal computations."""


class TooLarge(Exception):
    """A tensor that would be computed is larger than `LIMIT`."""


def fakes_of(weights: Iterable[torch.Tensor]) -> Fakes:
    """The mode of the fake tensors among weights; a new one if there are none."""
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    for tensor in weights:
        if isinstance(tensor, FakeTensor):
            return tensor.fake_mode
    return FakeTensorMode(
        allow_non_fake_inputs=True, static_shapes=True, shape_env=_sizes_of_data()
    )


def _sizes_of_data() -> Any:
    """An environment for sizes and numbers that depend on data; named alike in each call."""
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    return ShapeEnv(allow_scalar_outputs=True, allow_dynamic_output_shape_ops=True)


class NoMemory(Exception):
    """A tensor that would be written to is not memory with strides."""


class FakeArguments(TorchDispatchMode):
    """While entered, operators on fake tensors give fake tensors, and others are run.

    `TorchDispatchMode` and `FakeTensorMode` (2.11 to 2.15) are how torch lets Python stand between
    a model and its operators. Memory that fake tensors are written to has unknown values: results
    that read it are fake.

    Args:
        fakes: the mode that fake tensors are of.
        weights: the model's tensors, which are identified by memory and not by value.
    """

    supports_higher_order_operators = True

    def __init__(self, fakes: Fakes, weights: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._fakes: Fakes | None = fakes
        if fakes.shape_env is not None and fakes.static_shapes:
            fakes.shape_env = _sizes_of_data()
        self._weights = {memory_of(t): n for n, t in enumerate(weights) if not is_fake(t)}
        self._numbers: dict[int, tuple[int, torch.Tensor]] = {}
        self._made: list[weakref.ref[torch.Tensor]] = []
        self._own: set[StorageWeakRef] = set()
        self._unknown: set[StorageWeakRef] = set()
        self._before: dict[StorageWeakRef, tuple[torch.Tensor, torch.Tensor]] = {}
        self.steps: list[Step] = []

    def argument(self, shape: list[int], strides: tuple[int, ...], **kind: Any) -> torch.Tensor:
        """An argument that is a fake tensor; `kind` is its dtype and device."""
        with self._running:
            made = torch.empty_strided(shape, strides, **kind)
        self._name(made)
        return made

    def run(self, call: Callable[[], Any]) -> None:
        """Make a call; what it computes of arguments is in `steps`, with what it returns."""
        with self, failures_unlogged():
            result = call()
        self.steps.append(("return", *map(self._token, pytree.tree_leaves(result))))
        self.steps += sorted(("writes", self._weights[m]) for m in self._written_weights())

    def finish(self) -> None:
        """Restore memory that existed before, and release all fake tensors."""
        for now, old in self._before.values():
            now.copy_(old)
        self._before.clear()
        self._numbers.clear()
        self._fakes = None

    def outlived(self) -> bool:
        """Tell whether anything still holds a fake tensor, or memory that one was written to."""
        alive = any(ref() is not None for ref in self._made)
        return alive or any(not memory.expired() for memory in self._unknown & self._own)

    def wrote(self) -> bool:
        """Tell whether memory that was there before holds something else, or unknown values."""
        differs = any(not torch.equal(now, old) for now, old in self._before.values())
        return differs or bool(self._unknown - self._own)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        inputs = [*_tensors((args, given))]
        if any(map(is_wrapper, inputs)):
            # A subclass has no memory of its own; operators on its inner tensors come here.
            return NotImplemented
        args = self._with_known_form(func, args)
        inputs = [*_tensors((args, given))]
        written = [*_written(func, args, given)]
        known = {memory_of(each) for each in inputs if not is_fake(each)}
        if any(map(self._is_unknown, inputs)):
            self.steps.append((str(func), *map(self._token, _leaves((args, given)))))
            self._unknown.update(memory_of(each) for each in written if not is_fake(each))
            if self._unknown or not all(each.is_leaf for each in inputs):
                args, given = self._as_fakes((args, given))
            with self._running:
                result = func(*args, **given)
            for made in _tensors(result):
                self._name(made)
            return result
        self._require_small(func, args, given)
        for each in written:
            self._keep(each)
        result = func(*args, **given)
        self._own.update(m for m in map(memory_of, _tensors(result)) if m not in known)
        return result

    def _with_known_form(self, func: Any, args: Any) -> Any:
        """Replace the argument of `zeros_like` and the like: what these make has known values."""
        if getattr(func, "overloadpacket", None) not in _BY_FORM or not is_fake(args[0]):
            return args
        like = args[0]
        if like.numel() * like.element_size() > _FILLED:
            return args
        strided = torch.empty_strided(
            like.shape, like.stride(), dtype=like.dtype, device=like.device
        )
        return (strided, *args[1:])

    def _as_fakes(self, values: Any) -> Any:
        """Replace tensors whose values are not known by fake ones, and detach the others.

        Torch looks at the gradients of what it makes fakes of, and warns where there can be none.
        """
        return pytree.tree_map_only(
            torch.Tensor,
            lambda t: self._running.from_tensor(t) if self._is_unknown(t) else t.detach(),
            values,
        )

    @property
    def _running(self) -> Fakes:
        assert self._fakes is not None, "it is finished"
        return self._fakes

    def _name(self, made: torch.Tensor) -> None:
        """Number a fake tensor, and hold it, lest another one has its identity."""
        if is_fake(made) and id(made) not in self._numbers:
            self._numbers[id(made)] = (len(self._numbers), made)
            self._made.append(weakref.ref(made))

    def _token(self, value: Any, depth: int = _DEPTH) -> Any:
        """Make a token of an operator's input: equal for equal computations."""
        if not isinstance(value, torch.Tensor):
            return self._token_of_object(value, depth)
        if is_wrapper(value):
            inner = [self._token(getattr(value, name)) for name in inner_names(value)]
            return (type(value).__qualname__, repr(context_of(value)), *inner)
        if id(value) in self._numbers:
            return self._numbers[id(value)][0]
        form = _form(value)
        if is_fake(value):  # a weight of a model on meta
            return ("weight", id(value), *form)
        if memory_of(value) in self._weights:
            return ("weight", self._weights[memory_of(value)], value.storage_offset(), *form)
        if self._is_unknown(value):
            return ("written", *form)
        return digest_of(value)

    def _token_of_object(self, value: Any, depth: int) -> Any:
        """Make a token of a constant, or of an object as what its attributes hold."""
        name, held = type(value).__qualname__, getattr(value, "__dict__", None)
        if callable(value):
            return name
        if (
            not held
            or not depth
            or isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool)
        ):
            return repr(value)
        found = ((key, leaf) for key, held in held.items() for leaf in pytree.tree_leaves(held))
        return (name, *((key, self._token(leaf, depth - 1)) for key, leaf in found))

    def _is_unknown(self, tensor: torch.Tensor) -> bool:
        return is_fake(tensor) or (bool(self._unknown) and memory_of(tensor) in self._unknown)

    def _written_weights(self) -> set[StorageWeakRef]:
        """The memory of weights whose contents have changed."""
        differ = {m for m, (now, old) in self._before.items() if not torch.equal(now, old)}
        return (differ | self._unknown) & self._weights.keys()

    def _keep(self, tensor: torch.Tensor) -> None:
        """Keep a copy of memory that is about to be written to.

        Raises:
            NoMemory: it is no memory, but what a tensor subclass makes of other tensors.
        """
        if not has_memory(tensor):
            raise NoMemory(type(tensor).__qualname__)
        memory = memory_of(tensor)
        if memory not in self._own and memory not in self._before:
            whole = torch.empty(0, dtype=torch.uint8, device=tensor.device)
            whole.set_(tensor.untyped_storage())
            self._before[memory] = (whole, whole.clone())

    def _require_small(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        """Raise `TooLarge` if what an operator gives is; views, and what has no fake, are not."""
        if not isinstance(func, torch._ops.OpOverload) or func.is_view or func._schema.is_mutable:
            return
        try:
            with self._running:
                result = func(*args, **kwargs)
        except Exception:  # noqa: BLE001  of its contents, say, which the call itself has
            return
        if any(made.numel() * made.element_size() > LIMIT for made in _tensors(result)):
            raise TooLarge


def digest_of(tensor: torch.Tensor) -> tuple[object, ...]:
    """A digest of what a tensor holds, with its dtype and shape.

    Not with its strides: a part of a larger table is equal to a table of its size.
    """
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().flatten()
    contents: Any = plain.view(torch.uint8).numpy()
    return (hashlib.sha256(contents).hexdigest(), tensor.dtype, tuple(tensor.shape))


def _form(tensor: torch.Tensor) -> tuple[object, ...]:
    return (tensor.dtype, tuple(tensor.shape), tuple(tensor.stride()))


def has_memory(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is nothing but memory with strides, or a fake of such a tensor."""
    if torch.nn.parameter.is_lazy(tensor):
        return False
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) or is_fake(tensor)
    return plain and tensor.layout is torch.strided and not tensor.is_quantized


def memory_of(tensor: torch.Tensor) -> StorageWeakRef:
    """A weak key of a tensor's storage, which no later storage gets."""
    return StorageWeakRef(tensor.untyped_storage())


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in _leaves(value) if isinstance(leaf, torch.Tensor))


def _leaves(value: Any) -> Iterator[Any]:
    """List arguments or results of an operator, without the containers that they are in."""
    if isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from _leaves(each)
    else:
        yield value


def _written(func: Any, args: Iterable[Any], kwargs: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    """The tensors that an operator writes to."""
    schema = getattr(func, "_schema", None)
    if schema is None or not schema.is_mutable:
        return
    by_position = zip((argument.name for argument in schema.arguments), args, strict=False)
    given = {**dict(by_position), **kwargs}
    for argument in schema.arguments:
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from _tensors(given.get(argument.name))
