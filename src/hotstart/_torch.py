"""The only module that touches private torch names.

Supported: torch 2.11 to 2.15. Every name below says why it is needed; where versions differ, the
difference is handled here and nowhere else. Imports of Dynamo, Inductor and sympy are inside the
functions that build, so that a process that only runs programs does not pay for them.
"""

from __future__ import annotations

import ast
import contextlib
import math
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket

if TYPE_CHECKING:
    import sympy
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

__all__ = ["HigherOrderOperator", "OpOverload", "OpOverloadPacket"]  # the others need no mention

# --- fake tensors and symbols ---------------------------------------------------------------------


def fake_mode(shape_env: ShapeEnv | None = None) -> FakeTensorMode:
    """A mode in which tensors have metadata and no storage."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(shape_env=shape_env, allow_non_fake_inputs=True)


def is_fake(tensor: torch.Tensor) -> bool:
    """Whether a tensor has metadata only, under some fake mode."""
    from torch._subclasses.fake_tensor import FakeTensor

    return isinstance(tensor, FakeTensor)


@dataclass(frozen=True)
class Symbols:
    """A shape environment with one symbol for each axis, bounds known.

    Attributes:
        env: the environment; guards put during a compile are found in it.
        by_name: the symbol that stands for each name.
        hints: the size each name was given as a hint.
    """

    env: ShapeEnv
    by_name: Mapping[str, sympy.Symbol]
    hints: Mapping[str, int]

    def integer(self, expr: sympy.Expr) -> int | torch.SymInt:
        """A size for an expression over this environment's symbols; an int where it is constant."""
        import sympy

        expr = sympy.sympify(expr)
        if expr.is_number:
            return int(expr)
        hint = int(
            expr.xreplace({s: sympy.Integer(self.hints[n]) for n, s in self.by_name.items()})
        )
        return self.env.create_symintnode(expr, hint=hint)


def make_symbols(bounds: Mapping[str, tuple[int, int, int]]) -> Symbols:
    """Symbols for names, given (low, high, hint) for each. Sizes 0 and 1 are not assumed away."""
    from torch._dynamo.source import ConstantSource
    from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StrictMinMaxConstraint
    from torch.utils._sympy.value_ranges import ValueRanges

    env = ShapeEnv()
    made = {}
    for name, (low, high, hint) in bounds.items():
        made[name] = env.create_symbol(
            hint,
            ConstantSource(name),
            dynamic_dim=DimDynamic.DYNAMIC,
            constraint_dim=StrictMinMaxConstraint(warn_only=False, vr=ValueRanges(low, high)),
            positive=low > 0,
            do_not_specialize_zero_one=True,
        )
    return Symbols(env, made, {name: hint for name, (_, _, hint) in bounds.items()})


@dataclass(frozen=True)
class Condition:
    """Something a trace or a compile assumed about symbols.

    Attributes:
        expr: a boolean expression that was taken to be true.
        source: the line of the model or of torch it came from, as text; may be empty.
    """

    expr: sympy.Basic
    source: str


def conditions(env: ShapeEnv) -> list[Condition]:
    """Everything a shape environment has assumed so far."""
    found = [Condition(guard.expr, _guard_source(guard)) for guard in env.guards]
    for asserts in env.deferred_runtime_asserts.values():
        found += [Condition(a.expr, str(a.msg or "")) for a in asserts]
    return found


def _guard_source(guard: Any) -> str:
    sloc = getattr(guard, "sloc", None)
    return str(getattr(sloc, "user_loc", None) or sloc or "")


def axis_symbol(name: str) -> sympy.Symbol:
    """The symbol that stands for an axis in expressions that outlive a shape environment."""
    import sympy

    return sympy.Symbol(name, integer=True, nonnegative=True)


def substitution(sizes: Mapping[str, int]) -> dict[sympy.Symbol, sympy.Integer]:
    """What to replace axis symbols by, for axes of known size."""
    import sympy

    return {axis_symbol(axis): sympy.Integer(size) for axis, size in sizes.items()}


def equals(axis: str, size: int) -> sympy.Basic:
    """The condition that an axis has one size."""
    import sympy

    return sympy.Eq(axis_symbol(axis), size)


