"""Settings that every test shares.

The process that hands out tests to others reads this, too, and has no use for torch.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from qualification.forks import Forks

# How long an example takes says more about the machine than about the code.
settings.register_profile("hotstart", deadline=None)
settings.load_profile("hotstart")

# Millions of objects are imported here: looking for garbage among them every 700 takes long.
gc.set_threshold(20_000, 10, 10)

# pytest listens to every logger that does not propagate, and torch describes each step of a trace
# to this one while anybody listens.
logging.getLogger("torch.__trace").propagate = True
logging.getLogger("torch.__trace").handlers.clear()

RUN = subprocess.run
ROOT = Path(__file__).parents[1]
DYNAMO = ("torch._dynamo",)


@pytest.fixture(scope="session", autouse=True)
def forks() -> Iterator[Forks]:
    """Run the checks at save in forks of a process that has imported torch: that takes seconds."""
    from qualification.checking import checks_in_forks

    # Calling an operator that is written in Python imports Dynamo, if that is not there.
    with checks_in_forks(*DYNAMO) as forks:
        yield forks


@pytest.fixture(scope="session", autouse=True)
def no_workers() -> Iterator[None]:
    """Compile in the process of the test, unless it asks for workers: tests run side by side."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hotstart.compilers.workers.pool.default_jobs", lambda: 1)
        yield


@pytest.fixture(scope="session")
def c_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `hotstart.h` and `libhotstart.so`, the same for all processes of a run."""
    from filelock import FileLock

    from hotstart.c.library import build_library

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = shared / "c_library"
    with FileLock(shared / "c_library.lock"):
        if not folder.exists():
            made = shared / "c_library.part"
            build_library(made, flags=("-Werror",))
            made.rename(folder)
    return folder


@pytest.fixture(scope="session")
def python(forks: Forks) -> Callable[..., str]:
    """Run `-c CODE ARGUMENT...` or `-m MODULE ARGUMENT...` in another process; what it prints.

    For tests that ask what a process finds that has built nothing: it is a fork of one that has
    imported torch and Dynamo. What is imported, or read from the environment by an import, is for
    a new process to show.
    """

    def run(*command: object, **environment: str) -> str:
        path = os.pathsep.join([str(ROOT), *sys.path])
        given = {**os.environ, "PYTHONPATH": path, **environment}
        done = forks.run(command, given, DYNAMO)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def checks_in_new_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the checks at save as users do."""
    monkeypatch.setattr(subprocess, "run", RUN)


@pytest.fixture(scope="session")
def pieces_folder(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for pieces that this very source compiled; those of any other are removed."""
    import hotstart

    source = Path(hotstart.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(source.rglob("*.py")):
        digest.update(f"{file.relative_to(source)} {file.stat().st_size}\n".encode())
        digest.update(file.read_bytes())
    cache = getattr(pytestconfig, "cache", None)  # not there with `-p no:cacheprovider`
    root = tmp_path_factory.mktemp("pieces") if cache is None else cache.mkdir("pieces")
    folder = root / digest.hexdigest()
    for other in root.iterdir():
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return folder


@pytest.fixture(scope="module")
def kept_pieces(pieces_folder: Path) -> Iterator[Callable[..., Any]]:
    """Compile no piece that an earlier test, or run, has compiled from the same source.

    For modules that ask what programs give, not how they are compiled. Programs are built as ever:
    only what Inductor makes of a piece is read back, as it is from any cache.
    """
    with keeping(pieces_folder) as compiles:
        yield compiles


@contextlib.contextmanager
def keeping(folder: Path) -> Iterator[Callable[..., Any]]:
    """Keep the pieces of builds in a folder; yield what builds without."""
    from hotstart import Store, build
    from hotstart.cache.stored_pieces import StoredPieces

    compiles = build.build_program

    def build_program(*given: Any) -> Any:
        *rest, options, on_miss, kept, clock = given
        if not kept and options.compiler == "inductor":
            store = Store(folder, check=False)
            kept = {target: StoredPieces(store, target) for target in options.targets}
        return compiles(*rest, options, on_miss, kept, clock)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "build_program", build_program)
        yield compiles


@pytest.fixture
def compiled_anew(kept_pieces: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile every piece, in a module that keeps them."""
    monkeypatch.setattr("hotstart.build.build_program", kept_pieces)
