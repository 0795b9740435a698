"""Timeline of a build as a trace for chrome://tracing and Perfetto. Imports no torch."""

from __future__ import annotations

from typing import Any

import msgspec

from hotstart.reporting.document import Document


def trace_of(document: Document) -> bytes:
    """The phases of a build or load, and the pieces by who compiled them, as JSON.

    The format is the Trace Event Format: complete events, in microseconds, with a lane for each
    thread.
    """
    spans = document.report.spans
    lanes = {lane: number for number, lane in enumerate(dict.fromkeys(s.lane for s in spans))}
    events: list[dict[str, Any]] = [
        {
            "name": "thread_name",
            "ph": "M",
            "pid": 1,
            "tid": number,
            "args": {"name": lane},
        }
        for lane, number in lanes.items()
    ]
    events += [
        {
            "name": span.name,
            "cat": document.kind,
            "ph": "X",
            "ts": round(1e6 * span.start),
            "dur": round(1e6 * span.seconds),
            "pid": 1,
            "tid": lanes[span.lane],
        }
        for span in spans
    ]
    return msgspec.json.encode({"traceEvents": events, "displayTimeUnit": "ms"})
