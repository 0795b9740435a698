"""Partition: one graph to pieces, their digests, and which of them are different."""

from hotstart.partition.cut import SplitOn, cut
from hotstart.partition.graph import Graph
from hotstart.partition.pieces import Piece, Plan, make_plan

__all__ = ["Graph", "Piece", "Plan", "SplitOn", "cut", "make_plan"]
