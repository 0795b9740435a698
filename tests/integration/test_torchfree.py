"""Programs in processes that have not imported torch: the same answers, checks and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hotstart import ContractError, Options
from tests.integration.alone import IDS, MASK, Conjugating, Encoder, Saved
from tests.opening import opens_library_alone
from tests.processes import run_fresh

pytestmark = [
    pytest.mark.usefixtures("kept_pieces"),
    opens_library_alone,
]


@pytest.mark.thorough
def test_lists_and_numpy_arrays_give_what_tensors_give(saved: Saved) -> None:
    found = saved.without_torch(
        f"""
        ids, mask = {IDS.tolist()}, {MASK.tolist()}
        result = program(ids, mask)
        found = {{"lists": result["pooled"].tolist(), "length": result["length"]}}
        found["without numpy"] = "numpy" not in sys.modules
        import numpy
        one = program(numpy.array(ids), mask=numpy.array(mask, dtype="float32"))
        found["numpy"] = numpy.asarray(one["pooled"]).tolist()
        found["one"] = program(numpy.array([[3]]), numpy.ones((1, 1), "float32"))["pooled"].tolist()
        turned = numpy.asfortranarray(numpy.array(ids)), numpy.array(mask, dtype="float32")[:, ::1]
        found["turned"] = program(*turned)["pooled"].tolist()
        frozen = numpy.array(ids); frozen.flags.writeable = False
        found["read-only"] = program(frozen, mask)["pooled"].tolist()
        again = program(ids, program(ids, mask)["all"][1])
        found["again"] = again["pooled"].tolist()
        found["kind"] = type(program).__name__
        found["torch"] = "torch" in sys.modules
        """
    )
    expected = saved.program(IDS, MASK)
    for name in ("lists", "numpy", "turned", "read-only", "again"):
        assert torch.tensor(found[name]).equal(expected["pooled"]), name
    one = saved.program(torch.tensor([[3]]), torch.ones(1, 1))
    assert torch.tensor(found["one"]).equal(one["pooled"])
    assert found["length"] == 4
    assert found["kind"] == "TorchFreeProgram"
    assert found["without numpy"]
    assert not found["torch"]


@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex")
def test_numbers_that_torch_conjugates_when_they_are_read_are_conjugated(tmp_path: Path) -> None:
    saved = Saved(tmp_path, Conjugating(), torch.rand(3), torch.zeros(3, dtype=torch.complex64))
    found = saved.without_torch(
        """
        import numpy
        z = numpy.array([1 + 2j, 3 - 4j, 5j], "complex64")
        found = [str(each) for each in numpy.asarray(program([1.0, 2.0, 3.0], z)[1])]
        """
    )
    assert list(map(complex, found)) == [1 - 2j, 3 + 4j, -5j]


class Remembering(nn.Module):
    """Writes to a buffer, and gives a part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.add_(1)
        return torch.sin(x) + self.seen[:3], self.seen[1:]


@pytest.mark.thorough
def test_an_argument_may_not_lie_where_a_weight_does_that_calls_write_to(tmp_path: Path) -> None:
    saved = Saved(tmp_path, Remembering(), torch.ones(3))
    found = saved.without_torch(
        """
        import numpy
        part = program([1.0, 1.0, 1.0])[1]
        found = []
        for given in (part, numpy.asarray(part), numpy.array(part)):
            try:
                found.append(program(given)[1].tolist())
            except hotstart.ContractError as error:
                found.append(str(error))
        """
    )
    with pytest.raises(ContractError) as expected:
        saved.program(saved.program(torch.ones(3))[1])
    assert found == [str(expected.value), str(expected.value), [2.0, 2.0, 2.0]]


