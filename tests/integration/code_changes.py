"""A small package whose code is edited: what must refuse a program of before, and what must not.

Run as a module, it builds (`build`) or tries every edit (`try`): see `test_code_changes`.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import torch

import hotstart
from hotstart import Options, Store
from hotstart.artifact import compatibility

EAGER = Options(compiler="op_by_op")
X = torch.arange(1.0, 4.0)

HELPERS = '''"""Helpers."""
LIMIT = 3.0
RATE = 2.0


def scaled(x, by=2.0, *, plus=1.0):
    """Scale."""
    # a comment
    return x * by + plus


def limited(x):
    return x.clamp(max=LIMIT * 100)


def unrelated(x):
    return x - 1


class Scale:
    def __init__(self, by):
        self.by = by

    def apply(self, x):
        return x * self.by

    def unrelated(self):
        return 1


def doubled(f):
    def run(*args):
        return f(*args) * 2

    return run


unused_lambda = lambda x: x * 3
'''

MODEL = '''"""A model."""
import functools
from dataclasses import dataclass

import torch
from torch import nn

from shapes.helpers import Scale, doubled, limited, scaled, unrelated

NUMBER = 1.0
FACTORS = {"a": 2.0, "b": 3.0}
ACTIVATIONS = {"odd": lambda x: x * 3, "even": lambda x: x * 2}
CHOICE = True


def times(number):
    def wrap(f):
        @functools.wraps(f)
        def run(self, x):
            return f(self, x) * number

        return run

    return wrap


def outer(number):
    def inner(x):
        return x + number

    return inner


add = outer(4.0)


@dataclass
class Settings:
    rate: float = 2.0

    def twice(self):
        return self.rate * 2


class Base(nn.Module):
    def shared(self, x):
        return x + 1

    def overridden(self, x):
        return x + 2

    def unrelated_in_base(self):
        return 1


class Inner(nn.Module):
    def forward(self, x):
        return torch.sin(x)


class Model(Base):
    gain = 2.0

    def __init__(self):
        super().__init__()
        self.inner = Inner()
        self.scale = Scale(2.0)

    @times(3.0)
    def decorated(self, x):
        return x + 1

    @property
    def bias(self):
        return 0.5

    @staticmethod
    def halved(x):
        return x / 2

    @classmethod
    def quartered(cls, x):
        return x / 4

    if CHOICE:

        def tail(self, x):
            return x + 10

    else:

        def tail(self, x):
            return x + 20

    def overridden(self, x):
        return super().overridden(x) * 2

    @doubled
    def last(self, x):
        return x

    def forward(self, x, by=NUMBER, *, kw=NUMBER):
        """Run."""
        x = self.inner(self.shared(x)) * by * kw * self.gain
        x = self.decorated(x) + self.bias
        x = self.quartered(self.halved(x))
        x = self.overridden(self.tail(x))
        x = limited(scaled(x)) * FACTORS["a"]
        x = ACTIVATIONS["odd"](self.scale.apply(x))
        for number in (1, 2):
            x = x + [y for y in (number,)][0]
        if "z" in {"a", "b", "c"}:
            x = x * 0
        return self.last(add(x)) * Settings().twice()

    def unrelated_method(self):
        return 7
'''

MOVED = "def limited(x):\n    return x.clamp(max=LIMIT * 100)\n\n\n"

Edit = tuple[str, str, str]
"""File, old text, new text."""

REFUSED: dict[str, Edit] = {
    "a default": ("model", "NUMBER = 1.0", "NUMBER = 5.0"),
    "a default alone": ("model", "by=NUMBER", "by=5.0"),
    "a keyword default": ("model", "kw=NUMBER", "kw=5.0"),
    "the body of forward": ("model", "self.shared(x)) * by", "self.shared(x)) + by"),
    "a constant in forward": ("model", "for number in (1, 2)", "for number in (1, 3)"),
    "a comprehension in forward": ("model", "[y for y in", "[y + 1 for y in"),
    "a set in forward": ("model", '{"a", "b", "c"}', '{"z", "b", "c"}'),
    "a method": ("model", "def tail(self, x):\n            return x + 10",
                 "def tail(self, x):\n            return x + 11"),
    "a method under a condition": ("model", "CHOICE = True", "CHOICE = False"),
    "a method of a base": ("model", "x + 1\n\n    def overridden", "x + 3\n\n    def overridden"),
    "a method that super reaches": ("model", "return x + 2", "return x + 3"),
    "forward of a submodule": ("model", "torch.sin", "torch.cos"),
    "the closure of a decorator": ("model", "@times(3.0)", "@times(4.0)"),
    "the code of a decorator": ("model", "f(self, x) * number", "f(self, x) + number"),
    "a decorated method": ("model", "def decorated(self, x):\n        return x + 1",
                           "def decorated(self, x):\n        return x + 2"),
    "a decorator taken away": ("model", "    @times(3.0)\n", ""),
    "another decorator without functools.wraps": ("helpers", "f(*args) * 2", "f(*args) * 3"),
    "a property": ("model", "return 0.5", "return 0.25"),
    "a static method": ("model", "return x / 2", "return x / 3"),
    "a class method": ("model", "return x / 4", "return x / 5"),
    "an attribute of a class": ("model", "gain = 2.0", "gain = 3.0"),
    "a global": ("model", '"a": 2.0', '"a": 2.5'),
    "a global of a helper": ("helpers", "LIMIT = 3.0", "LIMIT = 0.01"),
    "a helper": ("helpers", "return x * by + plus", "return x * by - plus"),
    "a default of a helper": ("helpers", "by=2.0", "by=3.0"),
    "a keyword default of a helper": ("helpers", "plus=1.0", "plus=2.0"),
    "a helper that is another": ("model", "limited, scaled, unrelated\n",
                                 "limited, scaled, unrelated\nscaled = unrelated\n"),
    "a lambda in a dict": ("model", '"odd": lambda x: x * 3', '"odd": lambda x: x * 4'),
    "a closure in a global": ("model", "outer(4.0)", "outer(5.0)"),
    "the code of a closure in a global": ("model", "return x + number\n\n    return inner",
                                          "return x - number\n\n    return inner"),
    "a method of a class that is no module": ("helpers", "x * self.by", "x + self.by"),
    "what a constructor sets": ("model", "Scale(2.0)", "Scale(3.0)"),
    "a method overridden": ("model", "    def unrelated_method",
                            "    def shared(self, x): return x\n\n    def unrelated_method"),
    "a default of a dataclass": ("model", "rate: float = 2.0", "rate: float = 3.0"),
    "a method of a dataclass": ("model", "return self.rate * 2", "return self.rate * 3"),
    "another base": ("model", "class Model(Base):",
                     "class Mixin:\n    def shared(self, x):\n        return x + 9\n\n\n"
                     "class Model(Mixin, Base):"),
}  # fmt: skip

ACCEPTED: dict[str, Edit] = {
    "nothing": ("model", "NUMBER", "NUMBER"),
    "a comment": ("helpers", "# a comment", "# another comment\n    # and one more"),
    "a docstring": ("helpers", '"""Scale."""', '"""Scale a tensor, and add to it."""'),
    "a docstring taken away": ("helpers", '    """Scale."""\n', ""),
    "the docstring of forward": ("model", '"""Run."""', '"""Run it all."""'),
    "the docstring of the file": ("model", '"""A model."""', '"""A model of many parts."""'),
    "formatting": ("model", "x = self.decorated(x) + self.bias",
                   "x = (\n            self.decorated( x )\n            + self.bias\n        )"),
    "moved lines": ("model", "class Base", "\n\n\n\n\nclass Base"),
    "another function": ("helpers", "return x - 1", "return x - 2"),
    "another function's default": ("helpers", "def unrelated(x):", "def unrelated(x, y=3):"),
    "a function added": ("helpers", "def unrelated(x)", "def g(x): return x\n\n\ndef unrelated(x)"),
    "a function moved": ("helpers", MOVED, ""),
    "an unrelated method": ("model", "return 7", "return 8"),
    "an unrelated method of a base": ("model", "return 1\n", "return 2\n"),
    "a method added": ("model", "    def unrelated_method",
                       "    def more(self): return 3\n\n    def unrelated_method"),
    "an unrelated method of another class": ("helpers", "return 1", "return 2"),
    "a global that is not read": ("helpers", "RATE = 2.0", "RATE = 3.0"),
    "an entry that is not read": ("model", '"b": 3.0', '"b": 4.0'),
    "a lambda that is not called": ("helpers", "x * 3", "x * 4"),
    "another lambda of the dict": ("model", "lambda x: x * 2}", "lambda x: x * 5}"),
    "an import": ("model", "import functools\n", "import functools\nimport math\n"),
    "an annotation of a variable": ("model", "NUMBER = 1.0", "NUMBER: float = 1.0"),
    "from __future__": ("model", "import functools\n",
                        "from __future__ import annotations\nimport functools\n"),
}  # fmt: skip


def write(folder: Path, edit: Edit | None = None) -> None:
    """Write the package, edited, into a folder of its own."""
    sources = {"helpers": HELPERS, "model": MODEL}
    if edit is not None:
        file, old, new = edit
        assert old in sources[file], edit
        moved = f"\n\n{MOVED}" if old == MOVED else ""
        sources[file] = sources[file].replace(old, new) + moved
    package = folder / "shapes"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    for name, source in sources.items():
        (package / f"{name}.py").write_text(source)


def imported(folder: Path) -> ModuleType:
    """The package's module with the model, from a folder and not from where it was before."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "shapes"]:
        del sys.modules[name]
    sys.path[0] = str(folder)
    importlib.invalidate_caches()
    return importlib.import_module("shapes.model")


