"""What one process finds out about one architecture, as JSON.

`python -m qualification.conformance.measure STEP MODULE NAME FOLDER OUT` runs one step. The steps
are processes of their own, since what one of them imports and caches would speed up the next.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import hotstart
from hotstart.errors import HotstartError
from qualification import suites
from qualification.compare import Wrong, largest_difference
from qualification.conformance import catalogue
from qualification.conformance.zoo.entry import Entry, Sizes

LOADS = 5
ROUNDS = 50
CALLING_S = 3.0
"""Calls are timed for at most so many rounds, and seconds."""

Found = dict[str, Any]


def main(step: str, module: str, name: str, folder: str, out: str) -> None:
    """Run a step and write what it found; a failure is a finding too."""
    try:
        found = STEPS[step](catalogue.entry(module, name), Path(folder))
    except Exception as error:  # noqa: BLE001  whatever a model does, it is a row of the table
        traceback.print_exc()
        found = {"problem": problem(error), "wrong": isinstance(error, Wrong)}
    Path(out).write_text(json.dumps(found))


def problem(error: Exception) -> str:
    """An error in a line, which says so if it is none that hotstart means to raise."""
    line = suites.problem(error)
    return line if isinstance(error, HotstartError | Wrong) else f"unexpected {line}"


# --- steps ----------------------------------------------------------------------------------------


def build(entry: Entry, folder: Path) -> Found:
    """Compile with Inductor and save, then count pieces of the model at twice its depth."""
    model = make(entry)
    weights = weights_digest(model)
    inputs = call(entry, entry.example)
    started = time.perf_counter()
    program = hotstart.compile(model, kwargs=inputs, dynamic_shapes=entry.dynamic_shapes)
    built = time.perf_counter()
    program.save(program_file(folder))
    saved = time.perf_counter()
    return {
        "build_s": built - started,
        "save_s": saved - built,
        "variants": len(program.report.variants),
        "op_by_op": len(program.report.op_by_op),
        "pieces": len(program.pieces),
        "different": different(program),
        "grows_by": grows_by(entry),
        "file_bytes": program_file(folder).stat().st_size,
        "weights": weights,
    }


def load(entry: Entry, folder: Path) -> Found:
    """Load into a model of this process, and compare with it at many sizes."""
    model = make(entry)
    expected = json.loads((folder / "build.json").read_text())["weights"]
    if weights_digest(model) != expected:
        raise RuntimeError("the model has other weights in each process: make() is not seeded")
    seconds = []
    for _ in range(LOADS):
        started = time.perf_counter()
        program = hotstart.load(program_file(folder), model)
        seconds.append(time.perf_counter() - started)
    return {
        "first_load_ms": 1e3 * seconds[0],
        "load_ms": 1e3 * statistics.median(seconds),
        **compare(entry, model, program, entry.atol),
    }


def stock(entry: Entry, folder: Path) -> Found:
    """Compile with torch.compile, then call eager, it and the loaded program in turns."""
    model = make(entry)
    inputs = call(entry, entry.example)
    with torch.no_grad():
        expected = model(**inputs)
        compiled = torch.compile(model, fullgraph=True, dynamic=True)
        started = time.perf_counter()
        try:
            returned = compiled(**inputs)
        except Exception as error:  # noqa: BLE001  that it cannot is what is asked
            return {"stock_captures": False, "stock_problem": problem(error)}
        found: Found = {"stock_captures": True, "stock_first_s": time.perf_counter() - started}
        try:
            found["stock_max_error"] = largest_difference(returned, expected)
        except Wrong as wrong:
            found["stock_problem"] = problem(wrong)
        subjects: dict[str, Callable[..., Any]] = {"eager_ms": model, "stock_ms": compiled}
        if program_file(folder).exists():
            subjects["call_ms"] = hotstart.load(program_file(folder), model)
        return found | in_turns(subjects, inputs)


def captures(entry: Entry, folder: Path) -> Found:
    """Find out whether stock makes one graph of a model."""
    return {"stock_captures": stock_captures(make(entry), call(entry, entry.example))}


def quick(entry: Entry, folder: Path) -> Found:
    """Run the pieces as captured, from a file; results have to be equal bit by bit."""
    model = make(entry)
    inputs = call(entry, entry.example)
    try:
        built = hotstart.compile(
            model,
            kwargs=inputs,
            dynamic_shapes=entry.dynamic_shapes,
            options=hotstart.Options(compiler="op_by_op"),
        )
        built.save(program_file(folder), check=False)
        program = hotstart.load(program_file(folder), model)
    except HotstartError as error:
        traceback.print_exc()
        return {"problem": problem(error), "stock_captures": stock_captures(model, inputs)}
    return {
        "stock_captures": True,
        "pieces": len(built.pieces),
        "different": different(built),
        **compare(entry, model, program, 0.0 if entry.exact else entry.atol),
    }


STEPS: Mapping[str, Callable[[Entry, Path], Found]] = {
    "build": build,
    "load": load,
    "stock": stock,
    "captures": captures,
    "quick": quick,
}


# --- parts of steps -------------------------------------------------------------------------------


def program_file(folder: Path) -> Path:
    """Where the saved program is."""
    return folder / "model.hot"


def make(entry: Entry, factory: Callable[[], nn.Module] | None = None) -> nn.Module:
    """The entry's model, with the same random weights in every process."""
    torch.manual_seed(0)
    return (factory or entry.make)()


