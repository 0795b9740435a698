"""`hotstart.compile(cache=...)`: found again if nothing that matters changed, and only then."""

from __future__ import annotations

import copy
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options, Store
from hotstart.misses import OnMiss
from tests.integration import changing, own_op
from tests.integration.caching import BATCH, EAGER, Patch, X, asked, model, with_
from tests.integration.changing import Changing
from tests.integration.model_changes import DIFFERENT, SAME, deterministic


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that has the model as it is."""
    made = Store(tmp_path_factory.mktemp("store"), check=False)
    assert asked(made, model()) == "compiled"
    return made


# --- what does not matter -------------------------------------------------------------------------


@pytest.mark.parametrize("change", SAME)
def test_what_does_not_matter_is_a_hit(
    change: Callable[[Changing, Patch], None], store: Store, monkeypatch: Patch
) -> None:
    changed = model()
    change(changed, monkeypatch)
    assert asked(store, changed) == "loaded"


def test_another_object_of_the_same_model_is_a_hit(store: Store) -> None:
    assert asked(store, copy.deepcopy(model())) == "loaded"


def test_what_is_loaded_serves_every_size(store: Store) -> None:
    m = model()
    program = hotstart.compile(m, (X,), cache=store, options=EAGER, dynamic_shapes=BATCH)
    for size in (2, 8):
        x = torch.randn(size, 4)
        assert torch.equal(program(x), m(x))
    with pytest.raises(hotstart.ContractError):
        program(torch.randn(9, 4))


ELSEWHERE = """
import sys
import torch
import hotstart
from hotstart import Dim, Options, Store
from tests.integration.changing import Changing

torch.manual_seed(0)
model, x = Changing().eval(), torch.randn(3, 4)
shapes = {"x": {0: Dim("batch", min=2, max=8)}}
program = hotstart.compile(
    model, (x,), cache=Store(sys.argv[1], policy="require"),
    options=Options(compiler="op_by_op"), dynamic_shapes=shapes,
)
heavy = ("torch._dynamo", "torch._inductor", "sympy")
assert not [name for name in sys.modules if name.startswith(heavy)]
assert torch.equal(program(x), model(x))
"""


def test_another_user_in_another_folder_hits_and_imports_no_compiler(
    store: Store, tmp_path: Path
) -> None:
    moved = shutil.copytree(store.folder.root, tmp_path / "moved")
    environment = {
        "PATH": "/nonexistent",
        "HOME": str(tmp_path),
        "USER": "somebody",
        "HOSTNAME": "elsewhere",
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    command = [sys.executable, "-c", ELSEWHERE, str(moved)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, check=False, text=True,
                          capture_output=True)  # fmt: skip
    assert done.returncode == 0, done.stderr


# --- what matters ---------------------------------------------------------------------------------


@pytest.mark.parametrize("change", DIFFERENT)
def test_what_may_matter_is_a_miss(
    change: Callable[[Changing, Patch], None], store: Store, monkeypatch: Patch
) -> None:
    changed = model()
    change(changed, monkeypatch)
    assert asked(store, changed) == "compiled"
    assert asked(store, changed) == "loaded"
    monkeypatch.undo()
    assert asked(store, model()) == "loaded"


class Moded(nn.Module):
    """Reads a text that looks like a line of an error."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        return x.sin() if self.mode.startswith("a") else x.cos()


def test_what_changed_is_told_as_it_was_and_is(tmp_path: Path) -> None:
    store = Store(tmp_path, check=False)
    program = hotstart.compile(Moded("a, found b"), (X,), options=EAGER, cache=store)
    other = Moded("c: expected d")
    found = store.find(hotstart.compute_key(other, (X,), options=EAGER), other, OnMiss())
    change = ("mode", "'a, found b'", "'c: expected d'")
    assert [refused.changes for refused in found.refused] == [(change,)]
    program.model.mode = other.mode
    with pytest.raises(hotstart.ModelMismatch, match="expected 'a, found b', found 'c: ") as raised:
        program(X)
    assert raised.value.differences == (change,)


def test_of_the_module_of_a_bound_method_only_what_is_read_matters(tmp_path: Path) -> None:
    store = Store(tmp_path, check=False)
    first, same, other = Moded("a"), Moded("a"), Moded("c")
    same.note = "nobody reads this"
    hotstart.compile(first.forward, (X,), options=EAGER, cache=store)
    for one, hit in ((same, True), (other, False)):
        key = hotstart.compute_key(one.forward, (X,), options=EAGER)
        assert (store.find(key, one.forward, OnMiss()).program is not None) is hit
    keys = {hotstart.compute_key(m, (X,), options=EAGER).digest for m in (Ways().up, Ways().down)}
    assert len(keys) == 2


@pytest.mark.parametrize(
    "changed",
    [
        lambda: torch._dynamo.config.patch(skip_nnmodule_hook_guards=False),
        lambda: torch._inductor.config.patch(epilogue_fusion=False),
        lambda: torch._inductor.config.patch({"cpp.simdlen": 256}),
        lambda: torch.device("cpu:0"),
        deterministic,
        lambda: torch.autocast("cpu"),
    ],
    ids=["dynamo", "inductor", "cpp", "default device", "deterministic", "autocast"],
)
def test_settings_of_torch_may_matter(changed: Callable[[], Any], store: Store) -> None:
    with changed():
        key = hotstart.compute_key(model(), (X,), dynamic_shapes=BATCH, options=EAGER)
        assert store.probe(key) == []
    key = hotstart.compute_key(model(), (X,), dynamic_shapes=BATCH, options=EAGER)
    assert store.probe(key) != []


