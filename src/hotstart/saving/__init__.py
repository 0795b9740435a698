"""Saving: an artifact to one file, checked in a process of its own."""

from hotstart.saving.save import CheckInputs, packed, save

__all__ = ["CheckInputs", "packed", "save"]
