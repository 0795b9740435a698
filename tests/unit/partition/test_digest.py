"""Two graphs of one call have the same digest exactly if they compute the same."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st
from torch import fx, nn

from hotstart._torch.graphs.lazy_modules import lazy_graph_module
from hotstart._torch.graphs.symbols import fake_mode
from hotstart.capture.captured import Captured
from hotstart.capture.prepare import prepare
from hotstart.partition import cut, make_plan
from hotstart.partition.digest import argument_token, subgraph_token
from hotstart.partition.tokens import constant_token, hash_token, import_path
from hotstart.records.nested import Slot

MODE = fake_mode()


def empty(*shape: int, strides: Sequence[int] | None = None, **options: Any) -> torch.Tensor:
    with MODE:
        if strides is not None:
            return torch.empty_strided(shape, strides, **options)
        return torch.empty(shape, **options)


def digest(
    target: Any,
    arrange: Callable[..., tuple[tuple[Any, ...], dict[str, Any]]],
    *inputs: torch.Tensor,
    names: Sequence[str] = (),
    root: nn.Module | None = None,
    op: str = "call_function",
) -> str:
    """The digest of a graph of one call; `arrange` makes its arguments from the placeholders."""
    graph = fx.Graph()
    placeholders = []
    for index, example in enumerate(inputs):
        node = graph.placeholder(names[index] if names else f"input_{index}")
        node.meta["example_value"] = example
        placeholders.append(node)
    args, kwargs = arrange(*placeholders)
    made = graph.create_node(op, target, args, kwargs)
    made.meta["example_value"] = inputs[0] if inputs else None
    graph.output((made,))
    captured = Captured(
        graph=graph,
        module=lazy_graph_module(root or nn.Module(), graph),
        inputs=tuple(Slot("arg", index) for index in range(len(inputs))),
        symbols={},
        outputs=Slot("out", 0),
        updates=(),
        conditions=(),
        fixed={},
        modes=(),
    )
    prepare(graph, str)
    (piece,) = make_plan(*cut(captured, "auto")).pieces
    return piece.digest


def of_constant(value: Any) -> str:
    return digest(torch.add, lambda x: ((x, value), {}), empty(2, 3))


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    ONE = 1


class Pair(NamedTuple):
    left: Any
    right: Any


# --- constants ------------------------------------------------------------------------------------


LOOKALIKES = [
    1, 1.0, True, 1 + 0j, "1", b"1", Level.ONE, 0, 0.0, -0.0, False, None, "None", math.nan,
    math.inf, -math.inf, complex(0.0, -0.0), complex(0.0, 0.0), 2, 2.0, 0.1, 0.1 + 1e-17 + 1e-16,
    torch.float32, torch.float64, "torch.float32", torch.device("cpu"), torch.device("meta"), "cpu",
    torch.strided, torch.contiguous_format, torch.channels_last, Color.RED, Color.BLUE, "RED",
    ..., (), [], {}, (1,), [1], ((1,),), (1, 1), {"a": 1}, {"a": True}, {"1": 1}, {1: 1},
    Pair(1, 1), slice(1), slice(1, None), slice(None, 1, None), slice(1, 2), range(1), range(2),
    (None,), "", "(1,)",
]  # fmt: skip


def test_constants_that_look_alike_are_told_apart() -> None:
    # `slice(1)` is `slice(None, 1, None)`; nothing else in the list is equal by type and value.
    by_digest: dict[str, list[Any]] = {}
    for value in LOOKALIKES:
        by_digest.setdefault(of_constant(value), []).append(value)
    assert [v for v in by_digest.values() if len(v) > 1] == [[slice(1), slice(None, 1, None)]]


constants = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, math.inf, math.nan])
    | st.sampled_from(["", "1", "a", torch.float32, torch.int64, Color.RED]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.builds(slice, inner, inner)
        | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2)
    ),
    max_leaves=5,
)


def spelled(value: Any) -> str:
    """What tells constants apart, written independently: types and exact values."""
    if isinstance(value, dict):
        return f"dict{sorted((k, spelled(v)) for k, v in value.items())}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}{[spelled(v) for v in value]}"
    if isinstance(value, slice):
        return f"slice{spelled([value.start, value.stop, value.step])}"
    return f"{type(value).__name__}:{value!r}"


@given(constants, constants)
def test_two_constants_have_one_digest_exactly_if_type_and_value_are_the_same(
    left: Any, right: Any
) -> None:
    tokens = [hash_token(argument_token(value, constant_token)) for value in (left, right)]
    assert (tokens[0] == tokens[1]) == (spelled(left) == spelled(right))


@given(constants)
def test_a_constant_reaches_the_digest_of_its_graph_unchanged(value: Any) -> None:
    assert (of_constant(value) == of_constant(1)) == (spelled(value) == spelled(1))


# --- tensors --------------------------------------------------------------------------------------


def of_input(tensor: torch.Tensor) -> str:
    return digest(torch.relu, lambda x: ((x,), {}), tensor)


def test_everything_about_an_input_tensor_counts() -> None:
    whole = empty(64)
    inputs = [
        empty(2, 3),
        empty(3, 2),
        empty(6),
        empty(2, 3, 1),
        empty(2, 3, strides=(1, 2)),
        empty(2, 3, strides=(4, 1)),
        empty(2, 3, dtype=torch.float64),
        empty(2, 3, dtype=torch.int32),
        empty(2, 3, dtype=torch.complex64),
        empty(2, 3, dtype=torch.complex64).conj(),
        empty(2, 3, dtype=torch.complex64).conj().imag,
        empty(2, 3, device="meta"),
        whole.as_strided((2, 3), (0, 1), 0),
    ]
    assert len({of_input(tensor) for tensor in inputs}) == len(inputs)


def test_where_in_memory_an_input_begins_counts_where_an_operator_may_ask() -> None:
    begins = [empty(64)[offset : offset + 60] for offset in (0, 1, 2)]

    def of(*given: object) -> set[str]:
        operator = torch.ops.aten.as_strided.default
        return {digest(operator, lambda x: ((x, (2,), (1,), *given), {}), x) for x in begins}

    assert len(of(3)) == 3
    assert len(of()) == len(set(map(of_input, begins))) == 1


layouts = st.tuples(
    st.lists(st.integers(1, 3), min_size=2, max_size=2).map(tuple),
    st.permutations([0, 1]).map(tuple),
    st.sampled_from([torch.float32, torch.float16, torch.int64]),
    st.integers(0, 2),
)


def laid_out(layout: Any) -> torch.Tensor:
    shape, order, dtype, offset = layout
    strides = [1, 1]
    strides[order[0]] = shape[order[1]]
    return empty(16, dtype=dtype).as_strided(shape, strides, offset)


@given(layouts, layouts)
def test_two_inputs_have_one_digest_exactly_if_their_metadata_is_the_same(
    left: Any, right: Any
) -> None:
    a, b = laid_out(left), laid_out(right)
    same = (a.shape, a.stride(), a.dtype) == (b.shape, b.stride(), b.dtype)
    assert (of_input(a) == of_input(b)) == same


def test_inputs_that_share_memory_are_told_apart_from_those_that_do_not() -> None:
    def of(left: torch.Tensor, right: torch.Tensor) -> str:
        return digest(torch.add, lambda x, y: ((x, y), {}), left, right)

    shared = empty(4)
    assert of(shared[:3], shared.narrow(0, 0, 3)) != of(empty(3), empty(3))
    assert of(shared[:3], shared[:3]) != of(shared[:3], shared[1:])
    assert of(empty(3), empty(3)) == of(empty(3), empty(3))


class Holder(nn.Module):
    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("held", tensor)


def of_held(tensor: torch.Tensor) -> str:
    return digest("held", lambda *_: ((), {}), root=Holder(tensor), op="get_attr")


def test_constant_tensors_count_by_contents_type_and_shape() -> None:
    same = [torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])]
    assert of_held(same[0]) == of_held(same[1])
    different = [
        torch.tensor([1.0, 2.0]),
        torch.tensor([1.0, 3.0]),
        torch.tensor([[1.0, 2.0]]),
        torch.zeros(4),
        torch.zeros(4, dtype=torch.int32),
        torch.zeros(2, 2),
        torch.tensor(-0.0),
        torch.tensor(0.0),
        torch.empty(4, device="meta"),
    ]
    assert len(set(map(of_held, different))) == len(different)


def sub_graph(constant: Any, held: torch.Tensor | None = None) -> fx.GraphModule:
    graph = fx.Graph()
    x = graph.placeholder("x")
    other = constant if held is None else graph.get_attr("held")
    graph.output(graph.call_function(torch.add, (x, other)))
    return fx.GraphModule({} if held is None else {"held": held}, graph)


def test_sub_graphs_count_by_what_they_compute() -> None:
    assert subgraph_token(sub_graph(1)) == subgraph_token(sub_graph(1))
    different = [
        sub_graph(1),
        sub_graph(1.0),
        sub_graph(True),
        sub_graph(0, torch.zeros(4)),
        sub_graph(0, torch.zeros(4, dtype=torch.int32)),
        sub_graph(0, torch.zeros(2, 2)),
    ]
    assert len({hash_token(subgraph_token(module)) for module in different}) == len(different)


# --- operators and arguments ----------------------------------------------------------------------


def by_closure(factor: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: x * factor


def test_operators_count_with_their_overload_and_kind() -> None:
    add = torch.ops.aten.add
    targets = [add, add.Tensor, add.Scalar, torch.add, torch.Tensor.add, torch.sub, F.relu,
               torch.relu, torch.ops.aten.relu.default, by_closure(1), by_closure(2)]  # fmt: skip
    made = {digest(target, lambda x: ((x, x), {}), empty(2)) for target in targets}
    assert len(made) == len(targets)
    method = digest("add", lambda x: ((x, x), {}), empty(2), op="call_method")
    assert method not in made


def test_functions_that_are_closures_count_by_identity() -> None:
    first, second = by_closure(1), by_closure(1)
    made = [digest(f, lambda x: ((x,), {}), empty(2)) for f in (first, second, first)]
    assert made[0] != made[1]
    assert made[0] == made[2]


def test_the_arrangement_of_arguments_counts() -> None:
    arrangements: list[Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]] = [
        lambda x, y: ((x, y), {}),
        lambda x, y: ((x,), {"other": y}),
        lambda x, y: ((x,), {"out": y}),
        lambda x, y: (((x, y),), {}),
        lambda x, y: (([x, y],), {}),
        lambda x, y: (([x], [y]), {}),
        lambda x, y: ((Pair(x, y),), {}),
        lambda x, y: (({"a": x, "b": y},), {}),
        lambda x, y: ((x, y, None), {}),
        lambda x, y: ((x, y, x), {}),
        lambda x, y: ((x, y, y), {}),
        lambda x, y: ((slice(x, y),), {}),
    ]
    made = {digest(torch.cat, arrange, empty(2), empty(2)) for arrange in arrangements}
    assert len(made) == len(arrangements)


def test_the_order_of_keyword_arguments_does_not_count() -> None:
    ab = digest(torch.cat, lambda x, y: ((), {"a": x, "b": y}), empty(2), empty(2))
    assert ab != digest(torch.cat, lambda x, y: ((), {"b": x, "a": y}), empty(2), empty(2))
    numbers = [{"a": 1, "b": 2}, {"b": 2, "a": 1}]
    made = [digest(torch.cat, lambda x, n=n: ((x,), n), empty(2)) for n in numbers]
    assert made[0] == made[1]


@given(st.lists(st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True), min_size=2, max_size=2,
                unique=True))  # fmt: skip
def test_names_of_nodes_do_not_count(names: list[str]) -> None:
    def arrange(x: fx.Node, y: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (x, y), {}

    plain = digest(torch.add, arrange, empty(2), empty(2))
    assert digest(torch.add, arrange, empty(2), empty(2), names=names) == plain


def test_an_import_path_leads_back_to_the_function() -> None:
    for function in (torch.relu, F.relu, F.gelu, F.max_pool1d, F.scaled_dot_product_attention):
        path = import_path(function)
        assert path is not None
        module, name = path
        owner: Any = torch
        for part in [*module.split(".")[1:], *name.split(".")]:
            owner = getattr(owner, part)
        assert owner is function
    assert import_path(by_closure(1)) is None
