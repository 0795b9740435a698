"""Find out how `generate` of transformers calls a model, by letting it call a stand-in."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from hotstart import Call, Dim

_PROMPTS = (5, 7)
"""Lengths of two example prompts; what differs between their calls depends on the length."""


def calls_of_generate(model: nn.Module, cache: Cache, tokens: Dim) -> dict[str, Call]:
    """Record the calls that `generate` makes, one token first: that is the one made most.

    Args:
        model: what `generate` calls.
        cache: of the shape that the model fills.
        tokens: the lengths of prompts.
    """
    decodes: list[Call] = []
    prefills: list[Call] = []
    for padded in (False, True):
        (short, decode), (long, _) = (
            _recorded(model, cache, length, padded) for length in _PROMPTS
        )
        shapes = {name: _dims(short[name], long[name], tokens) for name in short}
        found = Call(kwargs=long, dynamic_shapes={n: s for n, s in shapes.items() if s})
        _add(decodes, Call(kwargs=decode))
        _add(prefills, found)
    named = {f"decode_{i}" if i else "decode": call for i, call in enumerate(decodes)}
    return named | {f"prefill_{i}" if i else "prefill": call for i, call in enumerate(prefills)}


def _add(calls: list[Call], call: Call) -> None:
    if all(_form(call.kwargs) != _form(known.kwargs) for known in calls):
        calls.append(call)


def _form(value: Any) -> Any:
    """Describe all that tells two calls apart: everything but the contents of tensors."""
    if isinstance(value, Tensor):
        return (value.dtype, tuple(value.shape))
    if isinstance(value, Mapping):
        return {key: _form(item) for key, item in value.items()}
    return value


def _dims(short: Any, long: Any, tokens: Dim) -> Any:
    """The dimensions of an argument that follow the length of the prompt; None without any."""
    if isinstance(short, Tensor):
        sizes = enumerate(zip(short.shape, long.shape, strict=True))
        return {dim: tokens for dim, pair in sizes if pair == _PROMPTS} or None
    if isinstance(short, Mapping):
        parts = {key: _dims(short[key], long[key], tokens) for key in short}
        return {key: part for key, part in parts.items() if part} or None
    return None


def _recorded(model: nn.Module, cache: Cache, length: int, padded: bool) -> list[dict[str, Any]]:
    """Record what `generate` passes to a model for a prompt, and for the token after it."""
    calls: list[dict[str, Any]] = []
    config: Any = model.config
    vocabulary = config.get_text_config(decoder=True).vocab_size

    def forward(**inputs: Any) -> CausalLMOutputWithPast:
        calls.append(step_inputs(inputs))
        ids = inputs["input_ids"]
        for layer in cache.layers:
            layer.cumulative_length.add_(ids.shape[1])
        logits = torch.zeros(ids.shape[0], 1, vocabulary, device=ids.device)
        return step_output(model, logits, cache)

    keys = cache.layers[0].keys
    prompt = torch.ones(keys.shape[0], length, dtype=torch.int64, device=keys.device)
    mask = torch.ones_like(prompt)
    mask[:, 0] = 0
    cache.reset()
    with_forward(model, forward).generate(
        prompt,
        attention_mask=mask if padded else torch.ones_like(mask),
        max_new_tokens=2,
        min_new_tokens=2,
        do_sample=False,
        **{cache_argument(model): cache},
    )
    cache.reset()
    return calls


def cache_argument(model: nn.Module) -> str:
    """The name that a model has for the cache it is given, and for the one it returns.

    Since transformers 5.24 it is `cache`, before it was `past_key_values`.
    """
    known = inspect.signature(model.forward).parameters
    return "cache" if "cache" in known else "past_key_values"


def step_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call that `generate` makes, but for the cache and what asks for it."""
    own = ("cache", "past_key_values", "use_cache", "return_dict")
    return {name: value for name, value in inputs.items() if name not in own}


def step_output(model: nn.Module, logits: Tensor, cache: Cache) -> CausalLMOutputWithPast:
    """Make what `generate` expects of a call."""
    returned: dict[str, Any] = {cache_argument(model): cache}
    return CausalLMOutputWithPast(logits=logits, **returned)


def with_forward(model: nn.Module, forward: Callable[..., Any]) -> Any:
    """A model that shares everything with `model` but its forward, which keeps its signature."""

    @functools.wraps(model.forward)
    def same_signature(**inputs: Any) -> Any:
        return forward(**inputs)

    twin: Any = copy.copy(model)
    twin.forward = same_signature
    return twin
