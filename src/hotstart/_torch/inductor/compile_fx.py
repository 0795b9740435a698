"""Call Inductor's `compile_fx`, and keep the code it generates."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hotstart._torch.graphs.symbols import (
    Symbols,
    bounded_negative_powers,
    without_size_assumptions,
)
from hotstart._torch.inductor.cheaper import sigmoid_for_tanh
from hotstart._torch.inductor.composites import composites_of_any_size
from hotstart._torch.inductor.exact import numbers_of_operators
from hotstart._torch.inductor.fused_sizes import fusing_without_guards
from hotstart._torch.inductor.joined_kernels import AskedKernel, kernels_asked_for, kernels_in
from hotstart._torch.inductor.outputs_apart import keep_outputs_apart
from hotstart._torch.inductor.projections import projections_of_any_size
from hotstart._torch.inductor.roundings import roundings_kept
from hotstart._torch.inductor.sizes import (
    convolutions_of_any_batch,
    decompositions_of_any_size,
    strides_by_expansion,
    watched,
)
from hotstart._torch.inductor.small_loops import small_loops_in_one_thread
from hotstart._torch.inductor.target_flags import beyond_target
from hotstart._torch.inductor.view_strides import views_of_any_size
from hotstart._torch.kernels.grouped import grouped_products
from hotstart._torch.packing.linears import Templates, inputs_as_packed_weights, linears_by_template
from hotstart._torch.packing.recipes import BySize, Recipe, Separated
from hotstart._torch.packing.separate import Pack, separate, written_inputs

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True)
class InductorOutput:
    """Code that Inductor generated for a module.

    Attributes:
        source: the Python module it generated.
        kernels: kernels that `source` calls, by its names for them; not compiled yet.
        constants: tensors `source` refers to by name.
        outputs: number of values returned by `call` that are the module's own outputs.
        strides: of each output, as expressions over the inputs' symbols; None where unknown.
        around: runtime wrappers that `call` would need; empty if none.
        written: positions of the arguments of `call` that it writes to.
        kept: positions of the module's inputs that `call` takes, in order.
        recipes: recipes of the inputs that `call` takes after those.
        rows: number of rows of most linears that a template computes, over the symbols of its
            inputs; None if it computes none.
        by_size: weights that are packed otherwise for some sizes; None if there are none.
    """

    source: str
    kernels: Mapping[str, AskedKernel]
    constants: Mapping[str, torch.Tensor]
    outputs: int
    strides: tuple[tuple[Any, ...] | None, ...]
    around: tuple[str, ...]
    written: tuple[int, ...]
    kept: tuple[int, ...]
    recipes: tuple[Recipe, ...] = ()
    rows: sympy.Expr | None = None
    by_size: BySize | None = None


@dataclass(frozen=True)
class Packing:
    """The weights that are taken out of the code, and the linears that are packed.

    Attributes:
        weights: positions of the inputs that are weights.
        choose: chooses linears that are packed.
        templates: whether those are computed by Inductor's C++ template, not by oneDNN.
    """

    weights: Collection[int]
    choose: Pack
    templates: bool = False


def inductor_settings(
    overrides: Mapping[str, Any], jobs: int, pack_weights: bool
) -> dict[str, Any]:
    """Inductor's settings for a build, checked.

    Caches are off because hotstart knows before it calls the compiler what it has compiled.
    `cpp.vec_isa_ok` says that the C++ compiler can compile for this CPU: Inductor picks the
    instruction set by the CPU's own flags either way, and would otherwise compile a test program
    for each that the CPU has (12 s here). A compiler that cannot fails on the first kernel.
    `aot_inductor.enable_line_tables` (2.13 and later) would put the paths of this machine into
    every kernel, and make it twice as large. `cpp.enable_concat_linear` makes one linear of several
    that share an input, which Inductor does where weights are frozen.

    Raises:
        AttributeError: Inductor has no setting of that name.
    """
    from torch._inductor import config

    ours = {
        "fx_graph_cache": False,
        "fx_graph_remote_cache": False,
        "compile_threads": jobs,
        "cpp.vec_isa_ok": True,
        "aot_inductor.enable_line_tables": False,
        "cpp.enable_concat_linear": pack_weights,
    }
    known = config.get_config_copy()
    for name in overrides:
        if name not in known:
            raise AttributeError(name)
    return {**{name: value for name, value in ours.items() if name in known}, **overrides}


def doubtful_passes() -> tuple[str, ...]:
    """Inductor's passes that are known to change what a graph computes, and can be left out.

    `reinplace_inplaceable_ops` (2.11 to 2.15) writes to memory that is still read, such as that of
    an argument that is scattered into and then overwritten. `disabled_passes` takes its name.
    """
    from torch._inductor import config

    known = "disabled_passes" in config.get_config_copy()
    return ("reinplace_inplaceable_ops",) if known else ()


def compile_with_inductor(
    module: fx.GraphModule,
    inputs: Sequence[Any],
    mode: Any,
    settings: Mapping[str, Any],
    memory: tuple[Sequence[int], Sequence[int]],
    symbols: Symbols,
    holds: Callable[[sympy.Basic], bool],
    packing: Packing | None = None,
    *,
    in_one_thread: bool = False,
) -> InductorOutput | None:
    """Compile a module for inference through AOTAutograd and Inductor.

    `compile_fx` with an `inner_compile` of our own (2.0 and later) gives the generated source and
    kernels as they are, without the cache entries and runtime wrappers of `standalone_compile`.
    What those wrappers would do is read from AOTAutograd's metadata.

    `memory` has a number for every input that is a tensor, and for every output; two tensors have
    the same one exactly if they share memory. `holds` tells if a condition over `symbols` holds for
    every size that the module is compiled for. `in_one_thread`: small loops run in the thread that
    calls, so sums of a few thousand numbers differ by rounding from those of `torch.compile`.

    Returns:
        None if AOTAutograd leaves no operator to compile, since outputs are inputs, or nothing uses
        what the module makes: `compile_fx_inner` then returns a plain function.

    Raises:
        Narrowing: it would hold for some of the sizes only.
        Exception: whatever a pass of Inductor's raises.
    """
    from torch._inductor.compile_fx import compile_fx
    from torch._inductor.output_code import CompiledFxGraph

    context = torch._guards.TracingContext(mode)
    inner = _Inner(len(inputs), memory, packing)
    with (
        torch._guards.tracing(context),
        _in_force(settings, packing, inner.templates, in_one_thread=in_one_thread),
        watched(symbols, holds) as decompositions,
    ):
        compile_fx(module, list(inputs), inner_compile=inner.compile, decompositions=decompositions)
    ((output, body),) = inner.made
    if not isinstance(output, CompiledFxGraph):
        return None
    metadata = context.fw_metadata
    assert metadata is not None  # AOTAutograd sets it on the way to Inductor
    outputs = len(metadata.output_info)
    return InductorOutput(
        source=output.source_code,
        kernels=kernels_in(output.source_code),
        constants=dict(output.constants or {}),
        outputs=outputs,
        strides=_output_strides(output, mode.shape_env, outputs),
        around=(*_around(metadata, output, len(inputs)), *dict.fromkeys(inner.beyond)),
        written=tuple(n for n, index in enumerate(body.kept) if index in inner.written),
        kept=body.kept,
        recipes=body.recipes,
        rows=inner.templates.most_rows(),
        by_size=body.by_size,
    )


@contextlib.contextmanager
def _in_force(
    settings: Mapping[str, Any],
    packing: Packing | None,
    templates: Templates,
    *,
    in_one_thread: bool,
) -> Iterator[None]:
    """Apply the patches of a compile to torch, besides those that watch it."""
    import torch._functorch.config as functorch
    from torch._decomp.decompositions_for_rng import PhiloxStateTracker
    from torch._inductor import config

    by_template = packing is not None and packing.templates
    with (
        torch.no_grad(),
        without_size_assumptions(),
        bounded_negative_powers(),
        fusing_without_guards(),
        convolutions_of_any_batch(),
        composites_of_any_size(),
        projections_of_any_size(),
        decompositions_of_any_size(),
        strides_by_expansion(),
        views_of_any_size(),
        numbers_of_operators(),
        roundings_kept(),
        PhiloxStateTracker(),  # forgets fake tensors that AOTAutograd leaves in it (2.11 to 2.15)
        functorch.patch(enable_autograd_cache=False),
        config.patch(dict(settings)),
        kernels_asked_for(),
        linears_by_template(templates) if by_template else inputs_as_packed_weights(),
        grouped_products() if packing else contextlib.nullcontext(),
        small_loops_in_one_thread() if in_one_thread else contextlib.nullcontext(),
    ):
        yield


class _Inner:
    """Takes weights out of graphs on their way to Inductor's `compile_fx_inner`.

    Attributes:
        templates: the linears that a template computes.
        made: what Inductor gave, with what was left of the graph.
        written: positions of the inputs that the graph writes to.
        beyond: what of it a processor of the target may refuse.
    """

    def __init__(
        self, inputs: int, memory: tuple[Sequence[int], Sequence[int]], packing: Packing | None
    ) -> None:
        self._inputs = inputs
        self._memory = memory
        self._packing = packing
        self.templates = Templates()
        self.made: list[tuple[Any, Separated]] = []
        self.written: set[int] = set()
        self.beyond: list[str] = []

    def compile(self, graph: fx.GraphModule, example_inputs: Sequence[Any], **kwargs: Any) -> Any:
        """Compile a graph of AOTAutograd's, as `compile_fx` asks for it."""
        from torch._inductor.compile_fx import compile_fx_inner

        body = Separated(tuple(range(len(example_inputs))), tuple(example_inputs), ())
        read = self._memory[0]
        self.written.update(written_inputs(graph.graph))
        self.beyond.extend(beyond_target(graph.graph))
        if self._packing and len(example_inputs) == self._inputs:
            body, read = self._separate(graph, example_inputs, self._packing)
            fixed = set(kwargs.get("static_input_idxs", ()))
            kwargs["static_input_idxs"] = [
                number for number, index in enumerate(body.kept) if index in fixed
            ]
        keep_outputs_apart(graph, (read, self._memory[1]))
        names = [node.target for node in graph.graph.find_nodes(op="placeholder")]
        output = compile_fx_inner(graph, body.inputs, **kwargs)
        layouts = self.templates.layouts
        laid_out = {n: layouts[name] for n, name in enumerate(names) if name in layouts}
        self.made.append((output, body.laid_out(laid_out)))
        return output

    def _separate(
        self, graph: fx.GraphModule, example_inputs: Sequence[Any], packing: Packing
    ) -> tuple[Separated, Sequence[int]]:
        """Take out what depends on weights alone; the rest, and the memory of its inputs."""
        read = self._memory[0]
        sizes = self._inputs - len(read)
        numbers = {read[index - sizes] for index in self.written}
        constant = {n for n in packing.weights if read[n - sizes] not in numbers}
        sigmoid_for_tanh(graph.graph)
        body = separate(graph, example_inputs, constant, packing.choose)
        left = [read[index - sizes] for index in body.kept if index >= sizes]
        return body, [*left, *range(-1, len(body.kept) - len(body.inputs) - 1, -1)]


