"""Variants as native code: the same bits as their Python form, and what has no native form."""

from __future__ import annotations

import gc
import itertools
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
from torch.nn import functional as F  # noqa: N812

import hotstart
from hotstart import Dim, Options, OptionsError

pytestmark = pytest.mark.usefixtures("kept_pieces")

PYTHON = Options(form="python")
NATIVE = Options(form="native")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.up = nn.Linear(16, 32)
        self.down = nn.Linear(32, 16, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return x + self.down(F.gelu(self.up(x)))


class Model(nn.Module):
    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(11, 16)
        self.layers = nn.ModuleList([Block() for _ in range(depth)])

    def forward(self, ids: Tensor) -> dict[str, Any]:
        x = self.embed(ids)
        mask = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
        for layer in self.layers:
            x = layer(x, mask)
        return {"last": x, "pooled": (x.mean(1), ids), "length": ids.shape[1]}


LENGTH = {"ids": {1: Dim("seq", min=1, max=9, sizes=[1])}}


def ids(length: int) -> Tensor:
    return torch.arange(2 * length).reshape(2, length) % 11


def build(model: Any, *args: Any, options: Options = NATIVE, **more: Any) -> hotstart.Program:
    return hotstart.compile(model, args=args, options=options, **more)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model().eval()


@pytest.fixture(scope="module")
def native(model: Model, kept_pieces: Any) -> hotstart.Program:
    return build(model, ids(4), dynamic_shapes=LENGTH)


@pytest.fixture(scope="module")
def python(model: Model, kept_pieces: Any) -> hotstart.Program:
    return build(model, ids(4), dynamic_shapes=LENGTH, options=PYTHON)


@torch.no_grad()
def test_both_forms_give_the_same_bits(native: hotstart.Program, python: hotstart.Program) -> None:
    for length in (1, 2, 3, 9):
        given, expected = native(ids(length)), python(ids(length))
        assert given["last"].equal(expected["last"])
        assert given["pooled"][0].equal(expected["pooled"][0])
        assert given["length"] == length
    assert native.report.not_native == ()


class Waves(nn.Module):
    """A convolution in one dimension, which is not packed; one that adds to what it is given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wave = nn.Conv1d(4, 8, 3, padding=1)
        self.image, self.again = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.wave(x)).unflatten(-1, (4, -1))
        return F.relu(self.again(F.gelu(self.image(x))) + self.image(x)).sum(1)


@torch.no_grad()
def test_convolutions_that_oneDNN_fuses_or_does_not_pack_are_native() -> None:  # noqa: N802
    model, x = Waves().eval(), torch.randn(2, 4, 16)
    packed = Options(form="native", pack_weights="always")
    native = build(model, x, options=packed)
    python = build(model, x, options=Options(form="python", pack_weights="always"))
    assert native(x).equal(python(x))
    assert "_convolution_pointwise_.binary" in "".join(u.source for u in native.artifact.units)
    assert "torch.convolution" in "".join(u.source for u in native.artifact.units)


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


def test_a_program_from_a_file_runs_native_code_without_a_compiler(
    native: hotstart.Program, model: Model, tmp_path: Path
) -> None:
    file = tmp_path / "model.hot"
    native.save(file)
    torch.save(native(ids(5))["last"], tmp_path / "expected.pt")
    code = f"""
import sys, torch
import hotstart
from tests.integration.test_native import Model, ids
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
    with pytest.raises(RuntimeError, match="index out of bounds"):
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


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(4))
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor, cache: Tensor) -> Tensor:
        self.count += 1
        cache[1] = x[0] * 2
        return F.gelu(x @ self.weight) + self.count + cache[1]


@torch.no_grad()
def test_what_is_written_to_has_a_new_version() -> None:
    model = Counting()
    program = build(model, torch.randn(3, 4), torch.zeros(2, 4))
    assert program.report.not_native == ()
    count = model.count
    cache, x = torch.zeros(2, 4), torch.randn(3, 4)
    versions = [(count._version, cache._version)]
    for number in (1, 2):
        before = count.clone()
        result = program(x, cache)
        assert count.equal(before + 1), number
        assert cache[1].equal(x[0] * 2)
        assert torch.allclose(result, F.gelu(x @ model.weight) + count + cache[1], atol=1e-6)
        versions.append((count._version, cache._version))
    for (count_before, cache_before), (count_after, cache_after) in itertools.pairwise(versions):
        assert count_before < count_after
        assert cache_before < cache_after


class Nonzero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(x) * 2
        y = torch.where(x > 0, x, x.exp()).cumsum(0)
        return torch.ops.hotstart_native_test.twice(y) + F.gelu(y)


@pytest.fixture(scope="module")
def operator_in_python() -> Any:
    library = torch.library.Library("hotstart_native_test", "DEF")
    library.define("twice(Tensor x, float[] by=[2.0]) -> Tensor")
    library.impl("twice", lambda x, by=(2.0,): x * by[0], "CompositeExplicitAutograd")
    torch.library.register_fake(
        "hotstart_native_test::twice", lambda x, by=(2.0,): torch.empty_like(x)
    )
    yield
    library._destroy()


