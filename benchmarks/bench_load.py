"""Starts in fresh processes: hotstart's load against what torch offers.

The peers are `torch.compile` with full caches, the same with its cache artifacts loaded from one
file, and an AOTInductor package. Every process first imports torch and transformers, builds the
model with its weights, and imports hotstart, which is measured by itself; then the clock starts.
What a subject imports after that is part of its time. Files come from the system's page cache, for
every subject alike. An AOTInductor package brings its own weights, so its load reads those too.
AOTInductor loads with the caches of its build at hand, and once more without: it then compiles
samples to find out what the processor can do.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, __file__.rpartition("/")[0])

from harness import in_fresh_process, in_turns, keep

LAYERS = 32
CALLS = 30

# There is no compiler, and no home that even root could make.
BARE = {"PATH": "/nonexistent", "HOME": "/proc/nonexistent"}

Call = Callable[[torch.Tensor], torch.Tensor]


def main() -> None:
    """Build everything once, start every subject in turns, and print and keep what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("layers", nargs="?", type=int, default=LAYERS)
    parser.add_argument("--loads", type=int, default=5, help="starts of quick subjects")
    parser.add_argument("--slow-loads", type=int, default=3, help="starts of subjects that compile")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), arguments.layers, arguments.loads, arguments.slow_loads)
    print(json.dumps({name: found[name] for name in ("ratios", "hotstart", "peers")}, indent=2))
    # Only the depth that the documentation quotes replaces the file it quotes.
    keep("load" if arguments.layers == LAYERS else f"load-{arguments.layers}", found)


def measure(folder: Path, layers: int, loads: int, slow_loads: int) -> dict[str, Any]:
    """The report: medians over fresh processes, and every run behind them."""
    stock_caches, package_caches = folder / "torch.compile", folder / "AOTInductor"
    builds = {
        "hotstart": build(folder, "hotstart", layers),
        "hotstart, twice the layers": build(folder, "hotstart", 2 * layers),
        "torch.compile": build(folder, "torch.compile", layers, caches=stock_caches),
        "AOTInductor": build(folder, "AOTInductor", layers, caches=package_caches),
    }
    fresh = partial(in_fresh_process, __file__, "run")
    bare = partial(fresh, environment=BARE)
    once, twice = (str(layers), str(folder)), (str(2 * layers), str(folder))
    subjects = {
        "hotstart": partial(bare, "start", "hotstart", *once),
        "hotstart, twice the layers": partial(bare, "start", "hotstart", *twice),
        "hotstart, cache": partial(bare, "start", "hotstart, cache", *once),
        "hotstart, import": partial(fresh, "import"),
        "hotstart, memory": partial(bare, "memory", *once),
        "AOTInductor": partial(fresh, "start", "AOTInductor", *once, caches=package_caches),
        "AOTInductor, its C++ loader alone": partial(fresh, "start", "AOTInductor in C++", *once),
        "AOTInductor, empty caches": partial(fresh, "start", "AOTInductor", *once),
        "torch.compile": partial(fresh, "start", "torch.compile", *once, caches=stock_caches),
        "mega-cache": partial(fresh, "start", "mega-cache", *once),
    }
    slow = {"AOTInductor, empty caches", "torch.compile", "mega-cache"}
    measured = in_turns(
        subjects, {name: slow_loads if name in slow else loads for name in subjects}
    )
    numbers = {
        name: {key: value for key, value in result.items() if key != "runs"}
        for name, result in measured.items()
    }
    for name, result in measured.items():
        if "max_error" in result:
            numbers[name]["max_error"] = max(kept["max_error"] for kept in result["runs"])
    numbers["AOTInductor"]["file_bytes"] = package_file(folder, layers).stat().st_size
    numbers["mega-cache"]["file_bytes"] = artifacts_file(folder, layers).stat().st_size
    deeper = numbers["hotstart, twice the layers"]
    own = {
        **numbers["hotstart"],
        **numbers["hotstart, import"],
        **numbers["hotstart, memory"],
        "cache": numbers["hotstart, cache"],
        "file_bytes": program_file(folder, layers).stat().st_size,
        "twice the layers": {
            **deeper,
            "file_bytes": program_file(folder, 2 * layers).stat().st_size,
        },
    }
    return {
        "layers": layers,
        "ratios": ratios(numbers),
        "hotstart": own,
        "peers": {name: kept for name, kept in numbers.items() if not name.startswith("hotstart")},
        "builds": builds,
        "subjects": measured,
    }


