"""The record of what a build knew of its pieces, and an artifact does not hold.

Nothing here imports torch.
"""

import msgspec


class Line(msgspec.Struct, frozen=True):
    """A line of the model, or of a library that it calls.

    Attributes:
        file: its file, from the folder that Python finds it in.
        number: of the line, from 1.
        function: what it is in.
        text: the line, without indentation.
    """

    file: str
    number: int
    function: str
    text: str


class Operation(msgspec.Struct, frozen=True):
    """An operator that a piece calls.

    Attributes:
        name: the operator, as a user writes it, such as `torch.nn.functional.linear`.
        results: its tensors, such as `float32 (batch, seq, 384)`.
        layer: path of the submodule that called it; empty for the model itself.
        line: number of the line it came from, among those of the piece; -1 if it has none.
    """

    name: str
    results: tuple[str, ...]
    layer: str
    line: int


class PieceDetails(msgspec.Struct, frozen=True):
    """A different piece, as it was captured; pieces of equal digest differ in weights and lines.

    Attributes:
        digest: the digest of the piece.
        kind: `"compiled"` or `"inlined"`, as in `PieceInfo`.
        inputs: tensors that it takes in a call, as in `Operation.results`.
        weights: name, dtype and shape of the tensors of the model that the first such piece reads.
        outputs: tensors that it returns.
        operations: the operators it calls, in order.
        lines: the lines they came from, in the order they first occur.
    """

    digest: str
    kind: str
    inputs: tuple[str, ...]
    weights: tuple[tuple[str, str], ...]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]
    lines: tuple[Line, ...]


class Details(msgspec.Struct, frozen=True):
    """Details of pieces that only the build has.

    Attributes:
        pieces: the different pieces, in the order of the graphs.
        kernels: the C++ of each kernel that was compiled in this build, by its name in the file.
    """

    pieces: tuple[PieceDetails, ...] = ()
    kernels: dict[str, str] = {}


NO_DETAILS = Details()
