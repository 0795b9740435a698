"""Have Inductor compile for a target instead of the processor of this machine.

Inductor asks the processor in three places: for the vectors that its code is written in, for the
`-march` that the C++ compiler gets, and for the dtypes that oneDNN computes in. All three get the
answer of the weakest processor of that target.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from hotstart._torch.in_between import replaced
from hotstart._torch.inductor.cross import nothing_loaded
from hotstart.targets import MARCH, VECTOR_BITS, TargetName, is_foreign

_MARCH = ("march=", "mcpu=", "mtune=")
_ALONE = threading.RLock()
"""Held during a compile, since patches for a target apply to all threads."""
_THERE: dict[str, Any] = {"__bool__": lambda self: True}


@contextlib.contextmanager
def compiling_for(target: TargetName) -> Iterator[None]:
    """Compile for a target what Inductor compiles meanwhile; in one thread at a time.

    `pick_vec_isa` picks the first of `valid_vec_isa_list`, or the one of the width that
    `cpp.simdlen` asks for. `get_cpp_options` gives the flags of the compiler; `cpp.march` is a
    setting since 2.13 only. The passes of `mkldnn_fusion` pack bfloat16 and float16 where oneDNN
    computes in them: in the first with AVX-512, in the other with more than any level has. All of
    it is so in 2.11 to 2.15. Kernels for another architecture are not loaded.
    """
    with _ALONE, contextlib.ExitStack() as replacements:
        if target != "native":
            replacements.enter_context(_answers(target))
        yield


@contextlib.contextmanager
def _answers(target: TargetName) -> Iterator[None]:
    """Answer questions about the processor for a target."""
    from torch._inductor import cpp_builder, cpu_vec_isa
    from torch._inductor.fx_passes import mkldnn_fusion

    passes: Any = mkldnn_fusion
    bits, options = VECTOR_BITS[target], cpp_builder.get_cpp_options
    in_bfloat16: Callable[[str], bool] = passes.is_mkldnn_bf16_supported

    def bfloat16(device: str) -> bool:
        return bits == 512 and in_bfloat16(device)

    def float16(device: str) -> bool:
        return False

    with (
        nothing_loaded() if is_foreign(target) else contextlib.nullcontext(),
        replaced(cpu_vec_isa, "valid_vec_isa_list", lambda: _vectors(target)),
        replaced(cpp_builder, "get_cpp_options", _for_target(options, target)),
        replaced(passes, "is_mkldnn_bf16_supported", bfloat16),
        replaced(passes, "is_mkldnn_fp16_supported", float16),
    ):
        yield


def beyond_target(graph: fx.Graph) -> Iterator[str]:
    """List operators that a processor of the target may refuse, while `compiling_for` it.

    `lstm` becomes `mkldnn_rnn_layer` where oneDNN computes in its dtype on this machine.
    """
    from torch._inductor.fx_passes import mkldnn_fusion

    passes: Any = mkldnn_fusion
    served = {
        torch.bfloat16: passes.is_mkldnn_bf16_supported("cpu"),
        torch.float16: passes.is_mkldnn_fp16_supported("cpu"),
    }
    for node in graph.find_nodes(
        op="call_function", target=torch.ops.aten.mkldnn_rnn_layer.default
    ):
        for made in pytree.tree_leaves(node.meta["val"]):
            if not served.get(made.dtype, True):
                yield f"{node.name} is in {made.dtype}, which not all processors of the target have"


@functools.cache
def _vectors(target: TargetName) -> list[Any]:
    """Inductor's descriptions of the vectors of a target, widest first."""
    from torch._inductor.cpu_vec_isa import VecAVX2, VecAVX512, VecNEON

    if target == "aarch64":
        # Elsewhere than there without Sleef, whose header declares this machine's functions: then
        # exponentials and their like are the C library's, one element after the other.
        plain = {"_macro": ["CPU_CAPABILITY_NEON"]} if is_foreign(target) else {}
        return [type("PlainNEON", (VecNEON,), {**plain, **_THERE})()]
    bits = VECTOR_BITS[target]
    # Inductor's own adds bfloat16 where this machine has it, once it is asked whether it is there.
    avx512 = type("PlainAVX512", (VecAVX512,), _THERE)
    return [*([avx512()] if bits >= 512 else []), *([VecAVX2()] if bits >= 256 else [])]


def _for_target(options: Callable[..., Any], target: TargetName) -> Callable[..., Any]:
    """A function that gives the flags of the compiler, with those of a target."""

    def options_for_target(*args: Any, **kwargs: Any) -> Any:
        definitions, folders, flags, *others = options(*args, **kwargs)
        kept = [flag for flag in flags if not flag.startswith(_MARCH)]
        return (definitions, folders, [*kept, f"march={MARCH[target]}"], *others)

    return options_for_target
