"""What is recorded while a module is observed, and that nothing else changes."""

from __future__ import annotations

import copy
import dataclasses
import gc
import inspect
import pickle
import threading
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import OptionsError
from tests.capturing import EAGER


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 4)

    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 1.0) -> Tensor:
        found = self.up(x) * scale
        return found if mask is None else found * mask[..., None]

    def twice(self, x: Tensor) -> Tensor:
        return self.up(x) * 2


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x).sum()


class Countdown(nn.Module):
    """Calls itself."""

    def forward(self, x: Tensor, left: int) -> Tensor:
        return x if left == 0 else self(x + 1, left - 1)


def model() -> Any:
    return Model().eval().requires_grad_(False)


def forms(calls: hotstart.ObservedCalls) -> list[dict[str, Any]]:
    """The kwargs of each call that is proposed, with shapes in place of tensors."""
    found = []
    for call in calls.propose().values():
        values = {f"{n}": value for n, value in enumerate(call.args)} | dict(call.kwargs or {})
        found.append({k: tuple(v.shape) if isinstance(v, Tensor) else v for k, v in values.items()})
    return found


def test_calls_run_as_they_would_and_nothing_stays_behind() -> None:
    served = model()
    x = torch.randn(3, 4)
    expected, signature = served(x), inspect.signature(served.encoder.forward)
    with hotstart.observe(served.encoder) as calls:
        assert torch.equal(served(x), expected)
        assert inspect.signature(served.encoder.forward) == signature
    assert "forward" not in vars(served.encoder)
    served(torch.randn(5, 4))
    assert len(calls) == 1


@pytest.mark.thorough
def test_no_tensor_is_kept() -> None:
    served = model()
    x = torch.randn(3, 4)
    held = weakref.ref(x)
    with hotstart.observe(served.encoder) as calls:
        served(x)
    del x
    gc.collect()
    assert held() is None
    assert len(calls) == 1


def test_a_call_of_forward_itself_counts() -> None:
    served = model()
    with hotstart.observe(served.encoder) as calls:
        served.encoder.forward(torch.randn(3, 4))
    assert len(calls) == 1


def test_a_call_that_raises_does_not_count_and_loses_nothing() -> None:
    served = model()
    found: list[hotstart.ObservedCalls] = []

    def work() -> None:
        with hotstart.observe(served.encoder) as calls:
            found.append(calls)
            served(torch.randn(3, 4))
            served(torch.randn(3, 5))

    with pytest.raises(RuntimeError, match="shapes"):
        work()
    assert "forward" not in vars(served.encoder)
    assert forms(found[0]) == [{"0": (3, 4)}]


def test_a_call_inside_of_a_call_is_part_of_it() -> None:
    with hotstart.observe(Countdown().eval()) as calls:
        calls.model(torch.zeros(2), 5)
    assert forms(calls) == [{"0": (2,), "1": 5}]


def test_calls_of_several_threads_all_count() -> None:
    served = model()
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        for _ in range(20):
            served(torch.randn(3, 4))

    with hotstart.observe(served.encoder) as calls:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(calls) == 80


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"]
)
def test_a_copy_is_not_observed(copied: Any) -> None:
    served = model()
    with hotstart.observe(served.encoder) as calls:
        twin = copied(served)
        assert torch.equal(twin(torch.ones(3, 4)), served(torch.ones(3, 4)))
    assert len(calls) == 1
    assert twin(torch.ones(2, 4)).ndim == 0


def test_observers_of_one_module_end_in_any_order() -> None:
    served = model()
    first, second = hotstart.observe(served.encoder), hotstart.observe(served.encoder)
    outer, inner = first.__enter__(), second.__enter__()
    served(torch.randn(3, 4))
    first.__exit__(None, None, None)
    served(torch.randn(3, 4))
    second.__exit__(None, None, None)
    served(torch.randn(3, 4))
    assert (len(outer), len(inner)) == (1, 2)
    assert "forward" not in vars(served.encoder)


def test_what_was_in_place_is_put_back() -> None:
    served = model()
    hotstart.compile_submodule(served, "encoder", (torch.zeros(3, 4),), options=EAGER)
    program = served.encoder.forward.program
    with hotstart.observe(served.encoder) as calls:
        served(torch.randn(3, 4))
    assert served.encoder.forward.program is program
    assert len(calls) == 1
    served(torch.randn(3, 4))


