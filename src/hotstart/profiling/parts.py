"""The records of pieces and kernels that were timed: plain data."""

from __future__ import annotations

import msgspec

from hotstart.profiling.watched_code import Kind


class KernelProfile(msgspec.Struct, frozen=True):
    """A kernel or an operator of torch, at one place of the code.

    Attributes:
        name: as generated code calls it.
        kind: `"kernel"` or `"operator"`.
        count: how often a call of the program runs it.
        seconds: of all of these together; the average of typical calls.
        bytes: the size of all that it is given and returns: what it reads and writes, if that is
            all of it, once.
        operations: multiplications and additions; None where they are not known, as of kernels that
            Inductor has written.
        result: sizes of the tensor that an operator returns, by which operators of one name can be
            told apart; empty for kernels, which write to what they are given.
    """

    name: str
    kind: Kind
    count: int
    seconds: float
    bytes: int
    operations: int | None
    result: str = ""


class PieceProfile(msgspec.Struct, frozen=True):
    """A piece, or what is called between pieces.

    Attributes:
        name: of the piece, as in `Program.pieces`; empty for what is between them.
        layers: paths of the submodules it came from.
        unit: the key of the unit that it runs; equal pieces have the same.
        op_by_op: why it runs the captured operators; empty if it does not.
        seconds: the average of typical calls, with what its kernels take.
        kernels: what it calls, in the order of the code.
    """

    name: str
    layers: tuple[str, ...]
    unit: str
    op_by_op: str
    seconds: float
    kernels: tuple[KernelProfile, ...]
