"""Stitching: the pieces of a variant joined by generated straight-line Python."""
