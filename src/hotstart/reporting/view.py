"""Prepare the values that a page shows of a document. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hotstart.artifact.manifest import Manifest
from hotstart.records.artifact import CompiledUnit
from hotstart.records.details import PieceDetails
from hotstart.records.report import PieceInfo, Report
from hotstart.records.table import memory
from hotstart.reporting import looks
from hotstart.reporting.document import Document


@dataclass(frozen=True)
class Source:
    """A text of generated code.

    Attributes:
        title: what it is.
        name: of the blob; its end tells the language.
        text: the code; empty if it is not at hand.
        note: more about it, such as its size.
    """

    title: str
    name: str
    text: str
    note: str = ""


@dataclass(frozen=True)
class UnitView:
    """A unit of a kind of piece.

    Attributes:
        unit: the unit.
        variants: those that it runs in.
        action: how it was made, as in `UnitReport`.
        seconds: how long that took.
        source: its code.
        kernels: the C++ of its kernels.
        preparations: code that prepares its weights.
    """

    unit: CompiledUnit
    variants: tuple[str, ...]
    action: str
    seconds: float
    source: Source
    kernels: tuple[Source, ...]
    preparations: tuple[Source, ...]


@dataclass(frozen=True)
class Kind:
    """Pieces of equal digest.

    Attributes:
        label: a letter or more, which stands for the kind on the page.
        style: classes of its colour and pattern; of pieces that do not repeat, it has none.
        pieces: the pieces, in order.
        details: what the build knew of the first; None if that is not at hand.
        units: the units that they run.
        trouble: why it runs op by op, or is otherwise not as it should be.
    """

    label: str
    style: str
    pieces: tuple[PieceInfo, ...]
    details: PieceDetails | None
    units: tuple[UnitView, ...]
    trouble: tuple[str, ...]

    @property
    def anchor(self) -> str:
        """The name of its place on the page."""
        return f"kind-{self.label}"

    @property
    def seconds(self) -> float:
        """Seconds that making its units took."""
        return sum(unit.seconds for unit in self.units)

    @property
    def layers(self) -> tuple[str, ...]:
        """Paths of the submodules that its pieces came from."""
        return tuple(dict.fromkeys(path for piece in self.pieces for path in piece.layers))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its pieces; neighbours as a range."""
        return tuple(looks.ranges_of([piece.name for piece in self.pieces]))

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The layers; neighbours as a range."""
        return tuple(looks.ranges_of(self.layers))

    def called_in(self, layer: str) -> str:
        """The path of a submodule, from the layer of the first piece where it is in there."""
        outer = ", ".join(self.pieces[0].layers)
        if layer == outer:
            return "the layer itself" if layer else "the model itself"
        return layer.removeprefix(f"{outer}.") or "the model itself"

    @property
    def search(self) -> str:
        """The words that a search looks in, in lower case."""
        details = self.details
        words = [*self.layers, *(piece.name for piece in self.pieces), self.pieces[0].digest]
        words += [unit.unit.key for unit in self.units]
        words += [name for unit in self.units for name, _ in unit.unit.kernels]
        if details is not None:
            words += {operation.name for operation in details.operations}
            words += {line.text for line in details.lines}
        return " ".join(words).lower()


@dataclass(frozen=True)
class Ribbon:
    """The pieces of a graph, each with its kind.

    Attributes:
        title: the graph, or empty where there is but one.
        tiles: the pieces in order.
    """

    title: str
    tiles: tuple[tuple[PieceInfo, Kind], ...]


@dataclass(frozen=True)
class Warned:
    """A thing to know of a program.

    Attributes:
        grave: whether it makes calls slower than they should be.
        what: the matter, in a few words.
        where: a piece or variant.
        why: the reason.
        kind: the kind of piece it is about, if it is about one.
    """

    grave: bool
    what: str
    where: str
    why: str
    kind: Kind | None = None


def kinds_of(document: Document, manifest: Manifest) -> list[Kind]:
    """The different pieces, inlined ones included, by the first of each."""
    by_digest: dict[tuple[str, str], list[PieceInfo]] = {}
    for piece in manifest.pieces:
        by_digest.setdefault((piece.kind, piece.digest), []).append(piece)
    details = {(each.kind, each.digest): each for each in document.details.pieces}
    units = _units_by_piece(document, manifest)
    trouble = _trouble(document.report)
    styles = looks.styles()
    found = []
    for number, (key, pieces) in enumerate(by_digest.items()):
        mine = dict.fromkeys(unit for piece in pieces for unit in units.get(piece.name, ()))
        found.append(
            Kind(
                label=looks.label_of(number),
                style=next(styles) if len(pieces) > 1 else "",
                pieces=tuple(pieces),
                details=details.get(key),
                units=tuple(mine),
                trouble=tuple(why for p in pieces for why in trouble.get(p.name, ())),
            )
        )
    return found


def ribbons_of(kinds: Sequence[Kind], pieces: Iterable[PieceInfo]) -> list[Ribbon]:
    """A ribbon for each graph, whose name is what the names of its pieces begin with."""
    of = {piece.name: kind for kind in kinds for piece in kind.pieces}
    graphs: dict[str, list[tuple[PieceInfo, Kind]]] = {}
    for piece in pieces:
        graphs.setdefault(piece.name.rpartition(".")[0], []).append((piece, of[piece.name]))
    several = len(graphs) > 1
    return [
        Ribbon((name or "first graph") if several else "", tuple(tiles))
        for name, tiles in graphs.items()
    ]


def warnings_of(document: Document, kinds: Sequence[Kind]) -> list[Warned]:
    """List warnings for users of a program, the grave ones first."""
    report, of = document.report, {p.name: kind for kind in kinds for p in kind.pieces}

    def all_of(grave: bool, what: str, pairs: Iterable[tuple[str, str]]) -> Iterator[Warned]:
        return (Warned(grave, what, name, why, of.get(name)) for name, why in pairs)

    without = ((name, f"without {left_out}: {why}") for name, left_out, why in report.without)
    copied = ((name, f"in {count} calls so far") for name, count in document.copied.items())
    splits = (
        (split.variant, _split(condition, source, split.into))
        for split in report.splits
        for condition, source in split.conditions
    )
    return [
        *all_of(True, "runs op by op", report.op_by_op),
        *all_of(True, "is copied into another layout", copied),
        *all_of(True, "compiled without a pass that is at fault", without),
        *all_of(False, "runs as Python, not as native code", report.not_native),
        *all_of(False, "runs on weights that are not packed", report.not_packed),
        *all_of(False, "served in parts", splits),
        *all_of(False, "not compared with the operators", report.unproven),
    ]


def _split(condition: str, source: str, into: Sequence[str]) -> str:
    at = f" ({source})" if source else ""
    return f"{condition}{at}, into {', '.join(into)}"


def stitched_sources(document: Document, manifest: Manifest) -> list[Source]:
    """The code that joins the pieces: of every variant, and in C++."""
    found = []
    for call in manifest.calls:
        for each in call.stitched:
            name = each.code.source.name
            title = f"{call.name}, {each.variant.name}" if call.name else each.variant.name
            found.append(Source(title, name, document.sources.get(name, "")))
    if manifest.native is not None:
        name = manifest.native.source.name
        size = _sizes(manifest).get(_file_name(manifest.native.library), 0)
        note = f"compiled into a library of {memory(size)}" if size else ""
        found.append(
            Source("All variants as native code", name, document.sources.get(name, ""), note)
        )
    return found


def _units_by_piece(document: Document, manifest: Manifest) -> dict[str, list[UnitView]]:
    """The units of each piece, by its name. Reports list those that were made in their order."""
    made = [each for each in document.report.units if each.reused_from is None]
    if len(made) != len(manifest.units):
        return {}
    sizes = _sizes(manifest)
    runs: dict[str, list[str]] = {}
    origins = [
        each.reused_from or f"{each.piece} ({each.variant})" for each in document.report.units
    ]
    for each, origin in zip(document.report.units, origins, strict=True):
        runs.setdefault(origin, []).append(each.variant)
    views = {}
    for each, unit in zip(made, manifest.units, strict=True):
        origin = f"{each.piece} ({each.variant})"
        variants = tuple(dict.fromkeys(runs[origin]))
        name = unit.code.source.name
        views[origin] = UnitView(
            unit=unit,
            variants=variants,
            action=each.action,
            seconds=each.seconds,
            source=Source("Generated code", name, document.sources.get(name, "")),
            kernels=tuple(_kernels(unit, document, sizes)),
            preparations=tuple(_preparations(unit, document)),
        )
    found: dict[str, list[UnitView]] = {}
    for each, origin in zip(document.report.units, origins, strict=True):
        if origin in views:
            found.setdefault(each.piece, []).append(views[origin])
    return found


def _kernels(unit: CompiledUnit, document: Document, sizes: Mapping[str, int]) -> Iterator[Source]:
    for name, kernel in unit.kernels:
        file = _file_name(kernel)
        text = document.details.kernels.get(file, "")
        yield Source(name, f"{file}.cpp", text, memory(sizes.get(file, 0)))


def _preparations(unit: CompiledUnit, document: Document) -> Iterator[Source]:
    for number, each in enumerate(unit.preparations):
        name = each.code.source.name
        note = "packs weights" if each.packs else ""
        title = f"Preparation {number + 1}, of {len(each.weights)} weights"
        yield Source(title, name, document.sources.get(name, ""), note)


def _file_name(kernel: object) -> str:
    return str(kernel.file_name.format(kernel.name))  # type: ignore[attr-defined]


def _sizes(manifest: Manifest) -> dict[str, int]:
    return {blob.name: blob.size for blob in manifest.blobs}


def _trouble(report: Report) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, why in report.op_by_op:
        found.setdefault(name, []).append(f"runs op by op: {why}")
    for name, why in report.not_packed:
        found.setdefault(name, []).append(f"weights are not packed: {why}")
    return found
