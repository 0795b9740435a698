"""Servers as processes on loopback, and stores that ask them."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options, Store
from hotstart.cache.remote import Remote
from hotstart.options import CachePolicy
from tests.integration.caching import origin, with_

X = torch.randn(3, 4)
BATCH = {"x": {0: Dim("batch", min=2, max=8)}}
EAGER = Options(compiler="op_by_op")
TIMEOUT_S = 0.5
SLACK_S = 2.0
"""Besides the stated time, what a busy machine may need for a find that finds nothing."""


class Simple(nn.Module):
    """Something that builds fast."""

    def __init__(self, depth: int = 1) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x


def asked(store: Store, model: nn.Module, policy: CachePolicy = "build", **more: Any) -> str:
    """Compile with a cache; whether the program was loaded or compiled. It has to be right."""
    settings = {"options": EAGER, "dynamic_shapes": BATCH, **more}
    program = hotstart.compile(model, (X,), cache=with_(store, policy), **settings)
    with torch.no_grad():
        torch.testing.assert_close(program(X), model(X))
    return origin(program)


def key_of(model: nn.Module) -> hotstart.records.guards.ProgramKey:
    return hotstart.compute_key(model, (X,), options=EAGER, dynamic_shapes=BATCH)


def problems(store: Store) -> int:
    return sum(remote(store).problems.values())


def remote(store: Store) -> Remote:
    assert store.exchange is not None
    return store.exchange.remote


def files(folder: Path) -> dict[str, bytes]:
    found = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in found}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_for(port: int, process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise AssertionError("the server did not start")


@contextlib.contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd="/"
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


S3_SETTINGS = {
    "AWS_ACCESS_KEY_ID": "somebody",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}


class Faulty:
    """A file server that goes wrong as its URLs say, as a process."""

    def __init__(self, folder: Path, log: Path) -> None:
        self._log = log
        self._log.touch()
        script = str(Path(__file__).with_name("faulty_server.py"))
        self._running = running(sys.executable, script, str(folder), str(log))

    def __enter__(self) -> Faulty:
        self.process = self._running.__enter__()
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"
        return self

    def __exit__(self, *_: object) -> None:
        self._running.__exit__(None, None, None)

    def requests(self) -> list[str]:
        return self._log.read_text().splitlines()


def model() -> nn.Module:
    torch.manual_seed(0)
    return Simple().eval()


Machine = Callable[..., Store]