def expression(size: int | torch.SymInt | torch.SymFloat | torch.SymBool) -> sympy.Expr:
    """The expression behind a size."""
    import sympy

    node = getattr(size, "node", None)
    return sympy.sympify(size) if node is None else node.expr


def python_source(expr: sympy.Basic) -> str:
    """A Python expression, over the symbols' names and `math`, that computes `expr`."""
    from torch.utils._sympy.printers import PythonPrinter

    return str(PythonPrinter().doprint(expr)).replace("torch.sym_float(", "float(")


def as_function(expr: sympy.Basic, symbols: Sequence[sympy.Symbol]) -> Callable[..., Any]:
    """A plain Python function that computes `expr` for sizes of `symbols`, in that order."""
    names = ", ".join(map(str, symbols))
    function: Callable[..., Any] = eval(f"lambda {names}: {python_source(expr)}", {"math": math})
    return function


def holds_within(
    condition: sympy.Basic, bounds: Mapping[sympy.Symbol, tuple[int, int]]
) -> bool | None:
    """Whether a condition holds for all sizes (True), for none (False), or is undecided (None)."""
    from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

    ranges = {symbol: ValueRanges(low, high) for symbol, (low, high) in bounds.items()}
    try:
        found = bound_sympy(condition, ranges)
    except AssertionError:  # it trips over some remainders of large numbers
        return None
    return bool(found.lower) if found.is_singleton() else None


def without_size_assumptions() -> contextlib.AbstractContextManager[Any]:
    """Trace without assuming that dynamic sizes are neither 0 nor 1.

    torch specialises backed symbols on 0 and 1 without recording a guard; with
    `backed_size_oblivious` an assumption is made only where code asks, and leaves a guard.
    """
    import torch.fx.experimental._config as config

    patched: contextlib.AbstractContextManager[Any] = config.patch(  # type: ignore[attr-defined]
        backed_size_oblivious=True
    )
    return patched


# --- Dynamo ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FullGraph:
    """What Dynamo made of one call.

    Attributes:
        module: the graph, its placeholders in calling order.
        env: the shape environment it was traced in.
        replay: runs the bytecode Dynamo generated around the graph, given what to call in place
            of the graph, and the positional and keyword arguments of the call.
        side_effects: Dynamo's names for the Python objects that the bytecode changes.
        modes: Dynamo's names for the modules whose `training` flag was read.
        scopes: local and global variables of the traced frame; Dynamo's names start from them.
        self_name: the variable that holds the traced module; None for a plain function.
    """

    module: fx.GraphModule
    env: ShapeEnv
    replay: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
    side_effects: tuple[str, ...]
    modes: tuple[str, ...]
    scopes: Mapping[str, Mapping[str, Any]]
    self_name: str | None

    def plain_name(self, name: str) -> str:
        """`layers.0.weight` for Dynamo's `L['self']._modules['layers']._modules['0'].weight`.

        Names start at the traced module, or at a variable of a plain function.
        """
        plain = re.sub(r"\._(?:modules|parameters|buffers)\['([^']+)'\]", r".\1", name)
        if self.self_name is not None:
            plain = re.sub(rf"^L\['{self.self_name}'\]\.?", "", plain)
        return re.sub(r"^[LG]\['(\w+)'\]", r"\1", plain)

    def name_of(self, placeholder: fx.Node) -> str:
        """The plain name of what a placeholder stands for."""
        source = getattr(placeholder, "_dynamo_source", None)
        return placeholder.name if source is None else self.plain_name(_source_name(source))

    def object_named(self, name: str) -> Any:
        """The object behind one of Dynamo's names, such as `L['self'].hist`; None if unknown."""
        try:
            return eval(name, dict(self.scopes))
        except (AttributeError, KeyError, IndexError, NameError, SyntaxError, TypeError):
            return None

    def size_source(self, placeholder: fx.Node) -> tuple[Any, int] | None:
        """The (tensor, dimension) that an integer placeholder is the size of."""
        return self._dimension(getattr(placeholder, "_dynamo_source", None))

    def symbol_sources(self) -> Iterator[tuple[sympy.Symbol, tuple[Any, int]]]:
        """The (tensor, dimension) each symbol was made for, whether the graph uses it or not."""
        for symbol, sources in self.env.var_to_sources.items():
            for source in sources:
                found = self._dimension(source)
                if found is not None:
                    yield symbol, found

    def _dimension(self, source: Any) -> tuple[Any, int] | None:
        base, index = getattr(source, "base", None), getattr(source, "idx", None)
        prop = getattr(source, "prop", None)
        if base is None or index is None or getattr(prop, "name", "") != "SIZE":
            return None
        return self.object_named(_source_name(base)), index