@pytest.mark.usefixtures("operator_in_python")
def test_a_step_without_a_native_form_is_named() -> None:
    x = torch.randn(3, 4)
    program = build(Nonzero(), x, options=Options())
    ((variant, reason),) = program.report.not_native
    assert variant
    assert "hotstart_native_test.twice" in reason
    assert "run as Python, not as native code" in str(program.report)
    assert torch.allclose(program(x), Nonzero()(x), atol=1e-6)
    with pytest.raises(OptionsError, match=r"form: got 'native'.*\n.*hotstart_native_test"):
        build(Nonzero(), x)


class Calls(nn.Module):
    """Operators with lists, dtypes, numbers and nothing among their arguments."""

    def forward(self, x: Tensor, at: Tensor) -> tuple[Tensor, ...]:
        values, places = torch.sort(x, dim=-1, descending=True)
        top = torch.topk(x, 2, dim=-1)
        rolled = torch.cdist(x, x).logcumsumexp(-1)
        return values, places, top.values, rolled, at.cumsum(0, dtype=torch.int32)


@torch.no_grad()
def test_operators_that_no_kernel_replaces() -> None:
    x, at = torch.randn(6, 5), torch.tensor([0, 3, 3])
    native = build(Calls(), x, at, options=Options())
    for given, expected in zip(native(x, at), Calls()(x, at), strict=True):
        assert torch.allclose(given.float(), expected.float(), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    "function",
    [
        lambda x: (3 ** (x + 1)) * 2,
        lambda x: torch.addmm(x, x, x, beta=2, alpha=3) + 1,
        lambda x: (x + 1).scatter(0, x.clamp(0, 2), 2**53 + 1) * 2,
        lambda x: (x * 2.5) ** 3 + torch.addmm(x.float(), x.float(), x.float(), alpha=2),
    ],
)
def test_integers_stay_integers_in_operators(function: Any) -> None:
    x = torch.arange(9).reshape(3, 3)
    given, expected = build(function, x, options=Options())(x), function(x)
    assert given.dtype == expected.dtype
    assert torch.allclose(given, expected)


@torch.no_grad()
def test_operators_that_name_a_dtype_of_no_buffer() -> None:
    def sums(x: Tensor) -> Tensor:
        return (x + 1).cumsum(0).sort(0).values

    x = torch.arange(6, dtype=torch.int32).flip(0)
    assert build(sums, x)(x).equal(sums(x))


class Views(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.linear(x), self.linear.weight[1:3], x.T, F.gelu(x)


@torch.no_grad()
def test_writes_to_views_that_come_back_count_as_writes_to_what_they_show() -> None:
    model = Views()
    x = torch.randn(3, 4)
    program = build(model, x, options=Options(form="native", pack_weights="always"))
    _, rows, turned, _ = program(x)
    before = model.linear.weight._version, x._version
    rows.mul_(5)
    turned.add_(1)
    assert (model.linear.weight._version, x._version) == (before[0] + 1, before[1] + 1)
    assert torch.allclose(program(x)[0], model.linear(x), atol=1e-5)
    with torch.inference_mode():
        assert [each.is_inference() for each in program(x)] == [True, False, False, True]


class WritesAndFails(nn.Module):
    def forward(self, x: Tensor, table: Tensor, at: Tensor) -> Tensor:
        x.add_(1)
        return F.gelu(F.embedding(at, table).cumsum(0).sort(0).values)


@torch.no_grad()
def test_what_is_written_to_before_an_error_has_a_new_version() -> None:
    x, table, at = torch.zeros(3), torch.randn(4, 2), torch.tensor([0, 3])
    program = build(WritesAndFails(), x, table, at)
    for number in (1, 2):
        version = x._version
        with pytest.raises(RuntimeError):
            program(x, table, at + 100)
        if x[0] == number:
            assert x._version > version


class Unread(Model):
    """Computes, after its layers, what nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.pooler = nn.Linear(16, 16)

    def forward(self, ids: Tensor) -> Any:
        last = super().forward(ids)["last"]
        torch.tanh(self.pooler(last[:, 0]))
        return last


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


@torch.no_grad()
def test_released_weights_stay_right() -> None:
    model = Model(depth=1).eval()
    options = Options(pack_weights="always")
    program = build(model, ids(2), options=options, dynamic_shapes=LENGTH)
    before = program(ids(5))["last"]
    program.release_unpacked()
    assert program(ids(5))["last"].equal(before)


class Turned(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x) * 2


class TurnedOtherwise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cos(x) * 3


def test_programs_that_do_the_same_with_other_kernels_are_apart() -> None:
    x, models = torch.rand(3, 4), (Turned(), TurnedOtherwise())
    programs = [build(model, x) for model in models]
    natives = [program.artifact.native for program in programs]
    assert len({native.library.name for native in natives if native is not None}) == 1
    for model, program in zip(models, programs, strict=True):
        assert torch.allclose(program(x), model(x))
