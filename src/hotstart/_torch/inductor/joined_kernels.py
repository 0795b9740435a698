"""Compile the kernels of a piece by few calls of the C++ compiler, and link them without torch.

A call takes 0.4 s of a core for any kernel, since it instantiates templates of the precompiled
header. So kernels are compiled as one source, in a namespace each, and each is linked alone, as the
shared object that Inductor would make of it.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import inspect
import itertools
import logging
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from hotstart._torch.in_between import in_between
from hotstart._torch.inductor.raising_kernels import CALL, raising
from hotstart._torch.native.torch_library import in_place_of_libtorch

log = logging.getLogger(__name__)

_MOST = 4
"""Kernels that one call compiles; whoever has cores for more has several calls at a time."""

_NAMES = ("kernel", "PyInit_kernel")
_EXPORTED = "{ global: kernel; PyInit_kernel; local: *; };"
_PYTHON = "#define PY_SSIZE_T_CLEAN"  # stands before Python's header
_SPREADING = ("#define", "#undef", "#pragma GCC optimize", "#pragma GCC target", "_Pragma")
"""Directives that hold, or may hold, for what comes after a kernel as well."""

_LIMIT_S = 600.0


@dataclass(frozen=True)
class AskedKernel:
    """A kernel that generated code asks for; it can be called, but nobody compiled it yet.

    Attributes:
        arguments: the types of its arguments in C++.
        source: defines `kernel`.
    """

    arguments: tuple[str, ...]
    source: str

    @cached_property
    def function(self) -> Any:
        """The kernel, compiled as Inductor does it."""
        return _bindings().load_pybinding(list(self.arguments), self.source)

    def __call__(self, *arguments: Any) -> Any:
        """Call the kernel: Inductor keeps generated modules for whoever compiles the same."""
        return self.function(*arguments)

    def path(self) -> str:
        """The shared object of the kernel, compiled as Inductor does it; again if it is gone."""
        path: str = _finder().load_async(self.with_binding())()
        return path

    def with_binding(self) -> str:
        """The source with its binding to Python (`load_pybinding_async`, 2.11 to 2.15)."""
        texts: list[str] = []

        def taken(cls: Any, text: str, *_: Any, **__: Any) -> None:
            texts.append(text)

        taker: Any = type("Taker", (_bindings(),), {"load_async": classmethod(taken)})
        taker.load_pybinding_async(list(self.arguments), self.source)
        return texts[0]


@cache
def _bindings() -> Any:
    """Inductor's bindings of kernels to Python (2.11 to 2.15), which raise `IndexError` too."""
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    return type("Bindings", (CppPythonBindingsCodeCache,), {"call_entry_function": CALL})


@contextlib.contextmanager
def kernels_asked_for() -> Iterator[None]:
    """Have generated code take `AskedKernel`s in place of compiled ones.

    Such code calls `AsyncCompile.cpp_pybinding` (2.11 to 2.15).
    """
    from torch._inductor.async_compile import AsyncCompile

    def asked(
        compile_kernel: Callable[..., Any], pool: Any, arguments: list[str], source: str
    ) -> Any:
        return AskedKernel(tuple(arguments), source)

    with in_between(AsyncCompile, "cpp_pybinding", asked):
        yield


def kernels_in(source: str) -> dict[str, AskedKernel]:
    """The kernels that generated code asks for, by the names that it gives them."""
    found: dict[str, AskedKernel] = {}
    for statement in ast.parse(source).body:
        match statement:
            case ast.Assign(
                targets=[ast.Name(id=name)],
                value=ast.Call(
                    func=ast.Attribute(value=ast.Name(id="async_compile"), attr="cpp_pybinding"),
                    args=[arguments, text],
                ),
            ):
                found[name] = AskedKernel(
                    tuple(ast.literal_eval(arguments)), raising(ast.literal_eval(text))
                )
    return found