def _source_name(source: Any) -> str:
    """The name of one of Dynamo's sources: a method up to 2.11, a property since."""
    return _name(source)


class NoGraph(Exception):
    """The traced function contains no tensor operation."""


def full_graph(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    dynamic: Sequence[tuple[torch.Tensor, int, int, int]],
) -> FullGraph:
    """Trace one call of `fn` into one graph.

    `dynamic` lists (tensor, dimension, low, high). `torch._dynamo.convert_frame.fullgraph_capture`
    (2.10 and later) is the capture that torch's own ahead-of-time front ends use: no guards are
    built and no code is cached, so nothing of the caller's Dynamo state is touched.

    Raises:
        NoGraph: nothing to compile.
        Exception: whatever Dynamo raises; `describe_failure` reads it.
    """
    import torch._dynamo as dynamo
    from torch._dynamo import convert_frame
    from torch._dynamo.utils import get_metrics_context

    for tensor, dim, low, high in dynamic:
        dynamo.mark_dynamic(tensor, dim, min=low, max=high)
    settings = dynamo.config.patch(
        assume_static_by_default=True,
        automatic_dynamic_shapes=False,
        specialize_int=True,
        specialize_float=True,
        allow_rnn=True,
        capture_scalar_outputs=False,
        capture_dynamic_output_shape_ops=False,
    )
    with (
        settings,
        torch.no_grad(),
        without_size_assumptions(),
        get_metrics_context(),
        _recording_side_effects() as side_effects,
    ):
        captured = convert_frame.fullgraph_capture(fn, args, kwargs)
    if captured.backend_input is None:
        raise NoGraph
    output = captured.graph_capture_output
    traced, owner = convert_frame.get_traced_fn(fn)
    scope = {**traced.__globals__, **output.f_globals}

    def replay(graph: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        callable_ = captured.forward_callable(compiled_fn=graph, extra_globals=scope)
        return callable_(*(args if owner is None else (owner, *args)), **kwargs)

    env = captured.backend_input.fake_mode.shape_env
    assert env is not None  # Dynamo always makes one
    return FullGraph(
        module=captured.backend_input.graph_module,
        env=env,
        replay=replay,
        side_effects=tuple(side_effects),
        modes=_modes_read(output.output_graph),
        scopes={"L": convert_frame._get_frame(fn, args, kwargs).locals, "G": scope},
        self_name=None if owner is None else traced.__code__.co_varnames[0],
    )


def _modes_read(output_graph: Any) -> tuple[str, ...]:
    """The modules whose `training` flag a trace read, from the guards it put on them."""
    names = {_name(guard) for guard in output_graph._guards}
    ending = ".training"
    return tuple(sorted(n.removesuffix(ending) for n in names if n.endswith(ending)))


def _name(named: Any) -> str:
    """The name of a source or guard: a method up to 2.11, a property since."""
    return named.name if isinstance(named.name, str) else str(named.name())


@contextlib.contextmanager
def _recording_side_effects() -> Iterator[list[str]]:
    """Collect the names of the Python objects a traced function changes.

    Dynamo tells them in a warning, when its policy is "warn" (2.10 and later), and nowhere else.
    """
    import torch._dynamo.config as config

    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with config.patch(side_effect_replay_policy="warn"):
            yield found
    for warning in caught:
        text = str(warning.message)
        if "side effects" in text and text.endswith("]"):
            found.extend(map(str, ast.literal_eval(text[text.rindex(": [") + 2 :])))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


@dataclass(frozen=True)
class Failure:
    """Why Dynamo gave up.

    Attributes:
        reason: what it met, in a sentence or two.
        line: the user's file, line and source it happened at; may be empty.
        advice: what Dynamo suggests to change; may be empty.
    """

    reason: str
    line: str
    advice: str


def describe_failure(error: BaseException) -> Failure | None:
    """Read an error of Dynamo's; None if it is not one of Dynamo's."""
    from torch._dynamo import exc
    from torch.fx.experimental.symbolic_shapes import (
        ConstraintViolationError,
        GuardOnDataDependentSymNode,
    )

    known = (exc.TorchDynamoException, ConstraintViolationError, GuardOnDataDependentSymNode)
    if not isinstance(error, known):
        return None
    reason, advice = _brief(str(error))
    return Failure(reason, _user_line(list(getattr(error, "real_stack", None) or ())), advice)


def _brief(text: str) -> tuple[str, str]:
    """What happened and what to do, out of one of Dynamo's messages.

    They start with what happened, then give `Explanation:` and `Hint:` lines, a debug context,
    links, the stack, and how to see more of it.
    """
    text = re.split(
        r"\n\s*(?:Developer debug context|For more details|from user code|Set TORCH)", text
    )[0]
    what, *hints = re.split(r"\n\s*Hint: ", text)
    happened, _, explanation = what.partition("Explanation:")
    sentences = [_first_sentence(happened), _first_sentence(explanation)]
    useful = [
        _first_sentence(hint)
        for hint in hints
        if not hint.startswith(
            ("Please report", "This graph break is fundamental", "It may be possible")
        )
        and "torch._dynamo.config" not in hint
    ]
    return ": ".join(filter(None, sentences)), useful[0] if useful else ""


def _first_sentence(text: str) -> str:
    plain = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<!e\.g)(?<!i\.e)\. ", plain)[0].removesuffix(".")


