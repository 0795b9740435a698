"""The classes of operators in graphs, which torch has under private names (2.11 to 2.15)."""

from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket

__all__ = ["HigherOrderOperator", "OpOverload", "OpOverloadPacket"]
