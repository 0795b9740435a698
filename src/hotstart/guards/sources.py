"""Record the sources of traced functions, and compare them with those of this process.

On the path of every load, so nothing here imports torch or reads more than it needs.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hotstart.guards.codes import code_digest, digests_in

if TYPE_CHECKING:
    import types


class Source(msgspec.Struct, frozen=True):
    """Functions of a Python file that were traced.

    Attributes:
        content: digest of the file.
        functions: qualified name and digest of the code of each function.
        loose: the names of those that no guard compares.
    """

    content: str
    functions: tuple[tuple[str, str], ...]
    loose: tuple[str, ...] = ()


def sources(
    codes: Iterable[types.CodeType], loose: Iterable[types.CodeType] = ()
) -> dict[str, Source]:
    """The functions that a trace went through, by the modules that define them.

    Left out are those of torch, of hotstart and of the standard library, those of no file, such as
    `<string>`, and those of files that no imported module came from.

    Args:
        codes: the code of every function traced.
        loose: code of it that is compared in no other way when an artifact is loaded.

    Returns:
        By module name, sorted. A script is named `__main__:train.py`. No path is in it.
    """
    by_file: dict[str, list[types.CodeType]] = {}
    for code in codes:
        by_file.setdefault(code.co_filename, []).append(code)
    folders = _folders_not_recorded()
    by_file = {
        filename: traced
        for filename, traced in by_file.items()
        if not filename.startswith("<") and not _is_below(filename, folders)
    }
    modules = _modules_of(map(_base, by_file))
    only = set(loose)
    found: dict[str, Source] = {}
    for filename, traced in by_file.items():
        known = modules[_base(filename)]
        owners = [name for name, file in known if file == filename]
        owners = owners or [name for name, file in known if _is_same(file, filename)]
        content = _read(filename)
        if owners and content is not None:
            found[_name_of(owners, filename)] = Source(
                _digest(content),
                tuple(sorted({(code.co_qualname, code_digest(code)) for code in traced})),
                tuple(sorted({code.co_qualname for code in traced if code in only})),
            )
    return dict(sorted(found.items()))


def changed_sources(
    expected: Mapping[str, Source], loose: bool, required: bool = True
) -> list[tuple[str, str, str]]:
    """Functions that are not what they were when `sources` recorded them. Imports nothing.

    Where the content of a file differs, its functions are compiled and compared. Where a file
    defines a name several times, under conditions, one equal definition is enough.

    Args:
        expected: what was recorded.
        loose: compare only functions that no guard compares.
        required: report a file that cannot be found as changed.

    Returns:
        For each changed function or missing file: name, expected, found, as `misfits` has them.
    """
    changed: list[tuple[str, str, str]] = []
    for name, source in expected.items():
        wanted = [one for one in source.functions if not loose or one[0] in source.loose]
        if not wanted:
            continue
        contents = _contents_of(name)
        if not contents and not required:
            continue
        if not contents:
            changed.append((f"source {name}", f"content {source.content[:8]}", "no such file"))
        elif all(_digest(content) != source.content for content in contents):
            each = [_changed(name, wanted, content) for content in contents]
            changed += sorted(each, key=_count)[0]
    return changed


def _changed(
    module: str, wanted: Iterable[tuple[str, str]], content: bytes
) -> list[tuple[str, str, str]]:
    """The functions of a file that differ."""
    names = frozenset(name for name, _ in wanted)
    try:
        found = digests_in(content, names)
    except (SyntaxError, ValueError) as error:
        return [(f"source {module}", "Python", str(error))]
    return [
        (f"source {module}.{name}", f"code {digest[:8]}", _here(found.get(name, ())))
        for name, digest in wanted
        if digest not in found.get(name, ())
    ]


def _count(changed: list[tuple[str, str, str]]) -> int:
    return len(changed)


def _here(digests: Iterable[str]) -> str:
    found = sorted(digests)
    return f"code {found[0][:8]}" if found else "no such function"


# --- files ----------------------------------------------------------------------------------------


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()


def _read(file: str) -> bytes | None:
    """A file's content, or None if there is no such file to read."""
    try:
        with Path(file).open("rb", buffering=0) as source:
            return source.readall()
    except (OSError, ValueError):  # ValueError: a name no file can have
        return None


def is_given_file(filename: str) -> bool:
    """Tell whether a file is part of torch, of hotstart or of the standard library."""
    return _is_below(filename, _folders_not_recorded())


def file_of(module: object) -> str | None:
    """A module's `__file__`, read past lazy modules, which import on ordinary attribute access."""
    try:
        file = object.__getattribute__(module, "__dict__").get("__file__")
    except AttributeError:
        return None
    return file if isinstance(file, str) else None


def _modules_of(bases: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """Name and file of every imported module, by the last part of its file, for some such parts."""
    found: dict[str, list[tuple[str, str]]] = {base: [] for base in bases}
    if not found:
        return found
    for name, module in list(sys.modules.items()):
        file = file_of(module)
        if file and (base := _base(file)) in found:
            found[base].append((name, file))
    return found


def _base(file: str) -> str:
    return file.rpartition(os.sep)[2]


def _folders_not_recorded() -> tuple[str, ...]:
    # os stands for the standard library; functorch and torchgen are installed with torch
    names = ("hotstart", "torch", "functorch", "torchgen", "os")
    files = [file for name in names if (file := file_of(sys.modules.get(name)))]
    return tuple(file.rpartition(os.sep)[0] + os.sep for file in files)


def _is_below(file: str, folders: tuple[str, ...]) -> bool:
    for folder in folders:
        if file.startswith(folder):
            # Installed packages may lie inside the folder of the standard library.
            first = file[len(folder) :].partition(os.sep)[0]
            return first not in ("site-packages", "dist-packages")
    return False


def _is_same(file: str, other: str) -> bool:
    try:
        return Path(file).samefile(other)
    except (OSError, ValueError):
        return False


def _name_of(owners: list[str], filename: str) -> str:
    """The shortest name a file was imported under; that of a script otherwise."""
    # The second is what a script is called in processes that multiprocessing spawns.
    names = [name for name in owners if name not in ("__main__", "__mp_main__")]
    if not names:
        return f"__main__:{_base(filename)}"
    return min(names, key=lambda name: (len(name), name))


def _find_module(name: str) -> str | None:
    """A module's file, if it is imported or importable."""
    if file := file_of(sys.modules.get(name)):
        return file
    top, *rest = name.split(".")
    spec = spec_of(top)
    if spec is None:
        return None
    if not rest:
        return spec.origin
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *rest)
        for file in (f"{path}{os.sep}__init__.py", f"{path}.py"):
            if Path(file).is_file():
                return file
    return None


def spec_of(top: str) -> importlib.machinery.ModuleSpec | None:
    """Find a top-level module. Unlike a submodule's, its spec is found without an import."""
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):  # ValueError: it is loaded, and says not from where
        return None


def _contents_of(name: str) -> list[bytes]:
    """The contents of a module's file; of a script's, of every file it may be here."""
    if not name.startswith("__main__:"):
        file = _find_module(name)
        return [content for content in [_read(file) if file else None] if content is not None]
    base = name.removeprefix("__main__:")
    main = file_of(sys.modules.get("__main__"))
    if main and _base(main) == base:
        files = [main]
    else:
        modules = map(file_of, list(sys.modules.values()))
        files = [file for file in modules if file and file.endswith(os.sep + base)]
    return [content for file in files if (content := _read(file)) is not None]
