"""Text generation with `transformers`: a prompt and every token after it run compiled code.

from hotstart.integrations.transformers import compile_generator, load_generator

generator = compile_generator(model, max_length=512)
generator.save("model.hot")

generator = load_generator("model.hot", model)  # or weights="folder/of/the/checkpoint"
tokens = generator.generate(input_ids, max_new_tokens=100)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from operator import is_
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.cache_utils import Cache, StaticLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

import hotstart
from hotstart import Dim, Options, OptionsError, Program
from hotstart.dtypes import dtype_of
from hotstart.errors import ArtifactError, ContractError
from hotstart.integrations.generate_calls import (
    cache_argument,
    calls_of_generate,
    step_inputs,
    step_output,
    with_forward,
)
from hotstart.integrations.pipelines import compile_pipeline as compile_pipeline
from hotstart.integrations.pipelines import load_pipeline as load_pipeline
from hotstart.records.artifact import WeightSpec

_KEPT = ("keys", "values", "cumulative_length")
"""The tensors of a layer of a cache."""


class Generator:
    """A causal language model whose forward is compiled, with a cache of its own.

    Made by `compile_generator` and `load_generator`. One generation runs at a time, since all of
    them use the same cache; make several generators for several at once.

    Attributes:
        model: the model whose weights it runs with.
        program: the compiled calls, `decode` for one token and `prefill` for a prompt.
        batch: how many sequences are generated at once.
        max_length: the most tokens of a sequence, prompt included.
    """

    def __init__(self, program: Program, step: _Step) -> None:
        self.program = program
        self.model = step.model
        self.batch = step.cache.layers[0].keys.shape[0]
        self.max_length = step.cache.layers[0].max_cache_len
        self._cache = step.cache
        self._tensors = step.tensors()
        self._filled = 0
        self._generating = threading.Lock()
        self._runner = with_forward(self.model, self._forward)

    def generate(self, inputs: Tensor | None = None, **kwargs: Any) -> Any:
        """`model.generate` with the compiled forward.

        Args:
            inputs: token ids of the prompts, int64 [batch, prompt length].
            kwargs: whatever `generate` takes, but a cache.

        Returns:
            What `model.generate` returns.

        Raises:
            ContractError: a prompt or a sequence is too long, or `generate` calls the model in a
                way that was not compiled, as with beams or with hidden states asked for.
        """
        for name in ("cache", "past_key_values", "cache_implementation", "assistant_model"):
            if kwargs.get(name) is not None:
                raise OptionsError(f"{name}: got one, takes none: a generator has its own cache")
        with self._generating:
            self._put_back()
            self._cache.reset()
            self._filled = 0
            own = {cache_argument(self.model): self._cache}
            return self._runner.generate(inputs, **own, **kwargs)

    def save(self, file: str | os.PathLike[str], **kwargs: Any) -> None:
        """Write the compiled calls to one file; arguments as of `Program.save`.

        The cache is emptied first, so that the file does not hold what it is filled with.
        """
        with self._generating:
            self._put_back()
            self._cache.reset()
            self._filled = 0
            self.program.save(file, **kwargs)

    def save_weights(self, file: str | os.PathLike[str]) -> None:
        """Write the weights as the calls use them, as `Program.save_weights` does.

        `load_generator` finds the model by a `config.json` beside the file: write it into the
        folder of the checkpoint, or copy that there.
        """
        with self._generating:
            self._put_back()
            self.program.save_weights(file)

    def _put_back(self) -> None:
        """Give the cache its tensors again: beams, which are refused, replaced them."""
        kept = iter(self._tensors)
        for layer in self._cache.layers:
            for name in _KEPT:
                setattr(layer, name, next(kept))

    def _forward(self, **inputs: Any) -> CausalLMOutputWithPast:
        """The forward that `generate` calls."""
        argument = cache_argument(self.model)
        cache = inputs.pop(argument, None)
        if cache is not self._cache or not all(map(is_, _tensors_of(cache), self._tensors)):
            raise ContractError(
                argument,
                "a cache whose tensors were replaced",
                "the generator's own, as it was made",
                "beam search and assisted generation are not supported",
            )
        step = step_inputs(inputs)
        filled = self._filled + step["input_ids"].shape[1]
        if filled > self.max_length:
            raise ContractError(
                "generate",
                f"a sequence of {filled} tokens",
                f"at most {self.max_length}",
                "compile the generator with a larger max_length",
            )
        logits = self.program(**step)
        self._filled = filled
        return step_output(self.model, logits, cache)


def compile_generator(
    model: nn.Module,
    *,
    max_length: int,
    max_prompt: int | None = None,
    batch: int = 1,
    ranges: Sequence[tuple[int, int]] | None = None,
    split_on: Any = "auto",
    options: Options | None = None,
) -> Generator:
    """Compile the calls that `generate` makes of a decoder-only model, with a static cache.

    How the model is called is found out by letting `generate` call it, with and without padding;
    the model itself runs once, for one token, so that its cache gets its shape.

    Args:
        model: a model of transformers with `generate`, in eval mode.
        max_length: the most tokens of a sequence, prompt included. The cache holds so many.
        max_prompt: the most tokens of a prompt. Default: one less than `max_length`.
        batch: how many sequences are generated at once.
        ranges: ranges of prompt lengths that are compiled on their own, as in `hotstart.Dim`.
        split_on: as in `hotstart.compile`.
        options: as in `hotstart.compile`.

    Raises:
        OptionsError: the model does not generate from a prompt with a cache of keys and values, or
            a length makes no sense.
        HotstartError: as `hotstart.compile`.
    """
    longest = max_length - 1 if max_prompt is None else max_prompt
    if not 1 <= longest < max_length:
        raise OptionsError(
            f"max_prompt: got {longest} with max_length {max_length}, takes at least 1 and less "
            "than max_length"
        )
    step = _Step(model, _new_cache(model, batch, max_length))
    tokens = Dim("tokens", min=1, max=longest, ranges=ranges)
    calls = calls_of_generate(model, step.cache, tokens)
    program = hotstart.compile(step, calls=calls, split_on=split_on, options=options)
    return Generator(program, step)


def load_generator(
    file: str | os.PathLike[str],
    model: nn.Module | None = None,
    *,
    weights: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    **kwargs: Any,
) -> Generator:
    """Load what `Generator.save` wrote, with the weights of a model or of a checkpoint.

    `generate` is a method of a model. With `weights`, it is that of one on the meta device, made by
    the `config.json` beside the checkpoint; no weights are read into it.

    Args:
        file: the artifact.
        model: a model of the structure the generator was compiled for.
        weights: in place of a model, a folder or file of a checkpoint, as in `hotstart.load`;
            prepared weights, too, and `[prepared, original]`.
        kwargs: as of `hotstart.load`.

    Raises:
        ArtifactError: the file is no generator's, or as `hotstart.load`.
        ModelMismatch: as `hotstart.load`.
        OptionsError: as `hotstart.load`; or there is no `config.json` beside the checkpoint.
    """
    cache = _saved_cache(file)
    if model is not None and weights is None:
        step = _Step(model, cache)
        return Generator(hotstart.load(file, step, **kwargs), step)
    program = hotstart.load(file, model, weights=weights, **kwargs)
    assert weights is not None, "the load tells where both or neither is given"
    held = program.weights
    for number, layer in enumerate(cache.layers):
        for attribute, name in zip(_KEPT, _names(number), strict=True):
            setattr(layer, attribute, held[name])
    return Generator(program, _Step(_model_without_weights(weights), cache))


def _saved_cache(file: str | os.PathLike[str]) -> Cache:
    """An empty cache of the shape that a file was compiled for.

    Raises:
        ArtifactError: the file is no generator's.
    """
    weights = hotstart.inspect(file).requirements.weights
    kept = {weight.name: weight for weight in weights if weight.kind == "buffer"}
    layers: list[StaticLayer] = []
    while (keys := kept.get(f"keys_{len(layers)}")) is not None:
        values = kept[f"values_{len(layers)}"]
        layer = StaticLayer(keys.shape[2])
        layer.lazy_initialization(*(_empty(weight) for weight in (keys, values)))
        layers.append(layer)
    if not layers:
        raise ArtifactError(f"{file}: expected a generator's file, found one without a cache")
    return Cache(layers=layers)


def _names(number: int) -> tuple[str, str, str]:
    """The names that `_Step` has for the tensors of a layer, in the order of `_KEPT`."""
    return f"keys_{number}", f"values_{number}", f"length_{number}"


def _model_without_weights(
    weights: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
) -> nn.Module:
    """The model that a checkpoint is of, on the meta device.

    Raises:
        OptionsError: no file says which one that is.
    """
    files = [weights] if isinstance(weights, str | os.PathLike) else weights
    folders = [path if path.is_dir() else path.parent for path in map(Path, files)]
    folder = next((path for path in folders if (path / "config.json").is_file()), None)
    if folder is None:
        raise OptionsError(
            f"weights: got {weights}, takes a checkpoint with a config.json beside it, as "
            "save_pretrained writes; or load the generator with a model"
        )
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config).eval()
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    made: nn.Module = model
    return made


class _Step(nn.Module):
    """A model with a cache that every call continues; gives the logits."""

    def __init__(self, model: nn.Module, cache: Cache) -> None:
        super().__init__()
        self.model = model
        self.cache = cache
        self.argument = cache_argument(model)
        for number, layer in enumerate(cache.layers):
            for attribute, name in zip(_KEPT, _names(number), strict=True):
                self.register_buffer(name, getattr(layer, attribute), persistent=False)
        self.train(model.training)

    def forward(self, **inputs: Any) -> Tensor:
        given = {**inputs, self.argument: self.cache}
        output = self.model(**given, use_cache=True, return_dict=True)
        logits: Tensor = output.logits
        return logits

    def tensors(self) -> list[Tensor]:
        """The tensors of the cache."""
        return list(_tensors_of(self.cache))


def _tensors_of(cache: Cache) -> Iterator[Tensor]:
    for layer in cache.layers:
        yield from (getattr(layer, name) for name in _KEPT)


def _new_cache(model: nn.Module, batch: int, max_length: int) -> Cache:
    """A cache of the shape the model fills, all layers of full length.

    Layers with a window get as much, and leave it to their mask: a cache that slides counts with
    Python numbers, which would be a graph of their own at every length.
    """
    if not hasattr(model, "generate"):
        raise OptionsError(f"model: got a {type(model).__name__}, which has no generate()")
    config: Any = model.config
    if config.is_encoder_decoder:
        raise OptionsError("model: got an encoder-decoder model, takes one that is decoder only")
    count = config.get_text_config(decoder=True).num_hidden_layers
    cache = Cache(layers=[StaticLayer(max_length) for _ in range(count)])
    device = next(model.parameters()).device
    with torch.no_grad():
        token = torch.zeros(batch, 1, dtype=torch.int64, device=device)
        model(input_ids=token, use_cache=True, **{cache_argument(model): cache})
    if not all(layer.is_initialized for layer in cache.layers):
        raise OptionsError(
            f"model: got a {type(model).__name__}, whose layers do not all keep keys and values; "
            "takes one with attention in every layer"
        )
    cache.reset()
    return cache


def _empty(weight: WeightSpec) -> Tensor:
    batch, heads, _, width = weight.shape
    return torch.empty(batch, heads, 1, width, dtype=dtype_of(weight.dtype), device=weight.device)
