"""The only place that touches private names of torch.

Supported: torch 2.11 to 2.15. Every private name says why it is needed; where versions differ, the
difference is handled here and nowhere else. Imports of Dynamo, Inductor and sympy are inside the
functions that build, and the modules that build are imported when a name of theirs is first asked
for, so that a process that only runs programs does not pay for either.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket

from hotstart._torch.fresh_memory import filled_memory, junk_memory
from hotstart._torch.running import (
    MappingWatch,
    TensorWatch,
    VersionWatch,
    allow_kernels,
    apart,
    autocast_check,
    autocast_state,
    compile_state,
    function_mode,
    global_hook_dicts,
    global_hooks,
    is_compiled,
    operator_code,
    operator_schemas,
    registering_modules,
    reinterpret_tensor,
    set_grad_enabled,
    tensor_handles,
    tensors_of_handles,
    trace_artifact,
    without_assertions,
)
from hotstart._torch.widening import in_float64

if TYPE_CHECKING:
    from hotstart._torch.attention import attention_kernel
    from hotstart._torch.block_names import Counterparts
    from hotstart._torch.c_shims import (
        NO_DEFAULT,
        CFunction,
        argument_kinds,
        c_constant,
        c_functions,
        compile_command,
        dispatcher_version,
        is_real,
        operator_name,
        result_kinds,
        shown_argument,
        written_arguments,
        written_by_keyword,
    )
    from hotstart._torch.compile_fx import (
        InductorOutput,
        Packing,
        compile_with_inductor,
        doubtful_passes,
        extern_kernel,
        helper_source,
        inductor_settings,
        pass_token,
        warm_up_inductor,
    )
    from hotstart._torch.dynamo import (
        FullGraph,
        NoGraph,
        full_graph,
        input_name,
        plain_name,
    )
    from hotstart._torch.dynamo_errors import describe_failure
    from hotstart._torch.few_rows import (
        ACTIVATIONS,
        ADDS,
        HAS_BIAS,
        MULTIPLIES,
        few_rows_kernel,
    )
    from hotstart._torch.graph_inputs import (
        bounds_of,
        compile_id,
        guard_on,
        hint_of,
        is_float,
        make_constant,
        symbols_in,
        traced_environment,
    )
    from hotstart._torch.graphs import (
        asserts_contents,
        attribute_of,
        communicates,
        count_writes,
        depends_on_contents,
        drop_unused_views,
        evaluate,
        has_no_effect,
        is_drawn_by_python,
        keep_checks,
        lazy_graph_module,
        like_in_format,
        line_of,
        names_a_place,
        plain_number,
        region_change,
        replaces_memory,
        sets_grad_mode,
        storage_of,
        switches_attention,
        view_by_attribute,
        was_mutated,
    )
    from hotstart._torch.guards import Read
    from hotstart._torch.layout_reads import LayoutRead, LayoutReads, Step
    from hotstart._torch.own_process import cpp_compiler, import_inductor, write_whole_files
    from hotstart._torch.packing import Pack
    from hotstart._torch.processes import (
        ProcessState,
        grad_modes,
        process_state,
        set_process_state,
    )
    from hotstart._torch.recipes import BySize, Recipe
    from hotstart._torch.repeats import Alike
    from hotstart._torch.sizes import Narrowing
    from hotstart._torch.symbols import (
        Condition,
        Symbols,
        about,
        as_function,
        assume,
        axis_symbol,
        conditions,
        differ,
        equals,
        expression,
        expression_text,
        fake_mode,
        holds_at,
        holds_within,
        is_fake,
        make_symbols,
        parse_expression,
        python_source,
        substitution,
        without_size_assumptions,
    )
    from hotstart._torch.target_flags import compiling_for

__all__ = [
    "ACTIVATIONS",
    "ADDS",
    "HAS_BIAS",
    "MULTIPLIES",
    "NO_DEFAULT",
    "Alike",
    "BySize",
    "CFunction",
    "Condition",
    "Counterparts",
    "FullGraph",
    "HigherOrderOperator",
    "InductorOutput",
    "LayoutRead",
    "LayoutReads",
    "MappingWatch",
    "Narrowing",
    "NoGraph",
    "OpOverload",
    "OpOverloadPacket",
    "Pack",
    "Packing",
    "ProcessState",
    "Read",
    "Recipe",
    "Step",
    "Symbols",
    "TensorWatch",
    "VersionWatch",
    "about",
    "allow_kernels",
    "apart",
    "argument_kinds",
    "as_function",
    "asserts_contents",
    "assume",
    "attention_kernel",
    "attribute_of",
    "autocast_check",
    "autocast_state",
    "axis_symbol",
    "bounds_of",
    "c_constant",
    "c_functions",
    "communicates",
    "compile_command",
    "compile_id",
    "compile_state",
    "compile_with_inductor",
    "compiling_for",
    "conditions",
    "count_writes",
    "cpp_compiler",
    "depends_on_contents",
    "describe_failure",
    "differ",
    "dispatcher_version",
    "doubtful_passes",
    "drop_unused_views",
    "equals",
    "evaluate",
    "expression",
    "expression_text",
    "extern_kernel",
    "fake_mode",
    "few_rows_kernel",
    "filled_memory",
    "full_graph",
    "function_mode",
    "global_hook_dicts",
    "global_hooks",
    "grad_modes",
    "guard_on",
    "has_no_effect",
    "helper_source",
    "hint_of",
    "holds_at",
    "holds_within",
    "import_inductor",
    "in_float64",
    "inductor_settings",
    "input_name",
    "is_compiled",
    "is_drawn_by_python",
    "is_fake",
    "is_float",
    "is_real",
    "junk_memory",
    "keep_checks",
    "lazy_graph_module",
    "like_in_format",
    "line_of",
    "make_constant",
    "make_symbols",
    "names_a_place",
    "operator_code",
    "operator_name",
    "operator_schemas",
    "parse_expression",
    "pass_token",
    "plain_name",
    "plain_number",
    "process_state",
    "python_source",
    "region_change",
    "registering_modules",
    "reinterpret_tensor",
    "replaces_memory",
    "result_kinds",
    "set_grad_enabled",
    "set_process_state",
    "sets_grad_mode",
    "shown_argument",
    "storage_of",
    "substitution",
    "switches_attention",
    "symbols_in",
    "tensor_handles",
    "tensors_of_handles",
    "trace_artifact",
    "traced_environment",
    "view_by_attribute",
    "warm_up_inductor",
    "was_mutated",
    "without_assertions",
    "without_size_assumptions",
    "write_whole_files",
    "written_arguments",
    "written_by_keyword",
]

_BUILDING = (
    "attention",
    "block_names",
    "c_shims",
    "dynamo",
    "dynamo_errors",
    "graph_inputs",
    "graphs",
    "guards",
    "compile_fx",
    "few_rows",
    "layout_reads",
    "own_process",
    "packing",
    "processes",
    "recipes",
    "recorder",
    "repeats",
    "sizes",
    "symbols",
    "target_flags",
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        for part in _BUILDING:
            module = importlib.import_module(f"{__name__}.{part}")
            if hasattr(module, name):
                globals()[name] = getattr(module, name)
                return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
