"""The check at save takes models as they are: their preconditions, and memory they do not write."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Call, Dim, Store
from hotstart.events import Event
from tests.integration import checking
from tests.integration.caching import origin

EAGER = hotstart.Options(compiler="op_by_op")
Patch = pytest.MonkeyPatch
BATCH = Dim("batch", max=4, sizes=[1])

PARTICULAR: dict[str, Call] = {
    name: Call(args=args, dynamic_shapes=dims, method=name)
    for name, args, dims in (
        (
            "last",
            (torch.randn(2, 5, 4), torch.tensor([5, 2])),
            {"h": {0: BATCH, 1: Dim("seq", min=5, max=9)}, "n": {0: BATCH}},
        ),
        ("noise", (torch.rand(3),), {"t": {0: BATCH}}),
        ("classes", (torch.tensor([1, 5]),), {"i": {0: BATCH}}),
        ("padded", (torch.tensor([4, 7]), torch.randn(6, 3)), None),
        ("repeated", (torch.randn(2, 3), torch.tensor([2, 4])), None),
        ("drawn", (torch.rand(3, 4),), {"p": {0: BATCH}}),
        ("factored", (torch.eye(3) * 2 + 0.1,), None),
        ("windows", (torch.randn(4),), None),
        (
            "bounded",
            (torch.randn(3), torch.tensor([30, 17, 20])),
            {"x": {0: BATCH}, "i": {0: BATCH}},
        ),
    )
}
X = torch.randn(3, 8)
UNWRITTEN = {"served": "partly", "allocated": "", "handed_on": "above", "returned": "allocate"}
"""Methods, with the operator that each is cut at."""


def saved(model: Any, file: Path, **settings: Any) -> dict[str, Any]:
    """Compile and save a model; what the file says of the check."""
    check_inputs = settings.pop("check_inputs", None)
    hotstart.compile(model, **{"options": EAGER, **settings}).save(file, check_inputs=check_inputs)
    found: dict[str, Any] = hotstart.inspect(file).check
    return found


@pytest.fixture(scope="module")
def particular(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("particular") / "model.hot"
    model = checking.Particular().eval()
    assert saved(model, file, calls=PARTICULAR)["unchecked"] == []
    return file


# --- preconditions --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARTICULAR)
def test_a_model_that_takes_only_some_values_is_saved_and_checked(
    name: str, particular: Path
) -> None:
    model = checking.Particular().eval()
    program = hotstart.load(particular, model)
    args = PARTICULAR[name].args
    torch.manual_seed(0)
    expected = getattr(model, name)(*args)
    torch.manual_seed(0)
    torch.testing.assert_close(program[name](*args), expected.detach())


@pytest.mark.thorough
def test_without_an_example_values_are_made_up_until_the_model_takes_them(tmp_path: Path) -> None:
    """A loaded program has no example; neither has one that was compiled on meta."""
    meta = {
        name: Call(args=[arg.to("meta") for arg in call.args], method=name,
                   dynamic_shapes=call.dynamic_shapes)
        for name, call in PARTICULAR.items()
        if name not in ("padded", "repeated", "bounded")  # whose values nobody can guess
    }  # fmt: skip
    model = checking.Particular().eval()
    found = saved(model, tmp_path / "model.hot", calls=meta)
    assert found["unchecked"] == []
    hotstart.load(tmp_path / "model.hot", model).save(tmp_path / "again.hot")
    assert hotstart.inspect(tmp_path / "again.hot").check == found


def test_weights_are_real_where_nothing_runs_on_made_up_ones(tmp_path: Path) -> None:
    found = saved(checking.Flow().eval(), tmp_path / "model.hot", args=(torch.randn(2, 3),))
    assert found["unchecked"] == []
    assert found["tensors"] > 0


def test_a_weight_that_is_real_is_not_written_to(tmp_path: Path) -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.tensor([3]))

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            return x[self.count - 4]

    model = Counter().eval()
    saved(model, tmp_path / "model.hot", args=(torch.randn(1, 2),))
    assert model.count.tolist() == [3]


def test_an_example_that_is_written_to_is_not_changed(tmp_path: Path) -> None:
    def step(x: Tensor) -> Tensor:
        x.add_(1)
        return x * 2

    x = torch.zeros(3)
    saved(step, tmp_path / "model.hot", args=(x,))
    assert x.tolist() == [0, 0, 0]


def test_inputs_that_end_the_process_are_left_and_others_tried(tmp_path: Path) -> None:
    x = torch.rand(40)
    assert saved(checking.deadly, tmp_path / "model.hot", args=(x,))["unchecked"] == []
    loaded = hotstart.load(tmp_path / "model.hot", checking.deadly)
    loaded.save(tmp_path / "again.hot")  # on made-up numbers between 0 and 1


# --- inputs that a user gives ---------------------------------------------------------------------

GUARDED = (torch.zeros(3), torch.zeros(3, dtype=torch.int64))
"""What says nothing of values."""
GOOD = (torch.ones(3), torch.tensor([170, 180, 190]))
SIZES = {"x": {0: BATCH}, "i": {0: BATCH}}


@pytest.mark.slow
def test_inputs_that_nobody_can_guess_are_given(tmp_path: Path) -> None:
    program = hotstart.compile(checking.guarded, GUARDED, dynamic_shapes=SIZES, options=EAGER)
    file = tmp_path / "model.hot"
    with pytest.raises(hotstart.ArtifactError) as caught:
        program.save(file)
    told = str(caught.value)
    assert "the example" in told
    assert "ValueError: expected values of 170 or more, found 0" in told
    assert "check_inputs=(args, kwargs)" in told
    assert "Import" not in told
    assert list(tmp_path.iterdir()) == []
    program.save(file, check_inputs=(GOOD, {}))
    assert hotstart.inspect(file).check["unchecked"] == []
    one = {"x": GOOD[0][:1], "i": GOOD[1][:1]}
    program.save(file, check_inputs=[(GOOD, {}), ((), one)])
    with pytest.raises(hotstart.ArtifactError, match="check_inputs: ValueError: expected values"):
        program.save(file, check_inputs=(GUARDED, {}))


def test_inputs_are_given_by_the_name_of_a_call(tmp_path: Path) -> None:
    calls = {"first": Call(args=GUARDED), "second": Call(args=(X, torch.tensor([170])))}
    program = hotstart.compile(checking.guarded, calls=calls, options=EAGER)
    program.save(tmp_path / "model.hot", check_inputs={"first": (GOOD, {})})
    assert hotstart.inspect(tmp_path / "model.hot").check["unchecked"] == []


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        (GOOD, hotstart.OptionsError, r"got \(Tensor, Tensor\), takes \(args, kwargs\)"),
        (X, hotstart.OptionsError, "got a Tensor, takes"),
        ([GOOD], hotstart.OptionsError, "got .Tensor, Tensor., takes"),
        ({"decode": (GOOD, {})}, hotstart.OptionsError, "the call 'decode', takes those of: ''"),
        ((GOOD, {"x": X}), hotstart.OptionsError, "multiple values"),
        ((GOOD[:1], {}), hotstart.ContractError, "^i: got nothing"),
        ((GOOD, {"more": 1}), hotstart.ContractError, "^more: got 1"),
        (((X, GOOD[1]), {}), hotstart.ContractError, r"^x: got .*\[3, 8\]"),
        (((torch.ones(9), torch.ones(9).long()), {}), hotstart.ContractError, "size 9"),
    ],
    ids=["no pair", "tensor", "no pairs", "name", "twice", "too few", "unknown", "shape", "range"],
)  # fmt: skip
def test_inputs_that_the_program_does_not_take_are_refused(
    given: Any, error: type[Exception], match: str, tmp_path: Path
) -> None:
    program = hotstart.compile(checking.guarded, GUARDED, dynamic_shapes=SIZES, options=EAGER)
    with pytest.raises(error, match=match):
        program.save(tmp_path / "model.hot", check_inputs=given)
    assert list(tmp_path.iterdir()) == []


def test_inputs_without_a_check_are_refused(tmp_path: Path) -> None:
    program = hotstart.compile(checking.guarded, GUARDED, options=EAGER)
    with pytest.raises(hotstart.OptionsError, match="check=False"):
        program.save(tmp_path / "model.hot", check=False, check_inputs=(GOOD, {}))


# --- what fails from the file only ----------------------------------------------------------------


def test_what_is_set_up_here_only_is_told_from_inputs(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(checking, "LIMIT", 1)
    program = hotstart.compile(checking.limited, (X,), options=EAGER)
    with pytest.raises(hotstart.ArtifactError) as caught:
        program.save(tmp_path / "model.hot")
    told = str(caught.value)
    assert "from its file alone" in told
    assert "the limit was not set" in told
    assert "In this process that does not happen" in told
    assert list(tmp_path.iterdir()) == []


# --- memory that nothing was written to -----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "compiler"),
    [
        *((name, "op_by_op") for name in UNWRITTEN),
        *(
            pytest.param(name, "inductor", marks=pytest.mark.slow)
            for name in ("served", "handed_on")
        ),
    ],
)
def test_memory_that_nothing_was_written_to_does_not_fail_the_check(
    name: str, compiler: Any, tmp_path: Path
) -> None:
    cut = UNWRITTEN[name]
    found = saved(
        checking.Unwritten().eval(),
        tmp_path / "model.hot",
        calls={name: Call(args=(X,), method=name)},
        split_on=[f"hotstart_check::{cut}"] if cut else "auto",
        options=hotstart.Options(compiler=compiler),
    )
    assert (found["exact"], found["unchecked"]) == (True, [])


# --- the cache ------------------------------------------------------------------------------------


def test_a_cache_keeps_what_runs_on_no_inputs_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)

    def start() -> str:
        program = hotstart.compile(
            checking.guarded, GUARDED, dynamic_shapes=SIZES, options=EAGER, cache=store
        )
        assert program(*GOOD).tolist() == [341, 361, 381]
        return origin(program)

    with caplog.at_level(logging.WARNING, "hotstart"):
        assert start() == "compiled"
    assert "variant batch=1 is kept unchecked" in caplog.text
    assert start() == "loaded"
    (file,) = (path for path in tmp_path.rglob("programs/*/*") if path.is_file())
    unchecked = hotstart.inspect(file).check["unchecked"]
    assert [name for name, _ in unchecked] == ["batch=2..4", "batch=1"]
    assert all("expected values of 170 or more" in reason for _, reason in unchecked)


@pytest.mark.thorough
def test_a_cache_keeps_nothing_that_does_not_run_from_its_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(checking, "LIMIT", 1)
    for _ in range(2):
        program = hotstart.compile(checking.limited, (X,), options=EAGER, cache=Store(tmp_path))
        assert origin(program) == "compiled"
    assert "cannot be kept" in caplog.text
    assert not [path for path in tmp_path.rglob("programs/*/*") if path.is_file()]


def test_a_cache_uses_the_values_of_the_example(tmp_path: Path) -> None:
    program = hotstart.compile(checking.guarded, GOOD, options=EAGER, cache=Store(tmp_path))
    assert origin(program) == "compiled"
    (file,) = (path for path in tmp_path.rglob("programs/*/*") if path.is_file())
    assert hotstart.inspect(file).check["unchecked"] == []


def test_a_listener_is_told_of_each_variant_as_it_is_checked(tmp_path: Path) -> None:
    model = checking.Flow().eval()
    calls = {
        name: hotstart.Call(args=(torch.randn(rows, 3),)) for name, rows in (("a", 2), ("b", 3))
    }
    program = hotstart.compile(model, calls=calls, options=EAGER)
    events: list[Event] = []
    program.save(tmp_path / "model.hot", on_event=events.append)
    names = [each.name for each in events]
    assert {each.kind for each in events} == {"variant_checked"}
    assert [each.done for each in events] == [1, 2, 3, 4]
    assert {each.total for each in events} == {4}
    assert len(set(names)) == 2
    assert names[:2] == names[2:]
    steps = [each.detail["step"] for each in events]
    assert steps == [*["run from the file"] * 2, *["compared"] * 2]
