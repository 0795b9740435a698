"""Write the graphs, pieces and generated code of a build into a folder, for reading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from hotstart.errors import OptionsError
from hotstart.options import Options
from hotstart.records.artifact import Artifact, Blob, CompiledUnit
from hotstart.repro_files import write_repros
from hotstart.runtime.code.generated import stitched_name
from hotstart.specialize.compile import CompiledCall
from hotstart.specialize.trace import describe_piece, describe_plan


def debug_folder(options: Options) -> Path | None:
    """Make the folder for debug files; None if there is to be none.

    Raises:
        OptionsError: it cannot be made.
    """
    if options.debug_dir is None:
        return None
    folder = Path(options.debug_dir)
    try:
        (folder / "hotstart").mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OptionsError(f"debug_dir: got {folder}, which cannot be made: {error}") from None
    return folder


def in_debug_files(artifact: Artifact, folder: Path | None) -> Artifact:
    """Name the variants of an artifact after files in `folder`, for tracebacks, if there is one."""
    if folder is None:
        return artifact
    calls = []
    for call in artifact.calls:
        owner = f"{call.name}_" if call.name else ""
        stitched = []
        for one in call.stitched:
            path = folder / "hotstart" / f"{owner}{stitched_name(one.variant)}.py"
            code = replace(one.code, filename=str(path.resolve()), bytecode=Blob(""))
            stitched.append(replace(one, code=code))
        calls.append(replace(call, stitched=tuple(stitched)))
    return replace(artifact, calls=tuple(calls))


def write_debug_files(
    folder: Path, compiled: Sequence[CompiledCall], artifact: Artifact, entry: str
) -> None:
    """Write graphs, pieces and generated code, as `in_debug_files` names it, for reading.

    Each compiled piece gets a folder, with its graph and a script that runs it alone.
    """
    files: dict[str, str] = {"entry.py": entry}
    calls = [each.traced for each in compiled]
    for call in calls:
        owner = f"{call.name}_" if call.name else ""
        for index, graph in enumerate(call.graphs):
            files[f"{owner}graph_{index}.txt"] = str(graph.captured.graph)
            files[f"{owner}pieces_{index}.txt"] = describe_plan(graph.plan)
    for stitched in (stitched for call in artifact.calls for stitched in call.stitched):
        files[Path(stitched.code.filename).name] = stitched.source
    if artifact.native is not None:
        files["program.cpp"] = str(artifact.native.source.data, "utf-8")
    for unit in artifact.units:
        files |= _unit_files(unit)
    files |= _piece_files(compiled)
    for name, text in files.items():
        path = folder / "hotstart" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    write_repros(folder / "hotstart", calls)


def _unit_files(unit: CompiledUnit) -> dict[str, str]:
    """The generated Python of a unit, and beside it the C++ of its kernels where that is known."""
    name = Path(unit.code.filename).name
    kernels = [f"// {called}\n{kernel.source}" for called, kernel in unit.kernels if kernel.source]
    files = {name: unit.source}
    return files | ({str(Path(name).with_suffix(".cpp")): "\n".join(kernels)} if kernels else {})


def _piece_files(compiled: Sequence[CompiledCall]) -> dict[str, str]:
    """The graph of each compiled piece, with the files of the units that it runs."""
    files: dict[str, str] = {}
    for part in (part for call in compiled for part in call.parts):
        first = {piece.digest: piece.name for piece in part.plan.different}
        for piece in part.plan.pieces:
            if piece.name not in part.units:
                continue
            name = f"{piece.name}/graph.txt"
            if name not in files:
                same = first[piece.digest]
                equal = "" if same == piece.name else f"equal to {same}\n"
                files[name] = f"{describe_piece(piece)}{equal}"
            found = _unit_files(part.units[piece.name].unit)
            files[name] += f"{part.name}: {', '.join(sorted(found, reverse=True))}\n"
    return files