def ratios(numbers: dict[str, dict[str, Any]]) -> dict[str, float]:
    """What the goals are stated in, and the same with more of hotstart's start counted.

    `import hotstart` is no part of a load, while what peers import is part of theirs: the last
    ratios count it.
    """
    own, warm = numbers["hotstart"], numbers["torch.compile"]
    mega, package = numbers["mega-cache"], numbers["AOTInductor"]
    alone = numbers["AOTInductor, its C++ loader alone"]
    deeper = numbers["hotstart, twice the layers"]
    load, imported = own["load_ms"], numbers["hotstart, import"]["import_ms"]
    whole = imported + own["start_ms"]
    found = {
        "torch.compile warm first call / hotstart load": warm["first_call_ms"] / load,
        "torch.compile warm first call / hotstart.compile with a cache": (
            warm["first_call_ms"] / numbers["hotstart, cache"]["load_ms"]
        ),
        "mega-cache / hotstart load": mega["start_ms"] / load,
        "AOTInductor load / hotstart load": package["load_ms"] / load,
        "AOTInductor load by its C++ loader alone / hotstart load": alone["load_ms"] / load,
        "hotstart first call / steady call": own["first_call_over_steady"],
        "load 2n layers / load n layers": deeper["load_ms"] / load,
        "AOTInductor load / hotstart import and load": package["load_ms"] / (imported + load),
        "torch.compile warm, to first result / hotstart with import": warm["start_ms"] / whole,
        "mega-cache, to first result / hotstart with import": mega["start_ms"] / whole,
        "AOTInductor, to first result / hotstart with import": package["start_ms"] / whole,
    }
    return {name: round(ratio, 4) for name, ratio in found.items()}


def build(folder: Path, subject: str, layers: int, *, caches: Path | None = None) -> dict[str, Any]:
    """Leave in `folder` what later processes start from; with the seconds that took."""
    print(f"building {subject}, {layers} layers", file=sys.stderr, flush=True)
    return in_fresh_process(
        __file__, "run", "build", subject, str(layers), str(folder), caches=caches
    )


# What runs in processes of its own.


def run(what: str, *arguments: str) -> dict[str, Any]:
    """What one fresh process does."""
    if what == "import":
        return run_import()
    if what == "memory":
        layers, folder = arguments
        return run_memory(int(layers), Path(folder))
    subject, layers, folder = arguments
    return (run_build if what == "build" else run_start)(subject, int(layers), Path(folder))


def run_import() -> dict[str, Any]:
    """Milliseconds of `import hotstart` where torch is imported already."""
    started = time.perf_counter()
    import hotstart  # noqa: F401

    return {"import_ms": since(started)}


def run_build(subject: str, layers: int, folder: Path) -> dict[str, Any]:
    """Compile the model and keep it in `folder`."""
    builders = {
        "hotstart": build_hotstart,
        "torch.compile": fill_caches,
        "AOTInductor": build_package,
    }
    model, ids = setting(layers)
    started = time.perf_counter()
    with torch.no_grad():
        builders[subject](model, ids, folder, layers)
    return {"build_s": since(started) / 1e3}


def run_start(subject: str, layers: int, folder: Path) -> dict[str, Any]:
    """Milliseconds from file to callable, of the first call and of a steady one."""
    import hotstart  # noqa: F401  `run_import` measures this

    openers = {
        "hotstart": open_hotstart,
        "hotstart, cache": find_hotstart,
        "torch.compile": compile_stock,
        "mega-cache": open_artifacts,
        "AOTInductor": open_package,
        "AOTInductor in C++": open_package_in_cpp,
    }
    opener = openers[subject]
    model, ids = setting(layers)
    files = cached_files()
    with torch.no_grad():
        started = time.perf_counter()
        call = opener(model, folder, layers)
        load_ms = since(started)
        called = time.perf_counter()
        first = call(ids)
        first_call_ms, start_ms = since(called), since(started)
        written = len(cached_files() - files)
        steady_ms = statistics.median(milliseconds(partial(call, ids)) for _ in range(CALLS))
        # Eager comes last: before, it would warm up what the first call pays for.
        expected = model(input_ids=ids).logits
    return {
        "load_ms": load_ms,
        "first_call_ms": first_call_ms,
        "start_ms": start_ms,
        "steady_ms": steady_ms,
        # Within one process: steady calls of different ones differ with what else the machine does.
        "first_call_over_steady": first_call_ms / steady_ms,
        "max_error": (first - expected).abs().max().item(),
        "files_written": written,
    }


def run_memory(layers: int, folder: Path) -> dict[str, Any]:
    """Bytes by which the resident memory at the worst moment of a load is above that before it."""
    import hotstart  # noqa: F401

    model, _ = setting(layers)
    # Memory that building the model freed would hide what the load takes.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        program = open_hotstart(model, folder, layers)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    else:
        before = resident("VmRSS")
        program = open_hotstart(model, folder, layers)
        peak = resident("VmHWM")
    del program
    return {"peak_growth_bytes": peak - before}


