"""`hotstart.compile(cache=...)`: found again if nothing that matters changed, and only then."""

from __future__ import annotations

import contextlib
import copy
import errno
import functools
import io
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options, Store
from hotstart.options import CachePolicy
from hotstart.program import OnMiss
from tests.integration import changing, changing_helpers, own_op
from tests.integration.caching import origin, with_
from tests.integration.changing import Changing

X = torch.randn(3, 4)
EAGER = Options(compiler="op_by_op")
BATCH = {"x": {0: Dim("batch", min=2, max=8)}}
Patch = pytest.MonkeyPatch


def model() -> Changing:
    torch.manual_seed(0)
    return Changing().eval()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that has the model as it is."""
    made = Store(tmp_path_factory.mktemp("store"), check=False)
    assert asked(made, model()) == "compiled"
    return made


def asked(
    store: Store,
    model: Any,
    x: Tensor = X,
    policy: CachePolicy = "build",
    extra_key: str = "",
    **more: Any,
) -> str:
    """Compile with a cache; whether the program was loaded or compiled. It has to be right."""
    settings = {"options": EAGER, "dynamic_shapes": BATCH, **more}
    program = hotstart.compile(model, (x,), cache=with_(store, policy, extra_key), **settings)
    with torch.no_grad():
        torch.testing.assert_close(program(x), model(x))
    return origin(program)


# --- what does not matter -------------------------------------------------------------------------


def other_weights(m: Changing, _: Patch) -> None:
    for parameter in m.parameters():
        nn.init.normal_(parameter)


def unread_attribute(m: Changing, _: Patch) -> None:
    m.config.name_or_path = "/another/folder"
    m.layers[0].remark = "nobody reads this"


def unread_setting(m: Changing, patch: Patch) -> None:
    patch.setitem(changing_helpers.SETTINGS, "unread", [8.0])


def unrelated_environment(m: Changing, patch: Patch) -> None:
    for name, value in (("HOME", "/elsewhere"), ("USER", "somebody"), ("LANG", "C"), ("XYZ", "1")):
        patch.setenv(name, value)


def another_folder(m: Changing, patch: Patch) -> None:
    patch.chdir("/")


def random_state(m: Changing, _: Patch) -> None:
    torch.manual_seed(123)


SAME = (
    other_weights, unread_attribute, unread_setting, unrelated_environment, another_folder,
    random_state,
)  # fmt: skip


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


class Adapted(nn.Module):
    """A layer with a small one beside it, as LoRA makes."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = nn.Linear(4, 2, bias=False), nn.Linear(2, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def config_value(m: Changing, _: Patch) -> None:
    m.config.alpha = 3.0


def epsilon(m: Changing, _: Patch) -> None:
    m.layers[1].norm.eps = 1e-3


def attribute_of_a_class(m: Changing, patch: Patch) -> None:
    patch.setattr(changing.Layer, "offset", 0.25)


def activation(m: Changing, _: Patch) -> None:
    m.layers[0].act = torch.tanh


def closure(m: Changing, _: Patch) -> None:
    m.layers[0].act = functools.partial(torch.mul, other=torch.tensor(2.0))


def patched_method(m: Changing, patch: Patch) -> None:
    patch.setattr(changing.Layer, "inner", lambda self, x: self.linear(x) * 10)


def patched_method_of_an_object(m: Changing, _: Patch) -> None:
    layer: Any = m.layers[0]
    layer.inner = types.MethodType(lambda self, x: self.linear(x) * 10, layer)


def patched_method_of_a_helper(m: Changing, patch: Patch) -> None:
    patch.setattr(changing.Config, "factor", lambda self: self.alpha * 7)


def patched_function(m: Changing, patch: Patch) -> None:
    patch.setattr(changing, "shifted", lambda x: x + 2)


def patched_function_of_another_file(m: Changing, patch: Patch) -> None:
    patch.setattr(changing, "scaled", lambda x: x * 0.25)


def patched_torch_module(m: Changing, patch: Patch) -> None:
    patch.setattr(nn.Linear, "forward", lambda self, x: nn.functional.linear(x, self.weight) * 2)


def global_value(m: Changing, patch: Patch) -> None:
    patch.setattr(changing, "LIMIT", 6.0)


def global_of_another_file(m: Changing, patch: Patch) -> None:
    patch.setattr(changing_helpers, "EXTRA", 4.0)


def item_of_a_global(m: Changing, patch: Patch) -> None:
    patch.setitem(changing_helpers.SETTINGS, "bias", [1.5, 2.0])


def global_tensor(m: Changing, patch: Patch) -> None:
    patch.setattr(changing, "WEIGHTS", torch.tensor([1.0, 2.0, 3.0, 5.0]))


def environment(m: Changing, patch: Patch) -> None:
    patch.setenv("HOTSTART_TEST_DOUBLE", "1")


def dtype(m: Changing, _: Patch) -> None:
    m.double()


def untied(m: Changing, _: Patch) -> None:
    m.head.weight = nn.Parameter(m.head.weight.detach().clone())


def training(m: Changing, _: Patch) -> None:
    m.train()


def hook(m: Changing, _: Patch) -> None:
    m.layers[0].register_forward_hook(lambda module, args, result: result * 2)


def one_more_layer(m: Changing, _: Patch) -> None:
    m.layers.append(changing.Layer(m.config))


def adapter(m: Changing, _: Patch) -> None:
    m.layers[0].linear = Adapted(m.layers[0].linear)


def new_parameter(m: Changing, _: Patch) -> None:
    m.extra = nn.Parameter(torch.zeros(3))


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


