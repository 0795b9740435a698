"""Looks into a cache to show: misses of several kinds."""

from __future__ import annotations

from hotstart.cache.entries import CacheEntry
from hotstart.cache.explain import Miss
from hotstart.records.guards import Change, ProgramKey

KEY = ProgramKey(
    "83302b2b063d5a880a6232b753affdc2",
    {"torch": "2.13.0", "threads": "2", "options.splits": "16", "model ": "<Encoder> in training"},
)
ENTRY = CacheEntry("9c1d" * 8, "p" * 32, 774_104, 1_795_000_000.0, "Encoder", "5ee1")
CHANGES: tuple[Change, ...] = (
    ("torch", "2.12.1", "2.13.0"),
    ("python", "3.11.7", "3.12.2"),
    ("threads", "1", "2"),
    ("options.splits", "3", "16"),
    ("model ", "<Encoder> in evaluation", "<Encoder> in training"),
    ("model .weight", "Parameter torch.float32 [4] True", "Parameter torch.bfloat16 [4] True"),
    ("call input_ids", "torch.int64 [1, 8]", "torch.int64 [1, 16]"),
)
NEAREST = Miss(KEY, ENTRY, False, CHANGES, 200)
SAME_KEY = Miss(KEY, ENTRY, True, (("layers.0.norm.eps", "1e-05", "1e-06"),), 1)
EMPTY = Miss(KEY)


def of_many_changes(count: int) -> Miss:
    """A miss of a model whose weights are all of another dtype."""
    dtypes = ("Parameter torch.float32 [4]", "Parameter torch.float64 [4]")
    return Miss(KEY, ENTRY, False, tuple((f"model l.{n}", *dtypes) for n in range(count)), 3)
