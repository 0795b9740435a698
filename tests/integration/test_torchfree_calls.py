"""Programs without torch take the calls that programs with it take, and refuse the same ones."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from hotstart import Call, Dim
from tests.integration.alone import Saved
from tests.integration.plain_records import Pair, Settings, State
from tests.opening import opens_library_alone

pytestmark = [
    pytest.mark.usefixtures("kept_pieces"),
    opens_library_alone,
]

ROWS = Dim("rows", min=1, max=4)


class Nested(nn.Module):
    """Takes arrays in every kind of container, and constants of many kinds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)

    def forward(
        self,
        batch: dict[str, Any],
        pair: Pair,
        *rest: Any,
        settings: Settings,
        state: State,
        scale: float = 1.0,
        mode: str = "sum",
        dtype: torch.dtype = torch.float32,
        **more: Any,
    ) -> dict[str, Any]:
        x = self.linear(batch["x"]) * settings.gain + pair.left
        for each in rest:
            x = x + each[0]
        x = F.gelu(x * scale + settings.bias + state.last).to(dtype)
        if more:
            x = x + more["extra"][0]
        return {mode: x.sum(-1), "pair": Pair(x, batch["x"]), "axes": (batch["deep"][0], None)}


X = torch.arange(8.0).view(2, 4)
NESTED = """
def given(**changed):
    x = array(np.arange(8).reshape(2, 4))
    args = dict(
        batch={"x": x, "deep": [array([1, 2], "int64"), "text"]},
        pair=Pair(array(np.ones((2, 4))), (1, 2.5)),
        settings=Settings(array([0.5])), state=State(array([1.0]), 7), extra=[array([2.0])],
    )
    args.update(changed)
    return args
def call(*rest, **changed):
    args = given(**changed)
    rest = rest or ([array([3.0])], [array([4.0])])
    batch, pair = args.pop("batch"), args.pop("pair")
    found.append(tried(program, batch, pair, *rest, **args))
"""


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory, kept_pieces: Any) -> Saved:
    args = ({"x": X, "deep": [torch.tensor([1, 2]), "text"]}, Pair(torch.ones(2, 4), (1, 2.5)))
    return Saved(
        tmp_path_factory.mktemp("nested"),
        Nested(),
        *args,
        [torch.tensor([3.0])],
        [torch.tensor([4.0])],
        kwargs={
            "settings": Settings(torch.tensor([0.5])),
            "state": State(torch.tensor([1.0]), 7),
            "extra": [torch.tensor([2.0])],
        },
        dynamic_shapes={"batch": {"x": {0: ROWS}}, "pair": [{0: ROWS}, None]},
    )


@pytest.mark.slow
def test_arguments_in_containers_give_the_same_bits(nested: Saved) -> None:
    found = nested.same(
        NESTED
        + """
call()
call(batch={"x": array(np.ones((3, 4))), "deep": [array([1, 2], "int64"), "text"]},
     pair=Pair(array(np.ones((3, 4))), (1, 2.5)))
found.append(program.takes(**given(scale=1.0)))
"""
    )
    assert [each[0] if isinstance(each, list) else type(each) for each in found[0].values()]


@pytest.mark.thorough
def test_containers_that_do_not_fit_get_the_same_errors(nested: Saved) -> None:
    found = nested.same(
        NESTED
        + """
x, n = array(np.arange(8).reshape(2, 4)), array([1, 2], "int64")
call(batch={"x": x})
call(batch={"deep": [n, "text"], "x": x})
call(batch={"x": x, "deep": (n, "text")})
call(batch={"x": x, "deep": [n]})
call(batch={"x": x, "deep": [n, "other"]})
call(batch={"x": x, "deep": [x, "text"]})
call(batch=[x, n])
call(batch=x)
call(batch=None)
call(pair=(x, (1, 2.5)))
call(pair=Pair(x, (1, 2.5, 3)))
call(pair=Pair(x, (True, 2.5)))
call(pair=Pair(array(np.ones((3, 4))), (1, 2.5)))
call(pair=Pair(array(np.ones((9, 4))), (1, 2.5)))
call(settings=Settings(array([0.5]), 3.0))
call(settings=State(x, 7))
odd = State(array([1.0]), 7); odd.more = 1
call(state=odd)
call(state=State(array([1.0]), None))
call([array([3.0])])
call([array([3.0])], array([4.0]))
call([array([3.0])], [array([4.0]), 1])
call(extra=[])
call(extra=None)
call(other=3)
call(mode="mean")
call(dtype="float64")
call(scale=2)
call(scale=float("nan"))
try:
    program({}, None, batch={})
except TypeError as error:
    found.append(str(error))
found.append(tried(program))
"""
    )
    assert all("got " in each[1] for each in found[:-2]), found
    assert len({each[1] for each in found[:-1]}) > 20


