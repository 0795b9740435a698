"""hotstart against what else runs a PyTorch model on a CPU.

Every model is built once for every peer, in processes of their own. Then each peer loads and is
timed in a fresh process, all peers in turns, over several rounds. `--help` says what can be chosen;
`report_peers.py` makes `docs/performance.md` of the JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import RESULTS, busy_cores, cores, in_fresh_process, machine
from benchmarks.peers import PEERS
from benchmarks.peers.subjects import SUBJECTS
from benchmarks.peers.summary import IDLE, medians_of, others_cores, ratios

KEPT = RESULTS / "peers.json"

VERSIONS = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "openvino", "hotstart")


def main() -> None:
    """Build, measure in turns, and keep what was found, model by model."""
    arguments = _arguments()
    peers = available(arguments.peers)
    busy = busy_cores()
    if busy > IDLE:
        _say(f"other programs keep {busy:.1f} cores busy: the JSON will say so")
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in arguments.models:
            bench = Bench(name, folder.resolve() / name, arguments)
            record = bench.record(peers)
            print(table(name, record), flush=True)
            if arguments.json:
                keep(arguments.json, name, record)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=3, help="processes of each peer")
    parser.add_argument("--seconds", type=float, default=1.5, help="of calls, each size and round")
    parser.add_argument("--quick", action="store_true", help="a fifth of a second of calls")
    parser.add_argument("--folder", type=Path, help="for what is built; default: a temporary one")
    parser.add_argument("--keep", action="store_true", help="use what --folder has of builds")
    parser.add_argument("--limit", type=float, default=3600, help="seconds for one process")
    parser.add_argument(
        "--json",
        type=Path,
        help="file in which these models' figures are replaced. Default: results/peers.json where "
        "all peers are measured and not --quick, else none",
    )
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.seconds = 0.2
    elif chosen.json is None and set(chosen.peers) == set(PEERS):
        chosen.json = KEPT
    return chosen


def available(names: Sequence[str]) -> list[str]:
    """Those of some peers that can run here; says of the others why they are skipped."""
    lacking = {name: PEERS[name].lacks() for name in names}
    for name, why in lacking.items():
        if why:
            _say(f"skipped: {PEERS[name].title}: {why}")
    return [name for name, why in lacking.items() if not why]


class Bench:
    """One model, all peers."""

    def __init__(self, model: str, folder: Path, arguments: argparse.Namespace) -> None:
        self.model = model
        self.folder = folder
        self.rounds = arguments.rounds
        self.seconds = arguments.seconds
        self.keep = arguments.keep
        self.limit_s = arguments.limit
        self.threads = cores()

    def record(self, peers: Sequence[str]) -> dict[str, Any]:
        """What the JSON has of this model."""
        started = time.perf_counter()
        self.folder.mkdir(parents=True, exist_ok=True)
        reference = self._process("reference", "eager")
        if "error" in reference:
            raise RuntimeError(f"{self.model}: eager failed: {reference['error']}")
        found = self._measured({name: self._built(name) for name in peers})
        subject, busiest = SUBJECTS[self.model], others_cores(found)
        return {
            "title": subject.title,
            "sizes": [subject.label(sizes) for sizes in subject.sizes],
            "serves": {axis.name: [axis.min, axis.max] for axis in subject.axes},
            **reference,
            "machine": {**machine(), "threads": self.threads},
            "versions": versions(),
            "rounds": self.rounds,
            "seconds_a_size": self.seconds,
            "idle": busiest <= IDLE,
            "others_cores": busiest,
            "took_s": time.perf_counter() - started,
            "peers": found,
        }

    def _measured(self, builds: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Every peer with its build and its runs; one that failed is not tried in later rounds."""
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in builds}
        for turn in range(self.rounds):
            for name, build in builds.items():
                if "error" not in build and not any("error" in run for run in runs[name]):
                    _say(f"{self.model}: round {turn + 1} of {self.rounds}: {PEERS[name].title}")
                    busy = busy_cores(0.5)
                    run = self._process("measure", name, str(self.threads), str(self.seconds))
                    runs[name].append({**run, "busy_before": busy})
        return {
            name: {"build": build, **(medians_of(runs[name]) if runs[name] else build)}
            | {"runs": runs[name]}
            for name, build in builds.items()
        }

    def _built(self, name: str) -> dict[str, Any]:
        """Build for a peer, or find that this was done before."""
        if PEERS[name].build is None:
            return {}
        folder = self.folder / name
        record = folder / "build.json"
        if self.keep and record.exists():
            kept: dict[str, Any] = json.loads(record.read_text())
            if kept["versions"] == versions():
                return {key: value for key, value in kept.items() if key != "versions"}
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "files").mkdir(parents=True)
        _say(f"{self.model}: building {PEERS[name].title}")
        found = self._process("build", name, str(self.threads))
        if "error" not in found:
            files = folder / "caches/inductor" if PEERS[name].keeps_caches else folder / "files"
            found["file_bytes"] = size_of(files)
            record.write_text(json.dumps({**found, "versions": versions()}, indent=2) + "\n")
        return found

    def _process(self, what: str, name: str, *arguments: str) -> dict[str, Any]:
        """Run a job of `peers/worker.py`; what it writes to stderr is kept beside the caches."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        peer = () if what == "reference" else (name,)
        try:
            return in_fresh_process(
                __file__,
                "run",
                what,
                self.model,
                str(self.folder),
                *peer,
                *arguments,
                caches=folder / "caches",
                environment={
                    "OMP_NUM_THREADS": str(self.threads),
                    "TRANSFORMERS_OFFLINE": "1",
                    "TOKENIZERS_PARALLELISM": "false",
                },
                log=folder / f"{what}.log",
                limit_s=self.limit_s,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"it took more than {self.limit_s:.0f} s"}
        except subprocess.CalledProcessError as error:
            return {"error": f"its process ended with status {error.returncode}"}


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def versions() -> dict[str, str]:
    """Versions of what takes part; those that are not installed are left out."""
    found = {}
    for name in VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def keep(file: Path, name: str, record: Mapping[str, Any]) -> None:
    """Replace a model in the JSON, and compute the ratios of all models anew."""
    old = json.loads(file.read_text())["models"] if file.exists() else {}
    models = {each: record if each == name else old.get(each) for each in SUBJECTS}
    measured = {each: found for each, found in models.items() if found}
    titles = {each: peer.title for each, peer in PEERS.items()}
    report = {"titles": titles, "ratios": ratios(measured), "models": measured}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=1) + "\n")


def table(name: str, record: Mapping[str, Any]) -> str:
    """Milliseconds a call of every peer and size, for the terminal."""
    lines = [f"\n{record['title']}: {', '.join(record['sizes'])}; idle: {record['idle']}"]
    for peer, found in record["peers"].items():
        lines.append(f"  {PEERS[peer].title:28} {_outcome(found)}")
    best = ratios({name: record})["geometric_mean"]
    lines += [
        f"  {PEERS[peer].title:28} {mean['ratio']:.2f} of the best" for peer, mean in best.items()
    ]
    return "\n".join(lines)


def _outcome(found: Mapping[str, Any]) -> str:
    if "error" in found:
        return f"cannot: {found['error']}"
    calls = [
        call.get("error") or f"{call['ms']:8.2f} ms{' WRONG' if call['wrong'] else ''}"
        for call in found["calls"].values()
    ]
    start = f"load {found['load_s']:.3f} s, first call {found['first_call_s']:.3f} s"
    return f"{'  '.join(calls)}   {start}, {found['peak_bytes'] / 1e6:.0f} MB"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        from benchmarks.peers.worker import work

        print(json.dumps(work(*sys.argv[2:])))
    else:
        main()
