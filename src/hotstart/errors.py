"""Every error hotstart raises.

The tree:

    HotstartError
    ├── OptionsError          an argument of hotstart's functions or classes that makes no sense
    ├── CaptureError          the model cannot be captured as one graph
    │   └── RangeError        tracing or compiling narrowed a declared range
    ├── PartitionError        the graph cannot be cut as asked
    ├── CompileError          a piece failed to compile
    ├── ContractError         a call outside what the program was built for
    ├── ModelMismatch         the model or checkpoint is not of the structure it was built for
    │   └── GroupMismatch     the processes or their groups are not those it was built for
    ├── ArtifactError         an artifact cannot be written or read
    │   ├── CorruptArtifact       the file is damaged, or not a file of hotstart's
    │   ├── IncompatibleArtifact  it is whole, but made for another machine or other sources
    │   └── UntrustedArtifact     no trusted key has signed it
    └── StoreError            a store cannot be used, or lacks a program that it must have

Every message says what was expected, what was found and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class HotstartError(Exception):
    """Base of every error of hotstart. One of this very class is a defect of hotstart."""

    __module__ = "hotstart"  # where users find it, and what tracebacks show

    def __init_subclass__(cls) -> None:
        if cls.__module__ == __name__:
            cls.__module__ = HotstartError.__module__


class OptionsError(HotstartError, ValueError):
    """An argument of hotstart's functions or classes that makes no sense."""


class CaptureError(HotstartError):
    """The model could not be captured as one full graph."""


class RangeError(CaptureError):
    """A declared range does not hold: tracing or compiling put a condition on an axis.

    Attributes:
        axis: name of the axis (or axes, comma separated) the condition is about.
        condition: the condition, in terms of axis names.
        source: where in the model's source the condition came from, when known.
        expr: the condition as an expression of sympy over axis symbols, when known.
    """

    def __init__(
        self,
        axis: str,
        declared: str,
        condition: str,
        source: str,
        advice: str,
        expr: object = None,
    ) -> None:
        self.axis = axis
        self.condition = condition
        self.expr = expr
        self.source = source
        where = f"\n  from:      {source}" if source else ""
        super().__init__(
            f"axis {axis!r} was declared as {declared}, "
            f"but the model holds only where {condition}.\n"
            f"  expected:  every size of {axis!r} in {declared}\n"
            f"  condition: {condition}{where}\n"
            f"  do:        {advice}"
        )


class PartitionError(HotstartError):
    """The captured graph cannot be cut as asked."""


class CompileError(HotstartError):
    """A piece failed to compile.

    The compiler's own error is the `__cause__`; where a worker has compiled it, that is an error
    with the traceback of the worker as its message.

    Attributes:
        piece: name of the piece.
        layers: module paths the piece came from.
        variant: name of the variant being compiled.
    """

    def __init__(self, piece: str, layers: Sequence[str], variant: str, reason: str) -> None:
        self.piece = piece
        self.layers = tuple(layers)
        self.variant = variant
        came_from = ", ".join(layers) if layers else "code outside any submodule"
        super().__init__(f"{piece} ({came_from}) does not compile for variant {variant}: {reason}")


class ContractError(HotstartError, TypeError):
    """A call outside the contract that the program was built for.

    Attributes:
        argument: the argument at fault, such as `input_ids` or `inputs['mask']`.
        got: what the call passed.
        takes: what the program takes.
        calls: where several calls were compiled, why each did not take this one, by name.
        of_mode: whether it is about the `training` flag of a module, and not about an argument.
    """

    of_mode = False

    def __init__(self, argument: str, got: str, takes: str, advice: str = "") -> None:
        self.argument = argument
        self.got = got
        self.takes = takes
        self.calls: dict[str, ContractError] = {}
        hint = f"; {advice}" if advice else ""
        super().__init__(f"{argument}: got {got}, takes {takes}{hint}")

    @classmethod
    def other_mode(cls, module: str, training: bool) -> ContractError:
        """Make the error of a call while a module is in another mode than at the build."""
        mode, call = ("training", "eval") if training else ("evaluation", "train")
        advice = f"call model.{call}(), or compile the model in {mode} mode"
        error = cls(f"{module or 'model'}.training", repr(training), repr(not training), advice)
        error.of_mode = True
        return error

    @classmethod
    def of_all(cls, refusals: Mapping[str, ContractError]) -> ContractError:
        """Make the error of a call that fits none of several contracts, from the error of each."""
        if len(refusals) == 1:
            return next(iter(refusals.values()))
        listed = "".join(f"\n  {name}: {error}" for name, error in refusals.items())
        error = cls("the call", "arguments that fit none of the compiled calls", f"one of:{listed}")
        error.calls.update(refusals)
        return error


