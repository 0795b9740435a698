"""Weights of a checkpoint, for programs that run without their model."""