DIFFERENT = (
    config_value, epsilon, attribute_of_a_class, activation, closure, patched_method,
    patched_method_of_an_object, patched_method_of_a_helper, patched_function,
    patched_function_of_another_file, patched_torch_module, global_value, global_of_another_file,
    item_of_a_global, global_tensor, environment, untied, training, hook, one_more_layer, adapter,
    new_parameter,
)  # fmt: skip


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
    assert found.reasons == ((change,),)
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


def stored_files(store: Store) -> list[Path]:
    return [store.folder.path(file.kind, file.name) for file in store.folder.files()]


FORMAT_AT = 8
"""Where in a file the number of its format is."""


def damaged(data: bytes, damage: str) -> bytes:
    if damage in ("cut", "empty"):
        return data[: len(data) // 2] if damage == "cut" else b""
    at = FORMAT_AT if damage == "format" else len(data) // 2
    return data[:at] + bytes([data[at] ^ 2]) + data[at + 1 :]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "format"])
def test_a_damaged_file_is_never_used(damage: str, tmp_path: Path) -> None:
    filled = Store(tmp_path / "filled", check=False)
    asked(filled, model())
    for number, file in enumerate(sorted(stored_files(filled))):
        copied = tmp_path / f"copy_{number}"
        shutil.copytree(filled.folder.root, copied)
        target = copied / file.relative_to(filled.folder.root)
        target.write_bytes(damaged(target.read_bytes(), damage))
        store = Store(copied, check=False)
        found = asked(store, model())  # compares with the model
        expected = "loaded" if file.parent.parent.name == "pieces" else "compiled"
        assert found == expected
        if found == "compiled":
            assert store.folder.in_quarantine()
            assert asked(store, model()) == "loaded"


def test_a_damaged_piece_is_made_anew(tmp_path: Path) -> None:
    store = Store(tmp_path, check=False)
    asked(store, model())
    (piece, *_) = [file for file in store.folder.files() if file.kind == "pieces"]
    path = store.folder.path(piece.kind, piece.name)
    whole = path.read_bytes()
    path.write_bytes(damaged(whole, "format"))
    asked(store, model(), extra_key="another")
    assert path.read_bytes() == whole
    assert store.folder.in_quarantine() == [f"pieces-{piece.name}"]


@pytest.mark.parametrize("kind", ["programs", "entries", "pieces"])
def test_a_whole_file_in_the_place_of_another_is_never_used(
    kind: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    store = Store(tmp_path, check=False)
    asked(store, model())
    monkeypatch.setenv("HOTSTART_TEST_DOUBLE", "1")  # the same key, but another program
    asked(store, model())
    one, other, *_ = (file for file in stored_files(store) if file.parent.parent.name == kind)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    asked(store, model(), extra_key="another")  # needs the pieces
    for double in ("1", None, ""):  # empty is not the same as not set, and needs the same pieces
        monkeypatch.delenv("HOTSTART_TEST_DOUBLE", raising=False)
        if double is not None:
            monkeypatch.setenv("HOTSTART_TEST_DOUBLE", double)
        asked(store, model())
        assert asked(store, model()) == "loaded"
    assert len(store.folder.in_quarantine()) == 2


def test_a_damaged_program_whose_entry_is_lost_is_made_anew(tmp_path: Path) -> None:
    store = Store(tmp_path, check=False)
    asked(store, model())
    for file in stored_files(store):
        file.write_bytes(damaged(file.read_bytes(), "flip" if "programs" in str(file) else "empty"))
    assert asked(store, model()) == "compiled"
    assert asked(store, model()) == "loaded"


def test_no_room_to_check_a_program_is_a_warning(
    tmp_path: Path, monkeypatch: Patch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_room(**_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryDirectory", no_room)
    assert asked(Store(tmp_path), model()) == "compiled"
    assert "cannot be kept" in caplog.text
    monkeypatch.undo()
    assert asked(Store(tmp_path, check=False), model()) == "compiled"
    assert asked(Store(tmp_path), model()) == "loaded"


def test_an_entry_without_its_program_is_a_miss(tmp_path: Path) -> None:
    store = Store(tmp_path, check=False)
    asked(store, model())
    for file in store.folder.files():
        if file.kind == "programs":
            store.folder.remove(file.kind, file.name)
    assert asked(store, model()) == "compiled"
    assert asked(store, model()) == "loaded"


def test_a_cache_that_cannot_be_used_is_a_warning_or_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert asked(Store(tmp_path / "file", check=False), model()) == "compiled"
    with pytest.raises(hotstart.StoreError):
        asked(Store(tmp_path / "file", strict=True), model())


@pytest.mark.parametrize("kind", ["programs", "entries", "pieces"])
def test_what_others_may_not_look_at_is_compiled(
    kind: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    store = Store(tmp_path, check=False)
    asked(store, model())
    before = stored_files(store)

    def refused(function: Callable[..., Any]) -> Callable[..., Any]:
        def work(path: Any, *args: Any, **kwargs: Any) -> Any:
            if f"/{kind}/" in str(path):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return function(path, *args, **kwargs)

        return work

    with monkeypatch.context() as patch:  # root may look at everything
        for owner, name in ((os, "open"), (os, "stat"), (os, "listdir"), (io, "open")):
            patch.setattr(owner, name, refused(getattr(owner, name)))
        asked(Store(tmp_path, check=False), model())
    assert set(before) <= set(stored_files(store))
    assert asked(store, model()) == "loaded"


@pytest.mark.parametrize("cache", [3, "ftp://host/programs"])
def test_what_is_no_place_is_refused(cache: Any) -> None:
    with pytest.raises(hotstart.StoreError, match="expected a"):
        asked(cache, model())


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