_RESTORE = (
    "Restore what is listed, use a model of the structure that was compiled, or compile this one."
)
_MOST_LISTED = 20
"""Lines that a message lists; more do not help a reader."""


class ModelMismatch(HotstartError):
    """The model, or a checkpoint, is not of the structure that the program was built for.

    Attributes:
        differences: name, expected and found, for each tensor that is missing or does not fit, and
            for each module of another class, length or setting.
        problems: a line for each difference; the message has the first 20.
    """

    def __init__(
        self,
        differences: Sequence[tuple[str, str, str]],
        about: str = "the model",
        advice: str = _RESTORE,
    ) -> None:
        self.differences = tuple(differences)
        self.problems = tuple(map(_line, differences))
        more = len(self.problems) - _MOST_LISTED
        lines = [*self.problems[:_MOST_LISTED], *([f"... and {more} more"] if more > 0 else [])]
        listed = "\n  ".join(lines)
        super().__init__(f"{about} does not fit the compiled program:\n  {listed}\n{advice}")


class GroupMismatch(ModelMismatch):
    """The processes, or a group of them, are not what the program was built for.

    `differences` has each group that is missing, of another size or of another rank.
    """

    def __init__(self, differences: Sequence[tuple[str, str, str]]) -> None:
        super().__init__(
            differences,
            "torch.distributed",
            "Initialise torch.distributed with as many processes before, pass groups by these "
            "names as hotstart.load(..., groups={name: group}), or compile for these processes.",
        )


class ArtifactError(HotstartError):
    """An artifact cannot be written or read."""


_NO_ARTIFACT = "is damaged or not an artifact of hotstart; copy it again or build it again"


class CorruptArtifact(ArtifactError):
    """A file is damaged, or is no artifact or checkpoint. Nothing in it was executed.

    Attributes:
        file: the file.
        part: the damaged part: `"header"`, `"manifest"`, `"size"`, or the name of a blob.
    """

    def __init__(
        self, file: object, part: str, expected: str, found: str, about: str = _NO_ARTIFACT
    ) -> None:
        self.file = str(file)
        self.part = part
        super().__init__(f"{file}: {part}: expected {expected}, found {found}. The file {about}.")


class IncompatibleArtifact(ArtifactError):
    """A file does not fit this process: another machine, other versions, other sources.

    The file is an artifact, or has weights that were prepared for another program.

    Attributes:
        file: the file.
        differences: name, expected and found, for each part of the fingerprint that differs.
    """

    def __init__(
        self,
        file: object,
        differences: Sequence[tuple[str, str, str]],
        advice: str = "Run it where these fit, or build it again here.",
    ) -> None:
        self.file = str(file)
        self.differences = tuple(differences)
        listed = "\n  ".join(map(_line, differences))
        super().__init__(f"{file} does not fit here:\n  {listed}\n{advice}")


class UntrustedArtifact(ArtifactError):
    """Keys were given, and none of them signed the artifact. Nothing in it was executed.

    Attributes:
        file: the file.
        found: a description of the signature in the file, or of its absence.
    """

    def __init__(self, file: object, found: str) -> None:
        self.file = str(file)
        self.found = found
        super().__init__(
            f"{file}: expected a signature by a trusted key, found {found}. Get the file from "
            "where it was signed, or add the signer's public key to trusted_keys."
        )


class StoreError(HotstartError):
    """A store cannot be used, or lacks a program that it must have.

    Raised for a place or setting that makes no sense, by a store with `strict=True` that fails, by
    one with `policy="require"` that has no fitting program, and where a model cannot have a key.
    """


def _line(difference: tuple[str, str, str]) -> str:
    what, expected, found = difference
    return f"{what}: expected {expected}, found {found:.200}"
