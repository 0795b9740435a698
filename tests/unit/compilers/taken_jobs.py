"""The jobs of a build, for tests of what compiles them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hotstart.compilers import Job, OpByOpCompiler


def taken_jobs(monkeypatch: pytest.MonkeyPatch, build: Callable[[], object]) -> list[Job]:
    """What a build, op by op, hands its compiler, in order."""
    found: list[Job] = []
    compiles = OpByOpCompiler.compile

    def compile(self: OpByOpCompiler, job: Job) -> Any:
        found.append(job)
        return compiles(self, job)

    with monkeypatch.context() as patch:
        patch.setattr(OpByOpCompiler, "compile", compile)
        build()
    return found
