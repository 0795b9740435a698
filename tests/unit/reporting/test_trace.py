from __future__ import annotations

import json

from msgspec.structs import replace

from hotstart.events import Span
from hotstart.reporting.trace import trace_of
from tests.unit.reporting.documents import document


def test_spans_are_events_in_the_lane_of_who_did_it() -> None:
    spans = (
        Span("phases", "capture", 0.5, 1.25),
        Span("worker 1", "piece_0", 2.0, 0.25),
        Span("phases", "compile", 1.75, 3.0),
    )
    made = document()
    trace = json.loads(trace_of(replace(made, report=replace(made.report, spans=spans))))
    lanes = {e["tid"]: e["args"]["name"] for e in trace["traceEvents"] if e["ph"] == "M"}
    events = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    found = [(lanes[e["tid"]], e["name"], e["ts"], e["dur"]) for e in events]
    assert found == [
        ("phases", "capture", 500_000, 1_250_000),
        ("worker 1", "piece_0", 2_000_000, 250_000),
        ("phases", "compile", 1_750_000, 3_000_000),
    ]


def test_a_build_has_its_phases_in_it() -> None:
    names = {event["name"] for event in json.loads(trace_of(document()))["traceEvents"]}
    assert "capture" in names
