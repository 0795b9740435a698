"""Settings that every test shares."""

import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import settings

from qualification.checking import checks_in_forks

# How long an example takes says more about the machine than about the code.
settings.register_profile("hotstart", deadline=None)
settings.load_profile("hotstart")

RUN = subprocess.run


@pytest.fixture(scope="session", autouse=True)
def _checks_share_an_import() -> Iterator[None]:
    """Run the checks at save in forks of a process that has imported torch: that takes seconds."""
    with checks_in_forks():
        yield


@pytest.fixture
def checks_in_new_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the checks at save as users do."""
    monkeypatch.setattr(subprocess, "run", RUN)