def _user_line(stack: Sequence[Any]) -> str:
    """The innermost line of a stack that is not torch's own, as text."""
    own = str(Path(torch.__file__).parent)
    theirs = [frame for frame in stack if not frame.filename.startswith(own)]
    if not stack:
        return ""
    frame = (theirs or stack)[-1]
    return f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}"


# --- graphs ---------------------------------------------------------------------------------------


def has_no_effect(node: fx.Node) -> bool:
    """Whether a node only concerns logging or autograd, which a program does not do.

    Dynamo keeps `torch._C._log_api_usage_once` and, for `torch.no_grad()` in forward,
    `torch._C._set_grad_enabled` in its graphs.
    """
    return node.op == "call_function" and node.target in (
        torch._C._log_api_usage_once,
        torch._C._set_grad_enabled,
    )


_OPENS = frozenset(
    {
        "_enter_autocast",
        "_enter_inference_mode",
        "_vmap_increment_nesting",
        "_grad_increment_nesting",
        "_jvp_increment_nesting",
    }
)
_CLOSES = frozenset(
    {
        "_exit_autocast",
        "_exit_inference_mode",
        "_vmap_decrement_nesting",
        "_grad_decrement_nesting",
        "_jvp_decrement_nesting",
    }
)


def region_change(node: fx.Node) -> int:
    """+1 for a node that opens a region which must be closed in the same piece, -1 for its end.

    Dynamo turns `with` blocks and functional transforms into calls of private functions, which
    have kept their names while they moved between modules.
    """
    if node.op != "call_function":
        return 0
    name = getattr(node.target, "__name__", "")
    return (name in _OPENS) - (name in _CLOSES)


def switches_attention(node: fx.Node) -> bool:
    """Whether a node sets which attention kernels may be used.

    `torch.nn.attention.sdpa_kernel` becomes two of them: one that sets and one that sets back.
    """
    return getattr(node.target, "__name__", "") == "_sdpa_kernel"


def depends_on_contents(value: Any) -> bool:
    """Whether a number, or a size of a tensor, is known only once a tensor's contents are."""
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    numbers = torch.Tensor | torch.SymInt | torch.SymFloat | torch.SymBool
    return isinstance(value, numbers) and bool(free_unbacked_symbols(value))


