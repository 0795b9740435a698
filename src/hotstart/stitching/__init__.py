"""Stitching: the pieces of a variant joined by generated straight-line Python."""

from hotstart.stitching.stitch import returned_arguments, stitch

__all__ = ["returned_arguments", "stitch"]
