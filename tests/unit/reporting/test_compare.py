"""What differs between two builds."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from hotstart.reporting.compare import Differences, compare, differences_text
from hotstart.reporting.document import Document
from tests.unit.reporting.documents import built, document


def found(other: Document) -> Differences:
    return compare(document(), other)


@pytest.fixture(scope="module")
def wider() -> Differences:
    return compare(document(), built(rank=16).document())


def test_the_same_program_differs_in_times_only() -> None:
    differences = found(replace(document(), made_by="another"))
    assert differences.pieces == ()
    assert differences.fingerprint == ()
    assert differences.contract == ()
    assert differences.report == ()
    assert differences_text(differences).startswith(
        "the same but for what was measured\n\nmeasured; times in seconds\n"
    )


def test_pieces_that_changed_name_the_operators_that_did(wider: Differences) -> None:
    assert [each.change for each in wider.pieces] == ["changed"] * 3
    assert wider.pieces[0].before.startswith("piece_0 ")
    assert wider.pieces[0].layers == ("blocks.0",)
    assert "- torch.relu float32 (batch, 8)" in wider.pieces[0].operators
    assert "+ torch.relu float32 (batch, 16)" in wider.pieces[0].operators


def test_operators_of_pieces_that_changed_alike_are_told_once(wider: Differences) -> None:
    text = " ".join(differences_text(wider).split())
    assert text.count("- torch.relu") == 1
    assert text.count("the same operators") == 2


def test_the_fingerprint_names_the_graph(wider: Differences) -> None:
    assert [each.name for each in wider.fingerprint] == ["graph"]


def test_pieces_are_added_and_removed() -> None:
    more = built(blocks=5).document()
    added = compare(document(), more).pieces
    assert [(each.change, each.layers) for each in added] == [
        ("added", ("blocks.3",)),
        ("added", ("blocks.4",)),
    ]
    removed = compare(more, document()).pieces
    assert [each.change for each in removed] == ["removed", "removed"]
    assert all(not each.after for each in removed)


def test_options_and_findings_are_compared() -> None:
    fingerprint = {**document().artifact["fingerprint"], "options": ["op_by_op", ["x", 1]]}
    report = replace(document().report, op_by_op=(("piece_0", "a reason"),))
    artifact = {**document().artifact, "fingerprint": fingerprint}
    differences = found(replace(document(), artifact=artifact, report=report))
    assert [each.name for each in differences.fingerprint] == ["options"]
    (one,) = differences.report
    assert (one.name, one.before, one.after) == ("piece_0 runs op by op", "", "a reason")


def test_the_contract_is_compared() -> None:
    (call,) = document().artifact["calls"]
    (tensor,) = call["contract"]["tensors"]
    contract = {**call["contract"], "tensors": [{**tensor, "dtype": "float64"}]}
    artifact = {**document().artifact, "calls": [{**call, "contract": contract}]}
    (one,) = found(replace(document(), artifact=artifact)).contract
    assert one.name == "argument x"
    assert (one.before.split()[0], one.after.split()[0]) == ("float32", "float64")
