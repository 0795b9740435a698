"""List every place where Dynamo would break a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hotstart._torch.dynamo.as_eager import trace_settings
from hotstart._torch.dynamo.failures import describe_reason
from hotstart._torch.dynamo.said import loggers_say_nothing
from hotstart._torch.dynamo.transformers import masks_of_any_contents
from hotstart._torch.graphs.source_lines import user_line


def graph_breaks(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    """Run a function with graph breaks, and list them.

    `torch._dynamo.explain` is documented, and forgets what was compiled before (2.11 to 2.15). It
    omits a break if nothing was computed since the one before.

    Returns:
        For each break the user's file, line and source; the reason; Dynamo's hint, which may be
        empty.
    """
    import torch._dynamo as dynamo
    from torch._dynamo import config

    with config.patch(trace_settings()), loggers_say_nothing(), masks_of_any_contents():
        explained = dynamo.explain(function)(*args, **kwargs)
    found = [
        (user_line(list(broken.user_stack or ())), *describe_reason(broken.reason))
        for broken in explained.break_reasons
    ]
    return list(dict.fromkeys(found))
