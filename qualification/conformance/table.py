"""Results as the page `docs/models.md`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from textwrap import fill

from qualification.conformance.results import Result

EXPLANATION = """\
Every model has random weights that are the same in every process, is small, and has every kind of
layer that its architecture has; its notes say what is special about it. Sizes that are declared
dynamic, such as batch and sequence length, are compiled as ranges. *stock* is `torch.compile`. Few
layers served at all sizes are compared with one call of stock, so these ratios are the worst:
depth adds little to a build of hotstart, and much to that of stock. `make conformance` makes this
page anew; what it measured is in [models.json](models.json).

- **pieces**: pieces the graphs were cut into, and how many different ones of them had to be
  compiled. Where size 1 or another size takes another path through the model, it has a graph of its
  own, and pieces are those of all graphs.{deeper}
- **build**: seconds of `hotstart.compile` with empty caches, for all ranges of all axes; then the
  same divided by the first call of `torch.compile(fullgraph=True, dynamic=True)` with empty caches,
  which serves the sizes of one call.
  Rows without a ratio were made without that comparison; those without any times while the machine
  did other work.
- **load**: milliseconds of `hotstart.load` in a process without a compiler and with empty caches;
  the median of several.
- **call**: the median call of the loaded program, divided by that of the model that `torch.compile`
  made, at the sizes of the example. Both are called in turns in one process.
- **error**: largest difference between the loaded program and eager, over all tensors that are
  returned, at size 1, at both ends of every range, and between. Types, shapes and dtypes are equal.
"""

_DEEPER = "\n  In `4 +1`, a model of twice the depth has one different piece more."
"""Explains what rows have whose different pieces grow with the depth."""

_NONE = "All of the above works. What does not is said of [single constructs](semantics.md)."

COLUMNS = ("model", "pieces", "different", "build s", "/ stock", "load ms", "call / stock", "error")


def page(results: Sequence[Result], versions: Mapping[str, str], left: int = 0) -> str:
    """The page, in Markdown; `left` architectures of the suite have not been run."""
    blocks = ["# Models", _summary(results, versions), _explanation(results)]
    if left:
        blocks.insert(2, f"{left} more architectures of the suite have not been run yet.")
    ordered = sorted(results, key=lambda result: result.family)
    for family, members in itertools.groupby(ordered, key=lambda result: result.family):
        blocks += [f"## {family[:1].upper()}{family[1:]}", "\n".join(_rows(list(members)))]
    blocks += [
        "## What does not work",
        "\n".join(_problems(results)) or _NONE,
    ]
    return "\n\n".join(blocks) + "\n"


def _explanation(results: Sequence[Result]) -> str:
    grow = any(result.passes and result.grows_by for result in results)
    return EXPLANATION.format(deeper=_DEEPER if grow else "").rstrip()


def _summary(results: Sequence[Result], versions: Mapping[str, str]) -> str:
    passing = sum(result.passes for result in results)
    share = f" ({100 * passing / len(results):.0f} %)" if results else ""
    captured = sum(bool(result.stock_captures) for result in results)
    under = ", ".join(f"{name} {number}" for name, number in versions.items())
    return fill(
        f"{passing} of {len(results)} architectures{share} are compiled, saved, loaded elsewhere "
        f"and equal to eager, under {under}. `torch.compile(fullgraph=True)` captures {captured} "
        "of them.",
        width=100,
    )


def _rows(results: Sequence[Result]) -> Iterator[str]:
    yield f"| {' | '.join(COLUMNS)} |"
    yield f"| --- |{' ---: |' * (len(COLUMNS) - 1)}"
    for result in results:
        yield f"| {' | '.join(_cells(result))} |"


def _cells(result: Result) -> Iterator[str]:
    yield f"{result.name}: {result.notes}" if result.notes else result.name
    if not result.passes:
        yield "**wrong**" if result.wrong else "fails"
        yield from [""] * (len(COLUMNS) - 2)
        return
    yield _number(result.pieces, "d")
    yield _different(result)
    yield _number(result.build_s, ".1f")
    yield _ratio(result.build_s, result.stock_first_s)
    yield _number(result.load_ms, ".1f")
    yield _ratio(result.call_ms, result.stock_ms)
    yield _number(result.max_error, ".0e")


def _different(result: Result) -> str:
    return _number(result.different, "d") + (f" +{result.grows_by}" if result.grows_by else "")


def _number(value: float | None, form: str) -> str:
    return "" if value is None else "0" if value == 0 else format(value, form)


def _ratio(value: float | None, stock: float | None) -> str:
    return "" if value is None or stock is None else f"{value / stock:.2f}"


def _problems(results: Sequence[Result]) -> Iterator[str]:
    for result in sorted(results, key=lambda result: not result.wrong):
        if not result.passes:
            yield f"- **{result.name}**: {result.problem.rstrip('.')}. {_stock(result)}"


def _stock(result: Result) -> str:
    match result.stock_captures:
        case True:
            return "`torch.compile(fullgraph=True)` can."
        case False:
            return f"`torch.compile(fullgraph=True)` cannot: {result.stock_problem}".rstrip(": ")
        case _:
            return "Whether `torch.compile(fullgraph=True)` can is not known."
