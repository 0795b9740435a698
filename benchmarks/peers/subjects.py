"""The models of `bench_peers.py` as data: sizes, dynamic axes, inputs.

Nothing here imports torch, so that peers that need none run without it. `modules.py` makes the
modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Axis:
    """A dynamic dimension: its name, and the sizes that are declared, both ends included."""

    name: str
    max: int
    min: int = 1


@dataclass(frozen=True)
class Input:
    """An input of forward.

    Attributes:
        name: of the parameter.
        shape: sizes of fixed dimensions, and axes.
        below: token ids are integers from 0 to below this; None: floats of a normal distribution.
        ones: a mask without padding: ones in place of random numbers.
    """

    name: str
    shape: tuple[int | Axis, ...]
    below: int | None = None
    ones: bool = False

    @property
    def axes(self) -> dict[int, Axis]:
        """The dynamic dimensions, by number."""
        return {at: size for at, size in enumerate(self.shape) if isinstance(size, Axis)}


@dataclass(frozen=True)
class Subject:
    """A model to be measured at several sizes.

    Attributes:
        title: as tables have it.
        inputs: of forward, in order.
        sizes: to measure: sizes of the axes in the order in which inputs name them.
        example: the sizes that are exported and compiled; no size of 1, which is special there.
    """

    name: str
    title: str
    inputs: tuple[Input, ...]
    sizes: tuple[tuple[int, ...], ...]
    example: tuple[int, ...]

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Every axis once."""
        found = [axis for each in self.inputs for axis in each.axes.values()]
        return tuple(dict.fromkeys(found))

    def arrays(self, sizes: tuple[int, ...]) -> dict[str, Any]:
        """Inputs for some sizes, the same in every process."""
        of_axis = dict(zip(self.axes, sizes, strict=True))
        random = np.random.default_rng(1)
        return {
            each.name: _array(
                each,
                [of_axis[size] if isinstance(size, Axis) else size for size in each.shape],
                random,
            )
            for each in self.inputs
        }

    def label(self, sizes: tuple[int, ...]) -> str:
        """The sizes as tables have them: batch x length, or the batch."""
        if len(self.axes) == 1 and self.axes[0].name == "batch":
            return f"batch {sizes[0]}"
        return "x".join(map(str, sizes if len(sizes) == 2 else (1, *sizes)))


def _array(each: Input, shape: list[int], random: np.random.Generator) -> Any:
    if each.ones:
        return np.ones(shape, dtype=np.int64)
    if each.below is not None:
        return random.integers(0, each.below, shape, dtype=np.int64)
    return random.standard_normal(shape, dtype=np.float32)


BATCH = Axis("batch", 16)
FEW = Axis("batch", 8)
LENGTH = Axis("seq", 256)

PIXELS = (Input("pixel_values", (FEW, 3, 224, 224)),)


def _padded(vocabulary: int) -> tuple[Input, ...]:
    """Token ids and their mask, both axes dynamic."""
    shape = (BATCH, LENGTH)
    return Input("input_ids", shape, below=vocabulary), Input("attention_mask", shape, ones=True)


def _one_text(vocabulary: int) -> tuple[Input, ...]:
    """Token ids of one text, of any length."""
    return (Input("input_ids", (1, LENGTH), below=vocabulary),)


_ALL = (
    Subject(
        name="minilm",
        title="MiniLM-L6, real weights",
        inputs=_padded(30522),
        sizes=((1, 8), (1, 32), (8, 32), (16, 128)),
        example=(2, 16),
    ),
    Subject(
        name="llama",
        title="Llama, 32 layers of width 256",
        inputs=_one_text(1024),
        sizes=((1,), (16,), (128,)),
        example=(16,),
    ),
    Subject(
        name="vit",
        title="ViT-S/16",
        inputs=PIXELS,
        sizes=((1,), (4,)),
        example=(2,),
    ),
    Subject(
        name="resnet",
        title="ResNet-50",
        inputs=PIXELS,
        sizes=((1,), (4,)),
        example=(2,),
    ),
    Subject(
        name="bert",
        title="BERT-base",
        inputs=_padded(30522),
        sizes=((1, 32), (8, 128)),
        example=(2, 16),
    ),
    Subject(
        name="gpt2",
        title="GPT-2",
        inputs=_one_text(50257),
        sizes=((16,), (128,)),
        example=(16,),
    ),
    Subject(
        name="whisper",
        title="Whisper-base, encoder",
        inputs=(Input("input_features", (FEW, 80, 3000)),),
        sizes=((1,),),
        example=(2,),
    ),
    Subject(
        name="moe",
        title="Qwen3-MoE, 8 layers, 16 experts",
        inputs=_one_text(1024),
        sizes=((16,),),
        example=(16,),
    ),
)

SUBJECTS: Mapping[str, Subject] = {subject.name: subject for subject in _ALL}