class Turned(nn.Module):
    """Takes more than one layout of some arguments, and reads the strides of others."""

    def forward(self, image: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        flat = x.view(-1) if x.is_contiguous() else x.t().reshape(-1)
        return F.gelu(image) + 1, F.gelu(flat) * 2, image.mT, x.T


@pytest.mark.thorough
def test_other_layouts_are_copied_counted_and_refused_as_with_torch(tmp_path: Path) -> None:
    image = torch.ones(1, 3, 4, 5).to(memory_format=torch.channels_last)
    saved = Saved(tmp_path, Turned(), image, torch.arange(6.0).view(2, 3))
    found = saved.same(
        """
        image = np.arange(60, dtype="float32").reshape(1, 3, 4, 5)
        last = np.ascontiguousarray(image.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        x = np.arange(6, dtype="float32").reshape(2, 3)
        for each in (image, last):
            found.append(tried(program, array(each), array(x)))
            found.append(program.relayouts)
        found.append(tried(program, array(last), array(x.T.copy().T)))
        found.append(tried(program, array(last), array(x.reshape(3, 2))))
        """
    )
    assert found[1] == {"image": 1}
    assert "strides (1, 2)" in found[4][1]


class Steps(nn.Module):
    """Called in several ways: by two kinds of arguments, and by a method."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = F.gelu(self.linear(x))
        return x if mask is None else x * mask.unsqueeze(-1)

    def encode(self, x: Tensor) -> Tensor:
        return F.gelu(self.linear(x)).mean(-1)


@pytest.mark.thorough
def test_several_calls_are_matched_in_order_and_by_name(tmp_path: Path) -> None:
    rows = {"x": {0: ROWS}}
    calls = {
        "plain": Call(args=(X,), dynamic_shapes=rows),
        "masked": Call(args=(X, torch.ones(2)), dynamic_shapes={**rows, "mask": {0: ROWS}}),
        "encode": Call(args=(X,), dynamic_shapes=rows, method="encode"),
    }
    saved = Saved(tmp_path, Steps(), calls=calls)
    found = saved.same(
        """
        x, mask = array(np.arange(8).reshape(2, 4)), array([1.0, 0.5])
        found.append(tried(program, x))
        found.append(tried(program, x, mask))
        found.append(tried(program, x=x, mask=None))
        found.append(tried(program["encode"], x))
        found.append(tried(program["plain"], x))
        found.append(tried(program["masked"], x, mask=mask))
        found.append(tried(program["masked"], x))
        found.append(tried(program["encode"], x, mask))
        found.append(tried(program, mask))
        found.append(tried(program, x, x))
        found.append(tried(program, x, mask, mask))
        found.append(tried(program.__getitem__, "other"))
        found += [program.takes(x), program.takes(x, mask), program.takes(mask), program.takes()]
        found.append([*program.code])
        """
    )
    assert found[0] == found[2] == found[4]
    assert found[1] == found[5]
    assert found[3] != found[0]
    assert "one of:\n  plain: x: got" in found[8][1]
    assert found[12:16] == [True, True, False, False]


@pytest.mark.thorough
def test_a_program_of_methods_only_says_so(tmp_path: Path) -> None:
    saved = Saved(tmp_path, Steps(), calls={"encode": Call(args=(X,), method="encode")})
    found = saved.same("found.append(tried(program, array(np.ones((2, 4)))))")
    assert "calls of methods: program['encode'](...)" in found[0][1]


SOMEWHERE = torch.linspace(0, 1, 4)


class Holding(nn.Module):
    """Reads tensors that no module keeps, that no checkpoint has, and gives some of them back."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)
        self.table = torch.arange(4.0)  # a plain attribute
        self.register_buffer("wide", torch.zeros(3, 4), persistent=False)

    def forward(self, x: Tensor) -> collections.OrderedDict[str, Any]:
        made = F.gelu(self.linear(x) + SOMEWHERE * self.table + self.wide.sum(0))
        made = made + torch.tensor([0.25, 0.5, 0.75, 1.0])
        return collections.OrderedDict(
            made=made,
            weight=self.linear.weight,
            rows=self.linear.weight[1:3],
            given=SOMEWHERE,
            turned=x.T,
            wide=self.wide,
        )


@pytest.mark.thorough
def test_tensors_of_the_file_and_weights_in_results(tmp_path: Path) -> None:
    saved = Saved(tmp_path, Holding(), X)
    found = saved.same(
        """
        result = program(array(np.arange(8).reshape(2, 4)))
        found.append(plain(result))
        del program
        import gc; gc.collect()
        found.append(plain(result))
        """
    )
    assert found[0] == found[1]
    assert saved.program.artifact.captured
