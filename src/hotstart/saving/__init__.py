"""Saving: an artifact to one file, checked in a process of its own."""

from hotstart.saving.save import Check, packed, save

__all__ = ["Check", "packed", "save"]
