"""Decide whether a program that is kept still fits, and say why one is stale.

Several programs may have one key. Each is compared with what it was compiled for: first what a
trace saw outside of the model, without opening the program's file, then all that a load compares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from hotstart.cache.entries import PROGRAMS, CacheEntry, Entries
from hotstart.cache.file_names import require_program
from hotstart.cache.folder import Folder
from hotstart.cache.signatures import untrusted
from hotstart.errors import (
    ArtifactError,
    ContractError,
    CorruptArtifact,
    IncompatibleArtifact,
    ModelMismatch,
    UntrustedArtifact,
)
from hotstart.events import Clock
from hotstart.guards.compare import changes
from hotstart.records.guards import Change

if TYPE_CHECKING:
    from hotstart.misses import OnMiss
    from hotstart.model import Model
    from hotstart.program import Program

TRIED = 16
"""Bound on the programs of one key that are tried, the newest first."""

Changes = tuple[Change, ...]


class Refused(msgspec.Struct, frozen=True):
    """A stored program that does not fit.

    Attributes:
        entry: the program.
        changes: why it does not.
    """

    entry: CacheEntry
    changes: Changes


class FoundProgram(msgspec.Struct, frozen=True):
    """A program that fits, or why those of its key do not.

    Attributes:
        program: the program that fits; None if there is none.
        refused: those that were tried before it, the newest first.
    """

    program: Program | None
    refused: tuple[Refused, ...] = ()


def find_fitting(
    folder: Folder,
    entries: Entries,
    key: str,
    model: Model,
    on_miss: OnMiss,
    clock: Clock | None,
) -> FoundProgram:
    """Load the newest program of a key that fits a model, its sources and this machine."""
    refused: list[Refused] = []
    for entry in entries.of(f"{key}.")[:TRIED]:
        folder.used(PROGRAMS, entry.program)  # lest it be tidied away while it is compared
        seen = entries.seen(entry)
        if seen is None:
            continue
        changed = tuple(changes(model, seen))
        if not changed:
            program, changed = loaded(folder, entries, entry, model, on_miss, clock)
            if program is not None:
                return FoundProgram(program, tuple(refused))
        refused.append(Refused(entry, changed))
    return FoundProgram(None, tuple(refused))


def loaded(
    folder: Folder,
    entries: Entries,
    entry: CacheEntry,
    model: Model,
    on_miss: OnMiss,
    clock: Clock | None,
) -> tuple[Program | None, Changes]:
    """Load a program; else None, and what it was compiled for that is not so any more.

    What is damaged is put away, and an entry without its program is removed.
    """
    from hotstart.loading import load_file

    path = folder.path(PROGRAMS, entry.program)
    try:
        require_program(path, entry.program)
        program = load_file(
            path, model, on_miss, trust=folder.signatures.trust, pack="first_call", clock=clock
        )
    except CorruptArtifact as error:
        folder.quarantine(PROGRAMS, entry.program, str(error))
        entries.remove(entry)
        return None, (("its file", "what was written", "damage"),)
    except (IncompatibleArtifact, ModelMismatch) as error:
        return None, error.differences
    except UntrustedArtifact as error:
        return None, (untrusted(error),)
    except (ArtifactError, ContractError) as error:
        if folder.is_gone(PROGRAMS, entry.program):
            entries.remove(entry)
            return None, (("its file", "there", "nothing"),)
        return None, (("loading it", "a program", str(error)),)
    entries.used(entry)
    return program, ()
