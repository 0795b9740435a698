"""Graph modules whose Python code is generated when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx


def lazy_graph_module(root: torch.nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """A graph module whose Python code is generated only if somebody asks for it.

    `torch.fx._lazy_graph_module` is what torch's own compile passes use for the same purpose.
    """
    from torch.fx._lazy_graph_module import _LazyGraphModule

    return _LazyGraphModule(root, graph)


def forward_of(module: fx.GraphModule) -> Callable[..., Any]:
    """The code of a lazy graph module; a call of the module itself prints what its code raises."""
    from torch.fx._lazy_graph_module import _LazyGraphModule

    _LazyGraphModule.force_recompile(module)
    forward: Callable[..., Any] = module.forward
    return forward
