"""Packaging: an artifact to one file, proven in a process of its own."""

from hotstart.packaging.save import Check, packed, save

__all__ = ["Check", "packed", "save"]
