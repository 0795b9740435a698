"""The document: what it holds, as JSON and back, of a build, a load and a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch
from msgspec.structs import replace

import hotstart
from hotstart import ArtifactError, CorruptArtifact, OptionsError
from hotstart.reporting.document import (
    SUFFIX,
    Document,
    document_of_file,
    read_document,
)
from tests.unit.reporting.documents import Stack, built, document


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact, with the document of its build beside it."""
    file = tmp_path_factory.mktemp("saved") / "small.hot"
    program = built()
    program.save(file, check=False)
    made = replace(program.document(file), around={"model": 0.5})
    file.with_suffix(SUFFIX).write_bytes(made.to_json())
    return file


def test_a_build_knows_operators_shapes_and_lines_of_every_different_piece() -> None:
    block, head = document().details.pieces
    assert [each.name for each in block.operations] == [
        "torch.nn.functional.linear",
        "torch.relu",
        "torch.nn.functional.linear",
        "operator.add",
    ]
    assert block.operations[0].results == ("float32 (batch, 8)",)
    assert block.operations[0].layer == "blocks.0.up"
    assert (block.inputs, block.outputs) == (("float32 (batch, 4)",), ("float32 (batch, 4)",))
    assert block.weights[0] == ("blocks.0.up.weight", "float32 (8, 4)")
    (line,) = block.lines
    assert line.text.endswith("# the line of a block")
    assert line.file.endswith("documents.py")
    assert not Path(line.file).is_absolute()
    source = Path(sys.modules[Stack.__module__].__file__ or "").read_text().splitlines()
    assert source[line.number - 1].strip() == line.text
    assert head.operations[-1].name == "Tensor.softmax"


def test_a_document_is_the_same_after_json() -> None:
    made = document()
    assert msgspec.json.decode(made.to_json(), type=Document) == made


def test_a_file_alone_has_all_but_times_and_details(saved: Path) -> None:
    found = document_of_file(saved)
    assert (found.kind, found.file, found.size) == ("file", "small.hot", saved.stat().st_size)
    assert found.details.pieces == ()
    assert found.report.phases == {}
    assert [unit.piece for unit in found.report.units] == [f"piece_{n}" for n in range(4)]
    code = {name for name in found.sources if name.startswith(("stitched", "unit"))}
    assert len(code) == 3
    assert found.manifest().pieces == hotstart.inspect(saved).pieces


def test_an_artifact_holds_nothing_of_the_details(saved: Path) -> None:
    assert b"the line of a block" not in saved.read_bytes()


def test_the_document_beside_an_artifact_is_read_for_it(saved: Path) -> None:
    found = read_document(saved)
    assert found == read_document(saved.with_suffix(SUFFIX))
    assert (found.kind, found.around) == ("build", {"model": 0.5})
    assert len(found.details.pieces) == 2


def test_a_document_of_another_artifact_is_left_alone(saved: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.hot"
    built(rank=6).save(other, check=False)
    other.with_suffix(SUFFIX).write_bytes(saved.with_suffix(SUFFIX).read_bytes())
    assert read_document(other).kind == "file"


def test_of_several_targets_the_one_that_is_asked_for_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "several.hot"
    program = built(target=("x86-64-v2", "native"))
    program.save(file, check=False)
    file.with_suffix(SUFFIX).write_bytes(program.document(file).to_json())
    for target in ("native", "x86-64-v2"):
        found = read_document(file, target)
        assert found.kind == "file"
        assert found.artifact["fingerprint"]["target"] == target
        assert {each.target for each in found.manifest().targets} == {"native", "x86-64-v2"}
    assert read_document(file).kind == "build"
    with pytest.raises(OptionsError, match="is for"):
        read_document(file, "aarch64")


def test_a_load_tells_of_its_phases_and_of_copied_layouts(saved: Path) -> None:
    program = hotstart.load(saved, Stack().eval())
    program(torch.zeros(4, 3).t())
    found = program.document()
    assert found.kind == "load"
    assert {"import", "verify"} <= set(found.report.phases), "imports are no `other`"
    assert found.copied == program.relayouts
    equal = [unit.reused_from is not None for unit in found.report.units]
    assert [unit.action == "reused" for unit in found.report.units] == equal
    assert f"variant batch=1..8: {equal.count(False)} loaded + {equal.count(True)} reused" in str(
        found.report
    )


def test_a_document_needs_no_torch(saved: Path) -> None:
    code = (
        "import sys; from hotstart.reporting.document import read_document\n"
        "from hotstart.reporting.page import page_of\n"
        "page_of(read_document(sys.argv[1]), 'x'); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, saved], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "report"),
        ("[1]", "report"),
        ('{"format": "other", "version": 1}', "the format 'other'"),
        ('{"format": "hotstart report", "version": 1}', "report"),
    ],
)
def test_what_is_no_document_is_refused(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "report.json"
    file.write_text(text)
    with pytest.raises(CorruptArtifact, match=part):
        read_document(file)


def test_a_document_of_another_version_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_bytes(replace(document(), version=7).to_json())
    with pytest.raises(ArtifactError, match="expected a report of version 1, found version 7"):
        read_document(file)


def test_a_document_with_a_damaged_manifest_is_refused() -> None:
    artifact = {**document().artifact, "calls": 3}
    with pytest.raises(CorruptArtifact, match="manifest"):
        replace(document(), artifact=artifact).manifest()


def test_the_manifest_is_the_one_that_inspect_prints(saved: Path) -> None:
    plain = json.loads(read_document(saved).to_json())["artifact"]
    whole = json.loads(msgspec.json.encode(hotstart.artifact.inspection.inspect_json(saved)))
    del whole["report"]
    assert plain == whole
