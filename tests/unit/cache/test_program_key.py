"""Two builds that may differ have two keys."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import hotstart
from hotstart import Options
from hotstart.guards.objects import Unknowable

OTHER: dict[str, Any] = {
    "compiler": "op_by_op",
    "inductor": {"max_autotune": True},
    "splits": 3,
    "capture": "whole",
    "pack_weights": "always",
    "tune": True,
    "target": "x86-64-v2",
    "form": "python",
    "prove": "off",
    "device": "meta",
}
"""Another value than the default, of each option that decides what is built."""

SAME: dict[str, Any] = {
    "on_miss": "eager",
    "debug_dir": Path("debug"),
    "jobs": 3,
    "on_event": print,
}
"""The same, of each that does not."""


def wave(x: Tensor) -> Tensor:
    return x.sin()


def key(**given: Any) -> str:
    return hotstart.compute_key(wave, (torch.zeros(3),), options=Options(**given)).digest


def test_every_option_is_known_to_decide_what_is_built_or_not_to() -> None:
    assert {option.name for option in fields(Options)} == OTHER.keys() | SAME.keys()


@pytest.mark.parametrize("name", OTHER)
def test_an_option_that_decides_what_is_built_is_part_of_the_key(name: str) -> None:
    assert key(**{name: OTHER[name]}) != key()


@pytest.mark.parametrize("name", SAME)
def test_an_option_that_does_not_is_no_part_of_the_key(name: str) -> None:
    assert key(**{name: SAME[name]}) == key()


def test_every_way_to_pack_has_a_key_of_its_own() -> None:
    assert len({key(pack_weights=ways) for ways in (True, False, "always")}) == 3


class Pass:
    """A custom pass, as far as a key sees it."""

    def __init__(self, version: str) -> None:
        self.version = version

    def uuid(self) -> str:
        return self.version


def key_of_setting(value: Any) -> str:
    return key(inductor={"post_grad_custom_post_pass": value})


def test_a_custom_pass_is_known_by_its_uuid() -> None:
    assert key_of_setting(Pass("1")) == key_of_setting(Pass("1"))
    assert key_of_setting(Pass("1")) != key_of_setting(Pass("2"))


def test_a_setting_that_only_has_a_name_is_in_no_key() -> None:
    with pytest.raises(Unknowable, match=r"post_grad_custom_post_pass.*uuid"):
        key_of_setting(wave)


def test_a_setting_without_an_identity_is_refused() -> None:
    with pytest.raises(hotstart.OptionsError, match="uuid"):
        key_of_setting(object())
