"""Which axes are learnt from sizes, and how far they reach."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import hotstart
from hotstart import Dim, OptionsError
from hotstart.observing.axes import rounded


class Anything(nn.Module):
    def forward(self, *args: Any, **kwargs: Any) -> int:
        return 0


def seen(*calls: dict[str, Any]) -> hotstart.ObservedCalls:
    with hotstart.observe(Anything().eval()) as observed:
        for call in calls:
            observed.model(**call)
    return observed


def learnt(observed: hotstart.ObservedCalls, **given: Any) -> dict[str, dict[int, str]]:
    """For each argument of the only call, the dynamic dimensions as text."""
    (call,) = observed.within(**given).propose().values()
    shapes = call.dynamic_shapes or {}
    return {
        name: {dim: f"{d.name} {d}" for dim, d in dims.items()} for name, dims in shapes.items()
    }


def ids(batch: int, seq: int) -> dict[str, Tensor]:
    return {
        "ids": torch.zeros(batch, seq, dtype=torch.int64),
        "mask": torch.zeros(batch, seq),
        "table": torch.zeros(7, 3),
    }


# --- ranges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((5, 40), (4, 64)), ((3, 4), (2, 4)), ((1, 2), (1, 2)), ((0, 9), (0, 16)), ((0, 1), (0, 1))],
)
def test_ranges_are_rounded_outwards(sizes: tuple[int, int], expected: tuple[int, int]) -> None:
    assert rounded(sizes) == expected


@given(st.lists(st.integers(0, 1 << 40), min_size=2))
def test_a_range_has_every_size_that_was_seen_and_is_less_than_twice_as_far(
    sizes: list[int],
) -> None:
    low, high = rounded(sizes)
    assert low <= min(sizes) <= 2 * low or low == min(sizes) == 0
    assert max(sizes) <= high < max(2 * max(sizes), 2)


def test_sizes_that_varied_together_are_one_axis_and_others_static() -> None:
    both = {0: "batch 1..4", 1: "seq 4..16"}
    assert learnt(seen(ids(1, 5), ids(3, 9))) == {"ids": both, "mask": both}


def test_a_size_that_was_zero_or_one_once() -> None:
    assert learnt(seen(ids(0, 1), ids(3, 4)))["ids"] == {0: "batch 0..4", 1: "seq 1..4"}


def test_bounds_that_are_given() -> None:
    observed = seen(ids(2, 5), ids(3, 9))
    found = learnt(observed, min={"batch": 1}, max={"seq": 512})["ids"]
    assert found == {0: "batch 1..4", 1: "seq 4..512"}


def test_bounds_that_do_not_fit() -> None:
    observed = seen(ids(2, 5), ids(3, 9))
    with pytest.raises(OptionsError, match=r"'seq'.*without 9"):
        observed.within(max={"seq": 8}).propose()
    with pytest.raises(OptionsError, match=r"batch, seq.*found 'tokens'"):
        observed.within(max={"tokens": 8}).propose()
    with pytest.raises(OptionsError, match="takes several names"):
        observed.within(exact="seq").propose()
    with pytest.raises(OptionsError, match=r"none did.*'seq'.*declare it"):
        seen(ids(2, 5)).within(max={"seq": 8}).propose()


# --- names ----------------------------------------------------------------------------------------


def test_names_of_axes() -> None:
    images = [{"image": torch.zeros(n, 3, 8 * n, 16 * n), "n": torch.zeros(n + 1)} for n in (1, 2)]
    assert learnt(seen(*images)) == {
        "image": {0: "batch 1..2", 2: "height 8..16", 3: "width 16..32"},
        "n": {0: "n_0 2..4"},
    }


def test_the_length_of_a_cache() -> None:
    calls = [{"keys": torch.zeros(2, 4, n, 8)} for n in (3, 6)]
    assert learnt(seen(*calls)) == {"keys": {2: "length 2..8"}}


def test_tensors_in_containers() -> None:
    calls = [{"state": {"h": [torch.zeros(2, n)], "k": 1}} for n in (4, 6)]
    (call,) = seen(*calls).propose().values()
    assert call.dynamic_shapes == {"state": {"h": {0: {1: Dim("seq", min=4, max=8)}}}}


# --- what may be chance ---------------------------------------------------------------------------


def test_dimensions_that_were_always_equal_are_one_axis_and_the_table_says_so() -> None:
    observed = seen(ids(4, 4), ids(6, 6))
    assert learnt(observed)["ids"] == {0: "batch 4..8", 1: "batch 4..8"}
    assert "ids[0] and ids[1]" in str(observed)
    assert "observe a call where they differ" in str(observed)


def test_declared_dimensions_part_what_was_equal_by_chance() -> None:
    observed = seen(ids(4, 4), ids(6, 6))
    by_hand = {"ids": {0: Dim("batch", max=8), 1: Dim("tokens", max=64)}}
    both = {0: "batch 1..8", 1: "tokens 1..64"}
    assert learnt(observed, dynamic_shapes=by_hand) == {"ids": both, "mask": both}


def test_declared_dimensions_of_an_argument_are_all_that_is_dynamic_of_it() -> None:
    observed = seen(ids(2, 4), ids(3, 6))
    found = learnt(observed, dynamic_shapes={"ids": {-1: Dim("tokens", max=64)}})
    assert found["ids"] == {1: "tokens 1..64"}
    assert found["mask"] == {0: "batch 2..4", 1: "tokens 1..64"}
    with pytest.raises(OptionsError, match=r"ids, mask, table.*found other"):
        observed.within(dynamic_shapes={"other": {0: Dim("a", max=2)}}).propose()


@pytest.mark.parametrize("of_seq", ["seq + 1", "2*seq"])
def test_a_size_that_follows_from_another_is_said(of_seq: str) -> None:
    calls = [
        {"ids": torch.zeros(2, seq), "m": torch.zeros(eval(of_seq, {"seq": seq}))}
        for seq in (5, 8, 11)
    ]
    assert f"batch == {of_seq}" in str(seen(*calls))


def steps(*sizes: tuple[int, int], more: int = 0) -> Any:
    return seen(
        *(
            {
                "ids": torch.zeros(1, new),
                "keys": torch.zeros(1, 2, past, 4),
                "mask": torch.zeros(1, past + new + more),
            }
            for past, new in sizes
        )
    )


def test_a_size_may_follow_from_two_others() -> None:
    observed = steps((4, 3), (8, 2), (9, 5))
    assert "in every call: mask_1 == seq + length; each is compiled" in str(observed)
    followed = observed.within(follow=["mask_1"])
    assert "axis mask_1: seq + length for seq of 2..8 and length of 4..16" in str(followed)
    (call,) = followed.propose().values()
    seq, length = Dim("seq", min=2, max=8), Dim("length", min=4, max=16)
    assert call.dynamic_shapes == {
        "ids": {1: seq}, "keys": {2: length}, "mask": {1: seq + length},
    }  # fmt: skip


def test_sizes_that_follow_from_others_may_be_followed_themselves() -> None:
    sizes = ((n, 2 * n, 2 * n + 1) for n in (2, 3, 5))
    calls = (dict(zip("abc", map(torch.zeros, each), strict=True)) for each in sizes)
    (call,) = seen(*calls).within(follow=["b_0", "c_0"]).propose().values()
    batch = Dim("batch", min=2, max=8)
    assert call.dynamic_shapes == {"a": {0: batch}, "b": {0: 2 * batch}, "c": {0: 2 * batch + 1}}


def test_two_calls_do_not_tell_what_follows_from_two_others() -> None:
    assert "in every call" not in str(steps((4, 3), (9, 5), more=0))


def test_an_axis_of_its_own_cannot_be_followed() -> None:
    expected = r"follow: .*\(mask_1 == seq \+ length\), found 'seq'"
    with pytest.raises(OptionsError, match=expected):
        steps((4, 3), (8, 2), (9, 5)).within(follow=["seq"]).propose()
    with pytest.raises(OptionsError, match="max: axis 'mask_1' follows from others; say it of"):
        steps((4, 3), (8, 2), (9, 5)).within(follow=["mask_1"], max={"mask_1": 9}).propose()
    with pytest.raises(OptionsError, match=r"follow: expected axes that varied .* found 'other'"):
        steps((4, 3), (8, 2), (9, 5)).within(follow=["other"]).propose()


def test_an_axis_may_take_multiples_only() -> None:
    images = seen(*({"x": torch.zeros(1, 3, h, h + 64)} for h in (64, 96, 128)))
    found = images.within(multiples={"height": 8}, max={"height": 300})
    assert "axis height: 8*height for height of 8..37, seen 64, 96, 128" in str(found)
    (call,) = found.propose().values()
    height, width = Dim("height", min=8, max=37), Dim("width", min=128, max=256)
    assert call.dynamic_shapes == {"x": {2: 8 * height, 3: width}}
    with pytest.raises(OptionsError, match=r"axis 'height'.* 64\*height for .*, without 96"):
        images.within(multiples={"height": 64}).propose()
    with pytest.raises(OptionsError, match=r"multiples: got 0 for 'height', takes an int of 1"):
        images.within(multiples={"height": 0})


def test_declared_dimensions_may_follow_from_others() -> None:
    rows = Dim("rows", max=8)
    observed = seen(*({"x": torch.zeros(8 * n), "y": torch.zeros(8 * n, n)} for n in (2, 3)))
    (call,) = observed.within(dynamic_shapes={"x": {0: 8 * rows}}).propose().values()
    assert call.dynamic_shapes == {
        "x": {0: 8 * rows}, "y": {0: 8 * rows, 1: Dim("seq", min=2, max=4)},
    }  # fmt: skip


def test_calls_that_broadcast_a_tensor_are_apart() -> None:
    calls = [
        {"x": torch.zeros(batch, 8), "mask": torch.zeros(of_mask, 8)}
        for batch, of_mask in ((2, 2), (3, 1), (4, 4), (5, 1), (6, 6))
    ]
    first, second = seen(*calls).propose().values()
    batch = Dim("batch", min=2, max=8)
    assert first.dynamic_shapes == {"x": {0: batch}, "mask": {0: batch}}
    assert second.dynamic_shapes == {"x": {0: batch}}
    assert second.kwargs["mask"].shape[0] == 1


def test_exact_sizes_become_calls_of_their_own() -> None:
    observed = seen(ids(1, 5), ids(2, 5), ids(1, 8))
    calls = observed.within(exact=("seq",)).propose()
    assert sorted(call.kwargs["ids"].shape[1] for call in calls.values()) == [5, 8]
    assert all(1 not in (call.dynamic_shapes or {}).get("ids", {}) for call in calls.values())
    many = seen(*(ids(1, seq) for seq in range(2, 12)))
    with pytest.raises(OptionsError, match=r"at most 8.*found 10"):
        many.within(exact=("seq",)).propose()
