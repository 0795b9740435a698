"""What is asked of a cache's folder, from outside of any start."""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from hotstart import Store
from hotstart.artifact import container, disk
from hotstart.cache.tidying import GRACE_S
from hotstart.cli import main
from hotstart.errors import ArtifactError


def files(place: Path) -> list[Path]:
    """Every file that a cache keeps."""
    folder = Store(place).folder
    return [folder.path(stored.kind, stored.name) for stored in folder.files()]


def whole(file: Path) -> bool:
    """Whether a file is as it was written."""
    try:
        container.read(file)
    except ArtifactError:
        return False
    return not file.name.startswith(disk.TEMPORARY)


def age(files: Iterable[Path]) -> None:
    """Make it that nobody has used files for a while."""
    then = time.time() - 2 * GRACE_S
    for file in files:
        os.utime(file, (then, then))


def command(place: Path, *words: str) -> int:
    """How many files `hotstart cache verify` takes for damaged; 0 for another command."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        main(["cache", *words, "--json", "--cache", str(place)])
    return len(json.loads(said.getvalue()).get("damaged", []))
