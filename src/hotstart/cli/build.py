"""`hotstart build`: compile what a factory returns, report, and save it if asked to."""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hotstart
from hotstart.cli.output import say, say_json
from hotstart.cli.parse import Factory
from hotstart.cli.progress import progress
from hotstart.errors import ArtifactError, OptionsError
from hotstart.events import Event, Listener
from hotstart.records.table import memory

if TYPE_CHECKING:
    from hotstart.cli.requests import BuildRequest, CompileRequest

Model = Callable[..., Any]

_ARGUMENTS = frozenset(
    {"args", "kwargs", "calls", "dynamic_shapes", "split_on", "options", "extra_key"}
)
"""What a factory may say besides the model: all that a program's key is made of."""


def run(request: BuildRequest) -> None:
    """Build, save, and print the report on stdout; progress goes to stderr.

    Raises:
        HotstartError: the factory is not one, the model cannot be compiled as asked, or the
            program cannot be saved.
    """
    if request.output is not None:
        _require_place(request.output)
    if request.sign_key is not None:
        from hotstart.artifact.signing import signer

        signer(request.sign_key)  # read now: one that is no key is no news for after the build
    model, examples = call_factory(request.factory)
    settings = arguments(request, examples, debug_dir=request.debug_dir)
    settings.pop("extra_key", None)  # no cache is asked
    with progress(sys.stderr) as listener:
        program = hotstart.compile(model, **listening(settings, request.jobs, listener))
        if request.output is not None:
            listener(Event("phase_started", "save"))
            program.save(request.output, sign_key=request.sign_key, check=request.check)
    report = program.report
    shown: dict[str, Any] = report.to_dict()
    if request.output is not None:
        size = request.output.stat().st_size
        shown["output"] = {"file": str(request.output), "bytes": size}
        say(f"wrote {request.output}, {memory(size)}", sys.stderr)
    if request.json:
        say_json(shown)
    else:
        say(report)


def arguments(
    request: CompileRequest, examples: Mapping[str, Any], debug_dir: Path | None = None
) -> dict[str, Any]:
    """What `hotstart.compile` is given: what flags say, and what a factory says before them."""
    options = hotstart.Options(
        compiler=request.compiler,
        on_miss=request.on_miss,
        splits=request.splits,
        prove=request.prove,
        debug_dir=debug_dir,
    )
    asked = {"dynamic_shapes": request.dynamic_shapes, "split_on": request.split_on}
    return {**asked, "options": options, **examples}


def listening(settings: dict[str, Any], jobs: int | None, listener: Listener) -> dict[str, Any]:
    """The same settings, with a listener, and so many compilers at a time as a flag says."""
    options = settings["options"]
    if isinstance(options, hotstart.Options):  # else that is an error of `hotstart.compile`
        options = replace(options, on_event=listener, jobs=jobs or options.jobs)
    return {**settings, "options": options}


def call_factory(factory: Factory) -> tuple[Model, dict[str, Any]]:
    """Import and call a factory; modules in the working folder are found, too.

    Returns:
        The model, and its example call or calls as `hotstart.compile` takes them.

    Raises:
        OptionsError: there is no such function, or it returns something else than a model with
            a tuple of arguments and a mapping of keyword arguments, or with calls by name, or than
            a dict of these.
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
    return _checked(made(), factory)


def see_working_folder() -> str:
    """Make modules in the working folder importable, which is returned."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return here


def _require_place(output: Path) -> None:
    """Find out that a file cannot be written while it has cost nothing yet."""
    try:
        if output.is_dir():
            raise IsADirectoryError(None, "a folder of that name")
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise ArtifactError(
            f"{output}: expected a place that can be written, found: {error.strerror or error}. "
            "Nothing was built; give a file in a folder that exists and can be written to."
        ) from error


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
