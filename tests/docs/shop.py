"""A working folder in which the commands of the docs find what they name."""

from __future__ import annotations

from pathlib import Path

from hotstart.artifact import signing

MODULE = """
import torch
import hotstart


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(8, {width})

    def forward(self, input_ids):
        return self.embed(input_ids)


def encoder():
    return Encoder().eval(), (torch.zeros(1, 4, dtype=torch.long),), {}


model = encoder
"""
SCRIPT = """
import torch
from shop.search import encoder


class Model:
    encoder, _, _ = encoder()


model = Model()
for length in (3, 5):
    model.encoder(torch.zeros(2, length, dtype=torch.long))
"""


def make(folder: Path) -> None:
    """Write the modules `shop.search`, `shop.rank` and `shop`, a script that serves, and keys."""
    shop = folder / "shop"
    shop.mkdir()
    for name in ("__init__", "search", "rank"):
        (shop / f"{name}.py").write_text(MODULE.replace("{width}", str(4 + len(name))))
    (folder / "serve.py").write_text(SCRIPT)
    signing.generate(folder / "team")
