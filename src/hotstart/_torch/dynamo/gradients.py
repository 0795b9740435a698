"""Trace `torch.autograd.grad` in forward, as models do whose forces are gradients of an energy.

Dynamo traces gradients that `torch.func.grad` computes: on tensors wrapped for a level, which ends
where the function does. Where forward calls `x.requires_grad_()` and `torch.autograd.grad` itself,
such a level begins with the first of these calls, and ends with the graph.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import fx

from hotstart._torch.graphs.nodes import region_change, sets_grad_mode
from hotstart._torch.in_between import in_between

_FUNCTORCH: Any = torch._C._functorch
_GRAD: Any = torch.autograd.grad

_LEVEL = 1
"""The level of the wrappers: no other transform is around."""


@contextlib.contextmanager
def gradients_in_forward() -> Iterator[None]:
    """Have forward's own gradients traced as those of functional transforms."""
    from torch._dynamo.variables import ConstantVariable, builtin
    from torch._dynamo.variables.tensor import TensorVariable
    from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

    def call_method(known: Any, self: Any, tx: Any, name: str, args: Any, kwargs: Any) -> Any:
        given = [*args, *kwargs.values()]
        if name == "requires_grad_" and all(_is(each, True) for each in given) and _is_outer(tx):
            _require_gradients(tx, self)
            return self
        return known(self, tx, name, args, kwargs)

    def call_function(known: Any, self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
        if self.value is not _GRAD:
            return known(self, tx, args, kwargs)
        given = inspect.signature(_GRAD).bind(*args, **kwargs).arguments
        found = _gradients(tx, given)
        return known(self, tx, args, kwargs) if found is None else found

    def set_attribute(known: Any, self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
        is_it = getattr(self, "fn", setattr) is setattr and _is(args[1], "requires_grad")
        if is_it and _is(args[2], True) and _is_outer(tx):
            owner = args[0].realize()
            if isinstance(owner, TensorVariable):
                _require_gradients(tx, owner)
                return ConstantVariable.create(None)
        return known(self, tx, args, kwargs)

    # A class of its own from 2.13 on.
    setter = getattr(builtin, "SetAttrBuiltinVariable", builtin.BuiltinVariable)
    with (
        in_between(TensorVariable, "call_method", call_method),
        in_between(TorchInGraphFunctionVariable, "call_function", call_function),
        in_between(setter, "call_function", set_attribute),
    ):
        yield


def begins_gradients(graph: fx.Graph) -> bool:
    """Tell whether forward requires gradients of a tensor, as it may ask for some."""
    return _begin_of(graph) is not None


def asks_for_gradients(graph: fx.Graph) -> bool:
    """Tell whether forward calls `torch.autograd.grad`."""
    return bool(graph.find_nodes(op="call_function", target=_GRAD))


def other_transform(graph: fx.Graph) -> fx.Node | None:
    """Find a node that begins a functional transform beside gradients of forward's own."""
    begins = [node for node in graph.nodes if region_change(node) > 0 and _is_level(node)]
    return next((n for n in begins if not n.meta.get(_OF_FORWARD)), None)


def end_gradients(graph: fx.Graph) -> None:
    """End the level at which a traced graph computes gradients, if it does.

    What the graph returns is unwrapped. Where nothing asks for a gradient, the level is left out.
    """
    begin = _begin_of(graph)
    if begin is None:
        return
    nodes = list(graph.nodes)
    first = nodes.index(begin)
    if not asks_for_gradients(graph):
        _leave_out(graph)
        return
    for node in filter(sets_grad_mode, nodes[:first]):
        graph.erase_node(node)  # nothing is differentiated yet
    (output,) = graph.find_nodes(op="output")
    inside = set(nodes[first:])
    unwrapped: dict[fx.Node, fx.Node] = {}

    def outside(node: fx.Node) -> fx.Node:
        example = node.meta.get("example_value")
        if node not in inside or not isinstance(example, torch.Tensor):
            return node
        if node not in unwrapped:
            made = graph.call_function(_FUNCTORCH._unwrap_for_grad, (node, _LEVEL))
            made.meta.update(node.meta, example_value=example.detach())
            unwrapped[node] = made
        return unwrapped[node]

    with graph.inserting_before(output):
        output.args = fx.map_arg(output.args, outside)
        graph.call_function(torch._C._set_grad_enabled, (False,))
        graph.call_function(_FUNCTORCH._grad_decrement_nesting, ())


# --- nodes ----------------------------------------------------------------------------------------


def _begin_of(graph: fx.Graph) -> fx.Node | None:
    """Find the node that begins the level; None if there is none."""
    target = _FUNCTORCH._grad_increment_nesting
    nodes = graph.find_nodes(op="call_function", target=target)
    return next((node for node in nodes if node.meta.get(_OF_FORWARD)), None)


_OF_FORWARD = "hotstart_gradients"
"""Marks in the `meta` of nodes that they are of a level that is no transform's."""


def _is_level(node: fx.Node) -> bool:
    return str(getattr(node.target, "__name__", "")).endswith("_increment_nesting")


def _require_gradients(tx: Any, variable: Any) -> None:
    """Have a variable of Dynamo's stand for its tensor, wrapped, from here on."""
    from torch._dynamo.variables.builder import wrap_fx_proxy

    node = variable.as_proxy().node
    fake = node.meta["example_value"]
    if node in _at_level(tx.output.graph):
        if fake.requires_grad:
            return
        fake.requires_grad_()  # what is made at the level is wrapped for it
    else:
        if _begin_of(tx.output.graph) is None:
            _begin(tx)
        proxy = _called(tx, _FUNCTORCH._wrap_for_grad, variable.as_proxy(), _LEVEL)
        wrapped = wrap_fx_proxy(tx, proxy, example_value=fake.detach().requires_grad_())
        variable.proxy = wrapped.as_proxy()
    _called(tx, _FUNCTORCH.set_inplace_requires_grad_allowed, True)
    own = _called(tx, _set_requires_grad(), variable.proxy)
    own.node.meta["example_value"] = variable.proxy.node.meta["example_value"]
    _called(tx, _FUNCTORCH.set_inplace_requires_grad_allowed, False)
    variable.requires_grad = True


def _at_level(graph: fx.Graph) -> list[fx.Node]:
    """List the nodes since the level has begun."""
    begin, nodes = _begin_of(graph), list(graph.nodes)
    return [] if begin is None else nodes[nodes.index(begin) :]


def _begin(tx: Any) -> None:
    """Begin the level, with autograd on, unless a block of forward has turned it off."""
    graph = tx.output.graph
    in_block = len(list(filter(sets_grad_mode, graph.nodes))) % 2 == 1
    _called(tx, _FUNCTORCH._grad_increment_nesting)
    enabled = torch.is_grad_enabled() if in_block else True
    _called(tx, torch._C._set_grad_enabled, enabled)
    torch._C._set_grad_enabled(enabled)


def _called(tx: Any, target: Callable[..., Any], *args: Any) -> Any:
    """Add a node of the level."""
    proxy = tx.output.create_proxy("call_function", target, args, {})
    proxy.node.meta[_OF_FORWARD] = True
    return proxy


def _gradients(tx: Any, given: Mapping[str, Any]) -> Any:
    """Trace `torch.autograd.grad`, given its arguments as Dynamo's variables.

    Returns:
        The gradients; None if some are of tensors that forward does not require them of, or if it
        is not clear whether there are any.
    """
    from torch._dynamo.utils import proxy_args_kwargs
    from torch._dynamo.variables import ConstantVariable, TupleVariable
    from torch._dynamo.variables.builder import wrap_fx_proxy

    _, taken = proxy_args_kwargs((), dict(given))
    of: list[fx.Node] = []
    fx.map_arg(fx.node.map_aggregate(taken["inputs"], _node_of), of.append)
    if not set(of) <= set(_at_level(tx.output.graph)):
        return None
    proxy = tx.output.create_proxy("call_function", _GRAD, (), {**taken, "retain_graph": True})
    with tx.fake_mode:
        found = _GRAD(**fx.map_arg(proxy.node.kwargs, lambda node: node.meta["example_value"]))
    outputs: list[fx.Node] = []
    fx.map_arg(fx.node.map_aggregate(taken["outputs"], _node_of), outputs.append)
    if any(
        gradient is None and _leads(node, outputs) for node, gradient in zip(of, found, strict=True)
    ):
        tx.output.graph.erase_node(proxy.node)
        return None
    proxy.node.meta["example_value"] = found
    return TupleVariable(
        [
            ConstantVariable.create(None)
            if gradient is None
            else wrap_fx_proxy(tx, proxy[number], example_value=gradient)
            for number, gradient in enumerate(found)
        ]
    )


def _leave_out(graph: fx.Graph) -> None:
    """Take out what begins a level, and what is done for it."""
    for node in [node for node in graph.nodes if node.meta.get(_OF_FORWARD)][::-1]:
        if node.target is _FUNCTORCH._wrap_for_grad:
            node.replace_all_uses_with(node.args[0])
        graph.erase_node(node)


def _set_requires_grad() -> Callable[..., Any]:
    from torch._functorch.eager_transforms import _set_tensor_requires_grad

    return _set_tensor_requires_grad


def _leads(node: fx.Node, outputs: list[fx.Node]) -> bool:
    """Tell whether some of a graph's nodes may follow from another by what is differentiated."""
    seen, waiting = {node}, [node]
    while waiting:
        users = (user for user in waiting.pop().users if user.target != "detach")
        new = [user for user in users if user not in seen]
        seen.update(new)
        waiting += new
    return not seen.isdisjoint(outputs)


def _node_of(item: Any) -> Any:
    return item.node if isinstance(item, fx.Proxy) else item


def _is_outer(tx: Any) -> bool:
    """Tell whether forward's own graph is traced, not the body of an operator such as a loop."""
    return tx.output.current_tracer.parent is None


def _is(variable: Any, value: object) -> bool:
    """Tell whether a variable of Dynamo's is a constant."""
    return bool(variable.is_python_constant()) and variable.as_python_constant() == value