WRONG = [
    "([[1, 2]], [[1.0, 1.0, 1.0]])",
    "([[1] * 10], [[1.0] * 10])",
    "([[1]] * 5, [[1.0]] * 5)",
    "([1, 2], [[1.0, 1.0]])",
    "([[1, 2]],)",
    "([[1, 2]], [[1.0, 1.0]], 2.0)",
    "([[1, 2]], [[1.0, 1.0]], 1.0, 5)",
    "(None, [[1.0, 1.0]])",
]


def test_calls_outside_of_the_contract_get_the_errors_of_any_program(saved: Saved) -> None:
    found = saved.without_torch(
        f"""
        found = []
        for text in {WRONG!r}:
            try:
                program(*eval(text))
            except hotstart.ContractError as error:
                found.append(str(error))
        for given in ({{"other": 1}}, {{"flat": True}}):
            try:
                program([[1, 2]], [[1.0, 1.0]], **given)
            except hotstart.ContractError as error:
                found.append(str(error))
        import numpy
        try:
            program(numpy.ones((2, 2)), [[1.0, 1.0]] * 2)
        except hotstart.ContractError as error:
            found.append(str(error))
        assert "torch" not in sys.modules
        """
    )

    def tensors(given: Any) -> list[Any]:
        dtypes = [torch.int64, torch.float32]
        return [
            torch.tensor(value, dtype=dtypes[n]) if isinstance(value, list) else value
            for n, value in enumerate(given)
        ]

    expected = []
    calls = [(tensors(eval(text)), {}) for text in WRONG]
    pair = tensors(([[1, 2]], [[1.0, 1.0]]))
    calls += [(pair, {"other": 1}), (pair, {"flat": True})]
    calls.append(([torch.ones(2, 2, dtype=torch.float64), torch.ones(2, 2)], {}))
    for args, kwargs in calls:
        with pytest.raises(ContractError) as refused:
            saved.program(*args, **kwargs)
        expected.append(str(refused.value))
    assert found == expected


def test_results_outlive_program_and_inputs(saved: Saved) -> None:
    found = saved.without_torch(
        f"""
        import gc
        result = program({IDS.tolist()}, {MASK.tolist()})
        del program
        gc.collect()
        junk = [bytearray(1 << 16) for _ in range(64)]
        found = result["pooled"].tolist(), result["all"][1].tolist()
        """
    )
    assert torch.tensor(found[0]).equal(saved.program(IDS, MASK)["pooled"])
    assert torch.tensor(found[1]).equal(MASK)


@pytest.mark.thorough
def test_threads_share_a_program(saved: Saved) -> None:
    found = saved.without_torch(
        """
        from concurrent.futures import ThreadPoolExecutor
        def work(length):
            ids, mask = [[length] * length], [[1.0] * length]
            return {json.dumps(program(ids, mask)["pooled"].tolist()) for _ in range(100)}
        with ThreadPoolExecutor(8) as pool:
            found = [len(results) for results in pool.map(work, range(1, 9))]
        """
    )
    assert found == [1] * 8


def test_damaged_weights_are_refused(saved: Saved, tmp_path: Path) -> None:
    data = bytearray(saved.weights.read_bytes())
    data[-5000] ^= 1
    damaged = tmp_path / "damaged.weights"
    damaged.write_bytes(data)
    code = """
    import json, sys
    import hotstart
    try:
        hotstart.load(sys.argv[1], weights=sys.argv[2])
    except hotstart.CorruptArtifact as error:
        print(json.dumps([str(error), "torch" in sys.modules]))
    """
    text, imported = run_fresh(code, saved.file, damaged)
    assert "damaged.weights: memory: expected SHA-256" in text
    assert not imported


