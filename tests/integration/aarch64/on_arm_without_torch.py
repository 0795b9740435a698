"""Write the weights of a program as it uses them, or run it on those without torch; prints JSON."""

from __future__ import annotations

import json
import sys

import numpy as np

import hotstart

ROWS = np.linspace(-3, 3, 5 * 64, dtype=np.float32).reshape(5, 64)


def write(file: str, weights: str) -> list[float]:
    """Write weights, and call the program that has them."""
    import torch

    from tests.integration.aarch64.subjects import SUBJECTS

    program = hotstart.load(file, SUBJECTS["layers"].model())
    made = program(torch.from_numpy(ROWS))
    program.save_weights(weights)
    values: list[float] = made.flatten().tolist()
    return values


def run(file: str, weights: str) -> list[float]:
    """Call the program on written weights."""
    program = hotstart.load(file, weights=weights)
    values: list[float] = np.asarray(program(ROWS)).flatten().tolist()
    return values


if __name__ == "__main__":
    does = {"write": write, "run": run}[sys.argv[1]]
    print(json.dumps({"values": does(*sys.argv[2:]), "torch": "torch" in sys.modules}))
