"""Find classes by the paths that files have for them. Nothing here imports torch."""

import importlib
import sys
from collections.abc import Callable
from typing import Any

from hotstart.errors import ArtifactError

FindClass = Callable[[str], type]
"""Gives the class of a path, `module:name`."""

_ALWAYS_THERE = frozenset({*sys.stdlib_module_names, "torch", "hotstart"}) - {"__main__"}


def class_path(cls: type) -> str:
    """The path that a class can be imported from, as `module:name`.

    Raises:
        ArtifactError: nowhere, as for a class that a function defined.
    """
    path = f"{cls.__module__}:{cls.__qualname__}"
    try:
        found = _at(path)
    except (ImportError, AttributeError):
        found = None
    if found is not cls:
        raise ArtifactError(
            f"{cls.__module__}.{cls.__qualname__} cannot be saved: expected a class that can be "
            "imported by its name. Define it at the top level of a module."
        )
    return path


def find_class(path: str) -> type:
    """The class at `module:name`.

    Raises:
        ArtifactError: there is none.
    """
    try:
        found = _at(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ArtifactError(
            f"expected a class at {path}, found none: {error}. Install or import the code that "
            "the program was built with."
        ) from error
    if not isinstance(found, type):
        raise ArtifactError(f"expected a class at {path}, found a {type(found).__qualname__}")
    return found


def find_imported_class(path: str) -> type:
    """The class at `module:name`, if its module is imported, or comes with Python or torch.

    Raises:
        ArtifactError: its module is not imported, or there is no such class.
    """
    module = path.partition(":")[0]
    if module not in sys.modules and not comes_with_python_or_torch(module):
        raise ArtifactError(
            f"a call takes or returns a {path.replace(':', '.')}: expected its module to be "
            "imported, since a load with weights= imports nothing of the model's; found that it "
            f"is not. Import {module} before the load."
        )
    return find_class(path)


def comes_with_python_or_torch(module: str) -> bool:
    """Tell whether a module comes with Python, torch or hotstart."""
    return module.partition(".")[0] in _ALWAYS_THERE


def _at(path: str) -> Any:
    module, name = path.split(":")
    found: Any = sys.modules.get(module) or importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found
