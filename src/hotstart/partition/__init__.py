"""Partition: one graph to pieces, their digests, and which of them are different."""

from hotstart.partition.cut import SplitOn, cut
from hotstart.partition.pieces import make_plan
from hotstart.partition.plan import Graph, Piece, Plan

__all__ = ["Graph", "Piece", "Plan", "SplitOn", "cut", "make_plan"]
