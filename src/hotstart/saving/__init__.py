"""Saving: an artifact to the bytes of one file, checked in a process of its own."""

from hotstart.saving.save import CheckInputs, packed

__all__ = ["CheckInputs", "packed"]
