"""`torch.compile(backend="hotstart", options={"cache": ...})`: pieces are compiled once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.exc
from torch import Tensor, nn

import hotstart
from hotstart import Store
from tests.integration.backend.cached import broken, run
from tests.integration.own_op import Halving

EAGER: dict[str, Any] = {"compiler": "op_by_op"}


@pytest.mark.thorough
def test_a_second_process_compiles_nothing(tmp_path: Path, python: Callable[..., str]) -> None:
    unused = tmp_path / "inductor"
    first = run(*broken(), cache=tmp_path / "cache")
    command = ["-m", "tests.integration.backend.cached", tmp_path / "cache"]
    second = json.loads(python(*command, TORCHINDUCTOR_CACHE_DIR=str(unused)))
    assert {*first["actions"]} == {"compiled", "reused"}
    assert first["kernels"] > 0
    assert {*second["actions"]} == {"loaded", "reused"}
    assert second["kernels"] == 0
    assert not [file for file in unused.rglob("*") if file.is_file()]
    assert second["loaded"] == second["actions"].count("loaded")
    assert second["graphs"] == first["graphs"] > 2
    assert second["results"] == first["results"]


@pytest.mark.thorough
def test_pieces_come_from_a_remote_and_go_there(tmp_path: Path) -> None:
    remote = f"file://{tmp_path}/remote"
    stores = [Store(tmp_path / name, remote=remote) for name in "ab"]
    first, second = (run(*broken(), cache=store, **EAGER) for store in stores)
    assert "compiled" in first["actions"]
    assert "compiled" not in second["actions"]
    assert second["results"] == first["results"]
    assert list(stores[1].folder.names("pieces")) == list(stores[0].folder.names("pieces"))
    assert {file.kind for file in stores[0].folder.files()} == {"pieces"}


def test_a_remote_to_read_gets_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "a", remote=f"file://{tmp_path}/remote", remote_policy="read")
    run(*broken(), cache=store, **EAGER)
    assert not (tmp_path / "remote").exists()


def test_the_limits_of_a_store_hold(tmp_path: Path) -> None:
    store = Store(tmp_path / "a")
    run(torch.sin, [torch.randn(3)], cache=store, **EAGER)
    for file in store.folder.files():
        os.utime(store.folder.path(file.kind, file.name), (1, 1))
    run(torch.cos, [torch.randn(3)], cache=Store(tmp_path / "a", max_files=1), **EAGER)
    assert len(list(store.folder.files())) == 1


def test_the_limits_of_a_store_hold_where_all_pieces_are_fetched(tmp_path: Path) -> None:
    remote = f"file://{tmp_path}/remote"
    run(torch.sin, [torch.randn(3)], cache=Store(tmp_path / "a", remote=remote), **EAGER)
    here = Store(tmp_path / "b")
    run(torch.cos, [torch.randn(3)], cache=here, **EAGER)
    for file in here.folder.files():
        os.utime(here.folder.path(file.kind, file.name), (1, 1))
    limited = Store(tmp_path / "b", remote=remote, max_files=1)
    assert run(torch.sin, [torch.randn(3)], cache=limited, **EAGER)["actions"] == ["loaded"]
    assert len(list(here.folder.files())) == 1


@pytest.mark.thorough
def test_what_is_required_is_loaded_or_an_error(tmp_path: Path) -> None:
    run(*broken(), cache=tmp_path, **EAGER)
    required = Store(tmp_path, policy="require")
    assert {*run(*broken(), cache=required, **EAGER)["actions"]} == {"loaded", "reused"}
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed) as raised:
        run(torch.sin, [torch.randn(3)], cache=required, **EAGER)
    error = raised.value.inner_exception
    assert isinstance(error, hotstart.StoreError)
    assert "expected the compiled piece piece_0 in Store(" in str(error)


def test_a_piece_whose_digest_means_nothing_elsewhere_is_not_kept(tmp_path: Path) -> None:
    for _ in range(2):
        found = run(Halving(), [torch.randn(3)], cache=tmp_path, **EAGER)
        assert found["actions"] == ["compiled"]
    assert list(Store(tmp_path).folder.files()) == []


def test_a_damaged_piece_is_compiled_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(torch.sin, [torch.randn(3)], cache=tmp_path, **EAGER)
    folder = Store(tmp_path).folder
    (name,) = folder.names("pieces")
    path = folder.path("pieces", name)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert run(torch.sin, [torch.randn(3)], cache=tmp_path, **EAGER)["actions"] == ["compiled"]
    assert "is damaged" in caplog.text
    assert run(torch.sin, [torch.randn(3)], cache=tmp_path, **EAGER)["actions"] == ["loaded"]


def test_a_piece_of_another_graph_and_depth_is_found(tmp_path: Path) -> None:
    def stack(depth: int) -> nn.Module:
        torch.manual_seed(0)
        model, _ = broken()
        model.blocks = nn.ModuleList(model.blocks[0] for _ in range(depth))
        return model.eval()

    inputs = [torch.randn(24)]
    run(stack(3), inputs, cache=tmp_path, **EAGER)
    assert "compiled" not in run(stack(5), inputs, cache=tmp_path, **EAGER)["actions"]


@pytest.mark.parametrize("cache", [1, object()])
def test_what_is_no_cache_is_refused(cache: Any) -> None:
    def double(x: Tensor) -> Tensor:
        return x * 2

    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed) as raised:
        run(double, [torch.randn(3)], cache=cache, **EAGER)
    assert isinstance(raised.value.inner_exception, hotstart.StoreError)
