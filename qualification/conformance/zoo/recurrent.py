"""Models that read one step after the other. All of them are plain torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from hotstart import Dim
from qualification.conformance.zoo.entry import Entry, Sizes
from qualification.conformance.zoo.seeded import seeded

BATCH = Dim("batch", min=1, max=4)
SEQ = Dim("seq", min=1, max=32)
EXAMPLE: Sizes = {"batch": 2, "seq": 7}
WIDTH = 24
HIDDEN = 32


class LanguageModel(nn.Module):
    """An LSTM that goes on from the states it is given, and returns the ones it ends with."""

    def __init__(self, layers: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, WIDTH)
        self.lstm = nn.LSTM(WIDTH, HIDDEN, layers, batch_first=True)
        self.head = nn.Linear(HIDDEN, 100)

    def forward(
        self, input_ids: Tensor, states: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        x, after = self.lstm(self.embed(input_ids), states)
        return self.head(x), after


class Tagger(nn.Module):
    """A label for every token, from both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, WIDTH, padding_idx=0)
        self.lstm = nn.LSTM(WIDTH, HIDDEN, 2, batch_first=True, bidirectional=True, dropout=0.1)
        self.head = nn.Linear(2 * HIDDEN, 9)

    def forward(self, input_ids: Tensor) -> Tensor:
        x, _ = self.lstm(self.embed(input_ids))
        return self.head(x).log_softmax(-1)


class Classifier(nn.Module):
    """A class for a sequence of features, from the last states of a recurrent network."""

    def __init__(self, rnn: nn.RNNBase, directions: int) -> None:
        super().__init__()
        self.rnn = rnn
        self.head = nn.Linear(directions * HIDDEN, 5)

    def forward(self, features: Tensor) -> Tensor:
        _, last = self.rnn(features)
        layers = 2 if self.rnn.bidirectional else 1
        return self.head(torch.cat(list(last[-layers:]), dim=-1))


class StepByStep(nn.Module):
    """A recurrent cell that is called in a loop of a fixed number of steps."""

    def __init__(self, steps: int = 6) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(WIDTH, HIDDEN)
        self.head = nn.Linear(HIDDEN, WIDTH)
        self.steps = steps

    def forward(self, features: Tensor) -> Tensor:
        state = features.new_zeros(features.shape[0], HIDDEN)
        memory, made = state, [features]
        for _ in range(self.steps):
            state, memory = self.cell(made[-1], (state, memory))
            made.append(self.head(state))
        return torch.stack(made[1:], dim=1)


def normed(layer: nn.RNNBase) -> nn.RNNBase:
    """A layer whose recurrent weights are normalised in every call."""
    for number in range(layer.num_layers):
        parametrizations.weight_norm(layer, f"weight_hh_l{number}")
    return layer


def ids(sizes: Sizes) -> dict[str, Any]:
    return {"input_ids": torch.randint(1, 100, (sizes["batch"], sizes["seq"]))}


def features(sizes: Sizes) -> dict[str, Any]:
    return {"features": torch.randn(sizes["batch"], sizes["seq"], WIDTH)}


def states(sizes: Sizes, layers: int = 3) -> tuple[Tensor, Tensor]:
    shape = (layers, sizes["batch"], HIDDEN)
    return torch.randn(shape), torch.randn(shape)


def classifier(name: str, build: Callable[[], nn.RNNBase], directions: int, notes: str) -> Entry:
    return Entry(
        name=name,
        family="recurrent",
        make=seeded(lambda: Classifier(build(), directions)),
        inputs=features,
        dynamic_shapes={"features": {0: BATCH, 1: SEQ}},
        example={"batch": 2, "seq": 5},
        notes=notes,
    )


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="lstm-states",
        family="recurrent",
        make=seeded(LanguageModel),
        inputs=lambda sizes: {**ids(sizes), "states": states(sizes)},
        dynamic_shapes={"input_ids": {0: BATCH, 1: SEQ}, "states": ({1: BATCH}, {1: BATCH})},
        example=EXAMPLE,
        notes="a language model of 3 layers that takes and returns its states",
    ),
    Entry(
        name="lstm-tagger",
        family="recurrent",
        make=seeded(Tagger),
        inputs=ids,
        dynamic_shapes={"input_ids": {0: BATCH, 1: SEQ}},
        example=EXAMPLE,
        notes="2 layers, both directions",
    ),
    classifier(
        "gru",
        lambda: nn.GRU(WIDTH, HIDDEN, 3, batch_first=True),
        1,
        "3 layers; the last state is classified",
    ),
    classifier(
        "gru-bidirectional",
        lambda: nn.GRU(WIDTH, HIDDEN, 2, batch_first=True, bidirectional=True),
        2,
        "2 layers, both directions",
    ),
    classifier("rnn", lambda: nn.RNN(WIDTH, HIDDEN, 2, batch_first=True), 1, "2 layers of tanh"),
    classifier(
        "gru-weight-norm",
        lambda: normed(nn.GRU(WIDTH, HIDDEN, 2, batch_first=True)),
        1,
        "recurrent weights are normalised in every call",
    ),
    Entry(
        name="lstm-projected",
        family="recurrent",
        make=seeded(lambda: nn.LSTM(WIDTH, HIDDEN, 2, batch_first=True, proj_size=12)),
        inputs=lambda sizes: {"input": features(sizes)["features"]},
        dynamic_shapes={"input": {0: BATCH, 1: SEQ}},
        example=EXAMPLE,
        notes="states that are smaller than the memory",
    ),
    Entry(
        name="lstm-cell",
        family="recurrent",
        make=seeded(StepByStep),
        inputs=lambda sizes: {"features": torch.randn(sizes["batch"], WIDTH)},
        dynamic_shapes={"features": {0: BATCH}},
        example={"batch": 2},
        notes="a cell called in a loop, as in a decoder",
    ),
)