def _output_strides(output: Any, env: Any, count: int) -> tuple[tuple[Any, ...] | None, ...]:
    """Parse the strides that Inductor states for its outputs as text."""
    symbols = {str(symbol): symbol for symbol in env.var_to_range} if env is not None else {}
    found: list[tuple[Any, ...] | None] = []
    for written in (output.output_strides or ())[:count]:
        try:
            found.append(None if written is None else tuple(eval(s, {}, symbols) for s in written))
        except (NameError, TypeError):
            # A symbol that the compile made up, a function of the printer's, or a choice by size.
            found.append(None)
    return (*found, *[None] * (count - len(found)))


def _around(metadata: Any, output: Any, inputs: int) -> Iterator[str]:
    """Name the runtime wrappers and post-compile steps that the compiled code would need."""
    if len(metadata.input_info) != inputs:
        yield "inputs that share memory are given to the compiler as one base"
    for index, info in enumerate(metadata.input_info):
        if info.mutates_metadata or info.mutates_storage_metadata:
            yield f"the shape or storage of input {index} is changed in place"
    for index in metadata.mutated_inp_runtime_indices:
        yield f"a change of input {index} is copied back after the call"
    if metadata.tokens:
        yield "operators with side effects are ordered by tokens"
    if metadata.is_rng_op_functionalized:
        yield "random numbers are functionalised"
    if any(type(m).__name__ == "SubclassCreationMeta" for m in metadata.subclass_fw_graph_out_meta):
        yield "an output is a tensor subclass"
    if output.inputs_to_check:
        yield "inputs are copied where their addresses are not aligned"
    if output.torchbind_constants:
        yield "the code refers to script objects"


