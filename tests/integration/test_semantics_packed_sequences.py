"""Rows of different lengths, packed for recurrent layers: see docs/semantics.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    unpack_sequence,
)

import hotstart
from hotstart import Dim
from qualification.compare import Standard, require_same_result
from tests.semantics import both, build, check

BATCH = Dim("batch", max=4)
SHAPES = {"ids": {0: BATCH, 1: Dim("steps", max=12)}, "lengths": {0: BATCH}}


def call(steps: int, *lengths: int) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(steps)
    return torch.randint(0, 20, (len(lengths), steps), generator=drawn), torch.tensor(lengths)


SORTED = (call(9, 9, 4, 2), call(1, 1), call(12, 5, 5), call(6, 6, 6, 6, 6))
CALLS = (*SORTED, call(12, 3, 12), call(7, 1, 1, 4, 2))
"""Unequal and equal rows, a single element, and steps that no row reaches."""


class Tagger(nn.Module):
    """A label for each word: words, a recurrent layer over packed rows, a linear."""

    def __init__(self, layer: nn.RNNBase | None = None, **settings: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(20, 6)
        self.layer = layer or nn.LSTM(6, 8, 2, batch_first=True, bidirectional=True)
        features = self.layer.proj_size or self.layer.hidden_size
        self.out = nn.Linear(features * (1 + self.layer.bidirectional), 3)
        self.settings = settings

    def forward(self, ids: Tensor, lengths: Tensor) -> Any:
        packed = pack_padded_sequence(
            self.words(ids), lengths, batch_first=True, **{"enforce_sorted": False, **self.settings}
        )
        steps, last = self.layer(packed)
        padded, found = pad_packed_sequence(steps, batch_first=True)
        return self.out(padded), found, last


LAYERS = {
    "LSTM": nn.LSTM(6, 8, batch_first=True),
    "LSTM with projections": nn.LSTM(6, 8, batch_first=True, bidirectional=True, proj_size=3),
    "GRU": nn.GRU(6, 8, 2, batch_first=True, bidirectional=True, dropout=0.3),
    "RNN": nn.RNN(6, 8, batch_first=True, nonlinearity="relu", bias=False),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_of_every_kind_take_packed_rows_with_one_graph(kind: str, tmp_path: Path) -> None:
    model = Tagger(LAYERS[kind]).eval()
    program = check(model, *CALLS, dynamic_shapes=SHAPES)
    assert len(program.report.variants) == 1
    program.save(tmp_path / "model.hot")
    loaded = hotstart.load(tmp_path / "model.hot", model)
    with torch.no_grad():
        for each in CALLS:
            require_same_result(loaded(*each), model(*each), Standard(0.0))


class LastState(Tagger):
    """A label for each row, from the last states of both directions."""

    def forward(self, ids: Tensor, lengths: Tensor) -> Any:
        packed = pack_padded_sequence(
            self.words(ids), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, (last, _) = self.layer(packed)
        return self.out(torch.cat([last[-2], last[-1]], 1))


class Attention(Tagger):
    """A label for each row, from all steps; lengths are those of a mask."""

    def forward(self, ids: Tensor, lengths: Tensor) -> Any:
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        packed = pack_padded_sequence(
            self.words(ids), mask.sum(1), batch_first=True, enforce_sorted=False
        )
        steps, _ = self.layer(packed)
        padded, _ = pad_packed_sequence(
            steps, batch_first=True, padding_value=-1.0, total_length=ids.shape[1]
        )
        weights = padded.sum(2).masked_fill(~mask, -1e9).softmax(1)
        return self.out((weights[:, :, None] * padded).sum(1))


class OwnOrder(Tagger):
    """Sorts rows itself, and packs steps first."""

    def forward(self, ids: Tensor, lengths: Tensor) -> Any:
        falling, order = lengths.sort(descending=True)
        packed = pack_padded_sequence(self.words(ids)[order].transpose(0, 1), falling)
        steps, _ = self.layer(packed)
        padded, found = pad_packed_sequence(steps)
        return self.out(padded)[:, order.argsort()], found


class Elements(Tagger):
    """Computes on elements while they are packed, from an initial state, and packs twice."""

    def forward(self, ids: Tensor, lengths: Tensor) -> Any:
        packed = pack_padded_sequence(ids, lengths, batch_first=True, enforce_sorted=False)
        start = torch.ones(4, ids.shape[0], 8)
        words = packed._replace(data=self.words(packed.data))
        steps, _ = self.layer(words, (start, 2 * start))
        labels, found = pad_packed_sequence(
            steps._replace(data=self.out(steps.data).relu()), batch_first=True
        )
        again = pack_padded_sequence(labels, found, batch_first=True, enforce_sorted=False)
        return labels, again.data, again.batch_sizes


@both
@pytest.mark.parametrize("kind", [LastState, Attention, OwnOrder, Elements])
def test_models_around_packed_rows_serve_all_lengths(kind: type[Tagger], compiler: str) -> None:
    check(kind().eval(), *CALLS, compiler=compiler, tolerance=1e-6, dynamic_shapes=SHAPES)


def test_rows_may_have_to_be_sorted() -> None:
    model = Tagger(enforce_sorted=True).eval()
    program = check(model, *SORTED, dynamic_shapes=SHAPES)
    with pytest.raises(RuntimeError, match="sorted in decreasing order"):
        program(*call(9, 2, 9))


def test_a_length_of_nothing_is_the_error_of_eager() -> None:
    program = build(Tagger().eval(), *CALLS[0], dynamic_shapes=SHAPES)
    with pytest.raises(RuntimeError, match="has to be greater than 0"):
        program(*call(9, 2, 0))


class Lists(Tagger):
    """Packs a list of rows, and gives one of rows, and what is packed."""

    def forward(self, ids: Tensor, lengths: Tensor) -> Any:
        rows = [self.words(ids[0]), self.words(ids[0, : ids.shape[1] // 2])]
        steps, _ = self.layer(pack_sequence(rows))
        return unpack_sequence(steps), steps, lengths + 1


def test_lists_of_rows_are_packed_and_unpacked() -> None:
    shapes = {"ids": {1: Dim("steps", min=2, max=12)}}
    calls = [call(steps, 1, 1) for steps in (9, 2, 12)]
    program = check(Lists().eval(), *calls, dynamic_shapes=shapes)
    assert isinstance(program(*calls[0])[1], PackedSequence)


class Packed(Tagger):
    """Takes rows that its caller has packed."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        torch.manual_seed(0)
        self.layer = nn.GRU(6, 8, batch_first=True)

    def forward(self, rows: PackedSequence) -> Any:
        steps, last = self.layer(rows)
        return pad_packed_sequence(steps, batch_first=True), last


def test_what_callers_packed_is_an_argument_whose_sizes_are_learnt() -> None:
    model = Packed().eval()
    calls = [
        pack_padded_sequence(torch.randn(*ids.shape, 6), lengths, True, enforce_sorted=False)
        for ids, lengths in CALLS
    ]
    with torch.no_grad(), hotstart.observe(model) as seen:
        for each in calls:
            model(each)
    assert "rows.batch_sizes" in str(seen)
    program = hotstart.compile(seen, options=hotstart.Options(compiler="op_by_op"))
    with torch.no_grad():
        for each in calls:
            require_same_result(program(each), model(each), Standard(0.0))


class Autocast(Tagger):
    """A layer in a region of autocast, which chooses dtypes."""

    def forward(self, ids: Tensor, lengths: Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(ids, lengths)


@pytest.mark.parametrize("kind", [nn.GRU, nn.RNN])
def test_layers_give_the_dtypes_of_autocast(kind: type[nn.RNNBase]) -> None:
    model = Autocast(kind(6, 8, batch_first=True)).eval()
    check(model, *CALLS, dynamic_shapes=SHAPES)
