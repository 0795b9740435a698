"""The command line: `hotstart build` and `hotstart demo`."""

from hotstart.cli.app import main

__all__ = ["main"]
