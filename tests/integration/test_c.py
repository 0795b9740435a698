"""Programs that are served from C: the same answers, checks and errors, and no Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import ContractError, Dim, Options
from hotstart.c.library import build_library
from hotstart.cli import main
from tests.integration import c_api
from tests.integration.alone import IDS, MASK, Conjugating, Encoder, Saved
from tests.integration.c_api import CONTRACT, ERROR, Library, Program, Refused
from tests.integration.test_native import Turned, TurnedOtherwise
from tests.integration.test_save_and_load import run_fresh
from tests.opening import opens_library_alone

EXAMPLE = Path(__file__).parents[2] / "examples" / "embed.c"

pytestmark = [
    pytest.mark.usefixtures("kept_pieces"),
    opens_library_alone,
]


@pytest.fixture
def served(library: Library, saved: Saved) -> Any:
    program = Program(library, saved.file, saved.weights)
    yield program
    program.close()


def flat(result: Any) -> list[Tensor]:
    """The tensors of a result of `Encoder`, in order."""
    return [result["pooled"], *result["all"]]


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(one.dtype == other.dtype and one.equal(other) for one, other in pairs)


def test_a_program_gives_the_bits_that_it_gives_in_python(served: Program, saved: Saved) -> None:
    for rows, length in ((2, 4), (1, 1), (4, 9), (3, 1)):
        ids = torch.arange(rows * length).reshape(rows, length) % 11
        mask = torch.rand(rows, length)
        assert equal(served(ids, mask), flat(saved.program(ids, mask))), (rows, length)


def test_a_program_says_what_it_takes_and_gives(served: Program) -> None:
    assert served.calls() == 1
    assert served.describe() == {
        "name": "",
        "arguments": [
            ("ids", torch.int64, ["rows", "seq"]),
            ("mask", torch.float32, ["rows", "seq"]),
        ],
        "written": [False, False],
        "axes": [("rows", 1, 4, "1..4"), ("seq", 1, 9, "1..9")],
        "results": ["pooled", "all[0]", "all[1]"],
    }


def test_arguments_may_lie_in_memory_in_other_ways(
    served: Program, saved: Saved, library: Library
) -> None:
    expected = flat(saved.program(IDS, MASK))
    turned = IDS.t().contiguous().t(), torch.stack([MASK, MASK], -1)[..., 0]
    assert turned[0].stride() == (1, 2)
    assert equal(served(*turned), expected)
    results = served.kept(IDS, MASK, dense=True)
    assert equal(c_api.read(results), expected)
    library.free(results)


WRONG: list[tuple[Tensor, ...]] = [
    (torch.ones(1, 2, dtype=torch.int64), torch.ones(1, 3)),
    (torch.ones(1, 10, dtype=torch.int64), torch.ones(1, 10)),
    (torch.ones(5, 1, dtype=torch.int64), torch.ones(5, 1)),
    (torch.ones(2, dtype=torch.int64), torch.ones(1, 2)),
    (torch.ones(0, 2, dtype=torch.int64), torch.ones(0, 2)),
    (torch.ones(1, 2, dtype=torch.int64),),
    (),
    (torch.ones(1, 2), torch.ones(1, 2)),
    (torch.ones(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.float64)),
    (torch.ones(1, 2, dtype=torch.int64), torch.ones(1, 2, 1)),
]


@pytest.mark.parametrize("given", WRONG, ids=lambda given: "-".join(str(t.shape) for t in given))
def test_a_call_outside_of_the_contract_gets_the_words_of_python(
    served: Program, saved: Saved, given: tuple[Tensor, ...]
) -> None:
    with pytest.raises(ContractError) as expected:
        saved.program(*given)
    with pytest.raises(Refused) as found:
        served(*given)
    assert str(found.value) == str(expected.value)
    assert found.value.status == CONTRACT


def test_what_only_c_can_pass_is_refused(served: Program, library: Library) -> None:
    with pytest.raises(Refused, match="positional arguments: got 3, takes at most 2"):
        served(IDS, MASK, MASK)
    with pytest.raises(Refused, match="call: got 1, takes a number below 1"):
        served(IDS, MASK, call=1)
    odd = torch.zeros(4 * MASK.numel() + 1, dtype=torch.uint8)[1:]
    with pytest.raises(Refused, match=r"mask: got memory at \d+, takes memory at a multiple of 4"):
        served(IDS, _At(odd.data_ptr(), MASK))  # type: ignore[arg-type]
    with pytest.raises(Refused, match="ids: got a null pointer"):
        served(_At(0, IDS), MASK)  # type: ignore[arg-type]
    with pytest.raises(Refused, match=r"ids: got strides \(-4, 1\), takes strides of zero or more"):
        served(_At(IDS.data_ptr(), IDS, (-4, 1)), MASK)  # type: ignore[arg-type]
    assert library.open(None, None, None) == CONTRACT
    assert library.last_error() == b"file: got a null pointer, takes a pointer"


class _At:
    """Passes for a tensor at another address, or with other strides."""

    def __init__(self, address: int, like: Tensor, strides: tuple[int, ...] = ()) -> None:
        self.dtype, self.shape = like.dtype, like.shape
        self._address, self._strides = address, strides or like.stride()

    def data_ptr(self) -> int:
        return self._address

    def stride(self) -> tuple[int, ...]:
        return self._strides

    def dim(self) -> int:
        return len(self.shape)


def test_results_outlive_the_program(library: Library, saved: Saved) -> None:
    program = Program(library, saved.file, saved.weights)
    results = program.kept(IDS, MASK)
    program.close()
    assert equal(c_api.read(results), flat(saved.program(IDS, MASK)))
    library.free(results)


def test_threads_share_a_program(served: Program, saved: Saved) -> None:
    def work(length: int) -> None:
        ids, mask = torch.full((1, length), length), torch.ones(1, length)
        expected = flat(saved.program(ids, mask))
        same[length] = all(equal(served(ids, mask), expected) for _ in range(100))

    same: dict[int, bool] = {}
    threads = [threading.Thread(target=work, args=(length,)) for length in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same == dict.fromkeys(range(1, 9), True)


# --- more kinds of programs -----------------------------------------------------------------------


class Appending(nn.Module):
    def forward(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        cache.add_(x)
        return torch.nn.functional.gelu(cache) * 2, cache


def test_what_a_call_changes_is_changed(library: Library, tmp_path: Path) -> None:
    saved = Saved(tmp_path, Appending(), torch.ones(3, 4), torch.zeros(3, 4))
    served = Program(library, saved.file, saved.weights)
    assert served.describe()["written"] == [False, True]
    for turned in (False, True):
        x = torch.rand(3, 4)
        cache, other = (torch.ones(4, 3).t() if turned else torch.ones(3, 4) for _ in range(2))
        assert equal(served(x, cache), list(saved.program(x, other)))
        assert cache.equal(other)
        assert not cache.equal(torch.ones(3, 4))
    windows = torch.arange(6.0).unfold(0, 4, 1)
    for refused in ((cache, cache), (x, windows), (x, torch.ones(4).expand(3, 4))):
        with pytest.raises(ContractError) as expected:
            saved.program(*refused)
        with pytest.raises(Refused) as found:
            served(*refused)
        assert str(found.value) == str(expected.value)
    assert windows[:, 0].equal(torch.arange(3.0))
    served.close()


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.add_(x)
        return torch.nn.functional.gelu(x) * 2, self.seen


def test_an_argument_may_not_lie_where_a_weight_does_that_calls_write_to(
    library: Library, tmp_path: Path
) -> None:
    saved = Saved(tmp_path, Remembering(), torch.ones(3))
    served = Program(library, saved.file, saved.weights)
    results, seen = served.kept(torch.ones(3)), saved.program(torch.ones(3))[1]
    assert equal(c_api.read(results)[1:], [seen])
    with pytest.raises(ContractError) as expected:
        saved.program(seen)
    with pytest.raises(Refused) as found:
        served(_At(results[0].tensors[1].data, seen))  # type: ignore[arg-type]
    assert str(found.value) == str(expected.value)
    library.free(results)
    served.close()


def test_programs_that_do_the_same_with_other_kernels_are_apart(
    library: Library, tmp_path: Path
) -> None:
    x, models = torch.rand(3, 4), (Turned(), TurnedOtherwise())
    saved = []
    for model in models:
        (folder := tmp_path / type(model).__name__).mkdir()
        saved.append(Saved(folder, model, x))
    served = [Program(library, each.file, each.weights) for each in saved]
    for model, program in zip(models, served, strict=True):
        assert torch.allclose(program(x)[0], model(x))
        program.close()


@pytest.mark.parametrize("by_c", [False, True])
def test_programs_open_where_somebody_has_closed_all_descriptors(
    c_library: Path, tmp_path: Path, by_c: bool
) -> None:
    for model in (Turned(), TurnedOtherwise()):
        (folder := tmp_path / type(model).__name__).mkdir()
        Saved(folder, model, torch.rand(3, 4))
    opened = "Program(Library(library), file, weights)" if by_c else "load(file, weights=weights)"
    found = run_fresh(
        f"""
