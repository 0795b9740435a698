"""What of the Python around a native program takes torch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hotstart.records.artifact import Blob
from hotstart.runtime.code.generated import code_of
from hotstart.torchfree.needs import needs_torch

UNIT = "def bind(weight):\n    call = native(0, weight)\n    return call\n"
HEAD = """
def bind(weights, units, constants, owners):
    weight, = weights
    body = native(1, weight)

    def run(seq, x):
        y, = tensors(call(body.capsule, seq, handles([x])))
"""


def artifact(run: str, header: str = "", unit: str = UNIT, operators: Any = ()) -> Any:
    """What `needs_torch` reads of an artifact whose variant ends with some lines."""
    lines = "".join(f"        {line}\n" for line in run.splitlines())
    text = f"{header}{HEAD}{lines}    return run\n"
    native = SimpleNamespace(
        units=[("key", code_of("unit", unit))],
        runs=[code_of("run", text)],
        source=Blob("", b'call("shop::twice")'),
    )
    call = SimpleNamespace(contract=SimpleNamespace(axes=["seq"]), stitched=[None])
    requirements = SimpleNamespace(operators=operators)
    return SimpleNamespace(native=native, calls=[call], requirements=requirements)


@pytest.mark.parametrize(
    ("run", "header"),
    [
        ("return (y, x, weight)", ""),
        ("return {'length': seq * 2 + 1, 'y': y}", ""),
        ("v = x.detach().mT\nreturn (y, v)", ""),
        ("v = x.storage_offset() + seq\nv = x.as_strided((seq, 1), (1, 1), v)\nreturn v", ""),
        ("if y.stride() != (seq, 1):\n    y = fit(y, (seq, 1))\nreturn y",
         "from hotstart.records.layout import fit\n"),
        ("return OrderedDict({'y': y})", "from collections import OrderedDict\n"),
        ("return (y, math.ceil(seq / 2))", "import math\n"),
        ("return (y, torch.float32, torch.device(type='cpu'))", "import torch\n"),
        ("past.clear()\npast.update({'y': y})\nmodule.last = y\nreturn y", ""),
    ],
)  # fmt: skip
def test_what_arrays_do(run: str, header: str) -> None:
    assert needs_torch(artifact(run, header)) == ""


@pytest.mark.parametrize(
    ("run", "header", "reason"),
    [
        ("return y + 1", "", "`y + 1`"),
        ("z = y\nreturn z * seq", "", "`z * seq`"),
        ("return -y", "", "`-y`"),
        ("return y[0]", "", "`y[0]`"),
        ("return y if y > 1 else x", "", "y > 1"),
        ("return y.mH", "", "`y.mH`"),
        ("return y.contiguous()", "", "`y.contiguous`"),
        ("return torch.ops.aten.relu(y)", "import torch\n", "`import torch`"),
        ("return torch.relu(y)", "import torch\n", "`import torch`"),
        ("return add(x, y)", "from operator import add\n", "`from operator import add`"),
        ("return Thing(y)", "from nowhere import Thing\n", "`from nowhere import Thing`"),
        ("return unflatten(y)", "from hotstart.records.layout import unflatten\n", "unflatten`"),
    ],
)
def test_what_they_do_not(run: str, header: str, reason: str) -> None:
    assert reason in needs_torch(artifact(run, header))


def test_units_only_hand_weights_on() -> None:
    unit = UNIT.replace("native(0, weight)", "native(0, weight.t())")
    assert "code that binds a unit has `weight.t`" in needs_torch(artifact("return y", unit=unit))


def test_an_operator_is_missed_where_native_code_calls_it() -> None:
    operators = [("shop::thrice", "")]
    assert needs_torch(artifact("return y", operators=operators)) == ""
    operators = [("shop::twice", "")]
    assert "calls shop::twice" in needs_torch(artifact("return y", operators=operators))
