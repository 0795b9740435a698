"""Stitching: the pieces of a variant joined by generated straight-line Python."""

from hotstart.stitching.stitch import passed_on, stitch

__all__ = ["passed_on", "stitch"]
