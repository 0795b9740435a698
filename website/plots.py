"""Draw what was measured, and write the page of plots, from the JSON files beside the docs.

Plots are drawn while the site is built, so they are never older than the figures. Colours are those
of Okabe and Ito, which people with any colour vision tell apart; shapes and labels say the same.
"""

from __future__ import annotations

import contextlib
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot
from matplotlib.axes import Axes

ROOT = Path(__file__).parents[1]
MODELS = "docs/models.json"
RELIABILITY = "docs/reliability.json"
FIRST = "benchmarks/results/first.json"
LOAD = "benchmarks/results/load.json"
LLAMA = "benchmarks/results/llama.json"
SOURCES = (MODELS, RELIABILITY, FIRST, LOAD, LLAMA)

OURS, STOCK, OTHER, GREEN = "#0072B2", "#E69F00", "#999999", "#009E73"
STYLE = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "svg.hashsalt": "hotstart",
    "savefig.facecolor": "white",
}


class Plot(NamedTuple):
    """A plot of the page.

    Attributes:
        name: of its file.
        title: its heading.
        source: the JSON that it is drawn from.
        says: what it shows, in a sentence; also for those who do not see it.
        made_by: the command that measures.
    """

    name: str
    title: str
    source: str
    says: str
    made_by: str

    @property
    def page(self) -> str:
        """The page with the figures."""
        own = {MODELS: "models.md", RELIABILITY: "reliability.md"}
        return own.get(self.source, "performance.md")


def read(source: str) -> Any:
    """Read a JSON file of the repository."""
    return json.loads((ROOT / source).read_text())


