"""What a program without torch says of itself, does besides calls, and gives to other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from hotstart import Dim, Options
from hotstart.integrations.transformers import compile_generator
from tests.integration.alone import Saved
from tests.integration.plain_records import Settings, State
from tests.opening import opens_library_alone

pytestmark = [
    pytest.mark.usefixtures("kept_pieces"),
    opens_library_alone,
]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = nn.Linear(32, 48), nn.Linear(48, 32)
        self.register_buffer("scale", torch.ones(32))

    def forward(self, x: Tensor) -> Settings:
        made = self.down(F.gelu(self.up(F.gelu(x)))) * self.scale
        return Settings(made + F.gelu(x), 2.5)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory, kept_pieces: Any) -> Saved:
    rows = {"x": {0: Dim("rows", max=8)}}
    return Saved(tmp_path_factory.mktemp("net"), Net(), torch.ones(4, 32), dynamic_shapes=rows)


@pytest.mark.slow
def test_a_program_says_the_same_of_itself(net: Saved) -> None:
    found = net.same(
        """
        report = program.report.reproducible()
        found += [report, program.report.packed.mapped, program.report.packed.tensors]
        found += [program.report.packed.seconds, program.report.packed.bytes]
        found += [program.code, [piece.name for piece in program.pieces], program.model]
        found += [list(program.weights), plain(program.weights["scale"])]
        found.append([list(each.shape) for each in program.weights.values()])
        found.append(tried(program.weights["up.weight"].tolist))
        program.refresh()
        found.append(program.release_unpacked())
        found.append(len(program.artifact.units))
        """
    )
    assert found[1] > 0
    assert found[11][0] == "ModelMismatch"
    assert "only what was packed of them" in found[11][1]


@pytest.mark.thorough
def test_what_takes_torch_says_so(net: Saved) -> None:
    found = net.run(
        """
        import copy, pickle
        for name in ("save", "save_weights", "nothing"):
            try:
                getattr(program, name)
            except AttributeError as error:
                found.append(str(error))
        found.append([hasattr(program, "save"), repr(program)])
        assert program.report.phases["bind"] > 0
        for way in (pickle.dumps, copy.copy, copy.deepcopy):
            found.append(tried(way, program))
        """,
        "alone",
    )
    for name, text in zip(("save", "save_weights"), found, strict=False):
        assert text == (
            f"{name}: expected a program of a process that has imported torch, found one that was "
            "loaded without. Import torch, and load the program again."
        )
    assert found[2] == "a program has no attribute 'nothing'"
    assert found[3][0] is False
    assert found[3][1].startswith("TorchFreeProgram(")
    assert all(each[0] == "ArtifactError" for each in found[4:])


def test_results_are_of_classes_that_are_imported(net: Saved) -> None:
    found = net.same(
        """
        found.append(type(program(array(np.ones((4, 32))))) is Settings)
        program = hotstart.load(sys.argv[1], weights=sys.argv[2], outputs="plain")
        made = program(array(np.ones((4, 32))))
        found += [type(made) is Settings, type(made).__name__, made.gain]
        """
    )
    assert found == [True, False, "Settings", 2.5]


@pytest.mark.thorough
def test_prepared_weights_are_taken_before_the_original(net: Saved, tmp_path: Path) -> None:
    original = tmp_path / "model.pt"
    torch.save(Net().state_dict(), original)
    code = f"""
        program = hotstart.load(sys.argv[1], weights=[sys.argv[2], {str(original)!r}])
        found += [type(program).__name__, program.report.packed.mapped > 0]
    """
    assert net.run(code, "alone") == ["TorchFreeProgram", True]
    other = Saved(tmp_path, nn.Sequential(nn.Linear(4, 4), nn.GELU()), torch.ones(2, 4))
    code = f"""
        other = hotstart.load(sys.argv[1], weights=[{str(other.weights)!r}, {str(original)!r}])
        found += [type(other).__name__, other.report.packed.mapped]
        for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
            del sys.modules[name]  # which was imported for the original, as it should be
    """
    assert net.run(code, "alone") == ["Program", 0]


class Halves(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, torch.dtype, State]:
        return F.gelu(x) + 1, F.gelu(y) * 2, x.dtype, State(x.device, y.shape[0])


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory, kept_pieces: Any) -> Saved:
    x = torch.ones(4)
    return Saved(tmp_path_factory.mktemp("halves"), Halves(), x.bfloat16(), x.half())


@pytest.mark.thorough
def test_half_precision_and_constants_of_torch(halves: Saved) -> None:
    found = halves.run(
        """
        y = np.array([1, 2, 3, 4], dtype="float16")
        from hotstart.torchfree.arrays import Array
        bits = (np.array([1, 2, 3, 4], dtype="float32").view("uint32") >> 16).astype("uint16")
        x = Array(bits.ctypes.data, "bfloat16", (4,), (1,), bits)
        class Speaks:  # as another library does
            def __dlpack__(self, **given): return x.__dlpack__(**given)
            def __dlpack_device__(self): return x.__dlpack_device__()
        for each in (x, Speaks()):
            one, other, dtype, state = program(each, y)
            found += [one.dtype, one.tolist(), other.dtype, other.tolist(), repr(dtype)]
        found += [repr(state.last), state.count]
        found.append(tried(np.asarray, one))
        try:
            memoryview(one)
        except (BufferError, TypeError):  # which Python 3.11 has for every class
            found.append("no buffer")
        found.append(tried(program, [1.0, 2.0, 3.0, 4.0], y))
        found.append(tried(program, np.ones(4, "float32"), y))
        """,
        "alone",
    )
    x = torch.tensor([1.0, 2, 3, 4])
    one, other, *_ = halves.program(x.bfloat16(), x.half())
    for first in (0, 5):
        assert found[first : first + 5] == [
            *("bfloat16", one.tolist(), "float16", other.tolist(), "torch.bfloat16")
        ]
    assert found[10:12] == ["device(type='cpu')", 4]
    assert found[12][0] == "TypeError"
    assert "Install ml_dtypes" in found[12][1]
    assert found[14] == [
        "ContractError",
        "x: got a list of 4, takes torch.bfloat16 [4] on cpu; pass an array of this dtype",
    ]
    assert "x: got torch.float32 [4] on cpu, takes torch.bfloat16" in found[15][1]


def test_results_go_to_other_libraries_without_a_copy(net: Saved) -> None:
    found = net.run(
        """
        import gc, sys
        made = program(np.ones((4, 32), "float32")).bias
        taken = np.from_dlpack(made)
        found.append(taken.__array_interface__["data"][0] == np.asarray(made).ctypes.data)
        expected = taken.copy()
        kept = sys.getrefcount(made)
        capsules = [made.__dlpack__(), made.__dlpack__(max_version=(1, 0))]
        found.append(sys.getrefcount(made) - kept)
        del capsules
        gc.collect()
        found.append(sys.getrefcount(made) - kept)
        del made, program
        gc.collect()
        junk = [bytearray(1 << 12) for _ in range(1000)]
        found.append(bool((taken == expected).all()))
        frozen = np.ones((4, 32), "float32"); frozen.flags.writeable = False
        from hotstart.torchfree.taken import read
        shown = read(frozen, "float32")
        found.append(np.from_dlpack(shown).flags.writeable)
        found.append(tried(shown.__dlpack__))
        found.append(tried(shown.__dlpack__, copy=True)[0])
        found.append([shown.T.shape, shown.mT.strides, np.asarray(shown.T).shape])
        """,
        "alone",
    )
    assert found[0] is True
    assert found[1] == 2
    assert found[2] == 0
    assert found[3] is True
    assert found[4] is False
    assert found[5][0] == "BufferError"
    assert found[6] == "BufferError"
    assert found[7] == [[32, 4], [1, 32], [32, 4]]


@pytest.mark.slow
def test_a_prompt_and_the_tokens_after_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        num_hidden_layers=2, hidden_size=64, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=128, vocab_size=128, pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    generator = compile_generator(transformers.LlamaForCausalLM(config).eval(), max_length=24)
    saved = Saved.__new__(Saved)
    saved.file, saved.weights = tmp_path / "model.hot", tmp_path / "model.weights"
    generator.save(saved.file, check=False)
    generator.save_weights(saved.weights)
    prompt = torch.tensor([[5, 6, 7, 8]])
    expected = generator.generate(prompt, max_new_tokens=12, do_sample=False).tolist()
    found = saved.run(
        """
        def generated(tokens, count):
            for name, cached in program.weights.items():
                if name.startswith(("keys_", "values_", "length_")):
                    np.asarray(cached)[...] = 0
            step, filled, tokens = tokens, 0, list(tokens)
            for _ in range(count):
                places = [[*range(filled, filled + len(step))]]
                logits = program(input_ids=[step], position_ids=places, logits_to_keep=1)
                filled += len(step)
                step = [int(np.asarray(logits)[0, -1].argmax())]
                tokens += step
            return tokens
        found = [generated([5, 6, 7, 8], 12), generated([5, 6, 7, 8], 12)]
        """,
        "alone",
    )
    assert found == [*expected, *expected]


@pytest.mark.thorough
def test_native_code_is_asked_for_where_it_is_of_operators_alone(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16)).bfloat16()
    x = torch.ones(2, 16, dtype=torch.bfloat16)
    saved = Saved(tmp_path, model, x, options=Options(form="native"))
    found = saved.run(
        """
        from hotstart.torchfree.arrays import Array
        bits = np.full((2, 16), 0x3F80, "uint16")
        found.append(program(Array(bits.ctypes.data, "bfloat16", (2, 16), (16, 1), bits)).tolist())
        """,
        "alone",
    )
    assert found[0] == saved.program(x).tolist()


@pytest.mark.thorough
def test_programs_built_under_autocast_run_as_they_were_built(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
    x = torch.linspace(-1, 1, 32).view(2, 16)
    with torch.autocast("cpu", torch.bfloat16):
        saved = Saved(tmp_path, model, x)
        expected = saved.program(x)
    code = f"found.append(plain(program(array({x.tolist()}))))"
    (found,) = saved.run(code, "alone")
    assert found[3] == expected.view(torch.uint8).numpy().tobytes().hex()


def test_forks_of_a_process_that_has_loaded_share_its_memory(net: Saved) -> None:
    found = net.run(
        """
        import os, pathlib
        def own():
            lines = pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines()
            return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
        for _ in range(2):
            read, write = os.pipe()
            child = os.fork()
            if not child:
                made = plain(program(np.ones((4, 32), "float32")).bias)
                with open(write, "w") as out:
                    json.dump([made, own() >> 10], out)
                os._exit(0)
            os.close(write)
            with open(read) as source:
                found.append(json.load(source))
            os.waitpid(child, 0)
        found.append(plain(program(np.ones((4, 32), "float32")).bias))
        """,
        "alone",
    )
    (one, own), (other, _), expected = found
    assert one == other == expected
    assert own < 30  # megabytes, where libtorch's table of operators alone takes 50
