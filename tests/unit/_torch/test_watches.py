"""What is replaced in a dict is noticed, however that is found."""

from __future__ import annotations

from typing import Any

import pytest

from hotstart._torch.running.watches import ContentsWatch, watch_mappings


class Holder:
    def __init__(self) -> None:
        self.value = 1
        self.other = "text"


def replaced(held: Holder) -> None:
    held.value = 2


def removed(held: Holder) -> None:
    del held.other


def added(held: Holder) -> None:
    held.new = 1  # type: ignore[attr-defined]


def renamed(held: Holder) -> None:
    attributes = vars(held)
    attributes["last"] = attributes.pop("other")


@pytest.mark.parametrize("watch", [watch_mappings, ContentsWatch])
@pytest.mark.parametrize("change", [replaced, removed, added, renamed])
def test_attributes_that_change_are_noticed(watch: Any, change: Any) -> None:
    held, still = Holder(), Holder()
    watching = watch([vars(held), vars(still)])
    assert watching.unchanged()
    assert watching.changed() == []
    change(held)
    assert not watching.unchanged()
    assert watching.changed() == [vars(held)]