def test_hooks_run_and_what_they_pass_on_is_recorded() -> None:
    served = model()
    served.encoder.register_forward_pre_hook(lambda _, args: (args[0][:2],))
    with hotstart.observe(served.encoder) as calls:
        served(torch.randn(3, 4))
    assert forms(calls) == [{"0": (2, 4)}]


def test_a_program_of_the_module_runs_while_the_module_is_observed() -> None:
    served = model()
    x = torch.randn(3, 4)
    program = hotstart.compile(served.encoder, (x,), options=EAGER)
    expected = served.encoder(x)
    with hotstart.observe(served.encoder):
        assert torch.equal(program(x), expected)


def test_methods_and_several_modules_by_name() -> None:
    served = model()
    with hotstart.observe({"all": served, "twice": served.encoder.twice}) as calls:
        served(torch.randn(3, 4))
        served.encoder.twice(torch.randn(2, 4))
    assert calls.names == ("all", "twice")
    assert forms(calls["twice"]) == [{"0": (2, 4)}]
    program = hotstart.compile(calls["twice"], options=EAGER)
    x = torch.randn(2, 4)
    assert torch.equal(program(x), served.encoder.twice(x))
    with pytest.raises(OptionsError, match=r"calls\['all'\]"):
        hotstart.compile(calls, options=EAGER)
    with pytest.raises(OptionsError, match="'all', 'twice'"):
        calls["other"]


def test_what_cannot_be_observed() -> None:
    served = model()
    with pytest.raises(OptionsError, match=r"takes a torch\.nn\.Module or a bound method"):
        hotstart.observe(lambda x: x).__enter__()
    with pytest.raises(OptionsError, match=r"the same Encoder\.forward"):
        hotstart.observe({"a": served.encoder, "b": served.encoder}).__enter__()
    with pytest.raises(OptionsError, match="at least one"):
        hotstart.observe({}).__enter__()


def test_compiling_waits_for_the_end_of_the_block() -> None:
    served = model()
    with hotstart.observe(served.encoder) as calls:
        served(torch.randn(3, 4))
        with pytest.raises(OptionsError, match="after the `with` block"):
            hotstart.compile(calls, options=EAGER)


def test_arguments_that_nothing_describes_are_named() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor, parts: Any) -> Tensor:
            return x + len(list(parts))

    with hotstart.observe(Odd().eval()) as calls:
        calls.model(torch.zeros(2), iter([1, 2]))
    assert "parts" in str(calls)
    with pytest.raises(OptionsError, match=r"parts.*Observe only calls without"):
        calls.propose()


def test_an_argument_that_cannot_be_looked_at_does_not_break_the_call() -> None:
    class Fragile:
        def __init__(self) -> None:
            self.held = 1

        def __getattribute__(self, name: str) -> Any:
            if name == "__dict__":
                raise ValueError("do not look")
            return super().__getattribute__(name)

    class Takes(nn.Module):
        def forward(self, x: Tensor, fragile: Any) -> Tensor:
            return x + fragile.held

    with hotstart.observe(Takes().eval()) as calls:
        assert calls.model(torch.zeros(2), Fragile()).tolist() == [1, 1]
    with pytest.raises(OptionsError, match="do not look"):
        calls.propose()


class Double:
    """Forward as a callable object, which gets no module."""

    def __call__(self, x: Tensor) -> Tensor:
        return x * 2


class OfObject(nn.Module):
    forward = Double()


class OfClass(nn.Module):
    @classmethod
    def forward(cls, x: Tensor) -> Tensor:
        return x * 2


class Static(nn.Module):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * 2


@pytest.mark.parametrize("kind", [OfObject, OfClass, Static])
def test_a_forward_that_gets_no_module_runs_as_it_would(kind: type[nn.Module]) -> None:
    served, x = kind().eval(), torch.ones(3)
    with hotstart.observe(served):
        assert torch.equal(served(x), x * 2)
        assert torch.equal(copy.deepcopy(served)(x), x * 2)
    assert "forward" not in vars(served)


def test_an_object_that_takes_no_attributes_is_observed() -> None:
    @dataclasses.dataclass(frozen=True)
    class Scale:
        factor: float

        def scale(self, x: Tensor) -> Tensor:
            return x * self.factor

    served = Scale(2.0)
    with hotstart.observe(served.scale) as calls:
        served.scale(torch.ones(3))
    assert (len(calls), "scale" in vars(served)) == (1, False)