import json, os, sys, torch
from pathlib import Path
from hotstart import load
from tests.integration.c_api import Library, Program
library, folder = Path(sys.argv[1]), Path(sys.argv[2])
x = torch.rand(3, 4)
def difference(name, expected):
    file, weights = folder / name / "model.hot", folder / name / "model.weights"
    program = {opened}
    return (list(program(x))[0] - expected).abs().max().item()
one = difference("Turned", {"torch.sin(x) * 2" if by_c else "(torch.sin(x) * 2)[0]"})
os.closerange(3, 1000)
other = difference("TurnedOtherwise", {"torch.cos(x) * 3" if by_c else "(torch.cos(x) * 3)[0]"})
print(json.dumps([one, other]))
""",
        c_library / "libhotstart.so",
        tmp_path,
    )
    assert max(found) < 1e-5


@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex")
def test_numbers_that_torch_conjugates_when_they_are_read_are_conjugated(
    library: Library, tmp_path: Path
) -> None:
    x, z = torch.rand(3), torch.randn(3, dtype=torch.complex64)
    saved = Saved(tmp_path, Conjugating(), x, z)
    served, expected = Program(library, saved.file, saved.weights), saved.program(x, z)
    assert expected[1].is_conj()
    assert equal(served(x, z), list(expected))
    served.close()


class Counting(nn.Module):
    """Has a constant, a buffer that no checkpoint has and that calls write to, and two methods."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("seen", torch.full((4,), 3.0), persistent=False)
        self.table = torch.arange(4.0)

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add_(1)
        return torch.nn.functional.gelu(self.linear(x)) + self.seen * self.table

    def twice(self, x: Tensor) -> dict[str, Any]:
        return {"of": [torch.sin(self.linear(x)) * 2, x], "bias": self.linear.bias}


