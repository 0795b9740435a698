"""Record what depends on weights alone as recipes, in place of evaluating it."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hotstart._torch.packing.recipes import BySize, Recipe, Separated, ancestors

if TYPE_CHECKING:
    import sympy

_MOST_GROWTH = 4
"""Bound on the size of a result that is moved out, times its weights'."""

_SMALL = 1 << 20
"""Bytes of a result that is moved out whatever the size of its weights."""

_ROWS = 16
"""Rows that every linear is packed for, so that units of different sizes share packed weights.

oneDNN takes another layout for very few rows only, and is hardly faster with it."""

_NAMESPACES = frozenset({"aten", "prims", "mkldnn"})


@dataclass(frozen=True)
class Layouts:
    """Weights of convolutions that are packed otherwise at other sizes.

    Attributes:
        size: as in `BySize`.
        low: likewise.
        chosen: likewise.
        instead: the recorded node of each weight, by the attribute that it stands in for.
    """

    size: sympy.Symbol
    low: int
    chosen: tuple[int, ...]
    instead: tuple[Mapping[str, fx.Node], ...]


class Recorder:
    """Records as recipes what freezing would evaluate.

    Attributes:
        frozen: the attribute that stands for each weight, by the weight's position.
    """

    def __init__(
        self, module: fx.GraphModule, inputs: Sequence[Any], weights: Collection[int]
    ) -> None:
        self._module = module
        self._inputs = inputs
        self._recipe = fx.Graph()
        self._mode: Any = torch._guards.detect_fake_mode(inputs)
        self._made: dict[str, fx.Node] = {}
        self._known: dict[Any, fx.Node] = {}
        self._propagated: list[Any] = []  # the graph whose examples were computed last
        self.frozen: dict[int, str] = {}
        for index, node in enumerate(module.graph.find_nodes(op="placeholder")):
            if index in weights and node.users:
                weight = self._recipe.placeholder(f"weight_{index}")
                weight.meta["val"] = node.meta["val"]
                self.frozen[index] = self._replace(node, weight)
        module.recompile()

    def propagate(self) -> None:
        """Compute the examples of all nodes, if the graph has changed since they were computed."""
        from torch._inductor.compile_fx import fake_tensor_prop

        graph = [(node, node.target, node.args, node.kwargs) for node in self._module.graph.nodes]
        if graph == self._propagated:
            return
        self._propagated = graph
        others = [value for index, value in enumerate(self._inputs) if index not in self.frozen]
        fake_tensor_prop(self._module, others, True)

    def fold(self) -> None:
        """Replace everything that depends on weights alone by attributes, and record it."""
        from torch._inductor.pattern_matcher import stable_topological_sort

        module = self._module
        stable_topological_sort(module.graph)  # passes put nodes where their last argument was
        constant = self._constant(module.graph)
        for node in constant:
            if node.op != "get_attr":
                args = fx.map_arg(node.args, constant.__getitem__)
                kwargs = fx.map_arg(node.kwargs, constant.__getitem__)
                constant[node] = self._taken_down(_overload(node.target), args, kwargs)
        for node, copy in constant.items():
            if node.op != "get_attr" and any(user not in constant for user in node.users):
                self._replace(node, copy)
        module.graph.eliminate_dead_code()
        for node in module.graph.find_nodes(op="get_attr"):
            if not node.users:
                module.graph.erase_node(node)
        module.graph.lint()
        module.recompile()

    def _taken_down(self, target: Any, args: Any, kwargs: Any) -> fx.Node:
        """Record a node of the recipe, once."""
        if target is torch.ops.mkldnn._reorder_linear_weight.default:
            args = (args[0], _ROWS)
        if target is torch.ops.aten.permute.default and _undoes(args[1], args[0]):
            before: fx.Node = args[0].args[0]
            return before
        key = (target, hashable(args), hashable(kwargs))
        if key not in self._known:
            node = self._recipe.create_node("call_function", target, args, kwargs)
            with self._mode:
                node.meta["val"] = _example(node)
            self._known[key] = node
        return self._known[key]

    def _constant(self, graph: fx.Graph) -> dict[fx.Node, Any]:
        """Find the nodes that depend on weights alone, with the recipe's node of each attribute."""
        found: dict[fx.Node, Any] = {}
        returned = _returned(graph)
        for node in graph.nodes:
            if node in returned:
                continue
            if node.op == "get_attr":
                found[node] = self._made.get(node.target) or self._scalar(str(node.target))
            elif (
                node.op == "call_function"
                and _is_plain(node)
                and node.all_input_nodes
                and all(other in found for other in node.all_input_nodes)
            ):
                found[node] = None
        # Inputs of the body must be tensors, and should not be much larger than their weights.
        while kept := [node for node in found if self._stays(node, found)]:
            for node in kept:
                del found[node]
        return found

    def _stays(self, node: fx.Node, found: Mapping[fx.Node, Any]) -> bool:
        """Tell whether a node is part of the body, given what is found to be moved out of it."""
        if node.op == "get_attr":
            return False
        if any(other not in found for other in node.all_input_nodes):
            return True
        if all(user in found for user in node.users):
            return False
        value = node.meta.get("val", None)
        if value is None:  # made by a pass of Inductor's, which packs or transposes
            return node.target is torch.ops.mkldnn._reorder_mkldnn_rnn_layer_weight.default
        if not isinstance(value, torch.Tensor):
            return True
        size = _nbytes(value)
        read = (one.meta["val"] for one in ancestors(node) if one.op == "get_attr")
        return size > _SMALL and size > _MOST_GROWTH * sum(map(_nbytes, read))

    def _scalar(self, name: str) -> fx.Node:
        """A number that a pass put into a tensor."""
        value = getattr(self._module, name)
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            raise ValueError(f"a pass made a constant of {tuple(value.shape)}")
        with torch.utils._python_dispatch._disable_current_modes():
            number = value.item()
        node = self._recipe.call_function(
            torch.ops.aten.full.default,
            (list(value.shape), number),
            {"dtype": value.dtype, "device": value.device, "pin_memory": False},
        )
        node.meta["val"] = self._mode.from_tensor(value)
        return node  # not known by name, as passes use the same name for the next number

    def _replace(self, node: fx.Node, made: fx.Node) -> str:
        """Put an attribute in the place of a node; its name."""
        name = f"_prepared_{len(self._made)}"
        value = made.meta["val"]
        self._module.register_buffer(name, value)
        with node.graph.inserting_before(node):
            attribute = node.graph.get_attr(name)
        attribute.meta.update(node.meta)
        attribute.meta["val"] = value
        node.replace_all_uses_with(attribute)
        node.graph.erase_node(node)
        self._made[name] = made
        return name

    def packed_for(self, attribute: fx.Node, shape: Sequence[int]) -> fx.Node:
        """Record a convolution's weight, packed for inputs of another shape."""
        packed = self._made[str(attribute.target)]
        return self._taken_down(packed.target, (*packed.args[:-1], list(shape)), packed.kwargs)

    def separated(self, layouts: Layouts | None) -> Separated:
        """The graph as a body that takes weights and what was made of them as inputs.

        Args:
            layouts: weights of convolutions that are packed otherwise at other sizes.
        """
        graph = self._module.graph
        used = list(graph.find_nodes(op="get_attr"))
        made = list(dict.fromkeys(self._made[str(node.target)] for node in used))
        recipes = self._recipes([node for node in made if node.op != "placeholder"])
        raw = {self._made[name]: index for index, name in self.frozen.items()}
        placeholders = dict(
            zip(
                (i for i in range(len(self._inputs)) if i not in self.frozen),
                graph.find_nodes(op="placeholder"),
                strict=True,
            )
        )
        kept = [*placeholders, *(raw[node] for node in made if node in raw)]
        inputs = [self._inputs[index] for index in kept]
        first = next(iter(graph.nodes))
        for node in graph.find_nodes(op="placeholder"):
            first = node.next
        taken: dict[fx.Node, fx.Node] = {}
        prepared = [node for group, _ in recipes for node in group]
        with graph.inserting_before(first):
            for node in (*(node for node in made if node in raw), *prepared):
                name = node.name if node in raw else f"prepared_{len(taken)}"
                taken[node] = graph.placeholder(name)
                taken[node].meta["val"] = node.meta["val"]
        for node in used:
            node.replace_all_uses_with(taken[self._made[str(node.target)]])
            graph.erase_node(node)
        graph.lint()
        self._module.recompile()
        inputs += [node.meta["val"] for node in prepared]
        by_size = None
        if layouts is not None:
            numbers = {node: number for number, node in enumerate(prepared)}
            instead = [
                {
                    numbers[self._made[name]]: self._as_recipe([node], raw)
                    for name, node in each.items()
                }
                for each in layouts.instead
            ]
            by_size = BySize(layouts.size, layouts.low, layouts.chosen, tuple(instead))
        return Separated(
            tuple(kept), tuple(inputs), tuple(recipe for _, recipe in recipes), by_size
        )

    def _recipes(self, outputs: Sequence[fx.Node]) -> list[tuple[list[fx.Node], Recipe]]:
        """A recipe for each set of results that share a computation, with its results."""
        computed = {node: _computed_by(node) for node in outputs}
        groups: list[list[fx.Node]] = []
        for node in outputs:
            near = [g for g in groups if any(computed[node] & computed[other] for other in g)]
            groups = [group for group in groups if group not in near]
            groups.append([*(other for group in near for other in group), node])
        raw = {self._made[name]: index for index, name in self.frozen.items()}
        return [(group, self._as_recipe(group, raw)) for group in groups]

    def _as_recipe(self, outputs: list[fx.Node], raw: Mapping[fx.Node, int]) -> Recipe:
        needed = ancestors(*outputs)
        nodes = [node for node in self._recipe.nodes if node in needed]
        weights = [node for node in nodes if node in raw]
        module = _as_module(nodes, outputs)
        packs = any(_unpacked(node) is not None for node in nodes)
        return Recipe(
            module,
            _as_module(nodes, outputs, unpacked=True) if packs else None,
            tuple(raw[node] for node in weights),
            len(outputs),
        )


