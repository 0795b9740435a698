"""Find the modules and tensors of a model by name: all of them for a build, some for a load."""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, Literal

import msgspec
import torch

from hotstart._torch.subclasses.inner_tensors import inner_names

Model = Callable[..., Any]
Kind = Literal["parameter", "buffer", "attribute"]

IN_PLACE_OF = "in_place_of"
"""The attribute by which a method that hotstart puts into an object says whose place it takes: the
function that the object would run without."""


class Place(msgspec.Struct, frozen=True, eq=False):
    """A place where one tensor is kept.

    Attributes:
        name: path from the model, such as `encoder.layers.0.weight`.
        kind: `"parameter"`, `"buffer"` or `"attribute"` of a module.
        owner: the mapping the tensor is an entry of.
        key: its key in `owner`.
        within: the place of the tensor of a subclass that this is an inner tensor of, if it is one.
    """

    name: str
    kind: Kind
    owner: dict[str, Any]
    key: str
    within: Place | None = None

    @property
    def outermost(self) -> Place:
        """The place of the tensor that the module itself keeps."""
        return self if self.within is None else self.within.outermost

    def get(self) -> Any:
        """The tensor that is kept there now; None if there is none."""
        return self.owner.get(self.key)


def method_of(model: Model, path: str) -> Model:
    """Follow a dotted path from a model: to the model itself, a submodule or a method.

    Raises:
        AttributeError: there is no such attribute.
    """
    return attrgetter(path)(model) if path else model


def roots(model: Model) -> dict[str, torch.nn.Module]:
    """The modules a model consists of, by prefix: itself, or those a function refers to.

    A function's modules are those in its closure and its globals; a method's are its object, or
    those that are attributes of it.
    """
    if isinstance(model, torch.nn.Module):
        return {"": model}
    found: dict[str, Any] = {}
    function = inspect.unwrap(model)
    owner = getattr(function, "__self__", None)
    if owner is None and inspect.ismethod(model):
        owner = model.__self__  # what decorators wrap is the function, not the method
    if isinstance(owner, torch.nn.Module):
        found[""] = owner
    elif owner is not None:
        found |= getattr(owner, "__dict__", {})
    function = getattr(function, "__func__", function)
    if hasattr(function, "__code__"):
        scope = inspect.getclosurevars(function)
        found |= {**scope.globals, **scope.nonlocals}
    return {name: module for name, module in found.items() if isinstance(module, torch.nn.Module)}


def modules(model: Model) -> Iterator[tuple[str, torch.nn.Module]]:
    """Every module of a model with its path; a shared module comes up under each of its paths."""
    for prefix, root in roots(model).items():
        yield from root.named_modules(prefix=prefix, remove_duplicate=False)


class ModelIndex:
    """A model's modules and tensors, listed once for a build, which asks for most of them.

    A load asks for few, by name, and looking at all modules of a large model takes milliseconds:
    see `Finder`.

    Attributes:
        model: the model.
        modules: every module by path, in the model's order; a shared one under each of its paths.
        places: every place where a tensor is kept, in the model's order.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.modules = dict(modules(model))
        self.places = tuple(p for path, m in self.modules.items() for p in _places(path, m))
        self._paths = {id(module): path for path, module in reversed(self.modules.items())}
        self._keeping: dict[int, list[Place]] = {}
        for place in self.places:
            self._keeping.setdefault(id(place.owner[place.key]), []).append(place)
            for inner in _inner_places(place):
                self._keeping.setdefault(id(inner.get()), []).append(inner)

    def path_of(self, module: object) -> str | None:
        """The first path of a module; None for anything that is no module of the model."""
        return self._paths.get(id(module))

    def places_of(self, tensor: torch.Tensor) -> Sequence[Place]:
        """The places that kept a tensor when the index was made; several if it is tied.

        Those of inner tensors of subclasses are among them; `places` has those of modules only.
        """
        return self._keeping.get(id(tensor), ())


def _keeping(module: torch.nn.Module) -> tuple[tuple[Kind, dict[str, Any]], ...]:
    """The dicts that keep a module's tensors; what it registers comes before plain attributes."""
    return (
        ("parameter", module._parameters),
        ("buffer", module._buffers),
        ("attribute", vars(module)),
    )


def _places(path: str, module: torch.nn.Module) -> Iterator[Place]:
    dot = f"{path}." if path else ""
    for kind, owner in _keeping(module):
        for key, value in owner.items():
            if isinstance(value, torch.Tensor):
                yield Place(dot + key, kind, owner, key)


def _inner_places(place: Place) -> Iterator[Place]:
    """List where a tensor of a subclass keeps inner tensors, in any depth; none of a plain one."""
    tensor = place.get()
    for name in inner_names(tensor):
        inner = _inner_place(place, name)
        if inner is not None:
            yield inner
            yield from _inner_places(inner)


def _inner_place(place: Place, name: str) -> Place | None:
    """The place of one inner tensor; None if it is no plain attribute of the outer one."""
    held = vars(place.get())
    if not isinstance(held.get(name), torch.Tensor):
        return None
    return Place(f"{place.name}.{name}", place.kind, held, name, place)


class Finder:
    """Finds modules and places of a model by name, for a load, and looks at no others on the way.

    A build needs them the other way round, by identity: see `ModelIndex`.
    """

    def __init__(self, model: Model) -> None:
        self._roots = roots(model)
        self._found: dict[str, torch.nn.Module | None] = dict(self._roots)

    def ways(self, paths: Iterable[str]) -> dict[str, dict[str, Any]]:
        """By path, the dicts that keep modules, and those that these are in, down to the roots."""
        found: dict[str, dict[str, Any]] = {}
        for path in paths:
            while path not in self._roots and path not in found:
                parent = path.rpartition(".")[0]
                owner = self.module(parent)
                if owner is None:
                    break
                held: dict[str, Any] = owner._modules
                found[path] = held
                path = parent
        return found

    def module(self, path: str) -> torch.nn.Module | None:
        """The module at a path; None if there is none."""
        if path not in self._found:
            parent, _, child = path.rpartition(".")
            owner = self.module(parent) if path else None
            self._found[path] = None if owner is None else owner._modules.get(child)
        return self._found[path]

    def parameter_names(self) -> Iterator[str]:
        """The name of every parameter; of one that is shared, all of them."""
        waiting = [*self._roots.items()]
        while waiting:
            path, module = waiting.pop()
            dot = f"{path}." if path else ""
            for key, parameter in module._parameters.items():
                if parameter is not None:
                    yield dot + key
            waiting += [
                (dot + n, child) for n, child in module._modules.items() if child is not None
            ]

    def place(self, name: str) -> Place | None:
        """Find where a tensor is kept, of several places the first; None if nowhere.

        After the name of a tensor of a subclass, the attribute that keeps an inner one may follow.
        """
        path, _, key = name.rpartition(".")
        module = self.module(path)
        if module is None:
            outer = self.place(path) if path else None
            if outer is None or key not in inner_names(outer.get()):
                return None
            return _inner_place(outer, key)
        for kind, owner in _keeping(module):
            if isinstance(owner.get(key), torch.Tensor):
                return Place(name, kind, owner, key)
        return None


def contents(tensor: torch.Tensor) -> bytes | None:
    """The values of a tensor in row-major order; None if it has none to read."""
    if tensor.device.type == "meta":
        return None
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return ctypes.string_at(plain.data_ptr(), plain.nbytes) if plain.nbytes else b""
