"""Programs of every kind give in C what they give in Python, or are refused with the reason."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import ContractError, Dim, Options
from tests.integration import c_api
from tests.integration.alone import IDS, MASK, Conjugating, Encoder, Saved
from tests.integration.c_api import ERROR, At, Library, Program, Refused, equal
from tests.integration.native_models import Turned, TurnedOtherwise
from tests.opening import opens_library_alone
from tests.processes import run_fresh

pytestmark = [
    pytest.mark.usefixtures("kept_pieces"),
    opens_library_alone,
]


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


@pytest.mark.thorough
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
        served(At(results[0].tensors[1].data, seen))  # type: ignore[arg-type]
    assert str(found.value) == str(expected.value)
    library.free(results)
    served.close()


@pytest.mark.thorough
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


@pytest.mark.thorough
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


@pytest.mark.thorough
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


@pytest.mark.thorough
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


@pytest.mark.thorough
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


@pytest.mark.thorough
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


@pytest.mark.thorough
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


@pytest.mark.thorough
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
