"""A factory: a function of the user's that makes a model and example calls."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hotstart.cli.parse import Factory
from hotstart.errors import OptionsError

Model = Callable[..., Any]

_ARGUMENTS = frozenset(
    {"args", "kwargs", "calls", "dynamic_shapes", "split_on", "options", "extra_key"}
)
"""Keys of a factory's dict besides the model: all that a program's key is made of."""


def call_factory(factory: Factory, model_alone: bool = False) -> tuple[Model, dict[str, Any]]:
    """Import and call a factory; modules in the working folder are found, too.

    Args:
        factory: the function.
        model_alone: whether it may return a model without an example call.

    Returns:
        The model, and its example call or calls as `hotstart.compile` takes them.

    Raises:
        OptionsError: there is no such function, or it returns neither (model, args, kwargs), nor
            (model, calls by name), nor a dict of arguments with a model.
    """
    here = see_working_folder()
    try:
        module = importlib.import_module(factory.module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{factory.module}.".startswith(f"{error.name}."):
            raise  # the module is there; something that it imports is not
        raise OptionsError(
            f"{factory}: no module named {error.name!r}, looked for in {here} and sys.path"
        ) from None
    made = getattr(module, factory.name, None)
    if not callable(made):
        raise OptionsError(f"{factory}: {module.__file__} has no function {factory.name!r}")
    found = made()
    return (found, {}) if model_alone and callable(found) else _checked(found, factory)


def see_working_folder() -> str:
    """Make modules in the working folder importable, and return the folder."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return here


def _checked(made: object, factory: Factory) -> tuple[Model, dict[str, Any]]:
    match made:
        case (model, tuple() | list() as args, None | Mapping() as kwargs) if callable(model):
            return model, {"args": tuple(args), "kwargs": dict(kwargs or {})}
        case (model, Mapping() as calls) if callable(model):
            return model, {"calls": dict(calls)}
        case {"model": model, **rest} if callable(model) and _ARGUMENTS.issuperset(rest):
            return model, {str(name): value for name, value in rest.items()}
        case Mapping():
            got = f"a dict with {', '.join(map(str, made)) or 'nothing'}"
        case tuple():
            got = f"({', '.join(type(part).__name__ for part in made)})"
        case _:
            got = type(made).__name__
    raise OptionsError(
        f"{factory}: the factory returned {got}, takes (model, args, kwargs), "
        "such as (model, (), {'input_ids': ids}), or (model, calls by name), or a dict "
        f"with 'model' and some of {', '.join(sorted(_ARGUMENTS))}"
    )
