"""A file server that goes wrong as its URLs say: `python faulty_server.py <folder> <log>`.

`/<fault>/<path>` is the file at the path with a fault, `/<fault>:<kind>/<path>` has the fault for
files of one kind only; the fault `none` is none. Prints its port when it listens, and writes a line
for each request into the log.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER, LOG = Path(sys.argv[1]), Path(sys.argv[2])
SILENCE_S = 60.0
DRIP_S = 0.05


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self) -> None:
        with LOG.open("a") as log:
            log.write(f"{self.command} {self.path}\n")
        _, asked, path = self.path.split("/", 2)
        fault, _, kind = asked.partition(":")
        answer = FAULTS[fault if f"/{kind}/" in self.path or not kind else "none"]
        file = FOLDER / path
        if not file.is_file() and answer is none:
            self.whole(404, b"")
        else:
            answer(self, file.read_bytes() if file.is_file() else b"<Error/>")

    def whole(self, status: int, data: bytes) -> None:
        self.begin(status, len(data))
        self.wfile.write(data)

    def begin(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT")
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.flush()


def none(self: Handler, data: bytes) -> None:
    self.whole(200, data)


def status(number: int) -> Callable[[Handler, bytes], None]:
    return lambda self, data: self.whole(number, b"no")


def page(self: Handler, data: bytes) -> None:
    self.whole(200, b"<html>please log in</html>")


def flipped(self: Handler, data: bytes) -> None:
    self.whole(200, data[:-1] + bytes([data[-1] ^ 1]))


def short(self: Handler, data: bytes) -> None:
    self.whole(200, data[: len(data) // 2])


def truncated(self: Handler, data: bytes) -> None:
    self.begin(200, len(data))
    self.wfile.write(data[: len(data) // 2])
    self.close_connection = True


def reset(self: Handler, data: bytes) -> None:
    if self.command == "GET":
        self.begin(200, len(data))
        self.wfile.write(data[: len(data) // 2])
    linger = struct.pack("ii", 1, 0)
    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    os.close(self.connection.detach())
    self.close_connection = True


def silent(self: Handler, data: bytes) -> None:
    time.sleep(SILENCE_S)


def drip(self: Handler, data: bytes) -> None:
    self.begin(200, len(data))
    for number in range(len(data)):
        self.wfile.write(data[number : number + 1])
        self.wfile.flush()
        time.sleep(DRIP_S)


def killed(self: Handler, data: bytes) -> None:
    self.begin(200, len(data))
    self.wfile.write(data[: len(data) // 2])
    self.wfile.flush()
    os.kill(os.getpid(), signal.SIGKILL)


FAULTS: dict[str, Callable[[Handler, bytes], None]] = {
    "none": none, "500": status(500), "503": status(503), "403": status(403), "page": page,
    "flipped": flipped, "short": short, "truncated": truncated, "reset": reset, "silent": silent,
    "drip": drip, "killed": killed,
}  # fmt: skip


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: object) -> None:
        pass


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
