"""Run the conformance suite: `python -m qualification.conformance.run`.

Every architecture goes through three processes of their own, each with empty folders for caches.
*build* compiles it with Inductor and saves it. *stock* measures the first call of `torch.compile`;
then it loads the program, and calls it, the model and what `torch.compile` made of the model in
turns, so that what is compared ran at the same time. *load* has no compiler and no home: it loads
the program and compares it with the model at many sizes. A failure is a row of the table.

Results are kept after every architecture. A run that was interrupted goes on with `--missing`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from qualification.conformance import catalogue, results, table
from qualification.conformance.results import Result
from qualification.conformance.zoo.entry import Entry
from qualification.suites import ROOT, end, process, require_known, tell

KEPT = ROOT / "docs" / "models.json"
PAGE = ROOT / "docs" / "models.md"
LOGS = ROOT / "build" / "conformance"

LIMIT_S = 600
BARE = {"PATH": "/nonexistent", "HOME": "/proc/nonexistent"}
"""There is no compiler, and no home that even root could make."""


def main() -> int:
    """Run what was asked for; the exit status says whether enough of it works."""
    arguments = parse()
    found = {
        entry.name: (module, entry)
        for module in catalogue.modules()
        for entry in catalogue.entries_of(module)
    }
    kept = {} if arguments.quick else results.read(KEPT)
    wanted = select(found, arguments, kept)
    if arguments.list:
        print("\n".join(f"{found[name][1].family}: {name}" for name in wanted))
        return 0
    for number, name in enumerate(wanted, 1):
        module, entry = found[name]
        started = time.perf_counter()
        if arguments.quick:
            kept[name] = quickly(module, entry)
        else:
            made = fully(module, entry, "captures" if arguments.no_stock else "stock")
            kept[name] = made.untimed() if arguments.no_times else made
        seconds = time.perf_counter() - started
        tell(f"[{number}/{len(wanted)}] {line(kept[name])}  ({seconds:.0f} s)")
        if not arguments.quick:
            write_page([kept[name] for name in found if name in kept], len(found))
    shown = [kept[name] for name in found if name in kept]
    passing = sum(result.passes for result in shown)
    tell(f"{passing} of {len(shown)} pass" + (f"; logs are in {LOGS}" if wanted else ""))
    return results.verdict(shown)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="qualification.conformance.run", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these architectures")
    parser.add_argument("--family", help="the architectures of a family")
    parser.add_argument("--missing", action="store_true", help="those without a result")
    parser.add_argument(
        "--no-stock",
        action="store_true",
        help="torch.compile only has to capture the model; nothing is timed beside it",
    )
    parser.add_argument(
        "--no-times",
        action="store_true",
        help="keep no times, as on a machine that does other work meanwhile",
    )
    parser.add_argument("--list", action="store_true", help="say which would run")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="correctness only: nothing is compiled, nothing is timed, no page is written",
    )
    return parser.parse_args()


def select(
    found: dict[str, tuple[str, Entry]], arguments: argparse.Namespace, kept: dict[str, Result]
) -> list[str]:
    """The names of the architectures that are to run."""
    require_known(arguments.only or (), found)
    families = {entry.family for _, entry in found.values()}
    if arguments.family and arguments.family not in families:
        sys.exit(f"--family: there is no {arguments.family}; there are {', '.join(families)}")
    return [
        name
        for name, (_, entry) in found.items()
        if (not arguments.only or name in arguments.only)
        and (not arguments.family or entry.family == arguments.family)
        and not (arguments.missing and name in kept)
    ]


def fully(module: str, entry: Entry, comparison: str) -> Result:
    """Build, compare with stock (by a step of this name), load elsewhere."""
    with tempfile.TemporaryDirectory(prefix="hotstart-conformance-") as folder:
        found = step("build", module, entry, Path(folder))
        stock = step(comparison, module, entry, Path(folder))
        if "problem" not in found:
            found |= step("load", module, entry, Path(folder), BARE)
    # What stops the comparison with stock is no failure of hotstart.
    found |= {"stock_problem": stock.pop("problem")} if "problem" in stock else {}
    return result(entry, stock | found)


def quickly(module: str, entry: Entry) -> Result:
    """Compare the pieces as captured with the model."""
    with tempfile.TemporaryDirectory(prefix="hotstart-conformance-") as folder:
        return result(entry, step("quick", module, entry, Path(folder)))


def result(entry: Entry, found: dict[str, Any]) -> Result:
    """What was found of an entry, as a record."""
    known = {"name": entry.name, "family": entry.family, "notes": entry.notes}
    return msgspec.convert(known | found, Result)


def step(
    name: str, module: str, entry: Entry, folder: Path, environment: dict[str, str] | None = None
) -> dict[str, Any]:
    """Run a step of `measure` in a process of its own, with empty folders for caches."""
    caches = folder / name
    (caches / "tmp").mkdir(parents=True)
    out = folder / f"{name}.json"
    variables = {
        **os.environ,
        "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
        "TRITON_CACHE_DIR": str(caches / "triton"),
        "TMPDIR": str(caches / "tmp"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        **(environment or {}),
    }
    command = [sys.executable, "-m", "qualification.conformance.measure"]
    command += [name, module, entry.name, str(folder), str(out)]
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{entry.name}-{name}.log"
    with log.open("wb") as said, process(command, variables, said) as started:
        try:
            status = started.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            return {"problem": f"{name} did not end within {LIMIT_S} s"}
    if not out.exists():
        return {"problem": f"{name} died with status {status}"}
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def write_page(known: list[Result], suite: int) -> None:
    """Keep what is known so far of a suite of so many, and render it."""
    results.write(KEPT, known)
    PAGE.write_text(table.page(known, results.versions(), suite - len(known)))


def line(found: Result) -> str:
    """A result in a line, for people who wait."""
    if found.wrong:
        return f"{found.name}: WRONG: {found.problem}"
    if not found.passes:
        stock = {True: "can", False: "cannot", None: "?"}[found.stock_captures]
        return f"{found.name}: fails: {found.problem}  [stock {stock}]"
    parts = [f"{found.pieces} pieces, {found.different} different"]
    if found.build_s is not None:
        parts += [f"build {found.build_s:.1f} s", f"load {found.load_ms:.1f} ms"]
    if found.stock_first_s is not None:
        parts.append(f"stock {found.stock_first_s:.1f} s")
    return f"{found.name}: passes: {', '.join(parts)}, error {found.max_error:.0e}"


if __name__ == "__main__":
    end(main)
