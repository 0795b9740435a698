"""Write the generated parts of `docs/performance.md` and its plots from `results/peers.json`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers.summary import OWN, WRONG

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "benchmarks/results/peers.json"
PAGE = ROOT / "docs/performance.md"
PLOTS = ROOT / "docs/img"

NONE = "-"

Report = Mapping[str, Any]
Number = Callable[[Mapping[str, Any]], float | None]


def main() -> None:
    """Fill the page with the figures that are kept, and draw them."""
    report = json.loads(FIGURES.read_text())
    PAGE.write_text(filled(PAGE.read_text(), parts(report)))
    draw(report, PLOTS)


def parts(report: Report) -> dict[str, str]:
    """The generated parts of the page, by the name in their markers."""
    first = model_table(report, first_result_s, seconds)
    return {
        "machine": machine_part(report),
        "means": with_plot(means_part(report), "geometric means", "peers-means"),
        "calls": calls_part(report),
        "ratios": with_plot(ratios_part(report), "calls, times the best peer", "peers-calls"),
        "load": model_table(report, lambda peer: peer.get("load_s"), seconds),
        "first": with_plot(first, "seconds to the first result", "peers-start"),
        "memory": model_table(report, lambda peer: peer.get("peak_bytes"), megabytes),
        "files": files_part(report),
        "builds": model_table(report, lambda peer: peer["build"].get("build_s"), seconds),
        "refused": refused_part(report),
    }


def filled(page: str, generated: Mapping[str, str]) -> str:
    """The page with each part between its two markers; the text around them stays.

    Raises:
        LookupError: the page has no place for a part.
    """
    for name, text in generated.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if page.count(begin) != 1 or end not in page.partition(begin)[2]:
            raise LookupError(f"the page has no {begin} ... {end}")
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}"
    return page


# Parts


def machine_part(report: Report) -> str:
    """Where and how the figures were measured, a line for each way if there are several."""
    said: dict[str, list[str]] = {}
    for model in report["models"].values():
        said.setdefault(_measured(model), []).append(model["title"])
    if len(said) == 1:
        return next(iter(said))
    return "\n".join(f"- {', '.join(titles)}: {text}" for text, titles in said.items())


def _measured(model: Mapping[str, Any]) -> str:
    machine = model["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in model["versions"].items())
    state = "idle otherwise" if model["idle"] else "**not idle: other programs ran as well**"
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, {state}; "
        f"Python {machine['python']}, {versions}. rounds: {model['rounds']}."
    )


def means_part(report: Report) -> str:
    """Geometric means of ratios to the best peer, the fastest first."""
    means, rows = report["ratios"]["geometric_mean"], len(report["ratios"]["rows"])
    ordered = sorted(means.items(), key=lambda item: item[1]["ratio"])
    return markdown(
        ["", "times the best peer, geometric mean", "rows"],
        [
            [report["titles"][name], f"{mean['ratio']:.2f}", f"{mean['rows']} of {rows}"]
            for name, mean in ordered
        ],
    )


def calls_part(report: Report) -> str:
    """Milliseconds of a call, a row for every model and size; the fastest is bold."""
    names = peers_of(report)
    rows = []
    for model in report["models"].values():
        for label in model["sizes"]:
            calls = {name: _call(model, name, label) for name in names}
            right = [call["ms"] for call in calls.values() if "ms" in call and not call["wrong"]]
            fastest = min(right, default=0.0)
            cells = [_call_cell(call, fastest) for call in calls.values()]
            rows.append([f"{model['title']}, {label}", *cells])
    return markdown(["model, sizes", *titles(report, names)], rows)


def _call(model: Mapping[str, Any], name: str, label: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = model["peers"].get(name, {}).get("calls", {}).get(label, {})
    return found


def _call_cell(call: Mapping[str, Any], fastest: float) -> str:
    if "ms" not in call:
        return NONE
    text = digits(call["ms"])
    if call["wrong"]:
        return f"({text}) wrong"
    return f"**{text}**" if call["ms"] == fastest else text


def ratios_part(report: Report) -> str:
    """Every call over the best peer's of that row."""
    names = peers_of(report)
    rows = []
    for row, (title, label) in _rows(report).items():
        found = report["ratios"]["rows"].get(row)
        if found:
            over = found["over_best"]
            cells = [f"{over[name]:.2f}" if name in over else NONE for name in names]
            rows.append([f"{title}, {label}", report["titles"][found["best"]], *cells])
    return markdown(["model, sizes", "best peer", *titles(report, names)], rows)


def _rows(report: Report) -> dict[str, tuple[str, str]]:
    """Titles of model and size by the name that a row has among the ratios."""
    return {
        f"{name} {label}": (model["title"], label)
        for name, model in report["models"].items()
        for label in model["sizes"]
    }


def files_part(report: Report) -> str:
    """Megabytes of what a load reads, beside those of the weights."""
    return model_table(
        report,
        lambda peer: peer["build"].get("file_bytes"),
        megabytes,
        ("weights", lambda model: megabytes(model["weights_bytes"])),
    )


def refused_part(report: Report) -> str:
    """A line for every model that a peer could not take, or got wrong."""
    lines = []
    for model in report["models"].values():
        for name, peer in model["peers"].items():
            title = f"{report['titles'][name]}, {model['title']}"
            lines += [f"- {title}{what}" for what in _trouble(peer)]
    return "\n".join(lines) or "Every peer takes every model."


