"""Draw the pictures of the architecture and of the file into `docs/img`, as SVG.

`python -m website.pictures` writes them; a test holds them to what is said here.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[1] / "docs/img"

WIDTH, BOX, SIDE = 720, 430, 250
STYLE = """
  .paper { fill: #ffffff; stroke: #d0d7de; }
  .stage { fill: #e8f1fb; stroke: #0072b2; }
  .inner { fill: #ffffff; stroke: #0072b2; }
  .data { fill: #fff6e5; stroke: #b26a00; }
  .error { fill: #fbeaea; stroke: #a33; }
  .part { stroke: #ffffff; stroke-width: 2; }
  text { font-family: system-ui, sans-serif; font-size: 14px; fill: #1f2328; }
  .name { font-weight: 600; }
  .type { font-family: ui-monospace, monospace; font-size: 13px; }
  .note { fill: #57606a; font-size: 13px; }
  line, path { stroke: #57606a; stroke-width: 1.5; fill: none; }
  marker path { fill: #57606a; stroke: none; }
"""


class Step(NamedTuple):
    """A box of a ladder.

    Attributes:
        name: its first line.
        says: its second line.
        gives: what goes down the arrow below it.
        inner: a box inside of it: a name and a line.
        error: what a refusal is, to its right.
        kind: `stage` or `data`.
    """

    name: str
    says: str
    gives: str = ""
    inner: tuple[str, str] | None = None
    error: str = ""
    kind: str = "stage"


BUILD = [
    Step("model, example calls", "arguments with dtypes, layouts, named axes", kind="data"),
    Step("capture/", "Dynamo traces one full graph on stand-ins", "Captured"),
    Step("partition/", "the graph is cut; every piece gets a digest", "Plan"),
    Step(
        "specialize/",
        "as few graphs and units as serve every declared size",
        "TracedCall, then CompiledCall",
        ("compilers/", "a different piece becomes a CompiledUnit, and is proven"),
    ),
    Step("stitching/", "the pieces of a variant become one straight-line function", "Stitched"),
    Step("native/", "functions and units become one C++ library", "NativeProgram"),
    Step("Artifact", "requirements, contracts, code, units: all of it data", kind="data"),
    Step("saving/", "run in a process of its own, compared, written"),
    Step("model.hot", "the file, without weights", kind="data"),
]
LOAD = [
    Step("model.hot", "the file", kind="data"),
    Step("artifact/", "the signature, where keys are given", error="UntrustedArtifact"),
    Step("artifact/", "the digest of every byte", error="CorruptArtifact"),
    Step("artifact/", "the fingerprint is compared", "Artifact", error="IncompatibleArtifact"),
    Step("runtime/", "kernels are loaded from memory, code is executed", "units"),
    Step("runtime/", "weights and what forward read are compared", error="ModelMismatch"),
    Step("runtime/", "what depends on weights alone is prepared, and bound", "Binding"),
    Step("Program", "the entry is generated from the contract", kind="data"),
]
CALL = [
    Step("program(...)", "Python binds the arguments", kind="data"),
    Step("entry", "mode, dtypes, shapes, constants, layouts", error="ContractError, or on_miss"),
    Step("entry", "the axes' sizes choose the variant", "variant"),
    Step("binding", "are weights and guards what they were?", error="ModelMismatch"),
    Step("variant", "pieces in order; native code, or generated Python"),
    Step("results", "without autograd, in the model's own structure", kind="data"),
]


def ladder(steps: list[Step], title: str) -> str:
    """Draw steps from top to bottom."""
    parts, y = [], 20
    for number, step in enumerate(steps):
        height = 104 if step.inner else 54
        parts += _box(step, y, height)
        y += height
        if number + 1 < len(steps):
            parts.append(_arrow(20 + BOX // 2, y, 20 + BOX // 2, y + 30))
            parts.append(_text(32 + BOX // 2, y + 20, step.gives, "type"))
            y += 32
    refused = any(step.error for step in steps)
    return _picture(parts, WIDTH if refused else BOX + 60, y + 20, title)


def _box(step: Step, y: int, height: int) -> list[str]:
    parts = [
        f'<rect class="{step.kind}" x="20" y="{y}" width="{BOX}" height="{height}" rx="6"/>',
        _text(36, y + 22, step.name, "name"),
        _text(36, y + 42, step.says, "note"),
    ]
    if step.inner:
        name, says = step.inner
        parts += [
            f'<rect class="inner" x="36" y="{y + 52}" width="{BOX - 32}" height="44" rx="5"/>',
            _text(48, y + 70, name, "name"),
            _text(48, y + 88, says, "note"),
        ]
    if step.error:
        x, middle = 20 + BOX, y + height // 2
        parts += [
            _arrow(x, middle, x + 26, middle),
            f'<rect class="error" x="{x + 28}" y="{y + 11}" width="{SIDE - 30}" height="32" '
            'rx="6"/>',
            _text(x + 38, middle + 5, step.error, "type"),
        ]
    return parts


FILES = [
    (
        "one target (format 1)",
        [
            ("header", "160", "#cfe3f6", 84),
            ("manifest, JSON", "size of text", "#fbe3b5", 170),
            ("blob", "multiple of 64", "#cfe9d9", 120),
            ("blob", "multiple of 64", "#cfe9d9", 120),
            ("blob", "multiple of 64", "#cfe9d9", 120),
        ],
    ),
    (
        "several (format 2)",
        [
            ("header", "160", "#cfe3f6", 84),
            ("index, JSON", "size of text", "#fbe3b5", 130),
            ("shared", "pool", "#e3dcf0", 140),
            ("v4 only", "", "#cfe9d9", 130),
            ("v3 only", "", "#d5ecf2", 130),
        ],
    ),
]


def file_picture() -> str:
    """Draw the bytes of a file with one target, and of one with several."""
    parts = []
    for row, (title, spans) in enumerate(FILES):
        x, y = 20, 40 + row * 96
        parts.append(_text(x, y - 8, title, "name"))
        for name, size, colour, width in spans:
            parts += [
                f'<rect class="part" x="{x}" y="{y}" width="{width}" height="36" '
                f'style="fill: {colour}"/>',
                _text(x + 8, y + 23, name),
                _text(x, y + 52, size, "note"),
            ]
            x += width
    return _picture(parts, 680, 210, "The bytes of a file")


def _picture(parts: list[str], width: int, height: int, title: str) -> str:
    arrow = '<path d="M0 0L8 4L0 8z"/>'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto">{arrow}</marker></defs>',
        f'<rect class="paper" x="1" y="1" width="{width - 2}" height="{height - 2}" rx="8"/>',
        *filter(None, parts),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _text(x: int, y: int, text: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(text)}</text>' if text else ""


def _arrow(x: int, y: int, to_x: int, to_y: int) -> str:
    return f'<line x1="{x}" y1="{y}" x2="{to_x}" y2="{to_y}" marker-end="url(#tip)"/>'


def pictures() -> dict[str, str]:
    """Draw all; by file name."""
    return {
        "build.svg": ladder(BUILD, "A model through hotstart.compile and save"),
        "load.svg": ladder(LOAD, "A file through hotstart.load"),
        "call.svg": ladder(CALL, "A call of a program"),
        "format.svg": file_picture(),
    }


def main() -> None:
    """Write every picture."""
    for name, text in pictures().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
