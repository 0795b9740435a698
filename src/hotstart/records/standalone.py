"""The records that let a program run without its model. Nothing here imports torch."""

from typing import Any, Literal, TypeAlias

import msgspec

ResultKind: TypeAlias = Literal["named tuple", "mapping", "attributes", "registered"]
"""Ways to build a result: a named tuple, a dict by name, an object that is its attributes, or by
pytree, which needs the class."""


class LeftOut(msgspec.Struct, frozen=True):
    """A tensor that a model has and its checkpoints leave out.

    That is a buffer that is not persistent, or a tensor that is a plain attribute.

    Attributes:
        slot: its number in the table of weights.
        tensor: its value when the program was saved; None if it had none, on the meta device.
    """

    slot: int
    tensor: Any


class Prefix(msgspec.Struct, frozen=True):
    """One way in which the names of a checkpoint may differ from those of the table.

    Attributes:
        ours: how names of the table begin; those that do not are the same in the checkpoint.
        theirs: how the same names begin in the checkpoint.
    """

    ours: str
    theirs: str


class Rename(msgspec.Struct, frozen=True):
    """A name that a library changes when it loads a checkpoint.

    Attributes:
        pattern: a regular expression that is searched in a name of the checkpoint.
        replacement: takes the place of the first match, as of `re.sub`.
        scopes: only names that begin with one of these are changed, and only after it; the first
            that fits counts. Empty: all names.
    """

    pattern: str
    replacement: str
    scopes: tuple[str, ...] = ()


class Naming(msgspec.Struct, frozen=True):
    """The ways in which the names of checkpoints may differ from those of the table of weights.

    Attributes:
        prefixes: of these, one is taken for a whole checkpoint, or none.
        renames: applied one after the other, to all names of a checkpoint or to none.
    """

    prefixes: tuple[Prefix, ...] = ()
    renames: tuple[Rename, ...] = ()


class ResultType(msgspec.Struct, frozen=True):
    """A class of a library, or of a user's, that a result is an object of.

    Attributes:
        path: where it can be imported from, as `module:name`.
        kind: how it is built.
        fields: the names of what it holds, in order.
    """

    path: str
    kind: ResultKind
    fields: tuple[str, ...] = ()