def main(folder: Path) -> dict[str, str]:
    """Draw every plot into a folder; return the page of all, and the end of each page with some."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        plots = [
            draw_first(folder),
            draw_starts(folder),
            draw_depth(folder),
            draw_models(folder),
            draw_errors(folder),
            draw_damage(folder),
            draw_proofs(folder),
        ]
    texts = {"plots.md": "\n\n".join([_head(), *map(_section, plots)]) + "\n"}
    for page in {plot.page for plot in plots}:
        own = [_section(plot, "###") for plot in plots if plot.page == page]
        texts[page] = "\n\n".join(["", "## Plots", *own]) + "\n"
    return texts


def _head() -> str:
    machine = read(LOAD)["machine"]
    return (
        "# Plots\n\nWhat was measured, drawn from the JSON files that the commands below write. "
        f"Starts and builds: {machine['processor']}, {machine['cores']} cores, torch "
        f"{machine['torch']}. Figures, conditions and what they leave out are in "
        "[performance](performance.md), [models](models.md) and [reliability](reliability.md)."
    )


def _section(plot: Plot, level: str = "##") -> str:
    data = f"[{Path(plot.source).name}](files/{plot.source})"
    return (
        f"{level} {plot.title}\n\n{plot.says} Measured by `{plot.made_by}`: {data}.\n\n"
        f"![{plot.says}](img/{plot.name}.svg)"
    )


def draw_first(folder: Path) -> Plot:
    """Draw seconds from the start of a process to the first result."""
    found = sorted(read(FIRST)["first_s"].items(), key=lambda each: each[1])
    with _axes(folder / "first.svg", height=0.36 * len(found) + 1) as axes:
        _bars(axes, [name for name, _ in found], [value for _, value in found], "{:.2f}")
        axes.set_xlabel("seconds from the start of the process to the first embedding")
    return Plot(
        "first",
        "From nothing to a first answer",
        FIRST,
        "Seconds from the start of a process to the first embedding of MiniLM; less is better.",
        "python benchmarks/bench_first.py",
    )


def draw_starts(folder: Path) -> Plot:
    """Draw the times of a load and a first call, on a scale of powers of ten."""
    found = read(LOAD)
    rows = {"hotstart.load": found["hotstart"], "hotstart, cache": found["hotstart"]["cache"]}
    rows |= found["peers"]
    names = sorted(rows, key=lambda name: rows[name]["start_ms"])
    with _axes(folder / "starts.svg", height=0.36 * len(names) + 1) as axes:
        for row, name in enumerate(names):
            value = rows[name]["start_ms"]
            axes.plot(value, row, "o", color=_colour(name))
            axes.annotate(f"{value:,.0f}", (value, row), (7, -4), textcoords="offset points")
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_xscale("log")
        axes.set_xlabel("milliseconds to the first result, torch imported (powers of ten)")
    return Plot(
        "starts",
        "Starts of a Llama with 32 layers",
        LOAD,
        "Milliseconds from file or cache to the first result, in a process that has imported torch "
        "and made the model.",
        "python benchmarks/bench_load.py",
    )


def draw_depth(folder: Path) -> Plot:
    """Draw how long builds take by the number of layers."""
    subjects = read(LLAMA)["subjects"]
    with _axes(folder / "depth.svg", height=3.4) as axes:
        for label, prefix, colour, marker in (
            ("torch.compile, first call", "torch.compile", STOCK, "s"),
            ("hotstart.compile", "hotstart auto", OURS, "o"),
        ):
            points = sorted(_by_layers(subjects, prefix))
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, label=label)
        axes.set_xlabel("layers")
        axes.set_ylabel("seconds, empty caches")
        axes.set_ylim(0)
        axes.legend()
    return Plot(
        "depth",
        "Builds by depth",
        LLAMA,
        "Seconds of a cold build by number of layers: equal layers are compiled once.",
        "python benchmarks/bench_llama.py",
    )


def draw_models(folder: Path) -> Plot:
    """Draw calls and builds of the conformance suite as ratios to torch.compile."""
    results = read(MODELS)["results"]
    timed = [each for each in results if "call_ms" in each and "stock_ms" in each]
    calls = sorted(each["call_ms"] / each["stock_ms"] for each in timed)
    built = [each for each in results if "build_s" in each and "stock_first_s" in each]
    builds = sorted(each["build_s"] / each["stock_first_s"] for each in built)
    with _axes(folder / "ratios.svg", height=3.6) as axes:
        for label, values, colour, marker in (
            ("build / first call of torch.compile", builds, STOCK, "s"),
            ("call / call of torch.compile", calls, OURS, "o"),
        ):
            share = [100 * (n + 1) / len(values) for n in range(len(values))]
            axes.plot(values, share, marker, color=colour, markersize=4, label=label)
        axes.axvline(1, color="#444444", linewidth=1)
        axes.set_xlabel("hotstart / torch.compile (left of 1: hotstart takes less)")
        axes.set_ylabel("% of models up to here")
        axes.legend(loc="lower right")
    middle = f"{statistics.median(calls):.2f} for calls, {statistics.median(builds):.2f} for builds"
    return Plot(
        "ratios",
        "Models against torch.compile",
        MODELS,
        f"Each point is an architecture ({len(calls)} with both times); medians are {middle}.",
        "make conformance",
    )


def draw_errors(folder: Path) -> Plot:
    """Draw the largest difference to eager of each model."""
    results = [each for each in read(MODELS)["results"] if each.get("max_error") is not None]
    families = sorted({each["family"] for each in results})
    with _axes(folder / "errors.svg", height=0.3 * len(families) + 1.2) as axes:
        for row, family in enumerate(families):
            found = [max(e["max_error"], 1e-9) for e in results if e["family"] == family]
            axes.plot(found, [row] * len(found), "o", color=OURS, alpha=0.6)
        axes.set_yticks(range(len(families)), families)
        axes.set_xscale("log")
        axes.set_xlabel("largest difference to eager (powers of ten; equal bits at 1e-9)")
    return Plot(
        "errors",
        "Differences to eager",
        MODELS,
        "The largest difference between a loaded program and eager, over all tensors returned at "
        "all sizes tried; each point is an architecture.",
        "make conformance",
    )


def draw_damage(folder: Path) -> Plot:
    """Draw what became of files that were damaged."""
    found = read(RELIABILITY)["damage"]
    outcomes = {
        "noticed": (GREEN, ""),
        "verified": (OURS, "//"),
        "ignored": (OTHER, ".."),
        "wrong": ("#D55E00", "xx"),
        "failed": ("#CC79A7", "++"),
    }
    kinds = list(reversed(found))
    wrong = sum(each["wrong"] for each in found.values()) or "none"
    with _axes(folder / "damage.svg", height=0.36 * len(kinds) + 1.4) as axes:
        left = [0] * len(kinds)
        for outcome, (colour, hatch) in outcomes.items():
            counts = [found[kind].get(outcome, 0) for kind in kinds]
            label = f"{outcome} ({sum(counts)})"
            axes.barh(kinds, counts, left=left, color=colour, hatch=hatch, label=label)
            left = [a + b for a, b in zip(left, counts, strict=True)]
        axes.set_xlabel("rounds")
        axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.16), ncols=5, fontsize=9)
    return Plot(
        "damage",
        "Damaged files of a cache",
        RELIABILITY,
        "What a start did with a file of the cache that was damaged: noticed it and compiled anew, "
        f"or left it where it was of no use to anybody; {wrong} gave a wrong result.",
        "make reliability",
    )


def draw_proofs(folder: Path) -> Plot:
    """Draw which part of a build the proofs take."""
    found = read(RELIABILITY)["proofs"].values()
    shares = sorted(100 * each["prove_s"] / each["build_s"] for each in found if each["build_s"])
    with _axes(folder / "proofs.svg", height=3) as axes:
        axes.hist(shares, bins=20, color=OURS, edgecolor="white")
        axes.set_xlabel("% of the build that comparing units with their operators takes")
        axes.set_ylabel("architectures")
    return Plot(
        "proofs",
        "What proofs cost",
        RELIABILITY,
        f"Comparing units with their operators takes {statistics.median(shares):.1f} % of a build, "
        "the median over architectures.",
        "make reliability",
    )


def _by_layers(subjects: Mapping[str, Any], prefix: str) -> Iterator[tuple[int, float]]:
    """Yield the layers and the seconds of each cold build of a subject."""
    for name, subject in subjects.items():
        kind, _, layers = name.partition(", ")
        if kind == prefix:
            yield int(layers.split()[0]), subject["cold_s"]


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float], form: str) -> None:
    """Draw one bar a name, the smallest on top, with its number behind."""
    bars = axes.barh(names, values, color=[_colour(name) for name in names])
    axes.bar_label(bars, [form.format(value) for value in values], padding=3, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.grid(axis="y", visible=False)


def _colour(name: str) -> str:
    return OURS if "hotstart" in name else OTHER


@contextlib.contextmanager
def _axes(file: Path, height: float) -> Iterator[Axes]:
    """Give axes of a figure that is saved at the end of the block; height in inches."""
    figure, axes = pyplot.subplots(figsize=(7.6, height), layout="constrained")
    yield axes
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
