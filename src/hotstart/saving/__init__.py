"""Saving: an artifact to the bytes of one file, checked in a process of its own."""

from hotstart.saving.save import CheckInputs, checked_parts

__all__ = ["CheckInputs", "checked_parts"]
