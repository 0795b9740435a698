"""The entries of the conformance suite: what holds for all of them, and that each runs right."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from torch import Tensor

from qualification.compare import largest_difference
from qualification.conformance import catalogue, measure
from qualification.conformance.zoo.entry import Entry

ENTRIES = [entry for module in catalogue.modules() for entry in catalogue.entries_of(module)]
every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


def test_names_are_unique() -> None:
    repeated = [name for name, n in Counter(entry.name for entry in ENTRIES).items() if n > 1]

    assert not repeated


@every_entry
def test_dynamic_shapes_are_those_of_the_inputs(entry: Entry) -> None:
    inputs = measure.call(entry, entry.example)

    assert set(entry.dynamic_shapes) <= set(inputs)


@every_entry
def test_the_example_has_a_size_for_every_axis(entry: Entry) -> None:
    axes = catalogue.axes(entry.dynamic_shapes)

    assert set(axes) <= set(entry.example)
    assert all(dim.serves(entry.example[name]) for name, dim in axes.items())


@every_entry
def test_dynamic_dimensions_have_the_sizes_that_are_asked_for(entry: Entry) -> None:
    for sizes in catalogue.sizes_to_try(entry):
        inputs = measure.call(entry, sizes)
        for name, declared in entry.dynamic_shapes.items():
            if isinstance(inputs[name], Tensor):
                for at, dim in (declared or {}).items():
                    assert inputs[name].shape[at] == (dim + 0).derived.at(sizes)


@every_entry
def test_inputs_are_the_same_in_every_call(entry: Entry) -> None:
    first, second = (measure.call(entry, entry.example) for _ in range(2))

    assert largest_difference(first, second) == 0


@pytest.mark.slow
@every_entry
def test_weights_are_the_same_in_every_build(entry: Entry) -> None:
    first, second = (measure.weights_digest(measure.make(entry)) for _ in range(2))

    assert first == second


@pytest.mark.slow
@every_entry
def test_pieces_as_captured_give_what_the_model_gives(entry: Entry, tmp_path: Path) -> None:
    found = measure.quick(entry, tmp_path)

    assert "problem" not in found, found["problem"]