def setting(layers: int) -> tuple[torch.nn.Module, torch.Tensor]:
    """The model and its input."""
    # Not imported at the top of the file: `run_import` is about torch alone.
    from models import llama, tokens

    return llama(layers), tokens()


# hotstart


def program_file(folder: Path, layers: int) -> Path:
    """Where the saved program is."""
    return folder / f"model-{layers}.hot"


def build_hotstart(model: Any, ids: torch.Tensor, folder: Path, layers: int) -> None:
    """Compile a program, keep it in a cache of its own, and save it."""
    compile_hotstart(model, ids, folder / f"store-{layers}", "build").save(
        program_file(folder, layers)
    )


def find_hotstart(model: Any, folder: Path, layers: int) -> Call:
    """Find the program in the cache."""
    from models import tokens

    program = compile_hotstart(model, tokens(), folder / f"store-{layers}", "require")
    return lambda ids: program(input_ids=ids).logits


def compile_hotstart(model: Any, ids: torch.Tensor, store: Path, policy: Any) -> Any:
    """Compile with a cache."""
    import hotstart

    return hotstart.compile(
        model,
        kwargs={"input_ids": ids},
        dynamic_shapes={"input_ids": {1: hotstart.Dim("seq", min=2, max=512)}},
        cache=hotstart.Store(store, policy=policy),
    )


def open_hotstart(model: Any, folder: Path, layers: int) -> Call:
    """Load the program."""
    import hotstart

    program = hotstart.load(program_file(folder, layers), model)
    return lambda ids: program(input_ids=ids).logits


# torch.compile


def artifacts_file(folder: Path, layers: int) -> Path:
    """Where the cache artifacts are."""
    return folder / f"model-{layers}.cache"


def fill_caches(model: Any, ids: torch.Tensor, folder: Path, layers: int) -> None:
    """Compile with the caches on disk that the process was given, and save them as artifacts."""
    compile_stock(model, folder, layers)(ids)
    saved = torch.compiler.save_cache_artifacts()
    if saved is None:
        raise RuntimeError("torch.compile left no cache artifacts")
    artifacts_file(folder, layers).write_bytes(saved[0])


def compile_stock(model: Any, _folder: Path, _layers: int) -> Call:
    """Wrap the model; its first call compiles it, from caches where they are full."""
    compiled = torch.compile(model, dynamic=True)
    return lambda ids: compiled(input_ids=ids).logits


def open_artifacts(model: Any, folder: Path, layers: int) -> Call:
    """Fill empty caches from the artifacts, and wrap the model."""
    torch.compiler.load_cache_artifacts(artifacts_file(folder, layers).read_bytes())
    return compile_stock(model, folder, layers)


# AOTInductor


class Logits(torch.nn.Module):
    """A model that takes and returns tensors only, which is easy to export."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """The logits of token ids."""
        return self.model(input_ids=ids).logits


def package_file(folder: Path, layers: int) -> Path:
    """Where the package is."""
    return folder / f"model-{layers}.pt2"


def build_package(model: Any, ids: torch.Tensor, folder: Path, layers: int) -> None:
    """Export and compile the model to a package, which has the weights in it."""
    seq = torch.export.Dim("seq", min=2, max=512)
    exported = torch.export.export(Logits(model), (ids,), dynamic_shapes={"ids": {1: seq}})
    torch._inductor.aoti_compile_and_package(
        exported, package_path=str(package_file(folder, layers))
    )


def open_package(_model: Any, folder: Path, layers: int) -> Call:
    """Load the package."""
    return torch._inductor.aoti_load_package(str(package_file(folder, layers)))


def open_package_in_cpp(_model: Any, folder: Path, layers: int) -> Call:
    """Load the package without the Python around the loader, as a server in C++ would.

    What that leaves out are imports, and a look at the processor which tries compiled samples in
    processes of their own.
    """
    file = str(package_file(folder, layers))
    loader = torch._C._aoti.AOTIModelPackageLoader(file, "model", False, 1, -1)
    return lambda ids: loader.run([ids])[0]


# Clocks and counters


def since(started: float) -> float:
    """Milliseconds since a reading of the clock."""
    return (time.perf_counter() - started) * 1e3


def milliseconds(call: Callable[[], Any]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    call()
    return since(started)


def resident(key: str) -> int:
    """Resident bytes of this process: `VmRSS` now, `VmHWM` at the highest since the reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) << 10
    raise LookupError(key)


def cached_files() -> set[Path]:
    """Every file in the cache folders of this process."""
    folders = (Path(os.environ[name]) for name in ("TORCHINDUCTOR_CACHE_DIR", "TMPDIR"))
    return {path for folder in folders for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        print(json.dumps(run(*sys.argv[2:])))
    else:
        main()
