"""How a command runs and ends. Torch is imported by what needs it only, not by `--help`."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

from hotstart.cli import output
from hotstart.cli.flags import parser
from hotstart.cli.requests import (
    BuildRequest,
    CacheRequest,
    ExplainRequest,
    InspectRequest,
    KeygenRequest,
    LoadCheckRequest,
    Request,
    VerifyRequest,
    WarmRequest,
    request_of,
)
from hotstart.errors import (
    CorruptArtifact,
    HotstartError,
    IncompatibleArtifact,
    UntrustedArtifact,
)

_STATUSES = {CorruptArtifact: 3, IncompatibleArtifact: 4, UntrustedArtifact: 5}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments after the program's name; None: those of this process.

    Returns:
        The exit status: 0, 1 after an error of hotstart, 3 for a corrupt artifact, 4 for one that
        does not fit here, 5 for an untrusted one, 6 if the cache has no program that fits, 130
        after Ctrl-C.

    Raises:
        SystemExit: 2 after a usage error, 0 after `--help` and `--version`, as argparse does.
    """
    try:
        return _answer(read(argv))
    finally:
        output.flush()


def read(argv: Sequence[str] | None = None) -> Request:
    """The request that a command line makes.

    Raises:
        SystemExit: as in `main`.
    """
    return request_of(parser().parse_args(argv))


def _answer(request: Request) -> int:
    try:
        return _run(request)
    except HotstartError as error:
        if request.traceback:
            traceback.print_exc()
        if request.json:
            output.say_json({"ok": False, "error": _as_json(error)})
        else:
            output.say(f"error: {error}", sys.stderr)
        return _STATUSES.get(type(error), 1)
    except KeyboardInterrupt:
        output.say("interrupted", sys.stderr)
        return 130


def _as_json(error: HotstartError) -> dict[str, object]:
    differences = error.differences if isinstance(error, IncompatibleArtifact) else ()
    names = ("part", "expected", "found")
    return {
        "type": type(error).__name__,
        "message": str(error),
        "differences": [dict(zip(names, found, strict=True)) for found in differences],
    }


def _run(request: Request) -> int:
    # What a command needs is imported for it alone.
    match request:
        case BuildRequest():
            from hotstart.cli import build

            build.run(request)
        case InspectRequest():
            from hotstart.cli import artifact

            artifact.inspect(request)
        case VerifyRequest():
            from hotstart.cli import artifact

            artifact.verify(request)
        case LoadCheckRequest():
            from hotstart.cli import artifact

            artifact.load_check(request)
        case KeygenRequest():
            from hotstart.cli import artifact

            artifact.keygen(request)
        case CacheRequest(action="push" | "pull"):
            from hotstart.cli import caching

            caching.exchange(request)
        case CacheRequest():
            from hotstart.cli import cache

            cache.run(request)
        case ExplainRequest():
            from hotstart.cli import caching

            return caching.explain(request)
        case WarmRequest():
            from hotstart.cli import caching

            return caching.warm(request)
    return 0
