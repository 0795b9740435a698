"""Forward returns numpy's arrays: memory of tensors, made in every call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim
from hotstart.records.trees import tensors_of
from tests.integration.alone import Saved
from tests.integration.c_api import Library, Program, equal
from tests.opening import opens_library_alone
from tests.semantics import both, build

pytestmark = pytest.mark.usefixtures("kept_pieces")

ROWS = {"x": {0: Dim("rows", max=8)}}


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> dict[str, Any]:
        scores = nn.functional.gelu(self.linear(x)) * 2
        label = scores.argmax(-1)
        return {"scores": scores.numpy(), "turned": scores.mT.numpy(), "label": label.cpu().numpy()}


def assert_same_arrays(found: Any, expected: Any, tolerance: float = 0.0) -> None:
    assert type(found) is type(expected) is np.ndarray
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert np.allclose(found, expected, atol=tolerance, rtol=0)


@both
def test_arrays_among_results(compiler: str) -> None:
    model = Classifier().eval().requires_grad_(False)
    program = build(model, torch.randn(3, 4), compiler=compiler, dynamic_shapes=ROWS)
    for rows in (1, 3, 8):
        x = torch.randn(rows, 4)
        found, expected = program(x), model(x)
        assert list(found) == list(expected)
        for name, array in expected.items():
            assert_same_arrays(found[name], array, 1e-6)
        assert np.shares_memory(found["scores"], found["turned"])


def test_arrays_are_compared_as_tensors_are() -> None:
    (path, tensor), *others = tensors_of({"a": [torch.ones(2).numpy()], "b": 3})
    assert (path, tensor.tolist(), others) == ("['a'][0]", [1.0, 1.0], [])


def test_an_array_of_an_argument_is_its_memory() -> None:
    def f(x: Tensor) -> tuple[Tensor, Any]:
        return x + 1, x.numpy()

    program = build(f, torch.randn(3, 4), dynamic_shapes=ROWS)
    x = torch.randn(5, 4)
    _, array = program(x)
    assert_same_arrays(array, x.numpy())
    array[0] = 7
    assert x[0].tolist() == [7] * 4


def test_what_numpy_computes_is_of_the_graph() -> None:
    def f(x: Tensor) -> tuple[Any, Any]:
        array = x.numpy()
        return np.tanh(array) * 2, np.argsort(-array, axis=-1)[:, :2]

    program = build(f, torch.randn(3, 4), dynamic_shapes=ROWS)
    x = torch.randn(6, 4)
    for found, expected in zip(program(x), f(x), strict=True):
        assert_same_arrays(found, expected, 1e-6)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, kept_pieces: Any) -> Saved:
    model = Classifier().eval().requires_grad_(False)
    return Saved(tmp_path_factory.mktemp("arrays"), model, torch.randn(3, 4), dynamic_shapes=ROWS)


@pytest.mark.thorough
def test_a_saved_program_is_checked_and_gives_arrays(saved: Saved, tmp_path: Path) -> None:
    saved.program.save(tmp_path / "checked.hot")
    loaded = hotstart.load(tmp_path / "checked.hot", Classifier().eval().requires_grad_(False))
    x = torch.randn(2, 4)
    for name, array in saved.program(x).items():
        assert_same_arrays(loaded(x)[name], array)


@pytest.mark.thorough
def test_without_torch_they_are_arrays_too(saved: Saved) -> None:
    found = saved.same(
        """
result = program(array(np.arange(8).reshape(2, 4) / 5))
found += [[type(each).__name__ for each in result.values()], plain(result)]
"""
    )
    assert found[0] == ["ndarray"] * 3


@pytest.mark.thorough
@opens_library_alone
def test_c_gives_their_memory(saved: Saved, library: Library) -> None:
    x = torch.randn(3, 4)
    plain = Saved(saved.file.parent, Plain(), x, dynamic_shapes=ROWS)
    served = Program(library, plain.file, plain.weights)
    assert equal(served(x), [torch.from_numpy(plain.program(x))])
    served.close()


class Plain(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return (nn.functional.gelu(x) * 3).numpy()
