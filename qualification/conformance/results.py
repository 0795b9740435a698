"""What is known of every architecture, and the file it is kept in."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import msgspec
from msgspec.structs import replace

from qualification import suites


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was found of an architecture. What was not reached is None.

    Attributes:
        name: of the entry.
        family: of the entry.
        notes: of the entry.
        problem: the first line of what went wrong; empty if nothing did.
        wrong: whether that is a result that differs from eager.
        stock_captures: whether `torch.compile(fullgraph=True)` can capture the model.
        stock_problem: why not; or how its result differs.
        stock_first_s: seconds of its first call, with empty caches.
        stock_max_error: largest difference of its result to eager, at the example's sizes.
        stock_ms: milliseconds of its steady call.
        eager_ms: milliseconds of the model's own call.
        call_ms: milliseconds of the loaded program's call.
        build_s: seconds of `hotstart.compile`, with empty caches.
        save_s: seconds of saving, with the check in a process of its own.
        variants: how many combinations of ranges were compiled.
        op_by_op: different pieces that run op by op.
        pieces: pieces of the graphs.
        different: different pieces among them that are compiled.
        grows_by: how many more different ones a model of twice the depth has.
        file_bytes: size of the artifact.
        weights: digest of the model's weights.
        first_load_ms: milliseconds of the first `hotstart.load` of a process, with what it imports.
        load_ms: the median of several.
        max_error: largest difference to eager over all sizes that were tried.
        sizes: how many those are.
    """

    name: str
    family: str
    notes: str = ""
    problem: str = ""
    wrong: bool = False
    stock_captures: bool | None = None
    stock_problem: str = ""
    stock_first_s: float | None = None
    stock_max_error: float | None = None
    stock_ms: float | None = None
    eager_ms: float | None = None
    call_ms: float | None = None
    build_s: float | None = None
    save_s: float | None = None
    variants: int | None = None
    op_by_op: int | None = None
    pieces: int | None = None
    different: int | None = None
    grows_by: int | None = None
    file_bytes: int | None = None
    weights: str = ""
    first_load_ms: float | None = None
    load_ms: float | None = None
    max_error: float | None = None
    sizes: int | None = None

    @property
    def passes(self) -> bool:
        """Whether everything worked, and gave the right numbers."""
        return not self.problem

    def untimed(self) -> Result:
        """The same without times."""
        times = [name for name in self.__struct_fields__ if name.endswith(("_s", "_ms"))]
        return replace(self, **dict.fromkeys(times))


class Results(msgspec.Struct, frozen=True):
    """What was found of all architectures, under one set of versions."""

    versions: dict[str, str]
    results: list[Result]


ALLOWED_TO_FAIL = 0.05
"""The share of architectures that stock can capture which hotstart may fail in."""


def verdict(results: Iterable[Result]) -> int:
    """The exit status: 1 for a wrong result, or if too many fail that stock can capture."""
    known = list(results)
    captured = [result for result in known if result.stock_captures]
    failing = sum(not result.passes for result in captured)
    too_many = failing > ALLOWED_TO_FAIL * len(captured)
    return int(too_many or any(result.wrong for result in known))


def versions() -> dict[str, str]:
    """The versions that results depend on."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {
        "torch": version("torch").partition("+")[0],
        "transformers": version("transformers"),
        "Python": python,
        "cores": str(len(os.sched_getaffinity(0))),
    }


def read(file: Path) -> dict[str, Result]:
    """The results in a file that were found under the versions of this process, by name."""
    if not file.exists():
        return {}
    kept = msgspec.json.decode(file.read_bytes(), type=Results)
    return {result.name: result for result in kept.results} if kept.versions == versions() else {}


def write(file: Path, results: list[Result]) -> None:
    """Keep results with the versions of this process."""
    suites.keep(file, Results(versions(), results))
