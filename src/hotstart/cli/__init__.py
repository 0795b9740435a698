"""The command line."""

from hotstart.cli.app import main

__all__ = ["main"]
