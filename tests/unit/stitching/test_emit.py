"""What stands in generated source: literals, expressions, calls, names."""

import cmath
import collections
import dataclasses
import enum
import math
import operator
import re

import numpy as np
import pytest
import torch
from torch import fx
from torch.utils._sympy.functions import FloorDiv, Max, Min, Mod, PythonMod

from hotstart._torch.graphs.symbols import axis_symbol
from hotstart.runtime.code.identifiers import Names, assignment
from hotstart.stitching.emit import Emitter, NotExpressible, comment

Pair = collections.namedtuple("Pair", ["left", "right"])


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 3


@dataclasses.dataclass(frozen=True)
class Shard:
    dim: int
    name: str = "x"


def evaluate(emitter, source, **scope):
    """Run an expression as generated code runs it: after the header, with the constants bound."""
    namespace = dict(zip(emitter.constant_names(), emitter.constants, strict=True)) | scope
    exec("\n".join(emitter.header()), namespace)
    return eval(source, namespace)


def named(value):
    """The name of a test: the value, without where it lies in memory."""
    return getattr(value, "__qualname__", repr(value))


def roundtrip(value):
    emitter = Emitter(Names())
    return evaluate(emitter, emitter.value(value))


LITERALS = [
    None, True, False, ..., 0, -7, 10**30, 1.5, -0.25, 1e-300, math.inf, -math.inf,
    "", "it's \"quoted\"\n", b"\x00\xff", complex(1, -2), range(2, 10, 3),
    torch.float32, torch.bfloat16, torch.int8, torch.complex64, torch.bool,
    torch.device("cpu"), torch.device("cuda", 1), torch.device("meta"),
    torch.strided, torch.sparse_coo, torch.contiguous_format, torch.channels_last,
    torch.preserve_format, torch.per_tensor_affine,
    Color.RED, Level.LOW, re.IGNORECASE | re.MULTILINE, torch.nn.attention.SDPBackend.MATH,
    slice(None), slice(1, None, 2), slice(-3, 7), Shard(1), Shard(0, name="y"),
    (), (1,), (1, (2.0, None)), [], [1, [torch.int64]], {}, {"a": (1, slice(2))}, {1: "x", None: 2},
    Pair(1, [2]), torch.Size([2, 3]), torch.Size([]), torch.relu, math.sqrt, len, int,
]  # fmt: skip


@pytest.mark.parametrize("value", LITERALS, ids=named)
def test_a_literal_evaluates_to_an_equal_value_of_the_same_type(value):
    made = roundtrip(value)
    assert made == value
    assert type(made) is type(value)


def test_nan_stays_nan():
    assert math.isnan(roundtrip(math.nan))
    assert cmath.isnan(roundtrip(complex(math.nan, 1)))


@pytest.mark.parametrize("value", [-0.0, complex(-0.0, math.inf), complex(0.0, -0.0)], ids=repr)
def test_the_sign_of_zero_is_kept(value):
    assert repr(roundtrip(value)) == repr(value)


@pytest.mark.parametrize("value", [np.float64(1.5), np.int64(3), np.str_("s")], ids=repr)
def test_a_subclass_of_a_plain_type_keeps_its_type(value):
    if isinstance(value, np.int64):
        with pytest.raises(NotExpressible):  # not an int, as far as Python is concerned
            roundtrip(value)
        return
    made = roundtrip(value)
    assert made == value
    assert type(made) is type(value)


def test_a_tensor_is_handed_over_as_a_constant_once():
    emitter = Emitter(Names())
    tensor = torch.arange(3)
    assert emitter.value(tensor) == emitter.value(tensor)
    assert emitter.constants == [tensor]
    assert emitter.constants[0] is tensor


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, torch.Generator(), lambda: 0, [object()]], ids=type
)
def test_what_no_source_says_is_refused(value):
    with pytest.raises(NotExpressible):
        roundtrip(value)


# --- expressions ----------------------------------------------------------------------------------

a, b = axis_symbol("a"), axis_symbol("b")


@pytest.mark.parametrize(
    "expr",
    [
        a, a + b, 2 * a - 1, a * b * 3, (a + 1) * (b + 2), FloorDiv(a, 2), FloorDiv(a + b, 3),
        FloorDiv(3 * a, b + 1), Mod(a, 4), Mod(a + b, 3), PythonMod(a, 3), Max(a, b),
        Min(a, 2 * b, 7), 8 * FloorDiv(a + 7, 8), FloorDiv(Max(1, a - 2), 2), a**2,
        FloorDiv(FloorDiv(a, 2), 2) * 3 - 1,
    ],
    ids=str,
)  # fmt: skip
def test_an_expression_over_axes_computes_what_it_says(expr):
    emitter = Emitter(Names())
    emitter.axis("a", "n")
    emitter.axis("b", "lambda_1")
    source = emitter.value(expr)
    for n, m in [(0, 1), (1, 5), (7, 2), (16, 16)]:
        assert evaluate(emitter, source, n=n, lambda_1=m) == int(expr.subs({a: n, b: m}))


