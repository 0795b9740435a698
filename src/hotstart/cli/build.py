"""`hotstart build`: compile what a factory returns, report, and save it if asked to."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

from msgspec.structs import replace as replace_fields

import hotstart
from hotstart.artifact import disk
from hotstart.cli import flags, observed
from hotstart.cli.factory import call_factory
from hotstart.cli.output import require_place, say, tell
from hotstart.cli.progress import progress
from hotstart.events import Clock, Event
from hotstart.records.table import memory
from hotstart.reporting.document import SUFFIX


def add_build(command: ArgumentParser) -> None:
    """Declare the flags of `hotstart build`."""
    add = command.add_argument
    flags.add_factory(command)
    flags.add_compiling(command)
    observed.add_calls(command)
    add(
        "--debug-dir",
        type=Path,
        metavar="DIR",
        help="write graphs, generated code and a script for each piece here",
    )
    add("-o", "--output", type=Path, metavar="FILE", help="save the program in this file")
    add(
        "--report",
        type=Path,
        metavar="REPORT",
        help=f"write the document of the build here; by default beside FILE, as NAME{SUFFIX}",
    )
    add("--no-report", action="store_true", help="write no document")
    flags.add_sign(command)
    flags.add_no_check(command)
    flags.add_json(command, "report")
    command.epilog = f"{flags.FACTORY}{command.epilog}"
    command.set_defaults(run=_build)


def _build(given: Namespace) -> None:
    """Build, save, and print the report on stdout; progress goes to stderr.

    Raises:
        HotstartError: the factory is not one, the model cannot be compiled as asked, or the
            program cannot be saved.
    """
    output: Path | None = given.output
    if output is None and (given.sign_key or given.no_check):
        given.parser.error(f"{'--sign-key' if given.sign_key else '--no-check'} is for --output")
    if given.no_report and given.report is not None:
        given.parser.error("--report and --no-report: takes one of them")
    observed.require_calls(given)
    settings = flags.settings(given)
    if output is not None:
        require_place(output, "built")
    written = _place_of_report(given)
    if written is not None:
        require_place(written, "built")
    if given.sign_key is not None:
        from hotstart.artifact.signing import signer

        signer(given.sign_key)  # read now: one that is no key is no news for after the build
    clock = Clock()
    with clock.phase("model"):
        model, from_factory = call_factory(given.factory, model_alone=given.calls is not None)
    arguments = settings.beside(given.factory, from_factory)
    arguments.pop("extra_key", None)  # no cache is asked
    if given.debug_dir is not None and isinstance(arguments["options"], hotstart.Options):
        arguments["options"] = replace(arguments["options"], debug_dir=given.debug_dir)
    if given.calls is not None:
        arguments = observed.with_calls(given, arguments, settings.arguments["dynamic_shapes"])
    with progress(sys.stderr, quiet=given.json) as listener:
        heard = flags.listening(arguments, given.jobs, listener)
        with clock.phase("build"), flags.compiling_on(heard):
            program = hotstart.compile(model, **heard)
        if output is not None:
            listener(Event("phase_started", "save"))
            with clock.phase("save"):
                checked = not given.no_check
                program.save(output, sign_key=given.sign_key, check=checked, on_event=listener)
    report = program.report
    shown: dict[str, Any] = report.to_dict()
    if output is not None:
        size = output.stat().st_size
        shown["output"] = {"file": str(output), "bytes": size}
        say(f"wrote {output}, {memory(size)}", sys.stderr)
    if written is not None:
        document = replace_fields(program.document(output), around=clock.phases())
        disk.write(written, [document.to_json()])
        say(f"wrote {written}, for `hotstart report`", sys.stderr)
    tell(given, shown, str(report))


def _place_of_report(given: Namespace) -> Path | None:
    """Find the path of the document: as asked for, or beside the file, if there is one."""
    if given.report is not None or given.output is None or given.no_report:
        asked: Path | None = given.report
        return asked
    beside: Path = given.output.with_suffix(SUFFIX)
    return beside