def _as_module(
    nodes: Sequence[fx.Node], outputs: Sequence[fx.Node], *, unpacked: bool = False
) -> fx.GraphModule:
    """A module of some nodes; the same computation gets the same names, wherever it came from."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        if node.op == "placeholder":
            copies[node] = graph.placeholder(f"weight_{len(copies)}")
    for node in nodes:
        if node.op == "placeholder":
            continue
        instead = _unpacked(node) if unpacked else None
        copies[node] = (
            copies[instead]
            if instead is not None
            else graph.create_node(
                "call_function",
                node.target,
                fx.map_arg(node.args, copies.__getitem__),
                fx.map_arg(node.kwargs, copies.__getitem__),
            )
        )
    graph.output(tuple(copies[node] for node in outputs))
    graph.eliminate_dead_code()
    return fx.GraphModule(torch.nn.Module(), graph)


def _overload(target: Any) -> Any:
    """The operator that a node calls; passes write some by the name they share with others."""
    return target.default if isinstance(target, torch._ops.OpOverloadPacket) else target


def _undoes(dims: Sequence[int], node: fx.Node) -> bool:
    """Tell whether a permutation leads back to what a node permuted, as passes leave behind."""
    if node.target is not torch.ops.aten.permute.default:
        return False
    before: Any = node.args[1]
    rank = len(before)
    return [before[dim % rank] % rank for dim in dims] == list(range(rank))


def hashable(value: Any) -> Any:
    """Make a key of the arguments of a node."""
    if isinstance(value, list | tuple):
        return (type(value).__name__, *map(hashable, value))
    if isinstance(value, dict):
        return tuple((key, hashable(item)) for key, item in value.items())
    return (type(value).__name__, value)


def _unpacked(node: fx.Node) -> fx.Node | None:
    """Find the plain weight behind a packed one, which oneDNN's linear takes as well."""
    if node.target is torch.ops.mkldnn._reorder_linear_weight.default:
        (weight, *_) = node.args
        assert isinstance(weight, fx.Node)
        return weight
    return None


