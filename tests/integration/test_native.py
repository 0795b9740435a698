"""Variants as native code: the same bits as their Python form, in files and threads."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Options
from tests.integration.native_models import (
    LENGTH,
    NATIVE,
    PYTHON,
    Model,
    Turned,
    TurnedOtherwise,
    build,
    ids,
)

pytestmark = pytest.mark.usefixtures("kept_pieces")


@pytest.fixture(scope="module")
def model() -> Model:
    return Model().eval()


@pytest.fixture(scope="module")
def native(model: Model, kept_pieces: Any) -> hotstart.Program:
    return build(model, ids(4), dynamic_shapes=LENGTH)


@pytest.fixture(scope="module")
def python(model: Model, kept_pieces: Any) -> hotstart.Program:
    return build(model, ids(4), dynamic_shapes=LENGTH, options=PYTHON)


@pytest.mark.thorough
@torch.no_grad()
def test_both_forms_give_the_same_bits(native: hotstart.Program, python: hotstart.Program) -> None:
    for length in (1, 2, 3, 9):
        given, expected = native(ids(length)), python(ids(length))
        assert given["last"].equal(expected["last"])
        assert given["pooled"][0].equal(expected["pooled"][0])
        assert given["length"] == length
    assert native.report.not_native == ()


def test_it_is_the_default_where_there_are_kernels(model: Model) -> None:
    program = build(model, ids(4), options=Options())
    assert program.artifact.native is not None
    assert "run as Python" not in str(program.report)
    assert build(model, ids(4), options=PYTHON).artifact.native is None
    plain = build(model, ids(4), options=Options(compiler="op_by_op"))
    assert plain.artifact.native is None


def test_what_the_caller_passed_comes_back_itself(native: hotstart.Program) -> None:
    given = ids(3)
    assert native(given)["pooled"][1] is given


@pytest.mark.thorough
def test_a_program_from_a_file_runs_native_code_without_a_compiler(
    native: hotstart.Program, model: Model, tmp_path: Path
) -> None:
    file = tmp_path / "model.hot"
    native.save(file)
    torch.save(native(ids(5))["last"], tmp_path / "expected.pt")
    code = f"""
import sys, torch
import hotstart
from tests.integration.native_models import Model, ids
sys.modules.pop("torch._inductor", None)
program = hotstart.load({os.fspath(file)!r}, Model().eval())
with torch.no_grad():
    assert program(ids(5))["last"].equal(torch.load({os.fspath(tmp_path / "expected.pt")!r}))
assert program.artifact.native is not None
assert "torch._inductor" not in sys.modules, "a load imports no compiler"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.__version__.startswith("2.11."),
    reason="kernels for AVX-512 read what an index asks for before they check it (torch 2.11)",
)
def test_a_refused_index_is_an_error_and_the_next_call_works(native: hotstart.Program) -> None:
    with pytest.raises(IndexError, match="index out of range"):
        native(ids(3) + 100)
    native(ids(3))


def test_threads_share_a_program(native: hotstart.Program, python: hotstart.Program) -> None:
    expected = {length: python(ids(length))["last"] for length in range(2, 10)}
    wrong: list[int] = []

    def work(length: int) -> None:
        results = [native(ids(length))["last"] for _ in range(50)]
        wrong.extend(length for result in results if not result.equal(expected[length]))

    threads = [threading.Thread(target=work, args=(length,)) for length in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.thorough
def test_weights_are_freed_with_the_program() -> None:
    model = Model(depth=1).eval()
    program = build(model, ids(2))
    program(ids(2))
    held = weakref.ref(model.layers[0].up.weight.untyped_storage())
    own = [weakref.ref(tensor) for tensor in model.parameters()]
    del program, model
    gc.collect()
    assert held() is None
    assert [ref() for ref in own] == [None] * len(own)


def test_calls_keep_no_memory(native: hotstart.Program) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    for _ in range(200):
        native(ids(9))
    before = resident()
    for _ in range(3000):
        native(ids(9))
    assert resident() - before < 256, "pages"


def test_changed_weights_are_noticed() -> None:
    model = Model(depth=1).eval()
    native, python = (build(model, ids(2), options=options) for options in (NATIVE, PYTHON))
    before = native(ids(2))["last"]
    with torch.no_grad():
        model.layers[0].up.weight.mul_(2)
        model.layers[0].qkv.weight.data = torch.randn(48, 16)
    after = native(ids(2))["last"]
    assert not after.equal(before)
    assert after.equal(python(ids(2))["last"])


class Unread(Model):
    """Computes, after its layers, what nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.pooler = nn.Linear(16, 16)

    def forward(self, ids: Tensor) -> Any:
        last = super().forward(ids)["last"]
        torch.tanh(self.pooler(last[:, 0]))
        return last


@pytest.mark.thorough
def test_a_piece_whose_results_nothing_reads_computes_nothing_and_is_native() -> None:
    model = Unread().eval()
    program = build(model, ids(4), dynamic_shapes=LENGTH)
    sources = [unit.source for unit in program.artifact.units if "pooler" in unit.source]
    assert sources
    assert not any("tanh" in source for source in sources)
    assert torch.equal(
        program(ids(5)), build(model, ids(4), dynamic_shapes=LENGTH, options=PYTHON)(ids(5))
    )
    torch.testing.assert_close(program(ids(5)), model(ids(5)))


def test_a_file_of_another_native_form_is_refused(
    native: hotstart.Program, model: Model, tmp_path: Path
) -> None:
    file = tmp_path / "model.hot"
    native.save(file, check=False)
    data = bytearray(file.read_bytes())
    library = native.artifact.native
    assert library is not None
    at = data.find(bytes(library.library.data[:64]))
    assert at > 0
    data[at + 40] ^= 1
    file.write_bytes(data)
    with pytest.raises(hotstart.CorruptArtifact):
        hotstart.load(file, model)


def test_debug_files_have_the_program(model: Model, tmp_path: Path) -> None:
    build(model, ids(4), options=Options(debug_dir=tmp_path))
    text = (tmp_path / "hotstart" / "program.cpp").read_text()
    assert "void body_0(" in text
    assert "aoti_torch_cpu_" in text.rpartition("struct PyObject;")[0].partition("kernels[")[0]


@pytest.mark.slow
@torch.no_grad()
def test_released_weights_stay_right() -> None:
    model = Model(depth=1).eval()
    options = Options(pack_weights="always")
    program = build(model, ids(2), options=options, dynamic_shapes=LENGTH)
    before = program(ids(5))["last"]
    program.release_unpacked()
    assert program(ids(5))["last"].equal(before)


@pytest.mark.slow
def test_programs_that_do_the_same_with_other_kernels_are_apart() -> None:
    x, models = torch.rand(3, 4), (Turned(), TurnedOtherwise())
    programs = [build(model, x) for model in models]
    natives = [program.artifact.native for program in programs]
    assert len({native.library.name for native in natives if native is not None}) == 1
    for model, program in zip(models, programs, strict=True):
        assert torch.allclose(program(x), model(x))
