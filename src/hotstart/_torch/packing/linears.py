"""Lower linears whose packed weights are inputs, not constants as Inductor expects."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch.utils._python_dispatch import TorchDispatchMode

from hotstart._torch.in_between import replaced, with_entries
from hotstart._torch.inductor.faster_gemm import faster_gemm

if TYPE_CHECKING:
    import sympy

_LINEARS = "mkldnn._linear_pointwise"


class NoTemplate(Exception):
    """A template of Inductor's cannot be used; the message says why."""


@dataclass(frozen=True)
class Templates:
    """The linears of a graph that a template computes.

    Attributes:
        layouts: the graph that lays out the weight, by name of the input.
        others: names of weights of linears that it does not compute.
        elements: how many elements of weights there are, by the rows that they are applied to.
    """

    layouts: dict[str, fx.GraphModule] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    elements: Counter[sympy.Expr] = field(default_factory=Counter)

    def most_rows(self) -> sympy.Expr | None:
        """The rows that most elements of weights are applied to; None if there are none."""
        return max(self.elements, key=self.elements.__getitem__, default=None)


@contextlib.contextmanager
def inputs_as_packed_weights() -> Iterator[None]:
    """Let the packed weight of a linear be an input.

    The lowerings of `mkldnn::_linear_pointwise` (2.11 to 2.15) assert that it is a constant, for a
    template of Inductor's that packs constants itself; only the name is looked up.
    """
    from torch._inductor.virtualized import V

    def lower(lowering: Any, weight: int, *args: Any, **kwargs: Any) -> Any:
        with with_entries(V.graph.constants, {args[weight].get_name(): torch.empty(0)}):
            return lowering(*args, **kwargs)

    with _lowered(lower):
        yield


@contextlib.contextmanager
def linears_by_template(templates: Templates) -> Iterator[None]:
    """Have linears lowered to Inductor's C++ GEMM template, with weights that are inputs.

    The template (`CppGemmTemplate`, 2.11 to 2.15) lays out a constant weight in blocks when it is
    chosen, and puts the result into the graph as another constant. Here the weight has no value:
    what lays it out is recorded, and the input is from then on what the recorded graph makes.

    Args:
        templates: gets the linears.

    Raises:
        NoTemplate: two linears want one weight in different layouts, or this version of torch has
            another template.
    """
    from torch._inductor import config, ir
    from torch._inductor.codegen import cpp_gemm_template
    from torch._inductor.utils import sympy_product
    from torch._inductor.virtualized import V

    _check_template()
    settings = {"max_autotune_gemm": True, "max_autotune_gemm_backends": "CPP"}

    def lower(lowering: Any, weight: int, *args: Any, **kwargs: Any) -> Any:
        name, layout = args[weight].get_name(), args[weight].get_layout()
        rows = sympy_product(args[0].get_size()[:-1])
        with V.fake_mode:
            stand_in = torch.empty(layout.size, dtype=layout.dtype, device=layout.device)
        recorded = _Recorded(stand_in)

        def laid_out(tensor: torch.Tensor) -> Any:
            graph = recorded.made(tensor)
            known = templates.layouts.setdefault(name, graph)
            if str(known.graph) != str(graph.graph):
                raise NoTemplate("a weight is used in two layouts")
            templates.elements[rows] += stand_in.numel()
            shape, strides = list(tensor.shape), list(tensor.stride())
            fixed = ir.FixedLayout(tensor.device, tensor.dtype, shape, strides)
            return ir.TensorBox.create(ir.InputBuffer(name=name, layout=fixed))

        constant = ir.TensorBox.create(ir.ConstantBuffer(name=name, layout=layout))
        with (
            config.patch(settings),
            with_entries(V.graph.constants, {name: stand_in}),
            replaced(V.graph, "add_tensor_constant", laid_out),
            recorded,
        ):
            made = lowering(*args[:weight], constant, *args[weight + 1 :], **kwargs)
        if not recorded.used:
            templates.others.add(name)
        if name in templates.others and name in templates.layouts:
            raise NoTemplate("a weight is used by a linear that it does not compute, too")
        return made

    # Nothing is to be pruned: the constants are ours, and have no memory to compare.
    unpruned = replaced(cpp_gemm_template, "prune_tensors", lambda *_: None)
    with _lowered(lower), unpruned, faster_gemm():
        yield


def _check_template() -> None:
    """Refuse a template whose threads find their part of the work by their own numbers (2.11).

    Where OpenMP starts fewer threads than were asked for, as it may, a part would not be computed.
    """
    from torch._inductor.codegen.cpp_gemm_template import GEMM_TEMPLATE

    if GEMM_TEMPLATE.count("omp for") != GEMM_TEMPLATE.count("codegen_multi_threads_params"):
        raise NoTemplate("in this torch it relies on getting all the threads that it asks for")


class _Recorded(TorchDispatchMode):
    """Records what is computed from a tensor.

    Attributes:
        used: whether what was made of it is used.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._graph = fx.Graph()
        self._nodes = {id(tensor): self._graph.placeholder("weight")}
        self._tensors = [tensor]  # keeps them, and so their ids
        self.used = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and any(id(arg) in self._nodes for arg in args):
            self._nodes[id(made)] = self._node(func, args, kwargs or {}, made)
            self._tensors.append(made)
        return made

    def _node(self, func: Any, args: Any, kwargs: Any, made: torch.Tensor) -> fx.Node:
        if func is torch.ops.aten.as_strided.default:
            # By address; a weight may be anywhere in its memory.
            if _form(made) != _form(args[0]):
                raise NoTemplate("a weight is read by address")
            return self._nodes[id(args[0])]
        known = tuple(self._nodes.get(id(arg), arg) for arg in args)
        return self._graph.call_function(func, known, kwargs)

    def made(self, tensor: torch.Tensor) -> fx.GraphModule:
        """The graph that makes a tensor, with what it does not need left out."""
        self.used = True
        self._graph.output(self._nodes[id(tensor)])
        self._graph.eliminate_dead_code()
        return fx.GraphModule(torch.nn.Module(), self._graph)


def _form(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.storage_offset()


@contextlib.contextmanager
def _lowered(lower: Callable[..., Any]) -> Iterator[None]:
    """Have linears lowered by a function of their lowering, their weight's position and args."""
    from torch._inductor.lowering import lowerings
    from torch._inductor.virtualized import V

    def instead(lowering: Any, weight: int) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            if args[weight].get_name() in V.graph.constants:
                return lowering(*args, **kwargs)
            before = map(_rows_together, args[:weight])
            return lower(lowering, weight, *before, *args[weight:], **kwargs)

        return run

    linears = {
        target: instead(lowering, 2 if "binary" in str(target) else 1)
        for target, lowering in lowerings.items()
        if str(target).startswith(_LINEARS)
    }
    with with_entries(lowerings, linears):
        yield


def _rows_together(tensor: Any) -> Any:
    """Copy a tensor whose strides say only at some sizes if its rows can be counted as one axis.

    `View.create` (2.11 to 2.15) asks, and the code would hold for these sizes only.
    """
    from torch._inductor import ir

    if ir.is_contiguous_storage_and_layout(tensor) or not ir.is_storage_and_layout(tensor):
        return tensor
    return ir.ExternKernel.require_contiguous(tensor)