@pytest.mark.parametrize(
    "asked_for",
    [
        {"dynamic_shapes": {"x": {0: Dim("batch", min=2, max=9)}}},
        {"dynamic_shapes": {"x": {0: Dim("batch", min=2, max=8, ranges=[(2, 4), (5, 8)])}}},
        {"dynamic_shapes": None},
        {"options": Options(compiler="op_by_op", splits=3)},
        {"split_on": ["aten::linear"]},
        {"extra_key": "another"},
    ],
    ids=["range", "ranges", "static", "options", "split_on", "extra_key"],
)
def test_what_is_asked_for_matters(asked_for: dict[str, Any], store: Store) -> None:
    assert asked(store, model(), **asked_for) == "compiled"
    assert asked(store, model(), **asked_for) == "loaded"


def test_the_example_matters(store: Store) -> None:
    assert asked(store, model(), torch.randn(5, 4)) == "compiled"  # tuned for another size
    assert asked(store, model(), torch.randn(3, 4)) == "loaded"


# --- pieces ---------------------------------------------------------------------------------------


def actions(depth: int, store: Store, **more: Any) -> set[str]:
    m = model()
    m.layers = nn.ModuleList(changing.Layer(m.config) for _ in range(depth))
    m.head.weight = m.layers[0].linear.weight
    program = hotstart.compile(m, (X,), cache=store, options=EAGER, **more)
    assert torch.equal(program(X), m(X))
    return {unit.action for unit in program.report.units}


def test_a_deeper_model_compiles_nothing_new(tmp_path: Path) -> None:
    store = Store(tmp_path, check=False)
    assert actions(3, store) == {"compiled", "reused"}
    assert actions(5, store) == {"loaded", "reused"}


def test_a_piece_that_calls_what_is_not_torchs_is_compiled_again(tmp_path: Path) -> None:
    store = Store(tmp_path, check=False)

    def f(x: Tensor) -> Tensor:
        return own_op.halve(x) + 1

    for extra_key in ("one", "other"):
        cache = with_(store, extra_key=extra_key)
        program = hotstart.compile(f, (X,), cache=cache, options=EAGER)
        assert {unit.action for unit in program.report.units} == {"compiled"}


# --- what a cache does when something is wrong with it --------------------------------------------


def test_what_is_required_is_not_compiled(tmp_path: Path) -> None:
    store = Store(tmp_path, check=False)
    with pytest.raises(hotstart.StoreError, match="nothing is stored yet"):
        asked(store, model(), policy="require")
    asked(store, model())
    assert asked(store, model(), policy="require") == "loaded"
    changed = model()
    changed.config.alpha = 5.0
    with pytest.raises(hotstart.StoreError, match=r"alpha: was 2\.0, is 5\.0"):
        asked(store, changed, policy="require")


def test_programs_that_differ_in_what_they_were_compiled_for_are_kept_beside_each_other(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    store = Store(tmp_path, check=False)
    assert asked(store, model()) == "compiled"
    monkeypatch.setenv("HOTSTART_TEST_DOUBLE", "")  # not as before, and makes no difference
    assert asked(store, model()) == "compiled"
    assert asked(store, model()) == "loaded"
    monkeypatch.undo()
    assert asked(store, model()) == "loaded"
    assert len([file for file in store.folder.files() if file.kind == "programs"]) == 2


def test_a_miss_says_what_changed(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hotstart")
    asked(store, model(), extra_key="for a miss")
    assert re.search(r"extra_key: was '.*', is 'for a miss'", caplog.text)


class Ways(nn.Module):
    """Two methods of equal parameters, one of which is named as a part of the key is."""

    def up(self, x: Tensor, method: str = "linear") -> Tensor:
        return x + 1

    def down(self, x: Tensor, method: str = "linear") -> Tensor:
        return x - 1


def test_methods_are_told_apart_whatever_their_parameters_are_named(tmp_path: Path) -> None:
    store = Store(tmp_path, check=False)
    for method, by in (("up", 1), ("down", -1)):
        calls = {"way": hotstart.Call(args=(X,), method=method)}
        program = hotstart.compile(Ways(), calls=calls, options=EAGER, cache=store)
        torch.testing.assert_close(program["way"](X), X + by)


def test_a_function_in_split_on_has_the_same_key_in_every_process() -> None:
    key = hotstart.compute_key(model(), (X,), split_on=[torch.relu], options=EAGER)
    assert key.parts["split_on"] == "torch.relu"


def test_arguments_by_position_and_by_keyword_are_other_calls() -> None:
    """Hooks of the model see the difference."""
    keys = [
        hotstart.compute_key(model(), args, kwargs, options=EAGER)
        for args, kwargs in (((X,), {}), ((), {"x": X}))
    ]
    assert keys[0] != keys[1]
