"""From the runs of every peer to medians, ratios to the best peer, and their geometric means."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

WRONG = 1e-3
"""A result further from eager's than this, relative to its largest number, is marked as wrong."""

IDLE = 0.1
"""Cores that others may keep busy on a machine that counts as idle."""

OWN = "hotstart"
"""Peers whose names begin so are what is measured; the best peer is one of the others."""

NUMBERS = (
    "busy_before",
    "import_s",
    "module_s",
    "load_s",
    "first_call_s",
    "peak_bytes",
    "resident_bytes",
)

Record = Mapping[str, Any]


def medians_of(runs: Sequence[Record]) -> dict[str, Any]:
    """One record for the runs of a peer: medians of numbers, and the largest errors."""
    failed = [run["error"] for run in runs if "error" in run]
    if failed:
        return {"error": failed[0]}
    found: dict[str, Any] = {name: _median(runs, name) for name in NUMBERS}
    labels = list(runs[0]["calls"])
    found["calls"] = {label: _call([run["calls"][label] for run in runs]) for label in labels}
    return found


def _call(runs: Sequence[Record]) -> dict[str, Any]:
    failed = [run["error"] for run in runs if "error" in run]
    if failed:
        return {"error": failed[0]}
    numbers = ("ms", "q1_ms", "q3_ms", "others_cores")
    found: dict[str, Any] = {name: _median(runs, name) for name in numbers}
    for name in ("max_abs_error", "relative_error"):
        found[name] = float(np.max([run[name] for run in runs]))  # nan, if any is
    found["wrong"] = not found["relative_error"] <= WRONG
    return found


def _median(runs: Iterable[Record], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def others_cores(peers: Mapping[str, Record]) -> float:
    """The most cores that other programs kept busy, of the medians before loads and in calls."""
    before = [peer.get("busy_before", 0.0) for peer in peers.values()]
    calls = [call for peer in peers.values() for call in peer.get("calls", {}).values()]
    return max([*before, *(call.get("others_cores", 0.0) for call in calls)], default=0.0)


def milliseconds(model: Record, label: str) -> dict[str, float]:
    """The median call of every peer that gives the right result at some size."""
    found = {}
    for name, peer in model["peers"].items():
        call = peer.get("calls", {}).get(label, {})
        if "ms" in call and not call["wrong"]:
            found[name] = call["ms"]
    return found


def ratios(models: Mapping[str, Record]) -> dict[str, Any]:
    """Every call's time over that of the best peer, by row, and geometric means over rows.

    The best peer of a row is the fastest that is not hotstart. What gives a wrong result, or none,
    has no ratio there, and the mean says how many rows it is of.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, model in models.items():
        for label in model["sizes"]:
            taken = milliseconds(model, label)
            peers = {peer: ms for peer, ms in taken.items() if not peer.startswith(OWN)}
            if peers:
                best = min(peers, key=peers.__getitem__)
                over = {peer: ms / peers[best] for peer, ms in taken.items()}
                rows[f"{name} {label}"] = {"best": best, "over_best": over}
    return {"rows": rows, "geometric_mean": _means([row["over_best"] for row in rows.values()])}


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    names = dict.fromkeys(name for row in rows for name in row)
    found = {}
    for name in names:
        own = [row[name] for row in rows if name in row]
        found[name] = {"ratio": statistics.geometric_mean(own), "rows": len(own)}
    return found
