"""A cache with a remote, with server processes on loopback: what it finds, costs and survives."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options, Store
from hotstart.cache.remote import Remote
from hotstart.options import CachePolicy
from hotstart.program import OnMiss
from tests.integration import changing
from tests.integration.caching import origin, with_
from tests.integration.changing import Changing

X = torch.randn(3, 4)
BATCH = {"x": {0: Dim("batch", min=2, max=8)}}
EAGER = Options(compiler="op_by_op")
TIMEOUT_S = 1.0
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


# --- servers --------------------------------------------------------------------------------------


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


class S3:
    """A server that speaks S3, as a process."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def bucket(self, name: str) -> str:
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT"))
        return f"s3://{name}/programs"


S3_SETTINGS = {
    "AWS_ACCESS_KEY_ID": "somebody",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3]:
    pytest.importorskip("moto.server")
    port = free_port()
    with running(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)) as it:
        wait_for(port, it)
        yield S3(port)


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    for name, value in {**S3_SETTINGS, "AWS_ENDPOINT_URL": s3_server.url}.items():
        monkeypatch.setenv(name, value)
    return s3_server


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


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a remote, that has the programs and pieces of a model."""
    tree = tmp_path_factory.mktemp("tree")
    store = Store(tmp_path_factory.mktemp("builder"), check=False, remote=f"file://{tree}")
    assert asked(store, model()) == "compiled"
    assert {file.split("/")[1] for file in files(tree)} == {"entries", "pieces", "programs"}
    return tree


@pytest.fixture
def faulty(tree: Path, tmp_path: Path) -> Iterator[Faulty]:
    with Faulty(tree, tmp_path / "requests") as server:
        yield server


@pytest.fixture(scope="module")
def nginx(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an nginx that serves the tree."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    place, port = tmp_path_factory.mktemp("nginx"), free_port()
    place.chmod(0o755)
    (place / "nginx.conf").write_text(
        f"""
        daemon off; master_process off; pid {place}/pid; error_log {place}/errors;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path {place}/1; proxy_temp_path {place}/2;
            fastcgi_temp_path {place}/3; uwsgi_temp_path {place}/4; scgi_temp_path {place}/5;
            server {{ listen 127.0.0.1:{port}; location /programs/ {{ alias {tree}/; }} }}
        }}
        """
    )
    with running(program, "-p", str(place), "-c", str(place / "nginx.conf")) as it:
        wait_for(port, it)
        yield f"http://127.0.0.1:{port}/programs"


def model() -> nn.Module:
    torch.manual_seed(0)
    return Simple().eval()


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Store]:
    """Makes a store with a folder of its own."""

    def make(name: str, url: str, **settings: Any) -> Store:
        defaults = {"check": False, "remote_timeout_s": TIMEOUT_S}
        return Store(tmp_path / name, remote=url, **{**defaults, **settings})

    return make


Machine = Callable[..., Store]

# --- what it finds --------------------------------------------------------------------------------


def test_a_second_machine_hits_without_compiling(s3: S3, machine: Machine) -> None:
    url = s3.bucket("second")
    torch.manual_seed(0)
    big = Changing().eval()
    assert asked(machine("a", url, remote_timeout_s=10), big) == "compiled"
    b = machine("b", url, remote_timeout_s=10)
    assert asked(b, big, policy="require") == "loaded"
    assert {file.kind for file in b.folder.files()} == {"entries", "programs"}
    assert problems(b) == 0


def test_what_was_brought_is_there_without_the_remote(machine: Machine, tree: Path) -> None:
    b = machine("b", f"file://{tree}")
    assert asked(b, model(), policy="require") == "loaded"
    alone = Store(b.folder.root, check=False)
    assert asked(alone, model(), policy="require") == "loaded"
    dead = machine("b", f"http://127.0.0.1:{free_port()}")
    assert asked(dead, model(), policy="require") == "loaded"
    assert problems(dead) == 0


def test_pieces_of_a_deeper_model_come_from_the_remote(s3: S3, machine: Machine) -> None:
    url = s3.bucket("pieces")

    def actions(store: Store, depth: int) -> set[str]:
        m = Changing().eval()
        m.layers = nn.ModuleList(changing.Layer(m.config) for _ in range(depth))
        m.head.weight = m.layers[0].linear.weight
        program = hotstart.compile(m, (X,), cache=store, options=EAGER)
        assert torch.equal(program(X), m(X))
        return {unit.action for unit in program.report.units}

    assert actions(machine("a", url, remote_timeout_s=10), 3) == {"compiled", "reused"}
    b = machine("b", url, remote_timeout_s=10)
    assert actions(b, 5) == {"loaded", "reused"}
    assert "pieces" in {file.kind for file in b.folder.files()}  # kept here as well


def test_a_program_that_does_not_fit_is_not_brought(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path}/shared"
    torch.manual_seed(0)
    m = Changing().eval()
    a, b = machine("a", url), machine("b", url)
    assert asked(a, m) == "compiled"
    monkeypatch.setattr(changing, "LIMIT", 6.0)
    assert asked(a, m) == "compiled"
    assert asked(b, m, policy="require") == "loaded"
    assert len(b.probe(key_of(m))) == len(list(b.folder.names("programs"))) == 1
    monkeypatch.setattr(changing, "LIMIT", 5.0)
    assert asked(b, m, policy="require") == "loaded"
    monkeypatch.setattr(changing, "LIMIT", 7.0)
    with pytest.raises(hotstart.StoreError, match=r"LIMIT: was [56]\.0, is 7\.0"):
        asked(b, m, policy="require")


def test_writers_at_the_same_time_lose_nothing(s3: S3, machine: Machine) -> None:
    url = s3.bucket("writers")
    stores = [machine(name, url, remote_timeout_s=10) for name in "abcd"]
    entries = []
    for store in stores:
        asked(Store(store.folder.root, check=False), model())
        (entry,) = store.probe(key_of(model()))
        entries.append(entry)
    done: list[bool] = []
    threads = [
        threading.Thread(target=lambda s=store, e=entry: done.append(s.push(e)))
        for store, entry in zip(stores, entries, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert done == [True] * 4
    there = {entry.program for entry in machine("z", url).pull(key_of(model()))}
    assert there == {entry.program for entry in entries}


def test_an_object_store_to_read_gets_no_writes(s3: S3, machine: Machine) -> None:
    url = s3.bucket("read")
    a = machine("a", url, remote_policy="read", remote_timeout_s=10)
    assert asked(a, model()) == "compiled"
    assert problems(a) == 0
    lists = Remote(url).visit()
    assert [lists.names(kind) for kind in ("entries", "programs", "pieces")] == [[], [], []]


def test_an_object_store_lists_what_it_has(s3: S3, machine: Machine) -> None:
    url = s3.bucket("lists")
    assert asked(machine("a", url, remote_timeout_s=10), model()) == "compiled"
    visit = Remote(url).visit()
    digest = key_of(model()).digest
    assert visit.names("entries") == visit.names("entries", digest) == [f"{digest}.0"]


def test_settings_are_given_where_the_environment_has_none(s3_server: S3, machine: Machine) -> None:
    options = {
        "endpoint": s3_server.url,
        "access_key_id": "somebody",
        "secret_access_key": "secret",
        "region": "us-east-1",
        "client_options": {"allow_http": True},
    }
    settings: Any = {"remote_options": options, "remote_timeout_s": 10}
    url = s3_server.bucket("options")
    assert asked(machine("a", url, **settings), model()) == "compiled"
    b = machine("b", url, **settings)
    assert asked(b, model(), policy="require") == "loaded"
    assert problems(b) == 0


def test_of_a_machines_processes_one_fetches(faulty: Faulty, machine: Machine) -> None:
    stores = [machine("b", f"{faulty.url}/none", remote_timeout_s=10) for _ in range(4)]
    key, m = key_of(model()), model()
    found: list[bool] = []

    def find(store: Store) -> None:
        found.append(store.find(key, m, OnMiss()).program is not None)

    threads = [threading.Thread(target=find, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [True] * 4
    assert len([line for line in faulty.requests() if "/programs/" in line]) == 1


def test_a_bucket_that_is_not_there_is_a_warning(s3: S3, machine: Machine) -> None:
    a = machine("a", "s3://nowhere/programs", remote_timeout_s=10)
    assert asked(a, model()) == "compiled"
    assert asked(a, model()) == "loaded"
    assert problems(a) >= 1


def test_a_url_is_a_cache(
    s3: S3, machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache: Any = s3.bucket("url")
    assert asked(machine("a", cache, remote_timeout_s=10), model()) == "compiled"
    monkeypatch.setenv("HOTSTART_CACHE", str(tmp_path / "b"))
    assert asked(cache, model(), policy="require") == "loaded"


def test_nginx_serves_a_copy(nginx: str, machine: Machine, tree: Path) -> None:
    before = files(tree)
    b = machine("b", nginx)
    assert asked(b, model(), policy="require") == "loaded"
    assert asked(b, Simple(2).eval()) == "compiled"
    assert problems(b) == 0
    assert files(tree) == before


FRESH = """
import sys
import torch
import hotstart
from hotstart import Store
from tests.integration.test_cache_remote import BATCH, EAGER, X, model