def test_tensors_that_the_file_brings_and_several_calls(library: Library, tmp_path: Path) -> None:
    rows = Dim("rows", min=1, max=8, ranges=[(1, 3), (6, 8)], sizes=[4])
    x = torch.rand(2, 4)
    calls = {
        "plain": hotstart.Call(args=(x,), dynamic_shapes={"x": {0: rows}}),
        "twice": hotstart.Call(args=(x,), method="twice", dynamic_shapes={"x": {0: rows}}),
    }
    torch.manual_seed(0)
    model = Counting().eval()
    program = hotstart.compile(model, calls=calls)
    file, weights = tmp_path / "model.hot", tmp_path / "model.weights"
    program.save(file, check=False)
    program.save_weights(weights)
    served = Program(library, file, weights)
    names = [served.describe(call)["name"] for call in range(served.calls())]
    plain, twice = names.index("plain"), names.index("twice")
    assert served.describe(twice)["results"] == ["of[0]", "of[1]", "bias"]
    assert served.describe(plain)["axes"] == [("rows", 1, 8, "1..8")]
    for size in (1, 2, 3, 4, 5, 7, 8):
        x = torch.rand(size, 4)
        assert equal(served(x, call=plain), [program["plain"](x)])
        expected = program["twice"](x)
        assert equal(served(x, call=twice), [*expected["of"], expected["bias"]])
    served.close()


def test_an_axis_may_be_as_large_as_numbers_go(library: Library, tmp_path: Path) -> None:
    shapes = {"x": {0: Dim("rows", min=0, max=sys.maxsize)}}
    saved = Saved(tmp_path, Turned(), torch.rand(3), dynamic_shapes=shapes)
    served = Program(library, saved.file, saved.weights)
    assert served.describe()["axes"] == [("rows", 0, sys.maxsize, f"0..{sys.maxsize}")]
    for size in (0, 1, 5):
        x = torch.rand(size)
        assert equal(served(x), [saved.program(x)])
    served.close()


class Deciding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.nn.functional.gelu(x)
        return y * 2 if x.shape[0] % 3 == 0 else y + 1


