"""Capture: model and example inputs to one graph with its contract."""
