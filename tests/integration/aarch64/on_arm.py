"""Load a file on 64-bit Arm, and compare it with eager: `python -m ... NAME FILE`; prints JSON."""

from __future__ import annotations

import json
import platform
import sys

import torch

import hotstart
from tests.integration.aarch64.subjects import SUBJECTS, tolerance


def main(name: str, file: str) -> None:
    subject = SUBJECTS[name]
    model = subject.model()
    program = hotstart.load(file, model)
    for sizes in subject.sizes:
        x = subject.inputs(*sizes)
        with torch.no_grad():
            made, wanted = program(x), model(x)
        pairs = zip(made, wanted, strict=True) if isinstance(made, tuple) else [(made, wanted)]
        for one, other in pairs:
            torch.testing.assert_close(one, other, **tolerance(other), equal_nan=True)
    found = {
        "machine": platform.machine(),
        "target": program.report.target,
        "op_by_op": [*program.report.op_by_op],
        "not_native": [*program.report.not_native],
        "sizes": len(subject.sizes),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
