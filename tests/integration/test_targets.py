"""Programs for a level of x86-64 use its instructions and no others, whatever machine builds."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options
from hotstart.artifact import fingerprint
from hotstart.errors import IncompatibleArtifact
from hotstart.targets import TargetName, allowed_instructions, missing_instructions

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="levels are of x86-64")

ROOT = Path(__file__).parents[2]


class Layer(nn.Module):
    """Linears small and large, attention, and loops over elements."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Linear(64, 64)
        self.wide = nn.Linear(64, 2048)
        self.back = nn.Linear(2048, 64)
        self.norm = nn.LayerNorm(64)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.small(x).unflatten(2, (4, 16)).transpose(1, 2)
        seen = nn.functional.scaled_dot_product_attention(heads, heads, heads)
        x = x + seen.transpose(1, 2).flatten(2)
        return self.norm(x + self.back(nn.functional.gelu(self.wide(x)))).softmax(-1)


SIZES = {"x": {0: Dim("batch", max=4), 1: Dim("seq", max=64)}}


def layer() -> tuple[Layer, Tensor]:
    torch.manual_seed(0)
    return Layer().eval(), torch.randn(2, 40, 64)


LEVELS = [
    pytest.param("x86-64-v2", marks=pytest.mark.slow),
    "x86-64-v3",
    pytest.param("x86-64-v4", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=LEVELS)
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TargetName, hotstart.Program, Path]:
    target: TargetName = request.param
    if missing := missing_instructions(target, fingerprint.host()["instructions"]):
        pytest.skip(f"this machine lacks {', '.join(missing)}")
    model, x = layer()
    options = Options(target=target)
    program = hotstart.compile(model, (x,), dynamic_shapes=SIZES, options=options)
    file = tmp_path_factory.mktemp("built") / "model.hot"
    program.save(file)
    return target, program, file


def native_code(program: hotstart.Program) -> dict[str, bytes]:
    """The native code of a program by name: kernels, and what joins them."""
    kernels = {name: kernel for unit in program.artifact.units for name, kernel in unit.kernels}
    assert program.artifact.native is not None
    return {
        **{name: bytes(kernel.data) for name, kernel in kernels.items()},
        "the program": bytes(program.artifact.native.library.data),
    }


def instructions(code: bytes, folder: Path) -> str:
    """The instructions of a library, as text."""
    if not shutil.which("objdump"):
        pytest.skip("there is no objdump")
    file = folder / "code.so"
    file.write_bytes(code)
    command = ["objdump", "-d", "--no-show-raw-insn", str(file)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


FORBIDDEN = {
    "x86-64-v2": re.compile(r"%[yz]mm|%xmm1[6-9]|\{%k\d\}|\t(v[a-z]\w+|andn|sarx|shlx|mulx|lzcnt)"),
    "x86-64-v3": re.compile(r"%zmm|%[xy]mm(1[6-9]|2\d|3[01])|%k[0-7]"),
    "x86-64-v4": re.compile(r"\t(vpdp\w+|vcvtne\w+|vdpbf16ps|vp2intersect\w+|tdp\w+|gf2p8\w+)"),
}
"""Registers and instructions that code for a level must not have."""


def forbidden(target: TargetName, text: str) -> Iterator[str]:
    """Lines of code that are not for a level; `verr` and `verw` are old, and begin with a v."""
    for line in text.splitlines():
        if FORBIDDEN[target].search(line) and "\tver" not in line:
            yield line


@pytest.mark.thorough
def test_code_has_no_instruction_beyond_its_level(
    built: tuple[TargetName, hotstart.Program, Path], tmp_path: Path
) -> None:
    target, program, _ = built
    for name, code in native_code(program).items():
        text = instructions(code, tmp_path)
        assert len(text.splitlines()) > 50, name
        assert not [*forbidden(target, text)], name


def test_code_uses_the_vectors_of_its_level(
    built: tuple[TargetName, hotstart.Program, Path], tmp_path: Path
) -> None:
    target, program, _ = built
    widest = {"x86-64-v2": "%xmm", "x86-64-v3": "%ymm", "x86-64-v4": "%zmm"}[target]
    assert any(widest in instructions(code, tmp_path) for code in native_code(program).values())


def test_kernels_of_hotstarts_are_those_that_pay_on_the_level(
    built: tuple[TargetName, hotstart.Program, Path],
) -> None:
    target, program, _ = built
    linear, attention = "linear_kernel", "attention"
    own = native_code(program).keys() & {linear, attention}
    wanted = {"x86-64-v2": set(), "x86-64-v3": {linear}, "x86-64-v4": {linear, attention}}
    assert own == wanted[target]


def test_results_are_those_of_the_model_before_and_after_a_load(
    built: tuple[TargetName, hotstart.Program, Path],
) -> None:
    _, program, file = built
    assert not program.report.op_by_op
    assert not program.report.not_native
    model, _ = layer()
    loaded = hotstart.load(file, model)
    for batch, seq in ((1, 1), (1, 40), (4, 64)):
        x = torch.randn(batch, seq, 64)
        with torch.no_grad():
            torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-6)
        assert torch.equal(loaded(x), program(x))


