"""A cache with a remote, with server processes on loopback: what it finds."""

from __future__ import annotations

import shutil
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hotstart
from hotstart import Store
from hotstart.cache.remote import Remote
from hotstart.misses import OnMiss
from tests.integration import changing
from tests.integration.changing import Changing
from tests.integration.remote.servers import (
    EAGER,
    S3_SETTINGS,
    Faulty,
    Machine,
    Simple,
    X,
    asked,
    files,
    free_port,
    key_of,
    model,
    problems,
    running,
    wait_for,
)


class S3:
    """A server that speaks S3, as a process."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def bucket(self, name: str) -> str:
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT"))
        return f"s3://{name}/programs"


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


@pytest.mark.thorough
def test_a_second_machine_hits_without_compiling(s3: S3, machine: Machine) -> None:
    url = s3.bucket("second")
    torch.manual_seed(0)
    big = Changing().eval()
    assert asked(machine("a", url), big) == "compiled"
    b = machine("b", url)
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


@pytest.mark.thorough
def test_pieces_of_a_deeper_model_come_from_the_remote(s3: S3, machine: Machine) -> None:
    url = s3.bucket("pieces")

    def actions(store: Store, depth: int) -> set[str]:
        m = Changing().eval()
        m.layers = nn.ModuleList(changing.Layer(m.config) for _ in range(depth))
        m.head.weight = m.layers[0].linear.weight
        program = hotstart.compile(m, (X,), cache=store, options=EAGER)
        assert torch.equal(program(X), m(X))
        return {unit.action for unit in program.report.units}

    assert actions(machine("a", url), 3) == {"compiled", "reused"}
    b = machine("b", url)
    assert actions(b, 5) == {"loaded", "reused"}
    assert "pieces" in {file.kind for file in b.folder.files()}  # kept here as well


@pytest.mark.thorough
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


@pytest.mark.thorough
def test_writers_at_the_same_time_lose_nothing(s3: S3, machine: Machine) -> None:
    url = s3.bucket("writers")
    stores = [machine(name, url) for name in "abcd"]
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
    a = machine("a", url, remote_policy="read")
    assert asked(a, model()) == "compiled"
    assert problems(a) == 0
    lists = Remote(url).visit()
    assert [lists.names(kind) for kind in ("entries", "programs", "pieces")] == [[], [], []]


def test_an_object_store_lists_what_it_has(s3: S3, machine: Machine) -> None:
    url = s3.bucket("lists")
    assert asked(machine("a", url), model()) == "compiled"
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
    settings: Any = {"remote_options": options}
    url = s3_server.bucket("options")
    assert asked(machine("a", url, **settings), model()) == "compiled"
    b = machine("b", url, **settings)
    assert asked(b, model(), policy="require") == "loaded"
    assert problems(b) == 0


def test_of_a_machines_processes_one_fetches(faulty: Faulty, machine: Machine) -> None:
    stores = [machine("b", f"{faulty.url}/none") for _ in range(4)]
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
    a = machine("a", "s3://nowhere/programs")
    assert asked(a, model()) == "compiled"
    assert asked(a, model()) == "loaded"
    assert problems(a) >= 1


def test_a_url_is_a_cache(
    s3: S3, machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache: Any = s3.bucket("url")
    assert asked(machine("a", cache), model()) == "compiled"
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
from tests.integration.remote.servers import BATCH, EAGER, X, model

# For each folder, whether obstore was imported once the model was compiled with it.
policy, remote, *folders = sys.argv[1:]
for folder in folders:
    store = Store(folder, check=False, remote=remote, policy=policy)
    hotstart.compile(model(), (X,), cache=store, options=EAGER, dynamic_shapes=BATCH)
    print("obstore" in sys.modules)
"""


@pytest.mark.thorough
def test_a_local_hit_does_not_import_the_library(
    tmp_path: Path, python: Callable[..., str]
) -> None:
    remote, here, new = f"file://{tmp_path}/remote", tmp_path / "here", tmp_path / "new"
    # Other tests' libraries put methods into ``nn.Module``, which are part of a key.
    assert python("-c", FRESH, "build", remote, here).split() == ["True"]
    assert python("-c", FRESH, "require", remote, here, new).split() == ["False", "True"]