def test_variants_are_chosen_by_conditions_as_in_python(library: Library, tmp_path: Path) -> None:
    rows = Dim("rows", min=1, max=20)
    options = Options(splits=20)
    shapes = {"x": {0: rows}}
    program = hotstart.compile(
        Deciding(), (torch.rand(2, 4),), dynamic_shapes=shapes, options=options
    )
    program.save(tmp_path / "model.hot", check=False)
    program.save_weights(tmp_path / "model.weights")
    served = Program(library, tmp_path / "model.hot", tmp_path / "model.weights")
    assert len(program.report.variants) > 1
    for size in range(1, 21):
        x = torch.rand(size, 4)
        assert equal(served(x), [program(x)]), size
    served.close()


class Reading(nn.Module):
    """Does what it does by strides, so that they are part of the contract."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.nn.functional.gelu(x)
        return y * 2 if x.is_contiguous() else y


def test_a_layout_that_is_part_of_the_contract(library: Library, tmp_path: Path) -> None:
    saved = Saved(tmp_path, Reading(), torch.rand(3, 4))
    served = Program(library, saved.file, saved.weights)
    x = torch.rand(3, 4)
    assert equal(served(x), [saved.program(x)])
    with pytest.raises(Refused) as found:
        served(torch.rand(4, 3).t())
    assert str(found.value) == (
        "x: got strides (1, 3), takes strides (4, 1), since what forward does depends on them; "
        "pass it laid out so, or compile with an example of this layout"
    )
    served.close()


def test_a_program_that_takes_python_is_refused_with_the_reason(
    library: Library, tmp_path: Path
) -> None:
    options = Options(form="python")
    program = hotstart.compile(Encoder().eval(), (IDS, MASK), options=options)
    program.save(tmp_path / "model.hot", check=False)
    program.save_weights(tmp_path / "model.weights")
    with pytest.raises(
        Refused, match="runs without Python, found one without native code"
    ) as found:
        Program(library, tmp_path / "model.hot", tmp_path / "model.weights")
    assert found.value.status == ERROR


class Packed(nn.Module):
    """Has a weight that one call runs on, packed, and another one writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.rand(16, 16))

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.gelu(torch.nn.functional.linear(x, self.weight))

    def step(self, x: Tensor) -> Tensor:
        self.weight.add_(1)
        return torch.sin(x)


def test_what_is_prepared_of_weights_that_calls_change_is_refused(
    library: Library, tmp_path: Path
) -> None:
    x = torch.rand(2, 16)
    calls = {"forward": hotstart.Call(args=(x,)), "step": hotstart.Call(args=(x,), method="step")}
    for pack in ("always", False):
        program = hotstart.compile(Packed(), calls=calls, options=Options(pack_weights=pack))
        program.save(tmp_path / "model.hot", check=False)
        program.save_weights(tmp_path / "model.weights")
        if pack:
            with pytest.raises(Refused, match=r"calls change.*Options\(pack_weights=False\)"):
                Program(library, tmp_path / "model.hot", tmp_path / "model.weights")
    served = Program(library, tmp_path / "model.hot", tmp_path / "model.weights")
    names = [served.describe(call)["name"] for call in range(2)]
    for name in ("forward", "step", "forward"):
        assert equal(served(x, call=names.index(name)), [program[name](x)])
    served.close()


# --- without Python -------------------------------------------------------------------------------


