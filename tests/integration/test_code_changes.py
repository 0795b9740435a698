"""What was edited since a program was built: what it ran refuses it, and nothing else does."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.integration.code_changes import ACCEPTED, REFUSED

Outcomes = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, python: Callable[..., str]) -> Outcomes:
    folder = tmp_path_factory.mktemp("edits")
    python("-m", "tests.integration.code_changes", "build", folder)
    told = python("-m", "tests.integration.code_changes", "try", folder)
    found: Outcomes = json.loads(told.splitlines()[-1])
    return found


@pytest.mark.thorough
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
