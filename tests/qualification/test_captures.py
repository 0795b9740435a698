"""Graphs of real architectures do not depend on whether repeated blocks are traced once."""

from __future__ import annotations

import pytest

from qualification.captures import compare
from qualification.conformance import catalogue
from qualification.conformance.zoo.entry import Entry

ENTRIES = [entry for module in catalogue.modules() for entry in catalogue.entries_of(module)]


def named(name: str) -> Entry:
    return next(entry for entry in ENTRIES if entry.name == name)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["ast"])
def test_graphs_are_those_of_a_whole_trace(name: str) -> None:
    different, _ = compare(named(name))
    assert different == []


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_graphs_of_every_architecture_are_those_of_a_whole_trace(entry: Entry) -> None:
    different, _ = compare(entry)
    assert different == []
