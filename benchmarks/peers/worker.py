"""What one fresh process of `bench_peers.py` does: eager's results, a build, or a measurement."""

from __future__ import annotations

import importlib
import re
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Others
from benchmarks.peers import PEERS
from benchmarks.peers.peer import Loaded, Peer, Place
from benchmarks.peers.subjects import SUBJECTS, Subject

WARM_CALLS = 3
FEWEST_CALLS, MOST_CALLS = 5, 2000

_COLOURS = re.compile("\x1b\\[[0-9;]*m")

Result = dict[str, Any]


def work(what: str, model: str, folder: str, *arguments: str) -> Result:
    """Do one job; a failure is a result with its first line as `error`."""
    jobs: Mapping[str, Callable[..., Result]] = {
        "reference": reference,
        "build": build,
        "measure": measure,
    }
    try:
        return jobs[what](SUBJECTS[model], Path(folder), *arguments)
    except Exception as error:  # noqa: BLE001  whatever a peer raises is its result
        import traceback

        traceback.print_exc()
        return {"error": first_line(error)}


def first_line(error: BaseException) -> str:
    """The type of the error behind an error, and the first line of its message with words."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines()]
    said = next((line for line in lines if line.strip("=-#* ")), "")
    return f"{type(error).__name__}: {said}"[:300]


def reference(subject: Subject, folder: Path) -> Result:
    """Keep eager's result at every size, for comparison; how large the weights are."""
    import torch

    from benchmarks.peers.modules import make

    module = make(subject.name)
    with torch.no_grad():
        for sizes in subject.sizes:
            arrays = subject.arrays(sizes)
            result = module(*map(torch.from_numpy, arrays.values()))
            np.save(_reference(subject, folder, sizes), result.numpy())
    tensors = [*module.parameters(), *module.buffers()]
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage() for each in tensors}
    return {"weights_bytes": sum(storage.nbytes() for storage in storages.values())}


def build(subject: Subject, folder: Path, name: str, threads: str) -> Result:
    """Leave in the peer's folder what loads start from; the seconds that took."""
    peer, place = _placed(folder, name, threads)
    module = _module(subject, peer)
    _import(peer)
    assert peer.build is not None
    started = time.perf_counter()
    peer.build(subject, place, module)
    return {"build_s": time.perf_counter() - started}


def measure(subject: Subject, folder: Path, name: str, threads: str, seconds: str) -> Result:
    """Load, call at every size, compare with eager, and time calls for some seconds a size."""
    peer, place = _placed(folder, name, threads)
    started = time.perf_counter()
    _import(peer)
    imported = time.perf_counter()
    module = _module(subject, peer) if peer.takes_module else None
    made = time.perf_counter()
    loaded = peer.load(subject, place, module)
    ready = time.perf_counter()
    first_call_s, calls = _first_calls(subject, folder, loaded)
    for found in calls.values():
        if "error" not in found:
            found.update(timed(found.pop("call"), float(seconds)))
    return {
        "import_s": imported - started,
        "module_s": made - imported,
        "load_s": ready - made,
        "first_call_s": first_call_s,
        "peak_bytes": _resident("VmHWM"),
        "resident_bytes": _resident("VmRSS"),
        "calls": calls,
    }


def timed(call: Callable[[], Any], seconds: float) -> Result:
    """Median and quartiles of a call in milliseconds, over as many calls as fill the seconds."""
    warm = [_seconds(call) for _ in range(WARM_CALLS)]
    count = min(MOST_CALLS, max(FEWEST_CALLS, round(seconds / statistics.median(warm))))
    others = Others()
    taken = [_seconds(call) * 1e3 for _ in range(count)]
    low, median, high = statistics.quantiles(taken, n=4, method="inclusive")
    return {
        "ms": median,
        "q1_ms": low,
        "q3_ms": high,
        "calls": count,
        "others_cores": others.cores(),
    }


def difference(found: Any, expected: Any) -> Result:
    """The largest difference, absolute and relative to the largest number that is expected."""
    if found.shape != expected.shape:
        return {"error": f"shape: expected {expected.shape}, found {found.shape}"}
    absolute = float(np.abs(found.astype(np.float64) - expected).max())
    relative = absolute / max(float(np.abs(expected).max()), 1e-30)
    return {"max_abs_error": absolute, "relative_error": relative}


def _first_calls(subject: Subject, folder: Path, loaded: Loaded) -> tuple[float, dict[str, Result]]:
    """Seconds of the very first call; for every size a call and how far its result is off.

    A size that fails is recorded as such, and the others go on.
    """
    first_s = float("nan")
    found: dict[str, Result] = {}
    for sizes in subject.sizes:
        label = subject.label(sizes)
        try:
            call = loaded.prepare(subject.arrays(sizes))
            started = time.perf_counter()
            result = call()
            if not found:
                first_s = time.perf_counter() - started
            expected = np.load(_reference(subject, folder, sizes))
            found[label] = {"call": call, **difference(loaded.array(result), expected)}
        except Exception as error:  # noqa: BLE001  see `work`
            found[label] = {"error": first_line(error)}
    return first_s, found


def _placed(folder: Path, name: str, threads: str) -> tuple[Peer, Place]:
    return PEERS[name], Place(folder / name / "files", int(threads))


def _import(peer: Peer) -> None:
    for package in peer.packages:
        importlib.import_module(package)


def _module(subject: Subject, peer: Peer) -> Any:
    from benchmarks.peers.modules import exportable, make

    module = make(subject.name)
    return exportable(module) if peer.exports else module


def _reference(subject: Subject, folder: Path, sizes: tuple[int, ...]) -> Path:
    return folder / f"{subject.label(sizes).replace(' ', '-')}.npy"


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _resident(key: str) -> int:
    """Resident bytes of this process: `VmRSS` now, `VmHWM` at the highest."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) << 10
    raise LookupError(key)
