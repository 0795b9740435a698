"""`hotstart explain-capture`: all that stands in the way of capturing what a factory makes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from hotstart.cli import flags
from hotstart.cli.factory import call_factory
from hotstart.cli.output import tell

NOT_CAPTURED = 1
"""The exit status where the model cannot be captured."""


def add_explain_capture(command: ArgumentParser) -> None:
    """Declare the flags of `hotstart explain-capture`."""
    flags.add_factory(command)
    flags.add_compiling(command)
    flags.add_json(command)
    command.epilog = f"{flags.FACTORY}{command.epilog}"
    command.set_defaults(run=_explain_capture)


def _explain_capture(given: Namespace) -> int:
    """List the obstacles; nothing is compiled.

    Raises:
        OptionsError: the factory is not one.
    """
    from hotstart.capture_obstacles import explain_capture

    model, from_factory = call_factory(given.factory)
    arguments = flags.settings(given).beside(given.factory, from_factory)
    arguments.pop("extra_key", None)  # no cache is asked
    found = explain_capture(model, **arguments)
    tell(given, found.to_dict(), str(found))
    return 0 if found.captured else NOT_CAPTURED
