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
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

if TYPE_CHECKING:
    import sympy
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

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
        hint = int(expr.xreplace({s: sympy.Integer(self.hints[n]) for n, s in self.by_name.items()}))
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


def symbol_of(size: int | torch.SymInt, axis: str) -> dict[sympy.Symbol, sympy.Symbol]:
    """Which axis the symbol behind an input's dimension stands for.

    `_expr` is the symbol the dimension was given; `expr` what torch has since found it equal to.
    """
    import sympy

    node = getattr(size, "node", None)
    if node is None:
        return {}
    named = {e for e in (node._expr, node.expr) if isinstance(e, sympy.Symbol)}
    return {symbol: axis_symbol(axis) for symbol in named}


def python_source(expr: sympy.Basic) -> str:
    """A Python expression, over the symbols' names and `math`, that computes `expr`."""
    from torch.utils._sympy.printers import PythonPrinter

    return str(PythonPrinter().doprint(expr))


def as_function(expr: sympy.Basic, symbols: Sequence[sympy.Symbol]) -> Callable[..., Any]:
    """A plain Python function that computes `expr` for sizes of `symbols`, in that order."""
    names = ", ".join(map(str, symbols))
    function = eval(f"lambda {names}: {python_source(expr)}", {"math": math})
    assert callable(function)
    return function


def without_size_assumptions() -> contextlib.AbstractContextManager[Any]:
    """Trace without assuming that dynamic sizes are neither 0 nor 1.

    torch specialises backed symbols on 0 and 1 without recording a guard; with
    `backed_size_oblivious` an assumption is made only where code asks, and leaves a guard.
    """
    import torch.fx.experimental._config as config

    return config.patch(backed_size_oblivious=True)


# --- Dynamo ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FullGraph:
    """What Dynamo made of one call.

    Attributes:
        module: the graph, its placeholders in calling order.
        env: the shape environment it was traced in.
        replay: runs the bytecode Dynamo generated around the graph, given what to call in place
            of the graph, and the call's arguments.
        side_effects: Dynamo's names for the Python objects that the bytecode changes.
        scopes: local and global variables of the traced frame; Dynamo's names start from them.
    """

    module: fx.GraphModule
    env: ShapeEnv
    replay: Callable[[Callable[..., Any]], Any]
    side_effects: tuple[str, ...]
    scopes: Mapping[str, Mapping[str, Any]]

    def object_named(self, name: str) -> Any:
        """The object behind one of Dynamo's names, such as `L['self'].hist`; None if unknown."""
        try:
            return eval(name, dict(self.scopes))
        except Exception:
            return None

    def size_source(self, placeholder: fx.Node) -> tuple[Any, int] | None:
        """The (tensor, dimension) that an integer placeholder is the size of."""
        source = getattr(placeholder, "_dynamo_source", None)
        base, index = getattr(source, "base", None), getattr(source, "idx", None)
        if base is None or index is None:
            return None
        # A method up to 2.11, a property since.
        name = base.name if isinstance(base.name, str) else base.name()
        return self.object_named(name), index


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
    with settings, torch.no_grad(), without_size_assumptions(), get_metrics_context():
        with _recording_side_effects() as side_effects:
            captured = convert_frame.fullgraph_capture(fn, args, kwargs)
    if captured.backend_input is None:
        raise NoGraph
    output = captured.graph_capture_output
    traced, owner = convert_frame.get_traced_fn(fn)
    scope = {**traced.__globals__, **output.f_globals}
    call_args = args if owner is None else (owner, *args)

    def replay(graph: Callable[..., Any]) -> Any:
        callable_ = captured.forward_callable(compiled_fn=graph, extra_globals=scope)
        return callable_(*call_args, **kwargs)

    return FullGraph(
        module=captured.backend_input.graph_module,
        env=captured.backend_input.fake_mode.shape_env,
        replay=replay,
        side_effects=tuple(side_effects),
        scopes={"L": convert_frame._get_frame(fn, args, kwargs).locals, "G": scope},
    )


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
    """Why Dynamo gave up: what, and the user's line it happened at (may be empty)."""

    reason: str
    line: str


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
    stack = getattr(error, "real_stack", None)
    line = ""
    if stack:
        frame = list(stack)[-1]
        line = f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}"
    return Failure(str(error), line)


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


def region_change(node: fx.Node) -> int:
    """+1 for a node that opens a region which must be closed in the same piece, -1 for its end."""
    from torch.amp.autocast_mode import _enter_autocast, _exit_autocast

    if node.op != "call_function":
        return 0
    return {_enter_autocast: 1, _exit_autocast: -1}.get(node.target, 0)


def plain_number(expr: sympy.Basic) -> int | float | bool:
    """The Python number a constant expression is."""
    import sympy

    if expr in (sympy.true, sympy.false):
        return bool(expr)
    return int(expr) if expr.is_integer else float(expr)


def evaluate(expr: sympy.Basic, values: Mapping[sympy.Symbol, Any]) -> Any:
    """Compute an expression with proxies or sizes in place of its symbols."""
    names = {str(symbol): value for symbol, value in values.items()}
    scope = {"math": math, "max": torch.sym_max, "min": torch.sym_min, **names}
    return eval(python_source(expr), scope)


def storage_of(tensor: torch.Tensor) -> int:
    """A number that two tensors share exactly if they share memory."""
    return tensor.untyped_storage()._cdata


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

    Raises:
        AttributeError: Inductor has no setting of that name.
    """
    from torch._inductor import config

    ours = {"fx_graph_cache": False, "fx_graph_remote_cache": False, "compile_threads": jobs}
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
    names = _kernel_names(output.source_code)
    scope = vars(sys.modules[output.current_callable.__module__])
    return InductorOutput(
        source=output.source_code,
        kernels={name: scope[name].__self__.__file__ for name in names},
        constants={n: t for n, t in (output.constants or {}).items()},
        outputs=len(context.fw_metadata.output_info),
        around=tuple(_around(context.fw_metadata, output, len(inputs))),
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

    kernel = getattr(extern_kernels, name, None)
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
    address = torch._C._dynamo.guards._torchinductor_pyobject_tensor_data_ptr
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
    torch._logging.trace_structured(
        "artifact",
        metadata_fn=lambda: {"name": name, "encoding": "string"},
        payload_fn=payload,
        expect_trace_id=False,
    )
