"""`hotstart inspect`, `verify`, `load-check` and `keygen`. Nothing here imports torch."""

from __future__ import annotations

import base64
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import get_args

from hotstart.artifact import compatibility, container, inspection
from hotstart.artifact.header import FORMAT, SEVERAL
from hotstart.artifact.manifest import MALFORMED, Manifest
from hotstart.cli import flags
from hotstart.cli.factory import see_working_folder
from hotstart.cli.output import say, say_json, tell
from hotstart.errors import CorruptArtifact
from hotstart.reporting.contents import Table, about, byte_count, sections
from hotstart.reporting.text import table_text
from hotstart.targets import TargetName

_MOST_ROWS = 6
"""Rows of a table that `hotstart inspect` prints, but for those of arguments."""


def add_inspect(command: ArgumentParser) -> None:
    """Declare the flags of `hotstart inspect`."""
    _add_file(command)
    command.add_argument(
        "--target",
        choices=get_args(TargetName),
        help="the target to show of a file with several; by default the one that a load takes here",
    )
    flags.add_json(command, "manifest")
    command.set_defaults(run=_inspect)


def _inspect(given: Namespace) -> None:
    """Print what an artifact says of itself; blobs are not read.

    Raises:
        ArtifactError: as `hotstart.inspect`.
    """
    if given.json:
        say_json(inspection.inspect_json(given.file, given.target))
        return
    manifest = inspection.inspect(given.file, given.target)
    try:
        about_all = Table(str(given.file), _about(given.file, manifest))
        parts = [table for table in sections(manifest) if table.rows]
        text = "\n\n".join([table_text(about_all), *map(table_text, map(_shortened, parts))])
    except MALFORMED as error:
        expected = "what hotstart writes"
        raise CorruptArtifact(given.file, "manifest", expected, f"this: {error}") from error
    say(text)
    if any(_shortened(table) is not table for table in parts):
        say(f"\nall rows: hotstart report {given.file}, or inspect --json")


def _shortened(table: Table) -> Table:
    """Keep as many rows of a table as leave room for all tables on a screen; all arguments."""
    more = len(table.rows) - _MOST_ROWS
    if more < 2 or table.title.startswith("arguments"):  # the line that says so takes one
        return table
    rest = (f"and {more} more", *[""] * (len(table.rows[0]) - 1))
    return replace(table, rows=[*table.rows[:_MOST_ROWS], rest])


def add_verify(command: ArgumentParser) -> None:
    """Declare the flags of `hotstart verify`."""
    _add_file(command)
    flags.add_json(command)
    flags.add_trusted(command)
    command.set_defaults(run=_verify)


def _verify(given: Namespace) -> None:
    """Check every byte, and the signature if there are keys.

    Raises:
        ArtifactError: as `inspection.verify`.
    """
    found = inspection.verify(given.file, given.trusted_key)
    trusted = given.trusted_key is not None
    key = found["signed_by"]
    tell(
        given,
        {"ok": True, "file": str(given.file), **found, "trusted": trusted},
        f"{given.file}: all {found['bytes']} bytes are as they were written",
        f"signature: {f'by {key}, which is trusted' if trusted else _signature(key)}",
    )


def add_load_check(command: ArgumentParser) -> None:
    """Declare the flags of `hotstart load-check`."""
    _add_file(command)
    flags.add_json(command)
    command.add_argument(
        "--no-source",
        action="store_true",
        help="do not compare the Python source that was traced with what is here",
    )
    command.set_defaults(run=_load_check)


def _load_check(given: Namespace) -> None:
    """Say whether an artifact fits this process and its working folder.

    Raises:
        ArtifactError: as `compatibility.load_check`.
    """
    see_working_folder()
    compatibility.load_check(given.file, compare_source=not given.no_source)
    tell(given, {"ok": True, "file": str(given.file)}, f"{given.file} fits here")


def add_keygen(command: ArgumentParser) -> None:
    """Declare the flags of `hotstart keygen`."""
    command.add_argument(
        "file",
        type=Path,
        metavar="PRIVATE_KEY_FILE",
        help="where to write the private key; the public key goes beside it, with .pub added",
    )
    command.set_defaults(run=_keygen)


def _keygen(given: Namespace) -> None:
    """Write a key pair; the public key goes to stdout.

    Raises:
        ArtifactError: as `signing.generate`.
    """
    from hotstart.artifact.signing import generate

    public, text = generate(given.file)
    say(f"wrote {given.file}, to be kept secret, and {public}, to be given away", sys.stderr)
    say(text)


def _add_file(command: ArgumentParser) -> None:
    command.add_argument("file", type=Path, metavar="FILE", help="an artifact")


def _about(file: Path, manifest: Manifest) -> list[tuple[str, str]]:
    key = container.read_key(file)
    return [
        ("format", str(SEVERAL if manifest.targets else FORMAT)),
        ("size", byte_count(file.stat().st_size)),
        ("signature", _signature(None if key is None else base64.b64encode(key).decode())),
        *about(manifest),
    ]


def _signature(key: str | None) -> str:
    return "none" if key is None else f"by {key}; not checked, see verify --trusted-key"
