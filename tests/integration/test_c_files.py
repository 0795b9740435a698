"""Files that are damaged, or for something else, are refused from C with the words of Python."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import hotstart
from hotstart.artifact import container, weights_file
from hotstart.artifact.disk import OpenFile
from hotstart.errors import ArtifactError
from tests.integration.alone import IDS, MASK, Saved
from tests.integration.c_api import CORRUPT, ERROR, INCOMPATIBLE, Library, Program, Refused
from tests.opening import opens_library_alone

pytestmark = [
    pytest.mark.usefixtures("kept_pieces"),
    opens_library_alone,
]


def refusal(library: Library, file: Path, weights: Path) -> Refused:
    with pytest.raises(Refused) as refused:
        Program(library, file, weights)
    return refused.value


def same_words(library: Library, file: Path, weights: Path) -> Refused:
    """What C says, which is what Python says."""
    with pytest.raises(ArtifactError) as expected:
        hotstart.load(file, weights=weights)
    found = refusal(library, file, weights)
    assert str(found) == str(expected.value)
    return found


def parts(size: int) -> list[int]:
    """Places in header and manifest, byte by byte at first, and further on now and then."""
    return [*range(0, 160, 3), *range(160, size, max(size // 60, 1))]


@pytest.mark.thorough
def test_a_byte_that_is_not_as_written_is_found(
    library: Library, saved: Saved, tmp_path: Path
) -> None:
    data = saved.file.read_bytes()
    damaged = tmp_path / "model.hot"
    used = _used_by_c(saved.file)
    for place in parts(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x20
        damaged.write_bytes(changed)
        if 64 <= place < 160:  # a key or a signature, which C does not check
            with pytest.raises(Refused, match="expected a key and a signature"):
                Program(library, damaged, saved.weights)
        elif any(begin <= place < end for begin, end in used):
            assert refusal(library, damaged, saved.weights).status in (CORRUPT, INCOMPATIBLE)


def _used_by_c(file: Path) -> list[tuple[int, int]]:
    """Header, manifest and the blobs that hold native code."""
    manifest = container.read_manifest(file)
    area = -(-(160 + len(manifest)) // 64) * 64
    blobs = json.loads(manifest)["blobs"]
    kernels = [blob for blob in blobs if blob["name"].endswith(".so")]
    assert kernels
    return [
        (0, 160 + len(manifest)),
        *((area + blob["offset"], area + blob["offset"] + blob["size"]) for blob in kernels),
    ]


def test_a_file_that_ends_early_is_found(library: Library, saved: Saved, tmp_path: Path) -> None:
    data = saved.file.read_bytes()
    short = tmp_path / "model.hot"
    for size in (0, 7, 8, 12, 159, 160, 161, len(data) // 2, len(data) - 1):
        short.write_bytes(data[:size])
        assert same_words(library, short, saved.weights).status == CORRUPT
    short.write_bytes(data + b"\0")
    assert same_words(library, short, saved.weights).status == CORRUPT


def test_weights_that_are_not_as_written_are_found(
    library: Library, saved: Saved, tmp_path: Path
) -> None:
    data = saved.weights.read_bytes()
    damaged = tmp_path / "model.weights"
    for place in parts(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x20
        damaged.write_bytes(changed)
        assert refusal(library, saved.file, damaged).status in (CORRUPT, INCOMPATIBLE), place
    for size in (8, 63, 64, 4096, len(data) - 4096):
        damaged.write_bytes(data[:size])
        assert same_words(library, saved.file, damaged).status == CORRUPT
    damaged.write_bytes(b"")
    assert refusal(library, saved.file, damaged).status == CORRUPT


def test_files_that_are_not_there_or_are_no_files(
    library: Library, saved: Saved, tmp_path: Path
) -> None:
    for file in (tmp_path / "none.hot", tmp_path):
        found = refusal(library, file, saved.weights)
        with pytest.raises(ArtifactError) as expected:
            hotstart.inspect(file)
        assert (found.status, str(found)) == (ERROR, str(expected.value))


# --- for something else ---------------------------------------------------------------------------


def rewritten(file: Path, target: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """The file with another manifest, and digests that fit."""
    contents = container.read(file)
    manifest = json.loads(contents.manifest)
    del manifest["blobs"]
    change(manifest)
    target.write_bytes(b"".join(container.file_parts(manifest, contents.blobs)))
    return target


MISFITS = {
    "torch": "2.0.0+cpu",
    "torch_build": "another commit",
    "platform": "linux-sparc",
    "libc": "glibc 99.1",
    "hotstart": "99.0",
    "instructions": ["avx", "avx9001"],
}


@pytest.mark.parametrize("part", MISFITS)
def test_a_part_that_does_not_fit_is_named_as_in_python(
    library: Library, saved: Saved, tmp_path: Path, part: str
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["fingerprint"][part] = MISFITS[part]

    other = rewritten(saved.file, tmp_path / "model.hot", change)
    found = same_words(library, other, saved.weights)
    assert found.status == INCOMPATIBLE
    assert f"\n  {part}: expected " in str(found)


def test_parts_that_only_python_has_do_not_count(
    library: Library, saved: Saved, tmp_path: Path
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["fingerprint"] |= {"python": "cpython-399", "bytecode": "00", "sources": {"a": 1}}

    other = rewritten(saved.file, tmp_path / "model.hot", change)
    served = Program(library, other, saved.weights)
    assert served(IDS, MASK)[0].equal(saved.program(IDS, MASK)["pooled"])
    served.close()


def test_a_file_of_a_version_without_wiring_is_refused(
    library: Library, saved: Saved, tmp_path: Path
) -> None:
    other = rewritten(
        saved.file, tmp_path / "model.hot", lambda manifest: manifest["native"].pop("wiring")
    )
    found = refusal(library, other, saved.weights)
    assert found.status == ERROR
    assert "Build it again, and save it again." in str(found)
    assert hotstart.load(other, weights=saved.weights)(IDS, MASK)["length"] == 4


def _wrong_records(manifest: dict[str, Any]) -> list[Callable[[], Any]]:
    """Ways to write a manifest that no version of hotstart writes."""
    wiring, call = manifest["native"]["wiring"], manifest["calls"][0]
    variant = wiring["calls"][0]["variants"][0]
    return [
        lambda: wiring.pop("functions"),
        lambda: wiring["functions"].append([10**6, []]),
        lambda: wiring["functions"].insert(0, [0, [-1]]),
        lambda: wiring["functions"].append([0, [10**6]]),
        lambda: wiring["tensors"].append({"type": "view", "of": 99}),
        lambda: variant.update(function=77),
        lambda: variant.update(arguments=[0]),
        lambda: variant.update(arguments=[0, 5]),
        lambda: variant.update(intervals=[]),
        lambda: variant["results"].append(["more", "made", 9]),
        lambda: variant["results"].append(["more", "other", 0]),
        lambda: wiring["calls"][0]["variants"].pop(),
        lambda: wiring.update(calls=[]),
        lambda: call["contract"]["tensors"][0].update(dtype="float7"),
        lambda: call["contract"]["tensors"][0].update(dim_order=[0, 0]),
        lambda: call["contract"]["tensors"][0].update(shape=["rows", "other"]),
        lambda: call["contract"].update(axes=[]),
        lambda: call["contract"].update(mutated_args=[7]),
        lambda: manifest["native"].update(kernels=[]),
        lambda: manifest["native"].update(library="nothing"),
        lambda: manifest.update(calls=[]),
        lambda: manifest.pop("requirements"),
        lambda: manifest.update(fingerprint=[]),
    ]


@pytest.mark.parametrize("number", range(23))
def test_records_that_do_not_hold_together_are_refused(
    library: Library, saved: Saved, tmp_path: Path, number: int
) -> None:
    other = rewritten(saved.file, tmp_path / "model.hot", lambda m: _wrong_records(m)[number]())
    found = refusal(library, other, saved.weights)
    assert found.status == CORRUPT, str(found)


def test_weights_of_another_program_are_refused(
    library: Library, saved: Saved, tmp_path: Path
) -> None:
    linear = torch.nn.Linear(3, 3).eval()
    program = hotstart.compile(linear, (torch.rand(2, 3),))
    program.save_weights(tmp_path / "other.weights")
    found = refusal(library, saved.file, tmp_path / "other.weights")
    assert found.status == INCOMPATIBLE
    assert "\n  units: expected " in str(found)
    assert "\n  table of weights: expected " in str(found)
    assert "Write it again with program.save_weights()" in str(found)


def test_weights_for_another_processor_are_refused(
    library: Library, saved: Saved, tmp_path: Path
) -> None:
    def change(table: dict[str, Any]) -> None:
        table["fingerprint"]["instructions"].append("avx9001")

    other = reweighed(saved.weights, tmp_path / "model.weights", change)
    found = refusal(library, saved.file, other)
    assert found.status == INCOMPATIBLE
    assert "instructions: expected a CPU with avx9001, found a CPU without avx9001" in str(found)


def reweighed(file: Path, target: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Weights with another table, and digests that fit."""
    data = file.read_bytes()
    with OpenFile(str(file)) as source:
        begin = weights_file.read(source).begin
    size = int.from_bytes(data[24:32], "little")
    table = json.loads(data[64 : 64 + size])
    change(table)
    text = json.dumps(table).encode()
    start = -(-(64 + len(text)) // 4096) * 4096
    whole = start + len(data) - begin
    header = data[:16] + whole.to_bytes(8, "little") + len(text).to_bytes(8, "little")
    head = header + hashlib.sha256(text).digest() + text
    target.write_bytes(head + bytes(start - len(head)) + data[begin:])
    return target


WRONG_TABLES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a place beyond its stretch": lambda table: table["tensors"][0].__setitem__(4, 1 << 40),
    "a shape beyond its stretch": lambda table: table["tensors"][0].__setitem__(1, [1 << 40, 16]),
    "sizes that overflow": lambda table: table["tensors"][0].__setitem__(1, [1 << 62, 1 << 62]),
    "stretches that overlap": lambda table: table["stretches"][1].__setitem__(0, 0),
    "a stretch beyond the memory": lambda table: table["stretches"][-1].__setitem__(1, 1 << 50),
    "a layout that is not there": lambda table: table["tensors"][0].__setitem__(5, 99),
    "a tensor that is not there": lambda table: table["weights"].update({"embed.weight": 99}),
    "no tensors": lambda table: table.update(tensors=[]),
    "a dtype of its own": lambda table: table["tensors"][0].__setitem__(0, "float7"),
    "no base64": lambda table: table.update(layouts=["*"]),
}


@pytest.mark.parametrize("what", WRONG_TABLES)
def test_a_table_that_does_not_hold_together_is_refused(
    library: Library, saved: Saved, tmp_path: Path, what: str
) -> None:
    other = reweighed(saved.weights, tmp_path / "model.weights", WRONG_TABLES[what])
    assert refusal(library, saved.file, other).status == CORRUPT
