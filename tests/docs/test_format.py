"""The page of the format is a specification: what it prints reads what hotstart writes."""

from __future__ import annotations

import ast
import base64
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

import hotstart
from hotstart.artifact import signing
from hotstart.artifact.container import read_all
from hotstart.artifact.manifest import Manifest
from hotstart.records.artifact import Blob
from tests.docs.blocks import ROOT, python_blocks

PAGE = "docs/format.md"
SCHEMA = ROOT / "docs/manifest.schema.json"
SAMPLES = sorted((ROOT / "tests/compat").glob("*.hot"))

ReadHot = Callable[[bytes], list[tuple[dict[str, Any], dict[str, bytes]]]]


def printed(file: str) -> str:
    (block,) = [each for each in python_blocks(PAGE) if each.file == file]
    return block.text


def function(file: str, name: str) -> Any:
    names: dict[str, Any] = {}
    exec(printed(file), names)
    return names[name]


@pytest.fixture(scope="module")
def read_hot() -> ReadHot:
    found: ReadHot = function("read_hot.py", "read_hot")
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A file that was just written and signed, and the public key."""
    folder = tmp_path_factory.mktemp("format")
    public, _ = signing.generate(folder / "key")
    program = hotstart.compile(
        torch.nn.Linear(4, 2).eval(),
        (torch.zeros(2, 4),),
        options=hotstart.Options(compiler="op_by_op"),
    )
    program.save(folder / "new.hot", sign_key=folder / "key", check=False)
    return folder / "new.hot", base64.b64decode(public.read_text().split()[1])


def test_the_reader_imports_nothing_but_the_standard_library() -> None:
    tree = ast.parse(printed("read_hot.py"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in imports] == [
        "import hashlib",
        "import json",
        "import struct",
    ]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.stem)
def test_the_reader_reads_every_format(sample: Path, read_hot: ReadHot) -> None:
    expected = [
        (json.loads(each.manifest), {name: bytes(blob) for name, blob in each.blobs.items()})
        for each in read_all(sample)
    ]
    assert read_hot(sample.read_bytes()) == expected


def test_the_reader_reads_what_is_written_now(
    written: tuple[Path, bytes], read_hot: ReadHot
) -> None:
    file, public = written
    ((manifest, blobs),) = read_hot(file.read_bytes())
    assert manifest["fingerprint"]["hotstart"] == hotstart.__version__
    assert [row["name"] for row in manifest["blobs"]] == list(blobs)
    function("check_signature.py", "check_signature")(file.read_bytes(), public)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.stem)
def test_the_reader_refuses_what_is_damaged(sample: Path, read_hot: ReadHot) -> None:
    data = sample.read_bytes()
    for at in (0, 12, 16, 40, 64, 170, len(data) // 2, len(data) - 1):
        with pytest.raises(ValueError, match="damaged"):
            read_hot(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(ValueError, match="damaged"):
        read_hot(data + b"\0")


def test_a_signature_is_of_the_first_bytes(written: tuple[Path, bytes]) -> None:
    from cryptography.exceptions import InvalidSignature

    file, public = written
    data = file.read_bytes()
    with pytest.raises(InvalidSignature):
        function("check_signature.py", "check_signature")(data[:20] + b"\1" + data[21:], public)


def test_the_schema_is_that_of_the_records() -> None:
    """`EXPECTTEST_ACCEPT=1` writes it."""
    text = json.dumps(schema(), indent=1) + "\n"
    if os.environ.get("EXPECTTEST_ACCEPT"):
        SCHEMA.write_text(text)
    assert json.loads(SCHEMA.read_text()) == json.loads(text)


def test_the_page_names_every_key_of_the_manifest() -> None:
    text = (ROOT / PAGE).read_text()
    keys = set(Manifest.__struct_fields__) - {"targets"}  # which `inspect` adds
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []


def test_a_manifest_is_as_the_schema_says(written: tuple[Path, bytes], read_hot: ReadHot) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    ((manifest, _),) = read_hot(written[0].read_bytes())
    jsonschema.validate(manifest, json.loads(SCHEMA.read_text()))
    del manifest["calls"]
    with pytest.raises(jsonschema.ValidationError, match="calls"):
        jsonschema.validate(manifest, json.loads(SCHEMA.read_text()))


def schema() -> Any:
    return tidied(msgspec.json.schema(Manifest, schema_hook=custom))


def tidied(part: Any) -> Any:
    """The same without the indentation of docstrings."""
    if isinstance(part, dict):
        return {name: tidied(value) for name, value in part.items()}
    if isinstance(part, list):
        return [tidied(each) for each in part]
    return inspect.cleandoc(part) if isinstance(part, str) else part


def custom(kind: type) -> dict[str, Any]:
    """Say what stands in JSON for what only a load brings."""
    if issubclass(kind, Blob):
        return {"type": "string", "description": f"of the blob {kind.file_name.format('<this>')}"}
    return {"type": "string", "description": "the path of a class, `module:QualifiedName`"}
