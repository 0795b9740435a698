"""Models of atoms, whose forces are gradients of an energy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hotstart import Dim
from qualification.conformance.zoo.entry import Entry, Sizes
from qualification.conformance.zoo.seeded import seeded

KINDS = 5


class Potential(nn.Module):
    """An energy of every atom by its distances to others (after Behler and Parrinello, 2007)."""

    def __init__(self, cutoff: float = 5.0, basis: int = 16, width: int = 32) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.kinds = nn.Embedding(KINDS, basis)
        self.mlp = nn.Sequential(
            nn.Linear(2 * basis, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, 1),
        )
        self.register_buffer("centres", torch.linspace(0.5, cutoff, basis))

    def forward(self, positions: Tensor, kinds: Tensor) -> dict[str, Tensor]:
        with torch.enable_grad():
            positions.requires_grad_()
            energies = self.energies(positions, kinds)
            energy = energies.sum()
            (gradient,) = torch.autograd.grad(energy, positions)
        return {
            "energy": energy.detach(),
            "energies": energies.detach(),
            "forces": -gradient,
        }

    def energies(self, positions: Tensor, kinds: Tensor) -> Tensor:
        """The energy of each atom."""
        apart = positions[:, None] - positions[None]
        alone = torch.eye(len(positions), dtype=torch.bool, device=positions.device)
        distances = (apart.square().sum(-1) + alone).sqrt()
        near = 0.5 * (1 + torch.cos(torch.pi * distances / self.cutoff))
        near = near.masked_fill(alone | (distances > self.cutoff), 0)
        radial = torch.exp(-2 * (distances[..., None] - self.centres).square()) * near[..., None]
        kind = self.kinds(kinds)
        around = (radial * kind[None]).sum(1)
        return self.mlp(torch.cat([around, kind], dim=-1)).squeeze(-1)


def molecule(sizes: Sizes) -> dict[str, Any]:
    """Atoms about as far apart as in a liquid."""
    count = sizes["atoms"]
    cells = torch.cartesian_prod(*[torch.arange(4.0)] * 3)[torch.randperm(64)[:count]]
    return {
        "positions": 1.5 * cells + 0.3 * torch.randn(count, 3),
        "kinds": torch.randint(0, KINDS, (count,)),
    }


ATOMS = Dim("atoms", min=1, max=32)

ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="forces",
        family="atoms",
        make=seeded(Potential),
        inputs=molecule,
        dynamic_shapes={"positions": {0: ATOMS}, "kinds": {0: ATOMS}},
        example={"atoms": 12},
        notes="energies, and forces by torch.autograd.grad; plain torch",
    ),
)
