from __future__ import annotations

import torch
from torch import nn

from hotstart.model import Finder, ModelIndex


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.again = self.first
        self.head = nn.Linear(4, 4, bias=False)
        self.head.weight = self.first[0].weight
        self.plain = torch.ones(4)


def test_a_shared_module_is_under_each_of_its_paths_and_known_by_the_first() -> None:
    model = Tied()
    index = ModelIndex(model)
    assert index.modules["again.0"] is index.modules["first.0"] is model.first[0]
    assert index.path_of(model.again[0]) == "first.0"
    assert index.path_of(model) == ""
    assert index.path_of(nn.Linear(4, 4)) is None


def test_a_tied_tensor_has_several_places() -> None:
    model = Tied()
    index = ModelIndex(model)
    found = [place.name for place in index.places_of(model.head.weight)]
    assert found == ["first.0.weight", "again.0.weight", "head.weight"]
    assert index.places_of(torch.ones(4)) == ()


def test_what_the_index_lists_is_found_by_name() -> None:
    for model in (Tied(), Tied().forward, lambda x: LINEAR(x)):
        index, finder = ModelIndex(model), Finder(model)
        assert all(finder.module(path) is module for path, module in index.modules.items())
        for place in index.places:
            found = finder.place(place.name)
            assert found is not None
            assert (found.kind, found.owner is place.owner) == (place.kind, True)
        listed = {place.name for place in index.places if place.kind == "parameter"}
        assert {*finder.parameter_names()} == listed
        assert finder.module("nowhere.0") is None
        assert finder.place("nowhere.weight") is None


LINEAR = nn.Linear(4, 4)
