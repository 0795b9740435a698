"""Compare programs with themselves after a save and a load in another process.

`python -m qualification.fuzz.saved SOCKET` is that process: it loads one program after another, so
it also has what others left behind.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tempfile
import warnings
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn

import hotstart
from qualification.compare import Standard, difference
from qualification.fuzz import programs
from qualification.fuzz.programs import Program
from qualification.fuzz.seen import Seen, calls, seen
from qualification.suites import ROOT

# --- the process that loads -----------------------------------------------------------------------


class Loader:
    """A process that loads what others save; started again where it ended."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._process: subprocess.Popen[bytes] | None = None
        self.file = Path(self._folder.name) / "program.hot"
        self._socket = Path(self._folder.name) / "socket"

    def start(self) -> None:
        """Begin to listen, unless it does; this is for the process that ends it."""
        if self._process is not None and self._process.poll() is None:
            return
        self._socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self._socket)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def end(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def close(self) -> None:
        """End the process, and delete what it read."""
        self.end()
        self._folder.cleanup()

    def ask(self, program: Program, how: str) -> dict[str, Seen] | str:
        """Load the file; what its calls did, or the error of the load."""
        with Client(str(self._socket), "AF_UNIX") as connection:
            connection.send_bytes(msgspec.json.encode((program, how, str(self.file))))
            return torch.load(io.BytesIO(connection.recv_bytes()), weights_only=False)  # type: ignore[no-any-return]


def serve(socket: str) -> None:
    """Load and call programs, until the process is killed."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with Listener(socket, "AF_UNIX") as listener:
        print("listens", flush=True)
        while True:
            with listener.accept() as connection, contextlib.suppress(EOFError, BrokenPipeError):
                _answer(connection)


def _answer(connection: Connection) -> None:
    text = connection.recv_bytes()
    program, how, file = msgspec.json.decode(text, type=tuple[Program, str, str])
    model = programs.model(program)
    answer: dict[str, Seen] | str
    try:
        loaded = _load(file, model, how)
    except Exception as error:  # noqa: BLE001  the other process says it
        answer = f"{type(error).__name__}: {error}"
    else:
        if how != "model":
            _hold(model, loaded)
        answer = dict(seen(loaded, model, calls(program)))
    written = io.BytesIO()
    torch.save(answer, written)
    connection.send_bytes(written.getvalue())


def _hold(model: nn.Module, loaded: hotstart.Program) -> None:
    """Give a model the tensors of a program that has its own, so that it shows what is written."""
    for name, tensor in loaded.weights.items():
        owner, _, attribute = name.rpartition(".")
        module = model.get_submodule(owner)
        for tensors in (module._parameters, module._buffers):
            if attribute in tensors and type(tensor) in (Tensor, nn.Parameter):  # not packed away
                tensors[attribute] = tensor  # type: ignore[assignment]


def _load(file: str, model: nn.Module, how: str) -> hotstart.Program:
    if how == "model":
        return hotstart.load(file, model)
    held = model.state_dict(keep_vars=True) if how == "weights" else f"{file}.weights"
    return hotstart.load(file, weights=held, outputs="own")


# --- compared -------------------------------------------------------------------------------------


def problem(
    built: hotstart.Program, program: Program, model: nn.Module, loader: Loader
) -> str | None:
    """How a program differs from itself after a save and a load; None if it does not."""
    built.save(loader.file, check=False)
    expected = dict(seen(built, model, calls(program)))
    for how in ("model", "weights", "prepared"):
        if how == "prepared":
            built.save_weights(f"{loader.file}.weights")
        try:
            found = loader.ask(program, how)
        except (EOFError, OSError) as error:
            return f"loaded with {how}: the process that loads died: {error!r}"
        if isinstance(found, str):
            return f"loaded with {how}: {found}"
        for name, one in expected.items():
            if differs := _differs(found[name], one, how):
                return f"loaded with {how}, {name}: {differs}"
    return None


def _differs(found: Seen, expected: Seen, how: str) -> str | None:
    if found.error != expected.error:
        return f"raises {found.error}, not {expected.error}"
    if found.did is None or expected.did is None:
        return None
    if found.results != expected.results:
        return f"returns {found.results}, not {expected.results}"
    if found.memory != expected.memory and how != "prepared":
        return f"shares memory as {found.memory}, not {expected.memory}"
    if found.drawn != expected.drawn:
        return "has drawn other random numbers"
    return difference(found.did, expected.did, Standard(0.0))


if __name__ == "__main__":
    serve(sys.argv[1])
