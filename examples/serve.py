"""Serve embeddings over HTTP: FastAPI behind uvicorn, with workers that import no torch.

`python examples/serve.py FOLDER` serves MiniLM with two workers. Started cold, with an empty
folder, it first compiles the program in a process of its own; started hot, it maps what is there,
and the workers share the pages of the weights. `--build` only builds, as examples/Containerfile
does. `python examples/serve.py` starts it both ways, and says when the first answer came.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the other examples are

import hotstart
from examples import embed_numpy

if TYPE_CHECKING:
    from fastapi import FastAPI

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"
WORKERS = 2
SENTENCE = "The quick brown fox jumps over the lazy dog."
FOLDER = "EMBED_FOLDER"
"""The environment variable that tells workers where the program is."""

Embed = Callable[[list[str]], list[list[float]]]


def create() -> FastAPI:
    """Make the app of one worker: load the program, then take requests."""
    folder = Path(os.environ[FOLDER])
    file, weights, vocabulary = files(folder)
    program = embed_numpy.load(file, weights)
    tokenizer = embed_numpy.make_tokenizer(vocabulary)
    return app(lambda sentences: program(**embed_numpy.tokens(tokenizer, sentences)).tolist())


def app(embed: Embed) -> FastAPI:
    """Make an app that answers with embeddings.

    Calls run in threads, many at once: a program of native code runs without Python's lock.
    """
    from fastapi import Body, FastAPI, HTTPException

    made = FastAPI(title="Embeddings")

    @made.post("/embed")
    def answer(sentences: list[str] = Body(embed=True)) -> dict[str, Any]:  # noqa: B008
        """Embed 1 to 16 sentences; each becomes 384 numbers."""
        try:
            embeddings = embed(sentences)
        except hotstart.ContractError as error:  # such as too many sentences
            raise HTTPException(422, str(error)) from error
        return {"embeddings": embeddings, "torch": "torch" in sys.modules}

    return made


def files(folder: Path) -> tuple[Path, Path, Path]:
    """Where the program is, its prepared weights and the tokenizer: all that a server needs."""
    return folder / "embed.hot", folder / "embed.weights", folder / "tokenizer.json"


def build(folder: Path) -> None:
    """Make what is not there; compiling takes torch and memory, so that is a process that ends."""
    file, weights, vocabulary = files(folder)
    if vocabulary.exists():  # which is made last
        return
    folder.mkdir(parents=True, exist_ok=True)
    code = "import sys; from examples import embed_numpy; embed_numpy.build(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(file.absolute()), str(weights.absolute())]
    subprocess.run(command, check=True, cwd=ROOT)
    shutil.copyfile(embed_numpy.tokenizer_file(), vocabulary)


def serve(folder: Path, host: str, port: int, workers: int) -> None:
    """Serve until the process is told to end."""
    import uvicorn

    build(folder)
    os.environ[FOLDER] = str(folder.absolute())
    # Workers share the cores; a thread that waits leaves its core to another one.
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // workers, 1)))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    uvicorn.run(
        "examples.serve:create",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        log_level="warning",
        app_dir=str(ROOT),
    )


def first_answer(
    command: list[str], port: int, environment: dict[str, str] | None = None
) -> tuple[float, dict[str, Any]]:
    """Start a server, ask until it answers, and stop it.

    Returns:
        Seconds from the start of the process to the answer, and the answer.

    Raises:
        RuntimeError: the server ended without an answer, or refused.
    """
    started = time.time()
    server = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **(environment or {})})
    try:
        while server.poll() is None:
            try:
                answer = ask(port, [SENTENCE])
                return time.time() - started, answer
            except ConnectionRefusedError:
                time.sleep(0.002)
        raise RuntimeError(f"{command} ended with {server.returncode}")
    finally:
        server.terminate()
        server.wait()


def ask(port: int, sentences: list[str]) -> dict[str, Any]:
    """Have sentences embedded by the server at a port of this machine.

    Raises:
        ConnectionRefusedError: there is none.
        RuntimeError: it refused; with the reason.
    """
    import http.client  # which a server does without

    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    try:
        body = json.dumps({"sentences": sentences})
        connection.request("POST", "/embed", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer: dict[str, Any] = json.load(response)
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {answer}")
        return answer
    finally:
        connection.close()


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        port: int = taken.getsockname()[1]
    return port


def main() -> None:
    """Start cold and hot; say when the first answer came, and whether it took torch."""
    with tempfile.TemporaryDirectory() as folder:
        for start in ("cold", "hot"):
            port = free_port()
            command = [sys.executable, __file__, folder, "--port", str(port)]
            seconds, answer = first_answer(command, port)
            print(f"{start}: first answer {seconds:.2f} s after the start of the process")
    print(f"an embedding of {len(answer['embeddings'][0])} numbers")
    print(f"imported torch: {answer['torch']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--host", default=HOST)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--build", action="store_true")
    given = parser.parse_args()
    if given.folder is None:
        main()
    elif given.build:
        build(given.folder)
    else:
        serve(given.folder, given.host, given.port, given.workers)
