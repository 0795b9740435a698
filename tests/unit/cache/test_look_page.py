"""The page of a look into a cache, and what it says is to be done."""

from __future__ import annotations

import pytest

from hotstart.cache.advice import advice_for
from hotstart.cache.explain import Miss
from hotstart.cache.look_page import advised, look_page
from tests.unit.cache.looks_into import CHANGES, EMPTY, KEY, NEAREST, SAME_KEY, of_many_changes
from tests.unit.reporting.parsed import Page


def page_of(miss: Miss | None, *problems: str) -> Page:
    return Page(look_page(KEY, miss, "shop.search:encoder", "/var/cache/<models>", problems))


def said(page: Page) -> str:
    return " ".join(data for _, data in page.texts)


def test_a_page_asks_for_nothing_and_leads_somewhere() -> None:
    for miss in (NEAREST, SAME_KEY, EMPTY, None):
        text = look_page(KEY, miss, "shop.search:encoder", "cache")
        page = Page(text)
        page.must_ask_for_nothing(text)
        page.must_lead_somewhere()
        assert KEY.digest in said(page)


def test_it_shows_what_was_looked_for_and_what_is_nearest() -> None:
    told = said(page_of(NEAREST))
    assert "The nearest program differs in 7 parts." in told
    assert "Encoder" in told
    assert "756 KiB" in told
    assert "200 programs that were used last, the one that differs least" in told
    assert "/var/cache/<models>" in told
    assert "hotstart warm shop.search:encoder" in told


def test_each_difference_has_both_values_and_advice() -> None:
    page = page_of(NEAREST)
    cells = [data for _, data in page.texts]
    for part, was, now in CHANGES:
        assert {part.strip(), was, now} <= set(cells)
    assert "Call model.eval() in both places" in said(page)


def test_differences_with_the_same_advice_are_together() -> None:
    groups = list(advised(CHANGES))
    assert [[part for part, _, _ in group.changes] for group in groups] == [
        ["torch", "python"], ["threads"], ["options.splits"], ["model "], ["model .weight"],
        ["call input_ids"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("miss", "lead"),
    [
        (SAME_KEY, "A program of this key is stored, and does not fit"),
        (EMPTY, "Nothing is stored yet"),
        (None, "The cache has a program that fits"),
    ],
)
def test_the_lead_says_what_came_of_it(miss: Miss | None, lead: str) -> None:
    assert lead in said(page_of(miss))


def test_many_differences_are_folded() -> None:
    page = page_of(of_many_changes(300))
    assert "280 more" in said(page)
    assert len(page.with_class("advised")) == 1


def test_what_failed_at_a_remote_is_told() -> None:
    assert "The remote: it did not answer" in said(page_of(EMPTY, "it did not answer"))


@pytest.mark.parametrize(
    ("part", "was", "now", "says"),
    [
        ("torch", "2.12", "2.13", "Install the version"),
        ("threads", "1", "2", "OMP_NUM_THREADS"),
        ("environment TORCHINDUCTOR_X", "'1'", "nothing", "Set the variable alike"),
        ("options.tune", "False", "True", "hotstart.Options"),
        ("torch._inductor.config.cpp.threads", "nothing", "4", "before the model is compiled"),
        ("call axis seq", "1..8 by 3", "1..9 by 3", "hotstart.Dim"),
        ("call two x", "torch.float32 [2]", "torch.float64 [2]", "the same example call"),
        ("model a.b", "<M> in training", "<M> in evaluation", "model.eval()"),
        ("model a.b", "Parameter torch.float32 [4]", "nothing", "dtype, shape and layout"),
        ("model a.b", "<M> code 1 in training", "<M> code 2 in training", "patched or edited"),
        ("source shop.Encoder.forward", "code 1", "code 2", "was edited"),
        ("instructions of native", "a CPU with avx512f", "a CPU without", "--target"),
        ("layers.0.norm.eps", "1e-05", "1e-06", "Forward reads this"),
    ],
)
def test_advice_is_about_the_part(part: str, was: str, now: str, says: str) -> None:
    assert says in advice_for((part, was, now))
