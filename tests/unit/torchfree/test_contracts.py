"""Constants of a contract are the same without torch, or take torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hotstart.artifact.values import encode
from hotstart.errors import ArtifactError
from hotstart.torchfree.contracts import NeedsTorch, OfTorch, decode


def encoded(value: Any) -> Any:
    return encode(value, lambda _: "tensor_0")


@pytest.mark.parametrize(
    "value",
    [
        None,
        2**70,
        1.5,
        b"\0\xff",
        (1, [2.5, {"a": {3}}], frozenset({4})),
        {(1, 2): slice(None, 3, None)},
        range(2, 8, 3),
        ...,
    ],
    ids=repr,
)
def test_values_are_read_back(value: Any) -> None:
    found = decode(encoded(value))
    assert (type(found), found) == (type(value), value)


def test_constants_of_torch_are_equal_to_what_stands_for_them() -> None:
    for value in (torch.float32, torch.channels_last, torch.device("cpu"), torch.device("cuda", 1)):
        found = decode(encoded(value))
        assert isinstance(found, OfTorch)
        assert found == value
        assert repr(found) == repr(value)


@pytest.mark.parametrize("value", [torch.ones(2), torch.Size([2, 3]), torch.nn.Linear], ids=str)
def test_what_only_torch_has_takes_torch(value: Any) -> None:
    with pytest.raises(NeedsTorch):
        decode(encoded([value]))


@pytest.mark.parametrize("data", [{"int": "x"}, {"else": 1}, {}, {"range": [1, 2, 3, 4]}], ids=str)
def test_a_description_of_nothing_is_refused(data: Any) -> None:
    with pytest.raises(ArtifactError, match="a value cannot be read back"):
        decode(data)
