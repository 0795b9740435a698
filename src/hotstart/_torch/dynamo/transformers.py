"""Have Dynamo trace layers of transformers as eager runs them, whatever masks hold."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.modules import transformer

from hotstart._torch.in_between import in_between


@contextlib.contextmanager
def masks_of_any_contents() -> Iterator[None]:
    """Trace functions of this module in place of two of torch's that branch on what masks hold.

    `convert_frame.get_traced_fn` (2.11 to 2.15) finds the function that a trace begins with, and
    `InstructionTranslatorBase.inline_user_function_return` traces one that is called.
    `_detect_is_causal_mask` and what an encoder does with padding are the same in these versions.
    """
    from torch._dynamo import convert_frame
    from torch._dynamo.symbolic_convert import InstructionTranslatorBase
    from torch._dynamo.variables import UserFunctionVariable

    others: dict[Any, Any] = {
        transformer._detect_is_causal_mask: _is_said_to_be_causal,
        transformer.TransformerEncoder.forward: _forward_of_encoder,
    }

    def inline(known: Any, self: Any, fn: Any, *args: Any, **kwargs: Any) -> Any:
        other = others.get(getattr(fn, "fn", None))
        if other is not None and self.f_code is not other.__code__:
            fn = UserFunctionVariable(other)
        return known(self, fn, *args, **kwargs)

    def start(known: Any, fn: Any) -> Any:
        function, owner = known(fn)
        return others.get(function, function), owner

    with (
        in_between(InstructionTranslatorBase, "inline_user_function_return", inline),
        in_between(convert_frame, "get_traced_fn", start),
    ):
        yield


def _is_said_to_be_causal(
    mask: torch.Tensor | None, is_causal: bool | None = None, size: int | None = None
) -> bool:
    """Tell whether attention may leave a mask out, without looking whether it is the causal one.

    Where eager finds that it is, attention computes the same with the mask as with its name.
    """
    return is_causal is True


def _forward_of_encoder(
    self: transformer.TransformerEncoder,
    src: torch.Tensor,
    mask: torch.Tensor | None = None,
    src_key_padding_mask: torch.Tensor | None = None,
    is_causal: bool | None = None,
) -> torch.Tensor:
    """Give zeros, before the last norm, where eager packs sequences whose padding is at their ends.

    Packed, a layer computes nothing for padding; elsewhere its results are the same.
    """
    if mask is not None or src_key_padding_mask is None or not _packs(self, src):
        return transformer.TransformerEncoder.forward(
            self, src, mask, src_key_padding_mask, is_causal
        )
    taken = src_key_padding_mask.logical_not()  # of numbers to add to the scores, those that are 0
    packed = (taken[:, 1:] <= taken[:, :-1]).all()
    left = packed & ~taken
    padding = src_key_padding_mask
    if padding.dtype is not torch.bool:
        padding = padding.masked_fill(left, float("-inf"))
    output = src
    for layer in self.layers:
        output = layer(output, src_key_padding_mask=padding)
    output = output.masked_fill(left.unsqueeze(-1), 0.0)
    return output if self.norm is None else self.norm(output)


def _packs(encoder: transformer.TransformerEncoder, src: torch.Tensor) -> bool:
    """Tell whether eager packs sequences without gradients, if padding is at their ends."""
    return (
        getattr(encoder, "use_nested_tensor", False)
        and getattr(encoder, "mask_check", True)
        and src.dim() == 3
        and not encoder.layers[0].training
        and torch.backends.mha.get_fastpath_enabled()
        and not torch.is_autocast_enabled()
    )
