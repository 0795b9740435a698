"""Write to torch's structured trace."""

from __future__ import annotations

from collections.abc import Callable


def trace_artifact(name: str, payload: Callable[[], str]) -> None:
    """Add a text to torch's structured trace, where `tlparse` shows it."""
    from torch._logging._internal import trace_structured

    trace_structured(
        "artifact",
        metadata_fn=lambda: {"name": name, "encoding": "string"},
        payload_fn=payload,
        expect_trace_id=False,
    )
