"""Kernels of our own, for Inductor to compile."""
