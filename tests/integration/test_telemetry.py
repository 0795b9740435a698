"""What OpenTelemetry is told, in a process that has its API: spans, and metrics."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")

SETUP = """
import json, sys
import torch
from torch import nn
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider)
metrics.set_meter_provider(MeterProvider([reader]))

import hotstart
X = torch.ones(3, 4)
model = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()
eager = hotstart.Options(compiler="op_by_op")
"""

TELL = """
def points():
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    value = getattr(point, "value", getattr(point, "count", None))
                    yield [metric.name, dict(point.attributes), value]

finished = spans.get_finished_spans()
names = {span.context.span_id: span.name for span in finished}
print(json.dumps({
    "spans": [
        [span.name, names.get(span.parent.span_id) if span.parent else None,
         span.end_time - span.start_time, span.status.status_code.name]
        for span in finished
    ],
    "metrics": list(points()),
}))
"""


def told(python: Callable[..., str], body: str, *arguments: str) -> dict[str, Any]:
    """What was exported of some code."""
    found: dict[str, Any] = json.loads(
        python("-c", SETUP + body + TELL, *arguments).splitlines()[-1]
    )
    return found


def values(found: dict[str, Any], name: str) -> list[tuple[dict[str, str], int]]:
    return [(attributes, value) for metric, attributes, value in found["metrics"] if metric == name]


def test_builds_loads_and_refused_calls_are_told(python: Callable[..., str], tmp_path: Any) -> None:
    body = """
program = hotstart.compile(model, (X,), options=eager)
program.save(sys.argv[1], check=False)
loaded = hotstart.load(sys.argv[1], model)
loaded(X)
try:
    loaded(torch.ones(5, 4))
except hotstart.ContractError:
    pass
"""
    found = told(python, body, str(tmp_path / "model.hot"))
    parents = {name: parent for name, parent, _, _ in found["spans"]}
    assert parents["hotstart.compile"] is None
    assert parents["hotstart.capture"] == "hotstart.compile"
    assert parents["hotstart.load"] is None
    whole = next(
        taken
        for name, parent, taken, _ in found["spans"]
        if (name, parent) == ("hotstart.compile", None)  # a phase has this name, too
    )
    phases = [taken for _, parent, taken, _ in found["spans"] if parent == "hotstart.compile"]
    assert 0 < max(phases) <= whole
    assert values(found, "hotstart.units") == [({"hotstart.action": "compiled"}, 1)]
    assert values(found, "hotstart.load.duration") == [({}, 1)]
    refused = values(found, "hotstart.calls.outside_contract")
    assert refused == [({"hotstart.policy": "error"}, 1)]


@pytest.mark.thorough
def test_a_cache_tells_of_hits_and_of_misses_with_the_reason(
    python: Callable[..., str], tmp_path: Any
) -> None:
    body = """
for _ in range(2):
    hotstart.compile(model, (X,), options=eager, cache=hotstart.Store(sys.argv[1], check=False))
"""
    found = told(python, body, str(tmp_path))
    assert values(found, "hotstart.cache.lookups") == [
        ({"hotstart.outcome": "miss", "hotstart.reason": "no program of this key"}, 1),
        ({"hotstart.outcome": "hit"}, 1),
    ]


def test_a_build_that_fails_is_a_span_with_an_error(python: Callable[..., str]) -> None:
    body = """
import time
try:
    hotstart.compile(lambda x: x * time.time(), (X,), options=eager)
except hotstart.CaptureError:
    pass
"""
    found = told(python, body)
    (status,) = [status for name, _, _, status in found["spans"] if name == "hotstart.compile"]
    assert status == "ERROR"


def test_nothing_is_imported_for_it(python: Callable[..., str]) -> None:
    code = """
import sys, torch, hotstart
from torch import nn
eager = hotstart.Options(compiler="op_by_op")
hotstart.compile(nn.Linear(4, 4), (torch.ones(3, 4),), options=eager)
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    assert python("-c", code).splitlines()[-1] == "[]"
