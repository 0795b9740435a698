"""Find the methods to observe: the `forward` of modules, and bound methods."""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from hotstart.errors import OptionsError
from hotstart.model import IN_PLACE_OF, Model

Target: TypeAlias = torch.nn.Module | types.MethodType


@dataclass(frozen=True)
class Observed:
    """A method of one object.

    Attributes:
        about: as text.
        owner: the object.
        method: the name of the method.
        model: what `hotstart.compile` takes for it.
    """

    about: str
    owner: Any
    method: str
    model: Model


def targets_of(observed: Any) -> dict[str, Observed]:
    """Find the methods to observe, by name; by an empty name if one was given alone.

    Raises:
        OptionsError: it is neither a module nor a bound method, or one of them is named twice.
    """
    several = isinstance(observed, Mapping)
    named: dict[str, Any] = dict(observed) if several else {"": observed}
    if not named:
        raise OptionsError("observe: got no module, takes at least one")
    found = {name: _target(name, each) for name, each in named.items()}
    places: dict[tuple[int, str], str] = {}
    for name, target in found.items():
        first = places.setdefault((id(target.owner), target.method), name)
        if first != name:
            raise OptionsError(
                f"observe: got the same {target.about} as {first!r} and {name!r}, takes it once"
            )
    return found


def _target(name: Any, given: Any) -> Observed:
    at = f"observe[{name!r}]" if name else "observe"
    if not isinstance(name, str):
        raise OptionsError(f"observe: got name {name!r}, takes names as text")
    if isinstance(given, torch.nn.Module):
        return Observed(f"{type(given).__name__}.forward", given, "forward", given)
    if inspect.ismethod(given) and not isinstance(given.__self__, type):
        owner = given.__self__
        name_of_method = given.__func__.__name__
        if not hasattr(owner, "__dict__"):
            raise OptionsError(
                f"{at}: expected a method of an object with a __dict__, found one of a "
                f"{type(owner).__qualname__}, which has __slots__. Observe what calls it."
            )
        if not callable(getattr(owner, name_of_method, None)):
            raise OptionsError(
                f"{at}: expected a method that its object has by its own name, found "
                f"{given.__qualname__}. Observe the method that is called."
            )
        own = getattr(given, IN_PLACE_OF, None)  # a program's, or another observer's, is in place
        given = given if own is None else types.MethodType(own, owner)
        about = f"{type(owner).__name__}.{name_of_method}"
        return Observed(about, owner, name_of_method, given)
    raise OptionsError(
        f"{at}: got a {type(given).__qualname__}, takes a torch.nn.Module or a bound method, such "
        "as vae.decode: what others call through its object. Declare the calls of a function by "
        "hand, in hotstart.compile."
    )
