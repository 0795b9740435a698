"""What was edited since a program was built: what it ran refuses it, and nothing else does."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.integration.code_changes import ACCEPTED, REFUSED

Outcomes = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    folder = tmp_path_factory.mktemp("edits")

    def run(what: str) -> str:
        command = [sys.executable, "-m", "tests.integration.code_changes", what, str(folder)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=dict(os.environ), timeout=500
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    run("build")
    found: Outcomes = json.loads(run("try").splitlines()[-1])
    return found


@pytest.mark.parametrize("how", ["load", "cache"])
@pytest.mark.parametrize("edit", REFUSED)
def test_what_ran_refuses(edit: str, how: str, outcomes: Outcomes) -> None:
    assert outcomes[edit][how].startswith(("ModelMismatch", "IncompatibleArtifact", "StoreError"))


@pytest.mark.parametrize("how", ["load", "cache", "check"])
@pytest.mark.parametrize("edit", ACCEPTED)
def test_what_did_not_run_is_free(edit: str, how: str, outcomes: Outcomes) -> None:
    assert outcomes[edit][how] == "fits"


def test_a_check_without_a_model_sees_edited_functions(outcomes: Outcomes) -> None:
    seen = {edit for edit in REFUSED if outcomes[edit]["check"] != "fits"}
    assert {"the body of forward", "a helper", "a decorated method", "a lambda in a dict"} <= seen