def line_of(node: fx.Node) -> str:
    """The user's file, line and source that a node was traced from; may be empty."""
    frames = re.findall(
        r'File "(.+?)", line (\d+), in (\S+)\n\s*(.*)', node.meta.get("stack_trace") or ""
    )
    return _user_line(
        [traceback.FrameSummary(f, int(n), name, line=line) for f, n, name, line in frames]
    )


def plain_number(expr: sympy.Basic) -> int | float | bool:
    """The Python number a constant expression is."""
    import sympy

    if expr in (sympy.true, sympy.false):
        return bool(expr)
    return int(expr) if expr.is_integer else float(expr)


def evaluate(expr: sympy.Basic, values: Mapping[sympy.Symbol, Any]) -> Any:
    """Compute an expression with proxies or sizes in place of its symbols."""
    names = {str(symbol): value for symbol, value in values.items()}
    functions = {"max": torch.sym_max, "min": torch.sym_min, "float": torch.sym_float}
    scope = {"math": math, **functions, **names}
    return eval(python_source(expr), scope)


def storage_of(tensor: torch.Tensor) -> int:
    """A number that two tensors share exactly if they share memory."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    address: int = tensor.untyped_storage()._cdata
    return address


def was_mutated(tensor: torch.Tensor) -> bool:
    """Whether a fake tensor, or a view of it, was written to while tracing."""
    return not tensor.is_inference() and tensor._version > 0


def attribute_of(module: fx.GraphModule, target: str) -> Any:
    """What a `get_attr` node refers to."""
    found: Any = module
    for part in target.split("."):
        found = getattr(found, part)
    return found


def lazy_graph_module(root: torch.nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """A graph module whose Python code is generated only if somebody asks for it.

    `torch.fx._lazy_graph_module` is what torch's own compile passes use for the same purpose.
    """
    from torch.fx._lazy_graph_module import _LazyGraphModule

    return _LazyGraphModule(root, graph)


# --- Inductor -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InductorOutput:
    """What Inductor made of a module.

    Attributes:
        source: the Python module it generated.
        kernels: for each kernel `source` defines, the shared object it was compiled to.
        constants: tensors `source` refers to by name.
        outputs: how many of the values its `call` returns are the module's own outputs.
        around: what torch's runtime would do around a call of `call`; empty if nothing.
    """

    source: str
    kernels: Mapping[str, str]
    constants: Mapping[str, torch.Tensor]
    outputs: int
    around: tuple[str, ...]


def inductor_settings(overrides: Mapping[str, Any], jobs: int) -> dict[str, Any]:
    """Inductor's settings for a build, checked.

    Caches are off because hotstart knows before it calls the compiler what it has compiled.
    `cpp.vec_isa_ok` says that the C++ compiler can compile for this CPU: Inductor picks the
    instruction set by the CPU's own flags either way, and would otherwise compile a test program
    for each that the CPU has (12 s here). A compiler that cannot fails on the first kernel.

    Raises:
        AttributeError: Inductor has no setting of that name.
    """
    from torch._inductor import config

    ours = {
        "fx_graph_cache": False,
        "fx_graph_remote_cache": False,
        "compile_threads": jobs,
        "cpp.vec_isa_ok": True,
    }
    for name in overrides:
        if name not in config.get_config_copy():
            raise AttributeError(name)
    return {**ours, **overrides}


def warm_up_inductor(settings: Mapping[str, Any]) -> None:
    """Do what Inductor's first C++ kernel waits for: probe the CPU and precompile the header.

    Both run the C++ compiler in subprocesses, so this can go on while Dynamo traces.
    """
    from torch._inductor import config
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    source = """
#include <torch/csrc/inductor/cpp_prefix.h>
extern "C" void kernel(float* out) { out[0] = 0.0f; }
"""
    with config.patch(dict(settings)):
        CppPythonBindingsCodeCache.load_pybinding(["float*"], source)


def compile_with_inductor(
    module: fx.GraphModule, inputs: Sequence[Any], mode: Any, settings: Mapping[str, Any]
) -> InductorOutput:
    """Compile a module for inference through AOTAutograd and Inductor.

    `compile_fx` with an `inner_compile` of our own (2.0 and later) gives the generated source and
    kernels as they are, without the cache entries and runtime wrappers of `standalone_compile`.
    What those wrappers would do is read from AOTAutograd's metadata.
    """
    import torch._functorch.config as functorch
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx, compile_fx_inner

    made: list[Any] = []

    def inner(graph: fx.GraphModule, example_inputs: Sequence[Any], **kwargs: Any) -> Any:
        made.append(compile_fx_inner(graph, example_inputs, **kwargs))
        return made[-1]

    context = torch._guards.TracingContext(mode)
    patches = functorch.patch(enable_autograd_cache=False)
    with (
        torch.no_grad(),
        without_size_assumptions(),
        torch._guards.tracing(context),
        patches,
        config.patch(dict(settings)),
    ):
        compile_fx(module, list(inputs), inner_compile=inner)
    (output,) = made
    metadata = context.fw_metadata
    assert metadata is not None  # AOTAutograd sets it on the way to Inductor
    names = _kernel_names(output.source_code)
    scope = vars(sys.modules[output.current_callable.__module__])
    return InductorOutput(
        source=output.source_code,
        kernels={name: scope[name].__self__.__file__ for name in names},
        constants=dict(output.constants or {}),
        outputs=len(metadata.output_info),
        around=tuple(_around(metadata, output, len(inputs))),
    )


def _kernel_names(source: str) -> list[str]:
    return [
        target.id
        for statement in ast.parse(source).body
        if isinstance(statement, ast.Assign) and "async_compile.cpp" in ast.unparse(statement.value)
        for target in statement.targets
        if isinstance(target, ast.Name)
    ]


def _around(metadata: Any, output: Any, inputs: int) -> Iterator[str]:
    """What AOTAutograd's runtime and Inductor's post-compile step do around the compiled code."""
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
    """Where the operator is that generated code calls as `extern_kernels.<name>`.

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