class GivesTheAdjoint(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.nn.functional.gelu(x) * 2, x.mH


def test_a_program_that_takes_torch_imports_it(tmp_path: Path) -> None:
    saved = Saved(tmp_path, GivesTheAdjoint(), torch.ones(2, 3), options=Options())
    found = saved.without_torch(
        """
        import torch
        found = [type(program).__name__, program(torch.ones(2, 3))[1].shape]
        """
    )
    assert found == ["Program", [3, 2]]


@pytest.mark.thorough
def test_other_weights_take_torch(saved: Saved, tmp_path: Path) -> None:
    torch.save(Encoder().state_dict(), tmp_path / "model.pt")
    code = """
    import json, sys
    import hotstart
    program = hotstart.load(sys.argv[1], weights=sys.argv[2])
    print(json.dumps([type(program).__name__, "torch" in sys.modules]))
    """
    assert run_fresh(code, saved.file, tmp_path / "model.pt") == ["Program", True]


@pytest.mark.thorough
def test_prepared_weights_are_packed_without_torch_too(saved: Saved) -> None:
    code = """
    import json, sys
    import hotstart
    try:
        hotstart.load(sys.argv[1], weights=sys.argv[2], pack="never")
    except hotstart.OptionsError as error:
        print(json.dumps(str(error)))
    """
    assert "got 'never' with prepared weights" in run_fresh(code, saved.file, saved.weights)


def test_no_import_waits_for_the_library_to_be_opened(saved: Saved) -> None:
    """While the linker opens a library, it opens no extension module of Python's."""
    code = """
        import importlib.machinery, json, sys
        import hotstart
        from hotstart.torchfree import start

        def opened():
            if not before:  # the first time is where opening begins
                before.update(sys.modules)
            return libtorch()

        before, libtorch = {}, start.libtorch
        start.libtorch = opened
        hotstart.load(sys.argv[1], weights=sys.argv[2])
        endings = tuple(importlib.machinery.EXTENSION_SUFFIXES)
        later = [
            name for name, module in sys.modules.items()
            if name not in before and (getattr(module, "__file__", None) or "").endswith(endings)
        ]
        print(json.dumps([later, len(before) > 0, "torch" in sys.modules]))
    """
    assert run_fresh(code, saved.file, saved.weights) == [[], True, False]


@pytest.mark.thorough
def test_kernels_that_are_linked_to_more_of_torch_import_it(saved: Saved) -> None:
    """Some compilers link every library of torch's that Inductor names; only torch finds them."""
    code = f"""
        import ctypes, json, sys
        import hotstart

        from hotstart.runtime.code import libraries

        def opened(path, module):
            if "torch" not in sys.modules:
                raise OSError("libtorch.so: cannot open shared object file")
            kept(path, module)

        libraries._opened_kernel, kept = opened, libraries._opened_kernel
        program = hotstart.load(sys.argv[1], weights=sys.argv[2])
        import torch
        result = program(torch.tensor({IDS.tolist()}), torch.tensor({MASK.tolist()}))
        print(json.dumps([type(program).__name__, result["pooled"].tolist()]))
    """
    kind, pooled = run_fresh(code, saved.file, saved.weights)
    assert kind == "Program"
    assert torch.tensor(pooled).equal(saved.program(IDS, MASK)["pooled"])


@pytest.mark.thorough
def test_torch_can_be_imported_afterwards(saved: Saved) -> None:
    found = saved.without_torch(
        f"""
        before = program({IDS.tolist()}, {MASK.tolist()})["pooled"]
        import torch
        given = torch.tensor({IDS.tolist()}), torch.tensor({MASK.tolist()})
        same = torch.from_dlpack(given[0])
        found = [before.tolist(), program(*given)["pooled"].tolist()]
        found.append(hotstart.load(sys.argv[1], weights=sys.argv[2])(*given)["pooled"].tolist())
        """
    )
    assert found[0] == found[1] == found[2]


def test_nothing_of_torch_has_to_be_there_but_its_library(saved: Saved) -> None:
    found = saved.without_torch(
        """
        import importlib.abc
        class Refuse(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path, target=None):
                assert not name.startswith("torch"), name
        sys.meta_path.insert(0, Refuse())
        found = program([[1]], [[1.0]])["length"]
        """
    )
    assert found == 1