# For each folder, whether obstore was imported once the model was compiled with it.
policy, remote, *folders = sys.argv[1:]
for folder in folders:
    store = Store(folder, check=False, remote=remote, policy=policy)
    hotstart.compile(model(), (X,), cache=store, options=EAGER, dynamic_shapes=BATCH)
    print("obstore" in sys.modules)
"""


def test_a_local_hit_does_not_import_the_library(
    tmp_path: Path, python: Callable[..., str]
) -> None:
    remote, here, new = f"file://{tmp_path}/remote", tmp_path / "here", tmp_path / "new"
    # Other tests' libraries put methods into ``nn.Module``, which are part of a key.
    assert python("-c", FRESH, "build", remote, here).split() == ["True"]
    assert python("-c", FRESH, "require", remote, here, new).split() == ["False", "True"]


# --- what it survives -----------------------------------------------------------------------------


def find_s(store: Store) -> float:
    """Seconds that a look-up takes that finds nothing."""
    key = key_of(model())
    started = time.monotonic()
    found = store.find(key, model(), OnMiss())
    seconds = time.monotonic() - started
    assert found.program is None
    return seconds


FAILS = ("500", "503", "403", "truncated", "reset", "silent", "drip")
WRONG = ("page", "flipped", "short")
KINDS = ("entries", "programs")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", FAILS)
def test_a_server_that_fails_costs_a_stated_time_and_a_warning(
    fault: str, kind: str, faulty: Faulty, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    b = machine("b", f"{faulty.url}/{fault}:{kind}")
    seconds = find_s(b)
    assert seconds < TIMEOUT_S + SLACK_S
    assert len([it for it in caplog.records if it.name.startswith("hotstart")]) == 1
    assert "going on without" in caplog.text
    requests = len(faulty.requests())
    assert asked(b, model()) == "compiled"
    assert len(faulty.requests()) == requests  # it is left alone, for pieces as well
    assert asked(b, model()) == "loaded"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", WRONG)
def test_what_is_not_what_was_written_is_never_loaded(
    fault: str,
    kind: str,
    faulty: Faulty,
    machine: Machine,
    caplog: pytest.LogCaptureFixture,
) -> None:
    b = machine("b", f"{faulty.url}/{fault}:{kind}")
    assert find_s(b) < TIMEOUT_S + SLACK_S
    assert "not used" in caplog.text
    assert list(b.folder.files()) == []
    asked(b, model())  # made anew, of pieces, which are whole
    assert asked(b, model(), policy="require") == "loaded"


@pytest.mark.parametrize("fault", [*FAILS, *WRONG])
def test_pieces_that_cannot_be_had_are_compiled(
    fault: str, faulty: Faulty, machine: Machine
) -> None:
    b = machine("b", f"{faulty.url}/{fault}:pieces")
    torch.manual_seed(0)
    deeper = Simple(3).eval()
    started = time.monotonic()
    assert asked(b, deeper) == "compiled"
    with_fault = time.monotonic() - started
    assert problems(b) >= 1
    started = time.monotonic()
    asked(Store(b.folder.root.with_name("c"), check=False), deeper)
    assert with_fault < time.monotonic() - started + TIMEOUT_S + SLACK_S


def test_the_faulty_server_without_a_fault_is_a_server(faulty: Faulty, machine: Machine) -> None:
    b = machine("b", f"{faulty.url}/none")
    assert asked(b, model(), policy="require") == "loaded"


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_is_killed_while_it_answers(
    kind: str, faulty: Faulty, machine: Machine
) -> None:
    b = machine("b", f"{faulty.url}/killed:{kind}")
    assert find_s(b) < TIMEOUT_S + SLACK_S
    assert faulty.process.wait(5) < 0
    assert list(b.folder.files()) == []
    assert asked(b, model()) == "compiled"


def test_a_server_that_is_not_there(machine: Machine) -> None:
    b = machine("b", f"http://127.0.0.1:{free_port()}")
    assert find_s(b) < TIMEOUT_S + SLACK_S
    assert find_s(b) < 0.1
    assert asked(b, model()) == "compiled"


def test_a_server_that_accepts_nothing(machine: Machine) -> None:
    with contextlib.ExitStack() as held:
        blackhole = held.enter_context(socket.socket())
        blackhole.bind(("127.0.0.1", 0))
        blackhole.listen(0)
        address = blackhole.getsockname()
        for _ in range(4):  # whoever comes when the queue is full gets no answer at all
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        b = machine("b", f"http://127.0.0.1:{address[1]}")
        seconds = find_s(b)
        assert TIMEOUT_S * 0.9 < seconds < TIMEOUT_S + SLACK_S
        assert find_s(b) < 0.1


@pytest.mark.parametrize("fault", ["500", "reset", "silent", "403"])
def test_what_cannot_be_published_is_a_warning(
    fault: str, faulty: Faulty, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in S3_SETTINGS.items():
        monkeypatch.setenv(name, value)
    # Reading finds nothing there, and writing fails.
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"{faulty.url}/{fault}:programs")
    b = machine("b", "s3://bucket/somewhere")
    assert asked(b, model()) == "compiled"
    assert problems(b) == 1
    assert any(line.startswith("PUT") for line in faulty.requests())
    assert asked(b, model()) == "loaded"


def test_a_remote_that_fails_is_an_error_where_it_has_to_work(
    faulty: Faulty, tmp_path: Path
) -> None:
    store = Store(tmp_path / "b", check=False, strict=True, remote=f"{faulty.url}/500")
    with pytest.raises(hotstart.StoreError, match="500"):
        asked(store, model())


def test_what_is_required_and_cannot_be_asked_for_says_so(faulty: Faulty, machine: Machine) -> None:
    with pytest.raises(hotstart.StoreError, match=r"the remote: .*500"):
        asked(machine("b", f"{faulty.url}/500"), model(), policy="require")


EXIT = """
import sys
import time
import threading
from hotstart.cache.remote import Remote

remote = Remote(sys.argv[1], timeout_s=0.3)
remote.visit().fetch("entries", "ab" * 16 + ".0", 1 << 20)
visit = Remote(sys.argv[1], timeout_s=30).visit()
threading.Thread(target=visit.fetch, args=("entries", "ab" * 16 + ".0", 1), daemon=True).start()
time.sleep(0.3)
print("done", flush=True)
"""


def test_a_process_ends_although_a_server_has_not_answered(faulty: Faulty) -> None:
    command = [sys.executable, "-c", EXIT, f"{faulty.url}/silent"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