def test_expressions_stand_wherever_an_argument_does():
    emitter = Emitter(Names())
    emitter.axis("a", "a")
    assert evaluate(emitter, emitter.value([(a + 1, {"k": slice(a)})]), a=4) == [
        (5, {"k": slice(4)})
    ]


# --- nodes ----------------------------------------------------------------------------------------


def emitted(target, args=(), kwargs=None, op="call_function", **values):
    """The statement for one node, and what it computes; `values` are the tensors it reads."""
    graph = fx.Graph()
    emitter = Emitter(Names())
    inputs = {}
    for name in values:
        inputs[name] = graph.placeholder(name)
        emitter.define(inputs[name])

    def resolve(arg):
        return fx.node.map_aggregate(arg, lambda v: inputs.get(v, v) if isinstance(v, str) else v)

    node = graph.create_node(op, target, (), {}, name="result")
    source = emitter.statement(node, resolve(args), resolve(kwargs or {}), used=True)
    namespace = {emitter.variable(inputs[k]): v for k, v in values.items()}
    namespace |= zip(emitter.constant_names(), emitter.constants, strict=True)
    exec("\n".join([*emitter.header(), source]), namespace)
    return source, namespace[emitter.variable(node)]


X = torch.arange(24.0).reshape(2, 3, 4)


@pytest.mark.parametrize(
    "function",
    [
        operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv,
        operator.mod, operator.pow, operator.eq, operator.ne, operator.lt, operator.ge,
    ],
)  # fmt: skip
@pytest.mark.parametrize("other", [2, -3, 0.5, -1e-5])
def test_infix_operators_on_either_side(function, other):
    source, result = emitted(function, ("x", other), x=X)
    assert torch.equal(result, function(X, other))
    assert source.startswith("result = x ")
    _, result = emitted(function, (other, "x"), x=X + 1)
    assert torch.equal(result, function(other, X + 1)) or function is operator.pow


def test_a_negative_base_keeps_its_sign():
    assert emitted(operator.pow, (-2.0, "x"), x=torch.tensor(2.0))[1] == 4


@pytest.mark.parametrize("function", [operator.neg, operator.pos])
def test_prefix_operators(function):
    assert torch.equal(emitted(function, ("x",), x=X)[1], function(X))


def test_numbers_in_operators_have_no_parentheses():
    assert emitted(operator.mul, ("x", 2), x=X)[0] == "result = x * 2"
    assert emitted(operator.mul, (0.5, "x"), x=X)[0] == "result = 0.5 * x"


def test_an_expression_that_starts_and_ends_with_parentheses_is_one_operand():
    emitter = Emitter(Names())
    emitter.axis("a", "a")
    emitter.axis("b", "b")
    graph = fx.Graph()
    node = graph.create_node("call_function", operator.floordiv, (), {}, name="result")
    source = emitter.statement(node, (100, (a + 1) * (b + 2)), {}, used=True)
    assert evaluate(emitter, source.removeprefix("result = "), a=2, b=3) == 6


def test_in_place_functions_change_their_argument():
    x = torch.ones(2)
    _, result = emitted(operator.iadd, ("x", 2), x=x)
    assert result is x
    assert x.tolist() == [3, 3]


def test_setitem_is_an_assignment():
    graph = fx.Graph()
    emitter = Emitter(Names())
    emitter.define(graph.placeholder("x"))
    (x,) = graph.nodes
    node = graph.call_function(operator.setitem, (x, (..., slice(1, None)), 5))
    assert emitter.statement(node, node.args, {}, used=False) == "x[..., 1:] = 5"


@pytest.mark.parametrize(
    "index",
    [
        0, -1, slice(None), slice(1, 2), slice(None, None, 2), ..., None, True, (0,), (),
        (..., 0), (slice(None), slice(0, 2)), (None, 1, ..., None), [0, 1], ([0, 1], [2, 0]),
        (0, [1, 2], slice(1, None)), (slice(None), (0, 2)),
    ],
    ids=str,
)  # fmt: skip
def test_getitem_takes_every_form_of_index(index):
    assert torch.equal(emitted(operator.getitem, ("x", index), x=X)[1], X[index])


