"""Code from data: generated Python, kernels, libraries."""