def compile_kernels(
    kernels: Mapping[str, AskedKernel], settings: Mapping[str, Any]
) -> dict[str, str]:
    """Compile kernels under some settings of Inductor; the shared object of each by its name.

    Which kernels are compiled together depends on the kernels alone, so that their bytes do.

    Raises:
        CppCompileError: one does not compile.
    """
    from torch._inductor import config

    names = list(kernels)
    with config.patch(dict(settings)):
        joined = [
            each
            for part in _parts(len(names))
            for each in _together([kernels[name] for name in names[part]])
        ]
        works = [each.work for each in joined if each.work is not None]
        with ThreadPoolExecutor(config.compile_threads or 1) as threads:
            list(threads.map(_try, works))
        paths = [path for each in joined for path in each.paths()]
    return dict(zip(names, paths, strict=True))


def _parts(count: int) -> list[slice]:
    """Split a row of kernels into parts that are about equally long."""
    parts = -(-count // _MOST)
    ends = [count * number // parts for number in range(parts + 1)] if parts else []
    return [slice(low, high) for low, high in itertools.pairwise(ends)]


def join(texts: Sequence[str]) -> str | None:
    """Make one source of several kernels with their bindings; None where they may disturb others.

    `kernel` and `PyInit_kernel` get a number, since functions with C names have no namespace.
    """
    headers: dict[str, None] = {_PYTHON: None}
    bodies: list[str] = []
    for number, text in enumerate(texts):
        lines: list[str] = []
        for line in text.splitlines():
            directive = re.sub("^# ", "#", " ".join(line.split()))
            if directive.startswith("#include"):
                headers[directive] = None
            elif directive.startswith(_SPREADING) and directive != _PYTHON:
                return None
            elif directive != _PYTHON:
                lines.append(line)
        undefined = [f"#undef {name}" for name in _NAMES]
        bodies += [f"namespace hotstart_{number} {{", *_numbered(number), *lines, *undefined, "}"]
    return "\n".join([*headers, *bodies, ""])


def _numbered(number: int) -> list[str]:
    return [f"#define {name} {name}_{number}" for name in _NAMES]


@dataclass(frozen=True)
class _Work:
    """Work that is left to do for a joined source.

    Attributes:
        lock: the file that whoever does it holds.
        command: that of Inductor, to compile and link the source as if it was one kernel.
        done: the file that says it is done.
        count: how many kernels there are.
    """

    lock: str
    command: str
    done: Path
    count: int

    def do(self) -> None:
        """Compile once, and link each kernel.

        Raises:
            OSError: there is no compiler.
            subprocess.SubprocessError: it refuses, or takes too long.
        """
        from torch._inductor.codecache import LOCK_TIMEOUT
        from torch.utils._filelock import FileLock

        with FileLock(self.lock, timeout=LOCK_TIMEOUT):
            if not self.done.exists():
                self._compile_and_link()
                self.done.touch()

    def _compile_and_link(self) -> None:
        command = shlex.split(self.command)
        source = next(n for n, word in enumerate(command) if word.endswith(".cpp"))
        output = command.index("-o") + 1
        aside = f"{self.done}.{os.getpid()}"
        made, exported = f"{aside}.o", Path(f"{aside}.exported")
        exported.write_text(_EXPORTED)
        try:
            command[output] = made
            kept = [word for word in command if word != "-shared" and not re.match("-[lL]", word)]
            # Writing the thousands of warnings about torch's headers takes time.
            _run([*kept, "-w", "-c", "-ffunction-sections", "-fdata-sections"])
            command[source] = made
            for number in range(self.count):
                command[output] = f"{aside}.so"
                _link([*command, _as_the_only_one(number, exported)])
                Path(command[output]).replace(_linked(self.done, number))
        finally:
            for left in (made, exported):
                Path(left).unlink(missing_ok=True)


def _as_the_only_one(number: int, exported: Path) -> str:
    """Tell the linker to make a library of one kernel, by the names that it has alone."""
    words = [f"--defsym={name}={name}_{number},-u,{name}_{number}" for name in _NAMES]
    return ",".join(["-Wl", "--gc-sections", f"--version-script={exported}", *words])


def _link(command: Sequence[str]) -> None:
    """Link a kernel, without torch if it needs Python's functions alone, as most do.

    To look for names in torch's libraries takes longer than all else. Those that start with
    `Sleef_` are functions of vectors, which libtorch_cpu has. Nothing is optimised as it is linked,
    so the plugin for that is not loaded.
    """
    without = [word for word in command if not word.startswith("-ltorch")]
    without.append("-fno-use-linker-plugin")
    told = _run([*without, "-Wl,-z,defs,--warn-unresolved-symbols"])
    missing = re.findall(r"undefined (?:reference to|symbol:)\W*(\w+)", told)
    others = [name for name in missing if not name.startswith(("Py", "_Py"))]
    if others and all(name.startswith("Sleef_") for name in others):
        with tempfile.TemporaryDirectory() as folder:
            library = in_place_of_libtorch(command[0], Path(folder))
            _run([*without, f"-Wl,--no-as-needed,{library},--as-needed"])
    elif others or not missing:
        _run(command)


@cache
def _how_they_are_made() -> str:
    """A hash of this module: kernels that another version of it linked may have other bytes."""
    text = inspect.getsource(sys.modules[__name__])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _linked(done: Path, number: int) -> Path:
    return done.with_suffix(f".{number}.so")


def _run(command: Sequence[str]) -> str:
    """Run the compiler, or the linker by it; what it prints about it, in English."""
    folder = Path(command[command.index("-o") + 1]).parent
    english = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        errors="replace",
        cwd=folder,
        env=english,
        timeout=_LIMIT_S,
    )
    return done.stderr


def _try(work: _Work) -> None:
    """Do some work; where that fails, each kernel is compiled alone, which says what is wrong."""
    try:
        work.do()
    except (OSError, subprocess.SubprocessError) as error:
        log.debug("kernels are compiled one by one: %s", error)


def _finder() -> Any:
    """Inductor's cache of kernels with no entries, which gives paths and loads nothing."""

    def unloaded(cls: Any, path: str, key: str) -> str:
        return path

    parts = {"cache": {}, "_load_library": classmethod(unloaded)}
    return type("Finder", (_bindings(),), parts)


def _together(kernels: Sequence[AskedKernel]) -> list[_Joined]:
    """Join kernels; those that may disturb others stay alone."""
    texts = [kernel.with_binding() for kernel in kernels]
    source = join(texts)
    if source is not None:
        return [_Joined.of(kernels, source)]
    return [
        _Joined.of([kernel], "\n".join([*_numbered(0), text]))
        for kernel, text in zip(kernels, texts, strict=True)
    ]


@dataclass(frozen=True)
class _Joined:
    """Kernels that are compiled together, from one source.

    Attributes:
        kernels: these.
        done: the file that says they are compiled.
        work: what is to be done for that; None if somebody did it.
    """

    kernels: Sequence[AskedKernel]
    done: Path
    work: _Work | None

    @classmethod
    def of(cls, kernels: Sequence[AskedKernel], source: str) -> _Joined:
        """Find out whether a source is compiled, and how it would be.

        `CppCodeCache.load_async` (2.11 to 2.15) finds the command for a source, precompiles the
        header and gives `submit_fn` the work, a `partial` of `_worker_compile_cpp`, if the file is
        not there. What it returns does the work if need be, and loads the file. It names files by
        the source and its own command, so the source says how they are made here.
        """
        tasks: list[Any] = []
        marked = f"{source}\n// {_how_they_are_made()}\n"
        found = _finder().load_async(marked, submit_fn=tasks.append)
        if not tasks:
            return cls(kernels, Path(found()), None)
        lock, (builder,) = tasks[0].args
        done = Path(builder.get_target_file_path())
        work = _Work(lock, builder.get_command_line(), done, len(kernels))
        return cls(kernels, done, work)

    def paths(self) -> list[str]:
        """Find the shared objects of the kernels.

        Those that did not compile together, or are gone, are compiled one by one, by Inductor.

        Raises:
            CppCompileError: one does not compile.
        """
        linked = [_linked(self.done, number) for number in range(len(self.kernels))]
        if all(path.exists() for path in (self.done, *linked)):
            return [str(path) for path in linked]
        return [kernel.path() for kernel in self.kernels]