def pass_token(value: Any) -> str | None:
    """The identity of a custom Inductor pass, from its `uuid()`; None if it has none."""
    uuid = getattr(value, "uuid", None)
    return None if uuid is None else repr(uuid())


# --- running --------------------------------------------------------------------------------------


class MetadataGuard:
    """Notices that a tensor's dtype, device, shape or strides changed in place.

    `TensorGuards` is the C++ check that Dynamo's own guards use; it needs no Dynamo.
    """

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        from torch._C._dynamo.guards import TensorGuards

        self._check: Callable[..., bool] | None = None
        if tensors:
            guards = TensorGuards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None)
            self._check = guards.check

    def check(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether the tensors are as they were."""
        return self._check is None or self._check(*tensors)


def allow_kernels() -> None:
    """Tell kernels where the function is that gets the address of a tensor's data.

    They read it from the environment when they are loaded, so that they need not link torch.
    """
    guards: Any = torch._C._dynamo.guards
    address = guards._torchinductor_pyobject_tensor_data_ptr
    os.environ["_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR"] = str(address)


def autocast_check() -> Callable[[], bool]:
    """A function that tells whether any kind of autocast is on, in one C call."""
    return torch._C._is_any_autocast_enabled


def set_grad_enabled() -> Callable[[bool], None]:
    """The C function behind `torch.set_grad_enabled`, which is a class and five times slower."""
    return torch._C._set_grad_enabled


def autocast_state() -> tuple[tuple[str, torch.dtype], ...]:
    """The device types autocast is on for, with the dtype each casts to."""
    if not torch._C._is_any_autocast_enabled():
        return ()
    return tuple(
        (kind, torch.get_autocast_dtype(kind))
        for kind in ("cpu", "cuda")
        if torch.is_autocast_enabled(kind)
    )


# --- telling --------------------------------------------------------------------------------------


def trace_artifact(name: str, payload: Callable[[], str]) -> None:
    """Add a text to torch's structured trace, where `tlparse` shows it."""
    from torch._logging._internal import trace_structured

    trace_structured(
        "artifact",
        metadata_fn=lambda: {"name": name, "encoding": "string"},
        payload_fn=payload,
        expect_trace_id=False,
    )
