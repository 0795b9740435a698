"""Run a script while what its variables hold is observed."""

from __future__ import annotations

import builtins
import contextlib
import sys
import types
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from hotstart.errors import OptionsError
from hotstart.observing.recorder import Recorder, recording
from hotstart.observing.seen import SeenTarget
from hotstart.observing.targets import targets_of


class Watched:
    """Things to observe as soon as a script has them.

    Args:
        paths: variables of the script, and attributes from them, such as `model.encoder`.
        stack: ends the observation.
    """

    def __init__(self, paths: Sequence[str], stack: contextlib.ExitStack) -> None:
        self._paths = tuple(paths)
        self._stack = stack
        self._recorders: dict[str, Recorder] = {}
        self._places: dict[str, tuple[Any, str]] = {}
        self._refused: dict[str, OptionsError] = {}

    def look(self, names: MutableMapping[str, Any]) -> None:
        """Observe what the variables of a script lead to by now.

        A variable may hold something else at first, such as None or the name of a model.
        """
        for path in self._paths:
            try:
                thing = attrgetter(path)(types.SimpleNamespace(**names))
            except AttributeError:
                continue
            try:
                target = targets_of({path: thing})[path]
            except OptionsError as error:
                self._refused[path] = error
                continue
            owner, method = self._places.get(path, (None, ""))
            if owner is not target.owner or method != target.method:
                self._places[path] = target.owner, target.method
                recorder = self._recorders.setdefault(path, Recorder(target.about))
                self._stack.enter_context(recording(target.owner, target.method, recorder))

    def seen(self) -> dict[str, SeenTarget]:
        """Collect what was seen, by path.

        Raises:
            OptionsError: a path never led to anything that can be observed.
        """
        for path in self._paths:
            if path not in self._recorders:
                if path in self._refused:
                    raise self._refused[path]
                raise OptionsError(
                    f"--module: expected {path.partition('.')[0]!r} to be a variable at the top "
                    f"level of the script, from which {path!r} leads to a module or method, found "
                    "none. Name one of the script's own variables, or call hotstart.observe in it."
                )
        return {path: recorder.seen() for path, recorder in self._recorders.items()}


class _Names(MutableMapping[str, Any]):
    """The variables of a script, which tell when one is set."""

    def __init__(self, names: dict[str, Any], on_set: Callable[[dict[str, Any]], None]) -> None:
        self._names = names
        self._on_set = on_set

    def __setitem__(self, name: str, value: Any) -> None:
        self._names[name] = value
        self._on_set(self._names)

    def __getitem__(self, name: str) -> Any:
        return self._names[name]

    def __delitem__(self, name: str) -> None:
        del self._names[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@contextlib.contextmanager
def main_module(script: Path, arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Have a script as `__main__`, as `python script.py` does; gives its variables."""
    module = types.ModuleType("__main__")
    module.__file__ = str(script)
    before = sys.modules["__main__"], sys.argv, sys.path[:]
    sys.modules["__main__"] = module
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.parent.resolve()))
    try:
        yield vars(module)
    finally:
        sys.modules["__main__"], sys.argv, sys.path[:] = before


def run(script: Path, names: dict[str, Any], watched: Watched) -> None:
    """Run a script with its variables.

    Raises:
        OptionsError: it cannot be read, or is no Python.
        Exception: what the script raises.
    """
    try:
        code = compile(script.read_bytes(), str(script), "exec", dont_inherit=True)
    except (OSError, SyntaxError, ValueError) as error:
        raise OptionsError(f"{script}: expected a Python script, found: {error}") from error
    names["__builtins__"] = builtins
    # Functions of the script find its variables in `names`; what it sets itself is seen on the way.
    exec(code, names, _Names(names, watched.look))  # noqa: S102 - the user's own script
