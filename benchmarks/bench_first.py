"""From the start of a process to the first answer: one sentence embedded by MiniLM.

Every subject is a fresh process; files come from the system's page cache. The clock starts before
the process does and stops when it has the embedding: Python, imports, weights, tokenizer and the
call are all in it. `import torch` is measured by itself; three ways do without it: hotstart with
prepared weights, the same from C, without Python and given the numbers of tokens, and ONNX Runtime,
which `.venv-peers` has.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import embed_onnx
from harness import in_fresh_process, in_turns, keep

SENTENCE = "The quick brown fox jumps over the lazy dog."


def main() -> None:
    """Build once, start every subject in turns, and print and keep what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--file", help="a program that was built before, with FILE.weights and FILE.onnx beside it"
    )
    parser.add_argument("--peers", default=str(embed_onnx.PYTHON), help="has ONNX Runtime")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = given.file or str(Path(folder, "embed.hot"))
        if not Path(file).exists():
            in_fresh_process(__file__, "build", file)
        subjects = {name: partial(started, name, file, sys.executable) for name in SUBJECTS}
        subjects["hotstart, in C"] = partial(started_in_c, built_in_c(folder), file, tokens_in_c())
        if embed_onnx.has(given.peers, "onnxruntime", "tokenizers"):
            if not Path(f"{file}.onnx", embed_onnx.OPTIMIZED).exists():
                in_fresh_process(embed_onnx.__file__, f"{file}.onnx", python=given.peers)
            subjects |= {name: partial(started, name, file, given.peers) for name in PEERS}
        measured = in_turns(subjects, given.rounds)
    seconds = {name: result["first_s"] for name, result in measured.items()}
    used = {name: result["cpu_s"] for name, result in measured.items()}
    beyond = {
        name: value - seconds["import torch"]
        for name, value in seconds.items()
        if not measured[name]["runs"][0].get("without_torch")
    }
    print(json.dumps({"first_s": seconds, "beyond import torch": beyond, "cpu_s": used}, indent=2))
    keep("first", {"first_s": seconds, "subjects": measured})


def started(subject: str, file: str, python: str) -> dict[str, Any]:
    """Start one process; how long it took, of the clock and of processors, and where that went."""
    used, begun = _used(), time.time()
    found = in_fresh_process(__file__, subject, file, python=python)
    return {"first_s": found.pop("at") - begun, "cpu_s": _used() - used, **found}


def built_in_c(folder: str) -> str:
    """Compile the example in C, and the library it takes."""
    from hotstart.c.library import build_library

    build_library(folder)
    source, built = Path(__file__).parents[1] / "examples" / "embed.c", str(Path(folder, "embed"))
    found = [f"-I{folder}", f"-L{folder}", f"-Wl,-rpath,{folder}"]
    subprocess.run(["cc", "-O2", str(source), *found, "-lhotstart", "-o", built], check=True)
    return built


def tokens_in_c() -> str:
    """The numbers of the sentence's tokens, in a line."""
    from examples import embed_numpy

    tokens = embed_numpy.tokens(embed_numpy.make_tokenizer(), [SENTENCE])
    return " ".join(map(str, tokens["input_ids"][0])) + "\n"