def call(entry: Entry, sizes: Sizes) -> dict[str, Any]:
    """Arguments of a call, the same in every process."""
    torch.manual_seed(1)
    return entry.inputs(sizes)


def weights_digest(model: nn.Module) -> str:
    """A hash of everything that a model keeps in tensors."""
    digest = hashlib.sha256()
    named = (*model.named_parameters(), *model.named_buffers())
    for name, tensor in (pair for kept in named for pair in made_of(*kept)):
        plain = tensor.detach().contiguous().flatten().view(torch.uint8)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(plain.numpy().tobytes())
    return digest.hexdigest()


def made_of(name: str, tensor: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors that one of a subclass is made of, by name; a plain one itself."""
    inner, _ = tensor.__tensor_flatten__() if hasattr(tensor, "__tensor_flatten__") else ((), None)
    if not inner:
        yield name, tensor
    for attribute in inner:
        yield from made_of(f"{name}.{attribute}", getattr(tensor, attribute))


def different(program: hotstart.Program) -> int:
    """How many pieces of a program have to be compiled, not counting sizes."""
    return len({piece.digest for piece in program.pieces if piece.kind == "compiled"})


def grows_by(entry: Entry) -> int | None:
    """How many more different pieces a deeper model has; both are cut, for one size each."""
    if entry.deeper is None:
        return None
    shallow, deeper = (
        hotstart.compile(
            make(entry, factory),
            kwargs=call(entry, entry.example),
            options=hotstart.Options(compiler="op_by_op"),
        )
        for factory in (entry.make, entry.deeper)
    )
    return different(deeper) - different(shallow)


def compare(entry: Entry, model: nn.Module, program: Callable[..., Any], accepted: float) -> Found:
    """Call a model and a program at many sizes.

    Raises:
        Wrong: they differ by more than is accepted.
    """
    largest = 0.0
    tried = catalogue.sizes_to_try(entry)
    for sizes in tried:
        with torch.no_grad():
            expected = model(**call(entry, sizes))
        try:
            error = largest_difference(program(**call(entry, sizes)), expected)
        except Wrong as wrong:
            raise Wrong(f"at {said(sizes)}: {wrong}") from wrong
        if error > accepted:
            raise Wrong(f"at {said(sizes)}: differs by {error:.2g}, accepted are {accepted:.2g}")
        largest = max(largest, error)
    return {"max_error": largest, "sizes": len(tried)}


def said(sizes: Sizes) -> str:
    """Sizes as a person would write them."""
    return ", ".join(f"{axis}={size}" for axis, size in sizes.items()) or "its only size"


def stock_captures(model: nn.Module, inputs: Mapping[str, Any]) -> bool:
    """Whether Dynamo alone makes one graph of a model."""
    try:
        with torch.no_grad():
            model(**inputs)
            torch.compile(model, fullgraph=True, dynamic=True, backend="eager")(**inputs)
    except Exception:  # noqa: BLE001  that it cannot is what is asked
        return False
    return True


def in_turns(
    subjects: Mapping[str, Callable[..., Any]], inputs: Mapping[str, Any]
) -> dict[str, float]:
    """The median milliseconds of a call of each, one call of each a round."""
    taken: dict[str, list[float]] = {name: [] for name in subjects}
    for subject in subjects.values():
        subject(**inputs)
    begun = time.perf_counter()
    for _ in range(ROUNDS):
        for name, subject in subjects.items():
            started = time.perf_counter()
            subject(**inputs)
            taken[name].append(1e3 * (time.perf_counter() - started))
        if time.perf_counter() - begun > CALLING_S:
            break
    return {name: statistics.median(times) for name, times in taken.items()}


if __name__ == "__main__":
    main(*sys.argv[1:])