def _computed_by(node: fx.Node) -> set[fx.Node]:
    return {one for one in ancestors(node) if one.op == "call_function" and not _is_view(one)}


def _returned(graph: fx.Graph) -> set[fx.Node]:
    """List nodes whose memory is returned; it has to be new in every call, as have views of it."""
    (output,) = graph.find_nodes(op="output")
    found: set[fx.Node] = set()
    pending = list(output.all_input_nodes)
    while pending:
        node = pending.pop()
        if node.op == "call_function" and node not in found:
            found.add(node)
            if _is_view(node) or node.target in (torch.ops.aten.reshape.default, operator.getitem):
                pending += node.all_input_nodes
    return found


def _is_view(node: fx.Node) -> bool:
    return bool(getattr(node.target, "is_view", False))


def _is_plain(node: fx.Node) -> bool:
    """Tell whether an operator is pure and deterministic."""
    if node.target is operator.getitem:
        return True
    target = _overload(node.target)
    return (
        isinstance(target, torch._ops.OpOverload)
        and target.namespace in _NAMESPACES
        and not target._schema.is_mutable
        and torch.Tag.nondeterministic_seeded not in target.tags
        and not any(isinstance(arg, torch.SymInt) for arg in node.args)
    )


def _example(node: fx.Node) -> Any:
    """A stand-in for what a node of a recipe makes; a packed weight's has the weight's shape.

    That of a transposed convolution is packed as the weight of a convolution: outputs come first.
    """
    args: Any = fx.map_arg(node.args, _value)
    target: Any = node.target
    packing = torch.ops.mkldnn
    if target is packing._reorder_convolution_transpose_weight.default:
        weight, groups = args[0], args[5]
        inputs, outputs, *kernel = weight.shape
        return weight.new_empty(outputs * groups, inputs // groups, *kernel)
    if target is packing._reorder_mkldnn_rnn_layer_weight.default:
        return [torch.empty_like(weight) for weight in args[:2]]
    if getattr(target, "__name__", "").startswith("_reorder_"):
        return torch.empty_like(args[0], memory_format=torch.contiguous_format)
    return target(*args, **fx.map_arg(node.kwargs, _value))


def _value(node: fx.Node) -> Any:
    return node.meta["val"]


def _nbytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.itemsize
