"""Documents as text."""

from __future__ import annotations

from msgspec.structs import replace

from hotstart.reporting.contents import Table
from hotstart.reporting.text import document_text, table_text
from tests.unit.reporting.documents import document


def test_a_document_has_the_report_and_what_is_in_the_artifact() -> None:
    shown = document_text(replace(document(), around={"save": 1.5}, copied={"x": 2}))
    assert "report by  " in shown
    assert "4 pieces = 2 compiled + 2 reused" in shown
    assert "phase " in shown
    assert "the whole command\n  save  1.50 s" in shown
    assert "copied into another layout by calls\n  x  2 x" in shown
    assert "arguments\n" in shown
    assert "fingerprint\n" in shown


def test_an_artifact_alone_has_no_times() -> None:
    shown = document_text(replace(document(), kind="file"))
    assert "phase " not in shown
    assert "pieces: 4, of 2 kinds" in shown


def test_a_table_wraps_its_last_column_and_cuts_others() -> None:
    shown = table_text(Table("long", [("a" * 80, "word " * 30)])).splitlines()
    assert shown[0] == "long"
    assert all(len(line) <= 100 for line in shown)
    assert "..." in shown[1]


def test_a_table_without_rows_says_so() -> None:
    assert table_text(Table("empty", [])) == "empty\n  none"
