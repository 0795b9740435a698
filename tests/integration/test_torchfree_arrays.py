"""What programs take and give in processes that have not imported torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from hotstart import Options
from tests.integration.alone import Saved

pytestmark = pytest.mark.usefixtures("kept_pieces")

START = """
import copy, gc, pickle, sys
import numpy as np
import hotstart
program = hotstart.load(sys.argv[1], weights=sys.argv[2], outputs="plain")
"""


class Model(nn.Module):
    """Gives results of its own, an argument, and a view of a weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, n: Tensor) -> tuple[Tensor, ...]:
        return F.gelu(self.linear(F.gelu(x))) + n, x, self.linear.weight[1:3]


class GivesAWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.gelu(x * self.weight) + 1, self.weight


class GivesAView(GivesAWeight):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.gelu(x * self.weight) + 1, x.T


class Complex(GivesAWeight):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("turn", torch.ones(4, dtype=torch.complex64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.gelu(x * self.weight) + self.turn.abs(), torch.complex(x + 1, x)


class Calls(GivesAWeight):
    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = torch.ops.hotstart_torchfree_test.twice(x * self.weight + 1)
        return F.gelu(made)


@pytest.fixture(scope="module")
def operator() -> Iterator[None]:
    library = torch.library.Library("hotstart_torchfree_test", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")
    torch.library.register_fake("hotstart_torchfree_test::twice", torch.empty_like)
    yield
    library._destroy()


def saved(folder: Path, model: nn.Module, *args: Tensor) -> Saved:
    return Saved(folder, model, *args, options=Options(form="native"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, kept_pieces: Callable[..., object]) -> Saved:
    folder = tmp_path_factory.mktemp("torchfree")
    return saved(folder, Model(), torch.ones(3, 4), torch.tensor(1, dtype=torch.int32))


def run(files: Saved, code: str) -> str:
    command = [sys.executable, "-c", START + code, files.file, files.weights]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.mark.slow
def test_arrays_of_every_layout_give_the_same_numbers(files: Saved) -> None:
    run(
        files,
        """
x = np.arange(12, dtype=np.float32).reshape(3, 4)
n = np.array(1, np.int32)
expected = np.array(program(x, n)[0])
wide = np.zeros((6, 8), np.float32)
wide[::2, ::2] = x
read_only = x.copy()
read_only.flags.writeable = False
class Exported:
    def __dlpack__(self, **given): return x.__dlpack__()
    def __dlpack_device__(self): return x.__dlpack_device__()
class ExportedBackwards:
    def __dlpack__(self, **given): return x[::-1].__dlpack__()
    def __dlpack_device__(self): return x.__dlpack_device__()
for each in (
    x, read_only, np.asfortranarray(x), wide[::2, ::2], x[::-1].copy()[::-1],
    x[:, ::-1].copy()[:, ::-1], memoryview(x), memoryview(np.asfortranarray(x)),
    memoryview(x[::-1].copy())[::-1], memoryview(x).toreadonly(), x.tolist(), Exported(),
):
    assert np.array_equal(program(each, n)[0], expected), each
assert np.asarray(program(x, n)[1]).flags.writeable
assert not np.asarray(program(read_only, n)[1]).flags.writeable
try:
    program(ExportedBackwards(), n)
except hotstart.ContractError:
    pass
assert "torch" not in sys.modules
""",
    )


@pytest.mark.thorough
def test_lists_that_do_not_fit_are_refused_as_any_argument(files: Saved) -> None:
    run(
        files,
        """
x = np.ones((3, 4), np.float32)
for n in (2**31, -2**40, 10**400, 1.5, [1], None, "1", True):
    try:
        program(x, n)
    except hotstart.ContractError as error:
        assert str(error).startswith("n: got"), error
    else:
        raise AssertionError(n)
for bad in ([[1.0] * 4] * 2, [[1.0] * 4, [1.0] * 3, [1.0]], [[10**400] * 4] * 3, x.astype(">f4")):
    try:
        program(bad, 1)
    except hotstart.ContractError as error:
        assert str(error).startswith("x: got"), error
    else:
        raise AssertionError(bad)
assert program(x, 1)
""",
    )


@pytest.mark.thorough
def test_results_outlive_program_and_arguments_and_are_deleted_once(files: Saved) -> None:
    run(
        files,
        """
x = np.ones((3, 4), np.float32)
made, given, rows = program(x, 1)
assert type(given) is type(made)
assert np.asarray(given).ctypes.data == x.ctypes.data
for way in (pickle.dumps, copy.deepcopy):
    try:
        way(made)
    except TypeError as error:
        assert "numpy.array" in str(error)
    else:
        raise AssertionError(way)
again = copy.copy(made)
numbers = [np.array(each) for each in (made, given, rows)]
del program, x, again
gc.collect()
assert all(np.array_equal(a, b) for a, b in zip((made, given, rows), numbers))
del made, given, rows
gc.collect()
import torch
assert torch.nn.functional.linear(torch.ones(2, 3), torch.ones(3, 3)).sum() == 18
""",
    )


@pytest.mark.thorough
@pytest.mark.parametrize("model", [GivesAWeight(), GivesAView()])
def test_results_that_python_makes_of_arrays(model: nn.Module, tmp_path: Path) -> None:
    x = torch.arange(12.0).view(3, 4)
    files = saved(tmp_path, model, x)
    code = """
made, other = program(np.arange(12, dtype=np.float32).reshape(3, 4))
assert "torch" not in sys.modules
print(other.tolist())
"""
    assert run(files, code) == str(model(x)[1].tolist())


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex")
def test_complex_numbers(tmp_path: Path) -> None:
    files = saved(tmp_path, Complex(), torch.ones(4))
    run(
        files,
        """
made, turned = program(np.arange(4, dtype=np.float32))
assert np.asarray(turned).dtype == np.complex64
assert np.asarray(turned).tolist() == [1, 2 + 1j, 3 + 2j, 4 + 3j]
assert "torch" not in sys.modules
""",
    )


@pytest.mark.slow
@pytest.mark.usefixtures("operator")
def test_an_operator_that_did_not_come_with_torch_is_missed_by_the_load(tmp_path: Path) -> None:
    files = saved(tmp_path, Calls(), torch.ones(4))
    with pytest.raises(AssertionError, match="operator hotstart_torchfree_test::twice"):
        run(files, "")
