"""`hotstart build`: compile what a factory returns, and report."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hotstart
from hotstart.cli.parse import Factory
from hotstart.cli.progress import progress
from hotstart.errors import OptionsError

if TYPE_CHECKING:
    from hotstart.cli.app import BuildRequest

Model = Callable[..., Any]


def run(request: BuildRequest) -> int:
    """Build and print the report on stdout; progress goes to stderr.

    Raises:
        HotstartError: the factory is not one, or the model cannot be compiled as asked.
    """
    model, args, kwargs = call_factory(request.factory)
    options = hotstart.Options(
        compiler=request.compiler, on_miss=request.on_miss, debug_dir=request.debug_dir
    )
    with progress(sys.stderr) as listener:
        program = hotstart.compile(
            model,
            args,
            kwargs,
            dynamic_shapes=request.dynamic_shapes,
            split_on=request.split_on,
            options=options,
            jobs=request.jobs,
            on_event=listener,
        )
    report = program.report
    print(json.dumps(report.to_dict(), indent=2) if request.json else report)
    return 0


def call_factory(factory: Factory) -> tuple[Model, tuple[Any, ...], dict[str, Any]]:
    """Import and call a factory; modules in the working folder are found, too.

    Raises:
        OptionsError: there is no such function, or it returns something else than a model,
            a tuple of arguments and a mapping of keyword arguments.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
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
    return _checked(made(), factory)


def _checked(made: object, factory: Factory) -> tuple[Model, tuple[Any, ...], dict[str, Any]]:
    match made:
        case (model, tuple() | list() as args, None | Mapping() as kwargs) if callable(model):
            return model, tuple(args), dict(kwargs or {})
        case tuple():
            got = f"({', '.join(type(part).__name__ for part in made)})"
        case _:
            got = type(made).__name__
    raise OptionsError(
        f"{factory}: the factory returned {got}, takes (model, args, kwargs), "
        "such as (model, (), {'input_ids': ids})"
    )
