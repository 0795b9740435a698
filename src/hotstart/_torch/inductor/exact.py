"""Keep Inductor from changing what operators give for nan, infinities and narrow floats.

None of this shows with ordinary numbers, such as those that units are compared on.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from hotstart._torch.in_between import replaced


def operators_called_whole() -> frozenset[Any]:
    """Operators that Inductor's own code does not give the numbers of (2.13; others alike).

    `grid_sampler_2d` makes 0 of a coordinate that is nan, and nan of what lies outside an image
    whose first pixel is nan; `nextafter` finds the neighbours that narrower floats have in float32.
    """
    packets = (torch.ops.aten.grid_sampler_2d, torch.ops.aten.nextafter)
    return frozenset(getattr(packet, name) for packet in packets for name in packet.overloads())


def products_with_zero() -> contextlib.AbstractContextManager[None]:
    """Let `x * 0` be nan where a floating-point `x` is nan or infinite.

    A pass over the joint graph (`UniformValueConstantFolder._add_peephole_patterns`, 2.13; others
    where they have it) makes zeros of such products, whatever their dtype. `softshrink` multiplies
    by 0 to pass nan on.
    """
    from torch._inductor.fx_passes import joint_graph

    folder: Any = joint_graph.UniformValueConstantFolder
    add = getattr(folder, "_add_peephole_patterns", None)
    if add is None:
        return contextlib.nullcontext()

    def add_integers(self: Any) -> None:
        add(self)
        for node in list(self.node_replacements):
            dtype = node.meta["val"].dtype
            if dtype.is_floating_point or dtype.is_complex:
                del self.node_replacements[node]
                del self.node_replacements_shapes[node]
                del self.constant_data_ptrs[node]

    return replaced(folder, "_add_peephole_patterns", add_integers)
