"""Programs without torch whose calls change buffers, attributes, arguments and containers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from hotstart import Call, Dim
from tests.integration.alone import Saved
from tests.integration.plain_records import State
from tests.opening import opens_library_alone
from tests.processes import run_fresh

pytestmark = [
    pytest.mark.usefixtures("kept_pieces"),
    opens_library_alone,
]


class Cached(nn.Module):
    """Fills a cache and counts, in buffers that checkpoints have and in others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)
        self.register_buffer("cache", torch.zeros(8, 4), persistent=False)
        self.register_buffer("filled", torch.zeros(1, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        places = self.filled + torch.arange(x.shape[0])
        self.cache.index_copy_(0, places, F.gelu(self.linear(x)))
        self.filled += x.shape[0]
        return (self.cache * 2).sum(0)


@pytest.mark.thorough
def test_buffers_are_the_process_own(tmp_path: Path) -> None:
    one = torch.ones(1, 4)
    calls = {
        "prefill": Call(
            args=(torch.ones(3, 4),), dynamic_shapes={"x": {0: Dim("n", max=4, min=2)}}
        ),
        "decode": Call(args=(one,)),
    }
    saved = Saved(tmp_path, Cached(), calls=calls)
    before = saved.weights.read_bytes()
    code = """
        rows = np.arange(12, dtype="float32").reshape(3, 4)
        found.append(tried(program, array(rows)))
        for number in range(4):
            found.append(tried(program["decode"], array(rows[:1] + number)))
        found.append({name: plain(program.weights[name]) for name in ("cache", "filled")})
        np.asarray(program.weights["filled"])[...] = 0
        np.asarray(program.weights["cache"])[...] = 0
        found.append(tried(program, array(rows)))
    """
    found = saved.same(code)
    assert found[0] == found[6]
    assert len({str(each) for each in found[:5]}) == 5
    assert saved.same(code) == found  # no process has seen what another one wrote
    assert saved.weights.read_bytes() == before


class Replacing(nn.Module):
    """Replaces an attribute in every call, and reads it in the next."""

    def __init__(self) -> None:
        super().__init__()
        self.last = torch.zeros(4)
        self.unread = 0

    def forward(self, x: Tensor) -> Tensor:
        made = F.gelu(x + self.last) * 2
        self.last = made * 0.5
        self.unread = 3
        return made


@pytest.mark.thorough
def test_attributes_that_calls_set_are_read_by_the_next(tmp_path: Path) -> None:
    saved = Saved(tmp_path, Replacing(), torch.ones(4))
    found = saved.same(
        """
        for number in range(3):
            found.append(tried(program, array([1, 2, 3, number])))
        found.append(plain(program.weights["last"]))
        program.refresh()
        found.append(tried(program, array([1, 2, 3, 4])))
        """
    )
    assert len({str(each) for each in found}) == 5


class Writing(nn.Module):
    """Writes to an argument, and gives it back."""

    def forward(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        cache.add_(x)
        return F.gelu(cache) * 2, cache


@pytest.mark.thorough
def test_arguments_are_written_to(tmp_path: Path) -> None:
    saved = Saved(tmp_path, Writing(), torch.ones(2, 3), torch.zeros(2, 3))
    found = saved.same(
        """
        x = array(np.arange(6).reshape(2, 3))
        cache = array(np.zeros((2, 3)))
        for _ in range(2):
            found.append(tried(program, x, cache))
            found.append(plain(cache))
        turned = array(np.zeros((3, 2))).T  # which is copied, and copied back
        found.append(tried(program, x, turned))
        found.append([plain(turned), program.relayouts])
        wide = array(np.zeros((2, 6)))
        found.append([tried(program, x, wide[:, ::2]), plain(wide)])
        found.append(tried(program, x, x))
        both = array(np.zeros((4, 3)))
        found.append(tried(program, both[:2], both[1:3]))
        found.append(tried(program, x, None))
        four, windows = array(np.zeros(4)), np.lib.stride_tricks.sliding_window_view
        parts = four.unfold(0, 3, 1) if WITH_TORCH else windows(four, 3, writeable=True)
        found.append(tried(program, x, parts))
        """
    )
    assert found[1] != found[3]
    assert "a tensor that shares memory with x" in found[7][1]
    assert "a tensor whose elements share memory, strides (1, 1)" in found[-1][1]


@pytest.mark.thorough
def test_arguments_that_cannot_be_written_to_are_refused(tmp_path: Path) -> None:
    saved = Saved(tmp_path, Writing(), torch.ones(3), torch.zeros(3))
    found = saved.run(
        """
        x = np.ones(3, "float32")
        frozen = np.zeros(3, "float32"); frozen.flags.writeable = False
        backwards = np.zeros(3, "float32")[::-1]
        import array as arrays
        given = [frozen, [0.0, 0.0, 0.0], memoryview(frozen), backwards]
        found += [tried(program, x, each) for each in given]
        own = arrays.array("f", [1, 2, 3])
        program([1.0, 1.0, 1.0], own)
        program(x, program([1.0, 1.0, 1.0], own)[1])
        found.append(own.tolist())
        """,
        "alone",
    )
    for name, text in found[:4]:
        assert name == "ContractError"
        assert text == (
            "cache: got torch.float32 [3] on cpu that cannot be written to, takes torch.float32 "
            "[3] on cpu, which the model writes to; pass an array that shares its memory and is "
            "not read-only"
        )
    assert found[4] == [4.0, 5.0, 6.0]


class Filling(nn.Module):
    """Changes a dict, a list and an object of the caller's, and gives one of them back."""

    def forward(self, x: Tensor, past: dict[str, Any], seen: list[Any], state: State) -> Any:
        past["last"] = F.gelu(x) + past["last"]
        seen.append(past["last"] * 2)
        state.last = past["last"] + state.last
        state.count = state.count + 1
        return past["last"].sum(), past


@pytest.mark.thorough
def test_containers_of_the_caller_are_changed(tmp_path: Path) -> None:
    x = torch.ones(3)
    saved = Saved(tmp_path, Filling(), x, {"last": x + 1}, [x], State(x, 3))
    found = saved.same(
        """
        x = array([1, 2, 3])
        past, seen, state = {"last": array([4, 5, 6])}, [array([7, 8, 9])], State(x, 3)
        result = program(x, past, seen, state)
        found.append([plain(result), plain(past), plain(seen), plain(state)])
        found.append(result[1] is past)
        found.append(tried(program, x, past, seen, state))
        past, seen = {"last": array([4, 5, 6])}, [array([7, 8, 9])]
        found.append(tried(program, x, past, past, state))
        """
    )
    assert found[1] is True
    assert "seen: got a list of 2" in found[2][1]


class FillingTwo(nn.Module):
    """Changes two dicts."""

    def forward(self, x: Tensor, one: dict[str, Any], other: dict[str, Any]) -> Tensor:
        one["x"], other["x"] = F.gelu(x + other["x"]), one["x"] + 1
        return one["x"] * 2


@pytest.mark.thorough
def test_a_container_that_is_changed_is_passed_once(tmp_path: Path) -> None:
    x = torch.ones(3)
    saved = Saved(tmp_path, FillingTwo(), x, {"x": x + 1}, {"x": x})
    found = saved.same(
        """
        x = array([1, 2, 3])
        one, other = {"x": x}, {"x": array([4, 5, 6])}
        found.append([tried(program, x, one, other), plain(one), plain(other)])
        found.append(tried(program, x, one, one))
        """
    )
    assert "other: got a dict that is one, too" in found[1][1]


class Chained(nn.Module):
    """Gives views of what it is given, of what it holds, and of what it has set before."""

    def __init__(self) -> None:
        super().__init__()
        self.last = torch.zeros(2, 4)
        self.register_buffer("table", torch.arange(16.0).view(4, 4), persistent=False)
        self.register_buffer("seen", torch.zeros(2, 4), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        made = F.gelu(x) + self.last + self.table[:2]
        self.seen.add_(made)
        old, self.last = self.last, made * 0.5
        return made, old[1:].t(), self.table[1:3].t(), SOMEWHERE[1:].view(3, 1), self.seen[1:]


SOMEWHERE = torch.linspace(0, 1, 4)


@pytest.mark.thorough
def test_results_keep_what_they_show_and_nothing_else(tmp_path: Path) -> None:
    saved = Saved(tmp_path, Chained(), torch.ones(2, 4))
    found = saved.same(
        """
        import gc, weakref
        x = array(np.ones((2, 4)))
        kept, first = [], None
        for _ in range(4):
            x, *views = program(x)
            kept.append(views)
            first = first or weakref.ref(x)
        gc.collect()
        found.append(first() is None)
        seen = plain(program.weights["seen"])
        del program, x
        gc.collect()
        junk = [np.full(1000, 7.0) for _ in range(1000)]
        found += [plain(views) for views in kept]
        found.append(seen)
        """
    )
    assert found[0] is True
    assert found[4][4] == found[3][4]


class Scaling(nn.Module):
    """Folds a buffer into a weight, and replaces it in every call."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(32, 32)
        self.scale = nn.Buffer(torch.ones(32, 1))

    def forward(self, x: Tensor) -> Tensor:
        made = F.linear(F.gelu(x), self.linear.weight * self.scale, self.linear.bias)
        self.scale = self.scale + 1
        return F.gelu(made)


@pytest.mark.slow
def test_what_is_prepared_anew_after_calls_takes_torch(tmp_path: Path) -> None:
    saved = Saved(tmp_path, Scaling(), torch.ones(2, 32))
    code = """
    import json, logging, sys
    import hotstart
    reasons = []
    class Keep(logging.Handler):
        def emit(self, record): reasons.append(record.getMessage())
    logging.getLogger("hotstart").addHandler(Keep())
    logging.getLogger("hotstart").setLevel("INFO")
    program = hotstart.load(sys.argv[1], weights=sys.argv[2])
    print(json.dumps([type(program).__name__, *reasons]))
    """
    kind, reason = run_fresh(code, saved.file, saved.weights)
    assert kind == "Program"
    assert "weights are prepared at every load" in reason


class Beside(nn.Module):
    """Writes to a buffer, and to an argument."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)
        self.register_buffer("seen", torch.zeros(3, 4))

    def forward(self, x: Tensor, cache: Tensor) -> Tensor:
        self.seen.add_(x)
        cache.mul_(2)
        return F.gelu(x + cache) + self.linear.bias


@pytest.mark.thorough
def test_arguments_that_lie_where_weights_do_are_refused(tmp_path: Path) -> None:
    saved = Saved(tmp_path, Beside(), torch.ones(3, 4), torch.ones(3, 4))
    found = saved.same(
        """
        x = array(np.ones((3, 4)))
        seen = program.weights["seen"]
        found.append(tried(program, x, array(np.ones((3, 4)))))
        found.append(tried(program, seen, x))
        found.append(tried(program, x, seen))
        found.append(program.takes(x, seen))
        """
    )
    assert "x: got a tensor that shares memory with the model's seen" in found[1][1]
    assert "cache: got a tensor that shares memory with the model's seen" in found[2][1]