def test_a_file_says_its_level_and_what_it_may_use(
    built: tuple[TargetName, hotstart.Program, Path],
) -> None:
    target, _, file = built
    parts = hotstart.inspect(file).fingerprint
    assert parts["target"] == target
    assert parts["instructions"] == allowed_instructions(target, ())
    done = subprocess.run(
        [sys.executable, "-m", "hotstart", "inspect", "--json", str(file)],
        check=True, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert re.search(rf'"target": *"{target}"', done.stdout)


def test_a_machine_of_exactly_that_level_takes_a_file(
    built: tuple[TargetName, hotstart.Program, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    target, _, file = built
    model, x = layer()
    here, flags = fingerprint.host(), allowed_instructions(target, ())
    monkeypatch.setattr(fingerprint, "host", lambda: {**here, "instructions": flags})
    hotstart.load(file, model)(x)
    lesser = [flag for flag in flags if flag != "popcnt"]
    monkeypatch.setattr(fingerprint, "host", lambda: {**here, "instructions": lesser})
    with pytest.raises(IncompatibleArtifact, match="a CPU with popcnt, found a CPU without"):
        hotstart.load(file, model)


def test_levels_do_not_change_what_is_compiled_after_them(
    built: tuple[TargetName, hotstart.Program, Path],
) -> None:
    from torch._inductor import cpp_builder, cpu_vec_isa

    assert built
    assert "march=native" in str(cpp_builder.get_cpp_options(cpp_builder.get_cpp_compiler(), True))
    assert hasattr(cpu_vec_isa.valid_vec_isa_list, "cache_info")  # torch's own


@pytest.mark.skipif(
    missing_instructions("x86-64-v3", fingerprint.host()["instructions"]) != [],
    reason="this machine lacks AVX2",
)
def test_a_layer_in_a_dtype_that_a_level_lacks_is_called_whole() -> None:
    """On the lesser machine `lstm` does what that one can."""
    torch.manual_seed(0)
    model = nn.LSTM(16, 16).eval().bfloat16()
    x = torch.randn(5, 2, 16, dtype=torch.bfloat16)
    program = hotstart.compile(model, (x,), options=Options(target="x86-64-v3"))
    assert "mkldnn" not in "".join(unit.source for unit in program.artifact.units)
    with torch.no_grad():
        torch.testing.assert_close(program(x)[0], model(x)[0])


# --- on lesser processors, emulated ---------------------------------------------------------------

CALLS = """
import sys, torch, hotstart
from tests.integration.test_targets import layer
model, x = layer()
with torch.no_grad():
    difference = (hotstart.load(sys.argv[1], model)(x) - model(x)).abs().max().item()
print(torch.backends.cpu.get_cpu_capability(), difference < 1e-6)
"""

PROCESSORS = {"x86-64-v2": ("IvyBridge", "DEFAULT"), "x86-64-v3": ("Haswell", "AVX2")}
"""Processors for qemu, with what torch's own kernels use there, by the level to run."""


@pytest.mark.slow
def test_a_lesser_processor_runs_a_file(
    built: tuple[TargetName, hotstart.Program, Path],
) -> None:
    """qemu 7.2 and later; torch itself starts on nothing below AVX."""
    target, _, file = built
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("there is no qemu-x86_64 (package qemu-user)")
    if target not in PROCESSORS:
        pytest.skip("qemu emulates no AVX-512")
    processor, capability = PROCESSORS[target]
    path = os.pathsep.join([str(ROOT), str(ROOT / "src"), *filter(None, sys.path)])
    done = subprocess.run(
        [emulator, "-cpu", processor, os.path.realpath(sys.executable), "-c", CALLS, str(file)],
        capture_output=True, text=True, timeout=600, cwd=ROOT, check=False,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [capability, "True"]