def started_in_c(built: str, file: str, tokens: str) -> dict[str, Any]:
    """Start the program in C; how long it took to print the embedding."""
    used, begun = _used(), time.time()
    with subprocess.Popen(
        [built, file, file + ".weights"], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(tokens)
        process.stdin.close()
        value = float(process.stdout.readline().split()[0])
        seconds = time.time() - begun
    return {
        "first_s": seconds,
        "cpu_s": _used() - used,
        "value": value,
        "without_torch": True,
    }


def _used() -> float:
    """Seconds of processors that processes started here have taken."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def import_torch(_: str) -> dict[str, Any]:
    """Nothing but the import."""
    import torch

    return {"version": torch.__version__}


def eager(_: str) -> dict[str, Any]:
    """The model of transformers."""
    import torch

    from examples import embed

    with torch.no_grad():
        return {"value": float(embed.make()(**embed.tokens([SENTENCE]))[0, 0])}


def with_model(file: str) -> dict[str, Any]:
    """The saved program, with the weights of a model of transformers."""
    import hotstart
    from examples import embed

    return {"value": float(hotstart.load(file, embed.make())(**embed.tokens([SENTENCE]))[0, 0])}


def with_weights(file: str) -> dict[str, Any]:
    """The saved program, with the checkpoint."""
    return _embedded(file, None)


def with_prepared_weights(file: str) -> dict[str, Any]:
    """The saved program, with weights that were packed and saved before."""
    return _embedded(file, file + ".weights")


def _embedded(file: str, weights: str | None) -> dict[str, Any]:
    """Embed the sentence; where the time goes, in milliseconds."""
    begun = time.perf_counter()
    from examples import embed

    imported = time.perf_counter()
    program = embed.load(file, weights)
    loaded = time.perf_counter()
    tokens = embed.tokens([SENTENCE])
    ready = time.perf_counter()
    value = float(program(**tokens)[0, 0])
    return {
        "value": value,
        "import_ms": 1e3 * (imported - begun),
        "load_ms": 1e3 * (loaded - imported),
        "pack_ms": 1e3 * program.report.packed.seconds,
        "tokens_ms": 1e3 * (ready - loaded),
        "call_ms": 1e3 * (time.perf_counter() - ready),
    }


def without_torch(file: str) -> dict[str, Any]:
    """The saved program, with prepared weights, lists in and out, and no torch."""
    begun = time.perf_counter()
    from examples import embed_numpy

    imported = time.perf_counter()
    program = embed_numpy.load(file, file + ".weights")
    loaded = time.perf_counter()
    tokens = embed_numpy.tokens(embed_numpy.make_tokenizer(), [SENTENCE])
    ready = time.perf_counter()
    value = program(**tokens).tolist()[0][0]
    assert "torch" not in sys.modules
    return {
        "value": value,
        "import_ms": 1e3 * (imported - begun),
        "load_ms": 1e3 * (loaded - imported),
        "tokens_ms": 1e3 * (ready - loaded),
        "call_ms": 1e3 * (time.perf_counter() - ready),
        "without_torch": True,
    }


def onnx_runtime(file: str) -> dict[str, Any]:
    """ONNX Runtime, from the file as it was exported."""
    return _with_onnx_runtime(file, embed_onnx.PLAIN)


def onnx_runtime_optimized(file: str) -> dict[str, Any]:
    """ONNX Runtime, from the file that it wrote itself, for this machine."""
    return _with_onnx_runtime(file, embed_onnx.OPTIMIZED)


def _with_onnx_runtime(file: str, model: str) -> dict[str, Any]:
    value = embed_onnx.load(Path(f"{file}.onnx", model))([SENTENCE])[0][0]
    assert "torch" not in sys.modules
    return {"value": value, "without_torch": True}


def build(file: str) -> dict[str, Any]:
    """Compile and save the program."""
    from examples import embed

    program = embed.build(embed.make())
    program.save(file)
    program.save_weights(file + ".weights")
    return {}


SUBJECTS: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "import torch": import_torch,
    "eager": eager,
    "hotstart, with a model": with_model,
    "hotstart, with weights": with_weights,
    "hotstart, with prepared weights": with_prepared_weights,
    "hotstart, without torch": without_torch,
}

PEERS: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "ONNX Runtime": onnx_runtime,
    "ONNX Runtime, optimized before": onnx_runtime_optimized,
}


if __name__ == "__main__":
    commands = {"build": build, **SUBJECTS, **PEERS}
    if len(sys.argv) == 3 and sys.argv[1] in commands:
        found = commands[sys.argv[1]](sys.argv[2])
        print(json.dumps({**found, "at": time.time()}))
    else:
        main()
