"""A model that reads one thing of every kind, and a change of each."""

from __future__ import annotations

import operator
import os
import types
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hotstart import Options

EAGER = Options(compiler="op_by_op")
X = torch.arange(1.0, 4.0)
Patch = pytest.MonkeyPatch


FACTOR = 2.0
TABLE = {"a": 2.0}
STEPS = [2.0, 3.0]
CHOICE = {"x"}
WEIGHT = torch.ones(3)


def helper(x: Tensor, by: float = 2.0) -> Tensor:
    return x * by


class Config:
    factor = 2.0

    def __init__(self) -> None:
        self.scale = 2.0
        self.inner = types.SimpleNamespace(eps=2.0)


class Slots:
    __slots__ = ("scale",)

    def __init__(self) -> None:
        self.scale = 2.0


class Gain(nn.Module):
    """Reads one thing of every kind."""

    shared = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.gain = 2.0
        self.config = Config()
        self.slots = Slots()
        self.scaling = {"default": 2.0}
        self.active = ["default"]
        self.merged = False
        self.tags = {"a"}
        self.nested = {"outer": {"inner": [2.0]}}
        self.drop = nn.Dropout(0.5)
        self.act: Callable[[Tensor], Tensor] = torch.sin

    def once(self, x: Tensor) -> Tensor:
        return x * self.gain

    def forward(self, x: Tensor, by: float = 1.0) -> Tensor:
        x = self.drop(self.act(self.once(x))) * self.config.scale * self.config.inner.eps
        x = x * self.config.factor * self.shared * self.slots.scale * by
        for name in self.active:
            x = x * self.scaling[name]
        if not self.merged:
            x = x + self.nested["outer"]["inner"][0]
        if "a" in self.tags:
            x = x + 1
        if hasattr(self, "extra"):
            x = x + 5
        x = x * FACTOR * TABLE["a"] * STEPS[1] + WEIGHT
        if "x" in CHOICE:
            x = x + 7
        if os.environ.get("HOTSTART_TEST_GAIN"):
            x = x + 9
        return helper(x)


CHANGES: dict[str, tuple[Callable[[Gain, Patch], None], str]] = {
    "an attribute": (lambda m, p: p.setattr(m, "gain", 5.0), r"0\.gain: expected 2\.0, found 5\.0"),
    "an attribute of another type": (
        lambda m, p: p.setattr(m, "gain", 2),
        r"0\.gain: expected 2\.0, found 2$",
    ),
    "a value of a config": (lambda m, p: p.setattr(m.config, "scale", 5.0), r"0\.config\.scale"),
    "another config": (
        lambda m, p: p.setattr(
            m, "config", types.SimpleNamespace(**{**vars(m.config)}, factor=1.0)
        ),
        r"0\.config",
    ),
    "a value further in": (
        lambda m, p: p.setattr(m.config.inner, "eps", 5.0),
        r"0\.config\.inner\.eps",
    ),
    "an attribute of a config's class": (
        lambda m, p: p.setattr(Config, "factor", 5.0),
        r"config.*factor",
    ),
    "an attribute of the module's class": (lambda m, p: p.setattr(Gain, "shared", 5.0), "shared"),
    "an object's own in place of its class'": (
        lambda m, p: p.setattr(m, "shared", 5.0, raising=False),
        "shared",
    ),
    "an object with slots": (lambda m, p: p.setattr(m.slots, "scale", 5.0), r"0\.slots"),
    "an entry of a dict": (lambda m, p: p.setitem(m.scaling, "default", 5.0), "scaling"),
    "an item of a list": (lambda m, p: operator.setitem(m.active, 0, "other"), "active"),
    "one more item": (lambda m, p: p.setattr(m, "active", ["default"] * 2), "active"),
    "an item appended": (lambda m, p: m.active.append("default"), "active"),
    "a flag": (lambda m, p: p.setattr(m, "merged", True), r"0\.merged: expected False, found True"),
    "a set": (lambda m, p: m.tags.clear(), "tags"),
    "an item of a nested list": (
        lambda m, p: operator.setitem(m.nested["outer"]["inner"], 0, 5.0),
        "nested",
    ),
    "an entry of a nested dict": (
        lambda m, p: p.setitem(m.nested, "outer", {"inner": [5.0]}),
        "nested",
    ),
    "an attribute that was not there": (
        lambda m, p: p.setattr(m, "extra", 1, raising=False),
        "extra",
    ),
    "a function that a module holds": (lambda m, p: p.setattr(m, "act", torch.cos), r"0\.act"),
    "a method of the object": (
        lambda m, p: p.setattr(m, "once", lambda x: x * 5, raising=False),
        "methods of 0",
    ),
    "a method of the class": (
        lambda m, p: p.setattr(Gain, "once", lambda self, x: x * 5),
        r"type\(0\)\.once",
    ),
    "forward of a class of torch's": (
        lambda m, p: p.setattr(nn.Dropout, "forward", lambda self, x: x * 5),
        r"type\(0\.drop\)\.forward: expected nothing",
    ),
    "a default of a method": (
        lambda m, p: p.setattr(Gain.forward, "__defaults__", (5.0,)),
        r"type\(0\)\.forward",
    ),
    "another module": (lambda m, p: setattr(m, "drop", nn.ReLU6().eval()), r"0\.drop"),
    "forward of the object": (
        lambda m, p: p.setattr(m, "forward", lambda x: x * 5, raising=False),
        "methods of 0",
    ),
    "forward of a submodule": (
        lambda m, p: p.setattr(m.drop, "forward", lambda x: x * 5, raising=False),
        r"methods of 0\.drop",
    ),
    "a hook": (
        lambda m, p: m.drop.register_forward_hook(lambda *a: a[-1] * 5) and None,
        r"methods of 0\.drop",
    ),
    "a hook before": (
        lambda m, p: m.register_forward_pre_hook(lambda m, args: (args[0] * 5,)) and None,
        "methods of 0",
    ),
    "another class": (lambda m, p: setattr(m.drop, "__class__", nn.Identity), r"0\.drop"),
    "a setting of a module of torch's": (lambda m, p: p.setattr(m.drop, "p", 0.7), r"drop\.p"),
    "a global": (lambda m, p: p.setitem(globals(), "FACTOR", 5.0), "FACTOR: expected 2.0"),
    "an entry of a global dict": (lambda m, p: p.setitem(TABLE, "a", 5.0), "TABLE"),
    "an item of a global list": (lambda m, p: operator.setitem(STEPS, 1, 5.0), "STEPS"),
    "a global set": (lambda m, p: p.setitem(globals(), "CHOICE", {"y"}), "CHOICE"),
    "a global tensor": (lambda m, p: p.setitem(globals(), "WEIGHT", torch.zeros(3)), "WEIGHT"),
    "a global function": (
        lambda m, p: p.setitem(globals(), "helper", lambda x, by=5.0: x * by),
        "helper",
    ),
    "defaults of a function": (lambda m, p: p.setattr(helper, "__defaults__", (5.0,)), "helper"),
    "code of a function": (
        lambda m, p: p.setattr(helper, "__code__", (lambda x, by=1: x + by).__code__),
        "helper",
    ),
    "a variable of the environment": (
        lambda m, p: p.setenv("HOTSTART_TEST_GAIN", "1"),
        "environment HOTSTART_TEST_GAIN",
    ),
}


NOT_SEEN_IN_EAGER = {
    "a setting of a module of torch's", "an attribute of another type", "another class",
}  # fmt: skip
"""What torch.compile guards on as well, though it makes no difference to the result here."""


COUNT = 0
