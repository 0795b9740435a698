"""Fields of records have types, not text, of which decoders would be made in twice the time."""

from pathlib import Path

from hotstart import records


def test_no_module_of_records_has_its_annotations_as_text() -> None:
    modules = sorted(Path(records.__file__).parent.glob("*.py"))
    future = "from __future__ import annotations\n"
    assert [path.name for path in modules if future in path.read_text().splitlines(True)] == []