def _trouble(peer: Mapping[str, Any]) -> Iterable[str]:
    if "error" in peer:
        yield f": {code(peer['error'])}"
    for label, call in peer.get("calls", {}).items():
        if "error" in call:
            yield f", {label}: {code(call['error'])}"
        elif call["wrong"]:
            yield f", {label}: differs from eager by {call['relative_error']:.1e} (above {WRONG:g})"


def model_table(
    report: Report,
    number: Number,
    shown: Callable[[float], str],
    first: tuple[str, Callable[[Mapping[str, Any]], str]] | None = None,
) -> str:
    """A table of one number for each model and peer; with another column first, if there is one."""
    names = peers_of(report)
    rows = []
    for model in report["models"].values():
        cells = [_cell(model["peers"].get(name), number, shown) for name in names]
        rows.append([model["title"], *([first[1](model)] if first else []), *cells])
    return markdown(["model", *([first[0]] if first else []), *titles(report, names)], rows)


def _cell(peer: Mapping[str, Any] | None, number: Number, shown: Callable[[float], str]) -> str:
    found = number(peer) if peer else None
    return NONE if found is None else shown(found)


def first_result_s(peer: Mapping[str, Any]) -> float | None:
    """Seconds of imports, load and first call; making the module is not among them."""
    if "load_s" not in peer:
        return None
    total: float = peer["import_s"] + peer["load_s"] + peer["first_call_s"]
    return total


# Text


def with_plot(text: str, says: str, name: str) -> str:
    """A part with one of the plots below it."""
    return f"{text}\n\n![{says}]({PLOTS.name}/{name}.svg)"


def peers_of(report: Report) -> list[str]:
    """Peers that were measured for any model, in the order of the report's titles."""
    measured = {name for model in report["models"].values() for name in model["peers"]}
    return [name for name in report["titles"] if name in measured]


def titles(report: Report, names: Iterable[str]) -> list[str]:
    """Peers as tables have them."""
    return [report["titles"][name] for name in names]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; all columns but the first are aligned to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: str) -> str:
    """An error as code on one line."""
    return f"`{re.sub(r'`+', chr(39), text)}`"


def digits(number: float) -> str:
    """A number with three digits that say something."""
    return (
        f"{number:.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"
    )


def seconds(number: float) -> str:
    """A time with its unit."""
    return f"{digits(number)} s" if number >= 1 else f"{digits(number * 1e3)} ms"


def megabytes(number: float) -> str:
    """A size with its unit."""
    return f"{digits(number / 1e6)} MB"


# Plots


def draw(report: Report, folder: Path) -> None:
    """Draw means, calls and starts as SVG files; the same figures give the same files."""
    import matplotlib

    matplotlib.use("svg")
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "peers", "font.size": 9}):
        _draw_means(report, folder / "peers-means.svg")
        _draw_dots(_ratio_rows(report), report, "times the best peer", folder / "peers-calls.svg")
        _draw_dots(
            _start_rows(report), report, "seconds to the first result", folder / "peers-start.svg"
        )


def _ratio_rows(report: Report) -> dict[str, dict[str, float]]:
    found = report["ratios"]["rows"]
    shown = _rows(report)
    return {", ".join(shown[row]): found[row]["over_best"] for row in shown if row in found}


def _start_rows(report: Report) -> dict[str, dict[str, float]]:
    rows: dict[str, dict[str, float]] = {}
    for model in report["models"].values():
        starts = {name: first_result_s(peer) for name, peer in model["peers"].items()}
        rows[model["title"]] = {name: start for name, start in starts.items() if start is not None}
    return rows


def _draw_means(report: Report, file: Path) -> None:
    from matplotlib import pyplot

    means = report["ratios"]["geometric_mean"]
    ordered = sorted(means, key=lambda name: -means[name]["ratio"])
    figure, axes = pyplot.subplots(figsize=(7, 0.4 * len(ordered) + 1))
    bars = axes.barh(
        titles(report, ordered),
        [means[name]["ratio"] for name in ordered],
        color=["tab:red" if name.startswith(OWN) else "tab:gray" for name in ordered],
    )
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("call, times the best peer (geometric mean)")
    _save(figure, file)


def _draw_dots(
    rows: Mapping[str, Mapping[str, float]], report: Report, label: str, file: Path
) -> None:
    """A line for every row, a dot for every peer, on a logarithmic scale."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.32 * len(rows) + 1.6))
    heights = {row: -at for at, row in enumerate(rows)}
    for at, name in enumerate(peers_of(report)):
        mine = {row: found[name] for row, found in rows.items() if name in found}
        axes.scatter(
            list(mine.values()),
            [heights[row] for row in mine],
            label=report["titles"][name],
            marker="D" if name.startswith(OWN) else "o",
            color=f"C{at}",
            s=28,
        )
    axes.set_yticks(list(heights.values()), list(heights))
    axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.grid(axis="both", alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    _save(figure, file)


def _save(figure: Any, file: Path) -> None:
    from matplotlib import pyplot

    # A date would make every drawing another file.
    figure.savefig(file, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