def test_methods_are_called_with_what_they_take():
    source, result = emitted(
        "sum", ("x",), {"dim": (0, 1), "dtype": torch.float64}, "call_method", x=X
    )
    assert source == "result = x.sum(dim=(0, 1), dtype=torch.float64)"
    assert torch.equal(result, X.sum((0, 1), dtype=torch.float64))


def test_a_method_of_a_number_is_called_on_it():
    assert emitted("bit_length", (5,), op="call_method")[1] == 3


@pytest.mark.parametrize(
    ("target", "line"),
    [
        (torch.nn.functional.relu, "from torch.nn.functional import relu"),
        (torch.nn.functional.gelu, "from torch.nn.functional import gelu"),
        (torch.relu, "from torch import relu"),
        (torch.fft.fft, "from torch.fft import fft"),
        (torch.linalg.norm, "from torch.linalg import norm"),
        (operator.iadd, "from operator import iadd"),
        (torch.Tensor.sin, "sin = Tensor.sin"),
        (torch.ops.aten.relu.default, "relu = torch.ops.aten.relu.default"),
        (torch.ops.aten.relu, "relu = torch.ops.aten.relu"),
        (torch.ops.aten.add.Tensor, "add_Tensor = torch.ops.aten.add.Tensor"),
        (torch.ops.higher_order.cond, "cond = torch.ops.higher_order.cond"),
    ],
)
def test_imports_name_what_a_user_would_import(target, line):
    emitter = Emitter(Names())
    name = emitter.function(target)
    assert line in emitter.header()
    assert evaluate(emitter, name) is target


def test_builtins_need_no_import():
    emitter = Emitter(Names())
    assert emitter.function(getattr) == "getattr"
    assert emitter.header() == []


def echo(*args, **kwargs):
    return args, kwargs


def test_keywords_that_are_no_identifiers_are_passed():
    kwargs = {"class": 1, "not an identifier": 2, "plain": 3}
    assert emitted(echo, (4,), kwargs)[1] == ((4,), kwargs)


def test_a_local_function_is_refused():
    with pytest.raises(NotExpressible, match="cannot be imported"):
        emitted(lambda x: x, (1,))


@pytest.mark.parametrize("op", ["call_module", "get_attr"])
def test_other_nodes_are_refused(op):
    with pytest.raises(NotExpressible):
        emitted("sub", (), op=op)


# --- names ----------------------------------------------------------------------------------------


def test_names_are_identifiers_and_never_repeat():
    names = Names(["args"])
    wanted = [
        "class",
        "len",
        "args",
        "1x",
        "a.b[0]",
        "größe",
        "",
        "match",
        "x",
        "x",
        "x_1",
        "print",
    ]
    made = [names.new(name) for name in wanted]
    assert len(set(made)) == len(made)
    for name in made:
        assert name.isidentifier()
        exec(f"{name} = 1", {})
    assert not {"class", "len", "args", "int"} & set(made)


@pytest.mark.parametrize("name", ["torch", "math", "relu", "float", "None"])
def test_a_value_may_be_called_like_what_the_code_needs(name):
    emitter = Emitter(Names())
    variable = emitter.names.new(name)
    function = emitter.function(torch.nn.functional.relu)
    emitter.axis("a", "a")
    parts = f"({function}(x), torch.float32, float('inf'), {emitter.value(math.inf)}, {variable})"
    emitter.value(torch.float32)
    result = evaluate(emitter, parts, x=torch.tensor(-1.0), **{variable: 5})
    assert result == (0, torch.float32, math.inf, math.inf, 5)


def test_two_functions_of_one_name_are_kept_apart():
    emitter = Emitter(Names())
    names = [
        emitter.function(f) for f in (torch.relu, torch.nn.functional.relu, torch.ops.aten.relu)
    ]
    assert len(set(names)) == 3
    assert evaluate(emitter, f"[{', '.join(names)}]") == [
        torch.relu,
        torch.nn.functional.relu,
        torch.ops.aten.relu,
    ]


def test_a_comment_stays_on_its_line():
    assert comment("layers.0") == "# layers.0"
    hostile = comment("layer\nimport os\u2028os.abort()")
    assert len(hostile.splitlines()) == 1


def test_an_assignment_takes_any_number_of_values():
    for values in ([], [1], [1, 2]):
        names = [f"v{i}" for i in range(len(values))]
        scope = {"source": values}
        exec(assignment(names, "source"), scope)
        assert [scope[name] for name in names] == values
