"""Try an installed hotstart with one extra: `python -I qualification/installed.py sign`.

It runs outside of the tests, in an environment that has what the wheel declares and nothing else.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

import hotstart
from hotstart.cli import main

X = torch.randn(3, 4)


def model() -> nn.Module:
    """Make a model; always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()


def program() -> hotstart.Program:
    """Compile it fast."""
    return hotstart.compile(model(), (X,), options=hotstart.Options(compiler="op_by_op"))


def require_same(found: hotstart.Program) -> None:
    """Raise if a program gives something else than the model."""
    with torch.no_grad():
        torch.testing.assert_close(found(X), model()(X))


def nothing() -> None:
    """Compile with Inductor, save, inspect and load."""
    hotstart.compile(model(), (X,)).save("model.hot")
    require_same(hotstart.load("model.hot", model()))
    torch.save(model().state_dict(), "weights.pt")
    require_same(hotstart.load("model.hot", weights="weights.pt"))
    assert commanded("inspect", "model.hot")


def cli() -> None:
    """Complete commands; progress needs a terminal."""
    import rich  # noqa: F401

    assert "load-check" in commanded("completion", "bash")


def sign() -> None:
    """Sign a file and a cache."""
    commanded("keygen", "team")
    program().save("signed.hot", sign_key="team")
    require_same(hotstart.load("signed.hot", model(), trusted_keys=["team.pub"]))
    store = hotstart.Store("cache", sign_key="team")
    hotstart.compile(model(), (X,), cache=store)
    require_same(hotstart.compile(model(), (X,), cache=store))


def remote() -> None:
    """Publish to a remote, and find it there."""
    Path("remote").mkdir()
    for folder in ("one", "other"):
        store = hotstart.Store(folder, remote=Path("remote").absolute().as_uri(), check=False)
        require_same(hotstart.compile(model(), (X,), cache=store))
    assert any(Path("remote").rglob("v*"))


def report() -> None:
    """Write pages of a report and of a profile."""
    program().save("model.hot")
    torch.save(model().state_dict(), "weights.pt")
    commanded("report", "model.hot", "--html", "report.html")
    given = ("--weights", "weights.pt", "--repeats", "2")
    commanded("profile", "model.hot", *given, "--html", "profile.html")
    for page in ("report.html", "profile.html"):
        assert "<html" in Path(page).read_text()


def serve() -> None:
    """Answer a request, as `examples/serve.py` does."""
    import fastapi
    import uvicorn

    app, served = fastapi.FastAPI(), program()

    @app.get("/")
    def answer() -> list[list[float]]:
        with torch.no_grad():
            found: list[list[float]] = served(X).tolist()
        return found

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address) as got:
            torch.testing.assert_close(torch.tensor(json.load(got)), model()(X).detach())
    finally:
        server.should_exit = True
        thread.join()


def ray() -> None:
    """Import what connects to a cluster."""
    import hotstart.compilers.workers.ray_cluster  # noqa: F401


def sentence_transformers() -> None:
    """Import the integration."""
    import hotstart.integrations.sentence_transformers  # noqa: F401


TRIED: Mapping[str, Callable[[], None]] = {
    "nothing": nothing,
    "cli": cli,
    "sign": sign,
    "remote": remote,
    "report": report,
    "serve": serve,
    "ray": ray,
    "sentence-transformers": sentence_transformers,
}


def commanded(*arguments: str) -> str:
    """Return what a command prints; it has to succeed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(list(arguments)) == 0
    return out.getvalue()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["HOTSTART_CACHE"] = str(Path(folder) / "own")
        TRIED[sys.argv[1]]()
    print(f"hotstart {hotstart.__version__} with {sys.argv[1]}: fine")
