"""Tell OpenTelemetry of builds, loads and refused calls, in processes that have imported its API.

Elsewhere nothing is imported, and every function here returns at once. No call of a program that is
within its contract comes by.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from hotstart.events import Clock
from hotstart.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, Histogram

_NAME = "hotstart"


@contextlib.contextmanager
def traced(name: str, clock: Clock) -> Iterator[None]:
    """Record what is done inside as a span, with all that the clock is told of as spans below it.

    Args:
        name: of the span, such as `hotstart.compile`.
        clock: that of what is done, new or nearly so.
    """
    if "opentelemetry.trace" not in sys.modules:
        yield
        return
    from opentelemetry import trace

    tracer = trace.get_tracer(_NAME, VERSION)
    with tracer.start_as_current_span(name):
        try:
            yield
        finally:
            began = time.time_ns() - int(1e9 * clock.wall_s())
            for span in clock.spans():
                start = began + int(1e9 * span.start)
                attributes = {"hotstart.lane": span.lane}
                child = tracer.start_span(
                    f"{_NAME}.{span.name}", None, attributes=attributes, start_time=start
                )
                child.end(start + int(1e9 * span.seconds))


def count(name: str, amount: int = 1, **attributes: str) -> None:
    """Add to a counter, such as `hotstart.cache.lookups`."""
    if "opentelemetry.metrics" in sys.modules and amount:
        _counter(name).add(amount, _named(attributes))


def record_seconds(name: str, seconds: float, **attributes: str) -> None:
    """Add a value to a histogram of seconds."""
    if "opentelemetry.metrics" in sys.modules:
        _histogram(name).record(seconds, _named(attributes))


def _named(attributes: dict[str, str]) -> dict[str, Any]:
    return {f"{_NAME}.{name}": value for name, value in attributes.items()}


# Instruments are made before there is a provider, or after: the API hands on to the one there is.


@lru_cache(maxsize=64)
def _counter(name: str) -> Counter:
    from opentelemetry import metrics

    return metrics.get_meter(_NAME, VERSION).create_counter(name)


@lru_cache(maxsize=64)
def _histogram(name: str) -> Histogram:
    from opentelemetry import metrics

    return metrics.get_meter(_NAME, VERSION).create_histogram(name, unit="s")
