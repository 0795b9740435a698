"""Models that rank: embeddings of categories and bags of them, crossed with one another."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from hotstart import Dim
from qualification.conformance.zoo.entry import Entry, Sizes
from qualification.conformance.zoo.seeded import seeded

BATCH = Dim("batch", min=1, max=4)
ITEMS = Dim("items", min=1, max=64)
ROWS = (100, 80, 60)
"""Categories of each table."""


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for into, out in itertools.pairwise(widths):
        layers += [nn.Linear(into, out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class DLRM(nn.Module):
    """Bags of categories and dense features, crossed by products (Naumov et al., 2019).

    A bag is given as the rows of all samples in one tensor, and where each sample's begin.
    """

    def __init__(self, width: int = 32, dense: int = 13) -> None:
        super().__init__()
        self.bottom = mlp(dense, 64, 64, width)
        self.tables = nn.ModuleList(nn.EmbeddingBag(rows, width, mode="sum") for rows in ROWS)
        features = len(ROWS) + 1
        self.top = mlp(width + features * (features - 1) // 2, 64, 64, 1)
        self.register_buffer("pairs", torch.tril_indices(features, features, -1), persistent=False)

    def forward(self, dense: Tensor, rows: list[Tensor], starts: list[Tensor]) -> Tensor:
        x = self.bottom(dense)
        bags = [table(r, s) for table, r, s in zip(self.tables, rows, starts, strict=True)]
        features = torch.stack([x, *bags], dim=1)
        products = features @ features.transpose(1, 2)
        crossed = products[:, self.pairs[0], self.pairs[1]]
        return torch.sigmoid(self.top(torch.cat([x, crossed], dim=1)))[:, 0]


class TwoTowers(nn.Module):
    """Users and items as vectors; what a user has seen is a padded list of items."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.users = nn.Embedding(200, width)
        self.items = nn.Embedding(300, width, padding_idx=0)
        self.user_tower = mlp(2 * width, 64, 64, width)
        self.item_tower = mlp(width, 64, 64, width)

    def forward(self, user: Tensor, history: Tensor, candidates: Tensor) -> Tensor:
        seen = (history != 0).float()[..., None]
        mean = (self.items(history) * seen).sum(1) / seen.sum(1).clamp(min=1)
        wants = self.user_tower(torch.cat([self.users(user), mean], dim=1))
        offers = self.item_tower(self.items(candidates))
        normal = nn.functional.normalize
        return normal(wants, dim=-1) @ normal(offers, dim=-1).T


class DeepFM(nn.Module):
    """A factorisation machine beside a deep network (Guo et al., 2017)."""

    def __init__(self, fields: int = 6, rows: int = 50, width: int = 16) -> None:
        super().__init__()
        self.linear = nn.Embedding(fields * rows, 1)
        self.factors = nn.Embedding(fields * rows, width)
        nn.init.normal_(self.factors.weight, std=0.1)
        self.deep = mlp(fields * width, 64, 64, 64, 1)
        self.register_buffer("firsts", rows * torch.arange(fields))

    def forward(self, categories: Tensor) -> Tensor:
        at = categories + self.firsts
        factors = self.factors(at)
        crossed = 0.5 * (factors.sum(1).square() - factors.square().sum(1)).sum(1)
        deep = self.deep(factors.flatten(1))[:, 0]
        return torch.sigmoid(self.linear(at).sum((1, 2)) + crossed + deep)


class NextItem(nn.Module):
    """What comes next in a list of items, by self-attention (Kang and McAuley, 2018)."""

    def __init__(self, layers: int, items: int = 100, width: int = 32, longest: int = 64) -> None:
        super().__init__()
        self.items = nn.Embedding(items, width, padding_idx=0)
        self.places = nn.Embedding(longest, width)
        nn.init.normal_(self.items.weight, std=0.1)
        layer = nn.TransformerEncoderLayer(
            width, nhead=4, dim_feedforward=64, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, history: Tensor) -> Tensor:
        length = history.shape[1]
        x = self.items(history) + self.places(torch.arange(length, device=history.device))
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=history.device)
        x = self.layers(x, mask=mask, is_causal=True)
        return x[:, -1] @ self.items.weight.T


def bags(sizes: Sizes) -> dict[str, Any]:
    """Rows of every table, divided among the samples; some samples may have none."""
    batch, items = sizes["batch"], sizes["items"]
    cuts = torch.randint(0, items + 1, (len(ROWS), batch)).sort().values
    cuts[:, 0] = 0
    return {
        "dense": torch.randn(batch, 13),
        "rows": [torch.randint(0, rows, (items,)) for rows in ROWS],
        "starts": list(cuts),
    }


def history(sizes: Sizes) -> dict[str, Any]:
    seen = torch.randint(1, 300, (sizes["batch"], sizes["seen"]))
    seen[0, sizes["seen"] // 2 :] = 0
    return {
        "user": torch.randint(0, 200, (sizes["batch"],)),
        "history": seen,
        "candidates": torch.randint(1, 300, (sizes["items"],)),
    }


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="dlrm",
        family="recommender",
        make=seeded(DLRM),
        inputs=bags,
        dynamic_shapes={
            "dense": {0: BATCH},
            "rows": [{0: ITEMS}] * len(ROWS),
            "starts": [{0: BATCH}] * len(ROWS),
        },
        example={"batch": 3, "items": 10},
        notes="bags of any length; plain torch",
    ),
    Entry(
        name="two-towers",
        family="recommender",
        make=seeded(TwoTowers),
        inputs=history,
        dynamic_shapes={
            "user": {0: BATCH},
            "history": {0: BATCH, 1: Dim("seen", min=1, max=20)},
            "candidates": {0: ITEMS},
        },
        example={"batch": 3, "seen": 8, "items": 10},
        notes="scores of every user and item; plain torch",
    ),
    Entry(
        name="deepfm",
        family="recommender",
        make=seeded(DeepFM),
        inputs=lambda sizes: {"categories": torch.randint(0, 50, (sizes["batch"], 6))},
        dynamic_shapes={"categories": {0: BATCH}},
        example={"batch": 3},
        notes="plain torch",
    ),
    Entry(
        name="sasrec",
        family="recommender",
        make=seeded(lambda: NextItem(4)),
        inputs=lambda sizes: {"history": torch.randint(1, 100, (sizes["batch"], sizes["seen"]))},
        dynamic_shapes={"history": {0: BATCH, 1: Dim("seen", min=1, max=40)}},
        example={"batch": 3, "seen": 8},
        blocks=4,
        deeper=seeded(lambda: NextItem(8)),
        notes="nn.TransformerEncoder; plain torch",
    ),
)
