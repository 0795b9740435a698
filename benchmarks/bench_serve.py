"""From the start of a server to its first HTTP answer: one sentence embedded by MiniLM.

The app of `examples/serve.py` behind uvicorn with two workers, the same for every subject but for
what embeds. Servers are fresh processes, whose files come from the system's page cache; the clock
starts before the process does, and stops when the answer is there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import embed_onnx
from harness import cores, in_fresh_process, in_turns, keep

from examples import serve

PEERS = "benchmarks.serve_peers"


def main() -> None:
    """Build once, start every server in turns, and print and keep what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=serve.WORKERS)
    parser.add_argument("--folder", type=Path, help="for what is built; kept, and used again")
    parser.add_argument("--peers", default=str(embed_onnx.PYTHON), help="has ONNX Runtime")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = given.folder or Path(temporary)
        serve.build(folder)
        apps = {"hotstart": "examples.serve:create", "eager": f"{PEERS}:create_eager"}
        pythons = dict.fromkeys(apps, sys.executable)
        if embed_onnx.has(given.peers, "onnxruntime", "fastapi", "uvicorn", "tokenizers"):
            if not (folder / embed_onnx.OPTIMIZED).exists():
                in_fresh_process(embed_onnx.__file__, str(folder), python=given.peers)
            apps["ONNX Runtime"] = f"{PEERS}:create_onnx"
            apps["ONNX Runtime, optimized before"] = f"{PEERS}:create_optimized_onnx"
            pythons |= {name: given.peers for name in apps if name not in pythons}
        subjects = {
            name: partial(started, pythons[name], app, folder, given.workers)
            for name, app in apps.items()
        }
        measured = in_turns(subjects, given.rounds)
    seconds = {name: result["first_s"] for name, result in measured.items()}
    print(json.dumps({"first_s": seconds}, indent=2))
    keep("serve", {"first_s": seconds, "workers": given.workers, "subjects": measured})


def started(python: str, app: str, folder: Path, workers: int) -> dict[str, Any]:
    """Start one server; how long its first answer took, and a number of it."""
    port = serve.free_port()
    options = ["--workers", str(workers), "--port", str(port), "--log-level", "error"]
    environment = {
        serve.FOLDER: str(folder.absolute()),
        "OMP_NUM_THREADS": str(max(cores() // workers, 1)),
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONDONTWRITEBYTECODE": "",
    }
    command = [python, "-m", "uvicorn", "--factory", app, *options]
    seconds, answer = serve.first_answer(command, port, environment)
    return {"first_s": seconds, "value": answer["embeddings"][0][0], "torch": answer["torch"]}


if __name__ == "__main__":
    main()