def build(folder: Path) -> None:
    """Save a program of the package as it is, and keep one in a cache."""
    write(folder / "built")
    model = imported(folder / "built").Model().eval()
    store = Store(folder / "store", check=False)
    hotstart.compile(model, (X,), options=EAGER).save(folder / "model.hot", check=False)
    hotstart.compile(model, (X,), options=EAGER, cache=store)


def tried(folder: Path, name: str, edit: Edit) -> dict[str, str]:
    """How loading from a file and from a cache, and asking about the file, end after an edit."""
    place = folder / "edited" / name.replace(" ", "_")
    write(place, edit)
    model = imported(place).Model().eval()
    expected = model(X)
    store = Store(folder / "store", check=False, policy="require")
    found: dict[str, str] = {}

    def attempt(how: str, make: object) -> None:
        try:
            program = make()  # type: ignore[operator]
            right = program is None or torch.equal(program(X), expected)
            found[how] = "fits" if right else "WRONG"
        except hotstart.HotstartError as error:
            found[how] = f"{type(error).__name__}: {error}"

    file = folder / "model.hot"
    attempt("load", lambda: hotstart.load(file, model))
    attempt(
        "cache",
        lambda: hotstart.compile(model, (X,), options=EAGER, cache=store),
    )
    attempt("check", lambda: compatibility.load_check(file))
    return found


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    sys.path.insert(0, "")
    if what == "build":
        build(where)
    else:
        edits = {**REFUSED, **ACCEPTED}
        print(json.dumps({name: tried(where, name, edit) for name, edit in edits.items()}))