class Embedder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(11, 16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16, bias=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embed(input_ids)
        x = x + self.down(nn.functional.gelu(self.up(x)))
        return (x * attention_mask.unsqueeze(-1)).sum(1)


def test_a_program_in_c_serves_without_python(c_library: Path, tmp_path: Path) -> None:
    seq = Dim("seq", min=1, max=9, sizes=[1])
    shapes = {name: {1: seq} for name in ("input_ids", "attention_mask")}
    ids = torch.tensor([[1, 2, 3]])
    saved = Saved(tmp_path, Embedder(), ids, torch.ones_like(ids), dynamic_shapes=shapes)
    built = tmp_path / "embed"
    flags = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", f"-Wl,-rpath,{c_library}")
    command = ["cc", str(EXAMPLE), f"-I{c_library}", f"-L{c_library}", *flags, "-lhotstart"]
    subprocess.run([*command, "-o", str(built)], check=True)
    with subprocess.Popen(
        [str(built), str(saved.file), str(saved.weights)],
        env={}, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        for row in ([1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 0, 1, 2]):
            process.stdin.write(" ".join(map(str, row)) + "\n")
            process.stdin.flush()
            found = torch.tensor(list(map(float, process.stdout.readline().split())))
            given = torch.tensor([row])
            assert found.equal(saved.program(given, torch.ones_like(given))[0])
        mapped = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
        libraries = {Path(line.split()[-1]).name for line in mapped if ".so" in line}
        assert "libtorch_cpu.so" in libraries
        assert not [name for name in libraries if "python" in name]
        process.stdin.close()
        assert process.wait(60) == 0


def test_the_header_is_one_for_cpp_too(c_library: Path, tmp_path: Path) -> None:
    source = tmp_path / "uses.cpp"
    source.write_text('#include "hotstart.h"\nint main() { return hotstart_version()[0] == 0; }\n')
    command = ["c++", str(source), f"-I{c_library}", f"-L{c_library}", f"-Wl,-rpath,{c_library}"]
    command += ["-Wall", "-Wextra", "-Werror", "-pedantic", "-lhotstart", "-o"]
    subprocess.run([*command, str(tmp_path / "uses")], check=True)
    subprocess.run([str(tmp_path / "uses")], check=True, env={})


def test_the_example_of_the_docs_compiles(c_library: Path, tmp_path: Path) -> None:
    text = (EXAMPLE.parents[1] / "docs" / "c.md").read_text()
    source = tmp_path / "serve.c"
    source.write_text(text.partition("```c\n")[2].partition("```")[0])
    command = ["cc", str(source), f"-I{c_library}", f"-L{c_library}", f"-Wl,-rpath,{c_library}"]
    command += ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-lhotstart", "-o"]
    subprocess.run([*command, str(tmp_path / "serve")], check=True)
    done = subprocess.run(
        [str(tmp_path / "serve")],
        env={}, cwd=tmp_path, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "model.hot: expected a file that can be read, found: No such file" in done.stderr


def test_torch_that_is_not_there_is_named(c_library: Path, saved: Saved, tmp_path: Path) -> None:
    built = tmp_path / "embed"
    command = ["cc", str(EXAMPLE), f"-I{c_library}", f"-L{c_library}", f"-Wl,-rpath,{c_library}"]
    subprocess.run([*command, "-lhotstart", "-o", str(built)], check=True)
    done = subprocess.run(
        [str(built), str(saved.file), str(saved.weights)],
        env={"HOTSTART_TORCH": str(tmp_path)}, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "does not fit here:\n  torch: expected" in done.stderr
    assert "found nothing" in done.stderr


def test_the_command_says_what_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\ntouch "$2"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    folder = tmp_path / "new" / "folder"
    assert main(["c-library", str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == {"hotstart.h", "libhotstart.so"}
    assert f"compile with: cc serve.c -I{folder} -L{folder} -lhotstart" in capsys.readouterr().out


def test_a_compiler_may_have_words_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "env c++ -O0")
    header, library = build_library(tmp_path / "a folder, and a comma")
    assert header.exists()
    assert b"libhotstart.so\0" in library.read_bytes()  # its name for the linker


def test_a_program_finds_the_library_where_it_has_been_moved(
    c_library: Path, tmp_path: Path
) -> None:
    source, moved = tmp_path / "uses.c", tmp_path / "moved"
    source.write_text(
        '#include "hotstart.h"\nint main(void) { return *hotstart_version() == 0; }\n'
    )
    built, library = tmp_path / "uses", tmp_path / "libhotstart.so"
    shutil.copy(c_library / "libhotstart.so", library)
    command = ["cc", str(source), f"-I{c_library}", str(library), "-o", str(built)]
    subprocess.run([*command, f"-Wl,-rpath,{moved}"], check=True)
    moved.mkdir()
    library.rename(moved / "libhotstart.so")
    subprocess.run([str(built)], check=True, env={})


def test_a_compiler_that_refuses_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(hotstart.ArtifactError, match="expected that false compiles it"):
        build_library(tmp_path, "false")
    assert list(tmp_path.iterdir()) == []


def test_a_compiler_of_c_is_refused(tmp_path: Path) -> None:
    with pytest.raises(hotstart.ArtifactError, match="expected that cc compiles it"):
        build_library(tmp_path, "cc")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["c-library", str(tmp_path / "file")]) == 1
    assert "file: expected a folder that can be written to" in capsys.readouterr().err


def test_a_compiler_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(hotstart.OptionsError, match="found no such-compiler"):
        build_library(tmp_path, "such-compiler")
    assert shutil.which("such-compiler") is None
