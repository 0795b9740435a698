"""Have Dynamo trace what eager mode computes: the same sizes, numbers, operators and errors.

Every change is described where it is made; the order counts where two replace one function.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from hotstart._torch.dynamo.as_called import operators_as_called
from hotstart._torch.dynamo.class_names import knowing_modules_of_classes
from hotstart._torch.dynamo.contents_asked import asking_contents
from hotstart._torch.dynamo.decided_branches import going_on_where_all_is_decided
from hotstart._torch.dynamo.gradients import gradients_in_forward
from hotstart._torch.dynamo.indexed import indexing_by_numbers
from hotstart._torch.dynamo.left_generators import refusing_left_generators
from hotstart._torch.dynamo.numbers_read import (
    numbers_of_weights_unknown,
    reading_lists,
    reading_numbers,
)
from hotstart._torch.dynamo.packed_sequences import packed_sequences
from hotstart._torch.dynamo.plain_sizes import sizes_of_any_operator
from hotstart._torch.dynamo.raising_branches import tracing_checks_of_distributions
from hotstart._torch.dynamo.recurrent import recurrent_of_any_length
from hotstart._torch.dynamo.said import SAYING, loggers_say_nothing
from hotstart._torch.dynamo.standard_functions import standard_functions
from hotstart._torch.dynamo.text_of_values import refusing_text_of_values, text_of_sizes_when_asked
from hotstart._torch.dynamo.transformers import masks_of_any_contents
from hotstart._torch.graphs.source_lines import guards_name_users_lines
from hotstart._torch.graphs.symbols import sizes_that_may_be_zero, without_size_assumptions
from hotstart._torch.inductor.composites import composites_of_any_size
from hotstart._torch.inductor.projections import projections_of_any_size
from hotstart._torch.inductor.sizes import convolutions_of_any_batch, decompositions_of_any_size

_SIZES = (
    without_size_assumptions,
    sizes_that_may_be_zero,
    convolutions_of_any_batch,
    composites_of_any_size,
    projections_of_any_size,
    sizes_of_any_operator,
    decompositions_of_any_size,
    recurrent_of_any_length,
    packed_sequences,
    guards_name_users_lines,
)
"""Sizes stay symbols: a guard is made only where traced code asks, and names its line."""

_NUMBERS = (
    reading_numbers,
    reading_lists,
    asking_contents,
    indexing_by_numbers,
    numbers_of_weights_unknown,
)
"""Numbers held by tensors are read by nodes of the graph, and those of weights stay unknown."""

_CODE = (
    going_on_where_all_is_decided,
    masks_of_any_contents,
    loggers_say_nothing,
    standard_functions,
    gradients_in_forward,
    text_of_sizes_when_asked,
    operators_as_called,
    knowing_modules_of_classes,
    tracing_checks_of_distributions,
)
"""Conditions, operators and classes are those of the traced code."""

_REFUSED = (refusing_text_of_values, refusing_left_generators)
"""Code that a program would run otherwise than Python does fails the trace."""


@contextlib.contextmanager
def tracing_as_eager() -> Iterator[None]:
    """Have Dynamo read sizes, numbers, conditions and classes as eager does, or refuse to."""
    import torch._dynamo.config as config

    with contextlib.ExitStack() as entered:
        entered.enter_context(config.patch(**trace_settings()))
        entered.enter_context(torch.no_grad())
        for change in (*_SIZES, *_NUMBERS, *_CODE, *_REFUSED):
            entered.enter_context(change())
        yield


def trace_settings() -> dict[str, Any]:
    """Settings under which Dynamo traces sizes as they are declared, and operators as written.

    `enable_dynamo_decompositions`, where there is one, makes a product and an `fma` of
    `x.addcmul_(a, b, value=2.0)` and its like: they round otherwise than eager does, and only
    Inductor registers them. Numbers that depend on contents of tensors become unbacked symbols.
    """
    import torch._dynamo.config as config

    decompositions = "enable_dynamo_decompositions"
    return {
        "assume_static_by_default": True,
        "automatic_dynamic_shapes": False,
        "specialize_int": True,
        "specialize_float": True,
        "allow_rnn": True,
        "capture_scalar_outputs": True,
        "capture_dynamic_output_shape_ops": True,
        "ignore_logging_functions": set(SAYING),
        **({decompositions: False} if hasattr(config, decompositions) else {}),
    }