def extern_kernel(name: str) -> str | None:
    """Find the operator that generated code calls as `extern_kernels.<name>`.

    None for those that are Python functions inside Inductor.
    """
    from torch._inductor.select_algorithm import extern_kernels

    kernel: Any = getattr(extern_kernels, name, None)
    for path in (f"torch.{name}", f"torch._C._nn.{name}"):
        owner, _, attribute = path.rpartition(".")
        scope = torch if owner == "torch" else torch._C._nn
        if kernel is not None and getattr(scope, attribute, None) is kernel:
            return path
    schema = getattr(kernel, "_schema", None)
    if schema is not None:
        return f"torch.ops.{schema.name.replace('::', '.')}.{kernel._overloadname}"
    return None


def helper_source(name: str) -> str | None:
    """Source for a function that generated code imports from Inductor; None for all but one.

    `assert_tensor_metadata` (2.14 and later) checks what an operator returned against what its fake
    implementation had promised.
    """
    if name != "assert_tensor_metadata":
        return None
    return """
def assert_tensor_metadata(tensor, size, stride, dtype, operator):
    if tensor is not None:
        if tensor.dtype is not dtype:
            raise RuntimeError(f"{operator} returned {tensor.dtype}, traced as {dtype}")
        torch._C._dynamo.guards.assert_size_stride(tensor, size, stride, operator)
"""


def pass_token(value: Any) -> str | None:
    """The identity of a custom Inductor pass, from its `uuid()`; None if it has none."""
    uuid = getattr(value, "uuid", None)
    return None if uuid is None else repr(uuid())
