"""Capture: model and example inputs to one graph with its contract."""

from hotstart.capture.arguments import Arguments, describe_arguments
from hotstart.capture.trace import Captured, capture
from hotstart.capture.weights import WeightTable, weights_on

__all__ = [
    "Arguments",
    "Captured",
    "WeightTable",
    "capture",
    "describe_arguments",
    "weights_on",
]
