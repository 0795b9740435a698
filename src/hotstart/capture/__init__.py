"""Capture: a model and an example call to one graph, with everything around it as data."""
