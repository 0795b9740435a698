"""One file has a program for several levels of x86-64; a load takes the best that it runs."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from torch import nn

import hotstart
from hotstart import Options, Store
from hotstart.artifact import container, fingerprint, inspection
from hotstart.artifact.disk import write
from hotstart.artifact.pool import pack_several
from hotstart.cli import main
from hotstart.errors import (
    ArtifactError,
    CorruptArtifact,
    IncompatibleArtifact,
    OptionsError,
    UntrustedArtifact,
)
from hotstart.events import Event
from hotstart.records.artifact import Artifact
from hotstart.saving import packed
from hotstart.saving.save import _checked
from hotstart.targets import TargetName, allowed_instructions, missing_instructions
from tests.integration.alone import IDS, MASK, SHAPES, Encoder, Saved
from tests.integration.c_api import CORRUPT, INCOMPATIBLE, Library, Program, Refused
from tests.integration.test_targets import SIZES, forbidden, instructions, layer
from tests.opening import opens_library_alone
from tests.unit.artifact.test_target_index import forged, index_of, pool_of

V3, V4 = "x86-64-v3", "x86-64-v4"
LACKED = "avx1024f"
"""An extension that no processor has."""

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.usefixtures("kept_pieces"),
    pytest.mark.skipif(
        platform.machine() != "x86_64"
        or missing_instructions("x86-64-v4", fingerprint.host()["instructions"]) != [],
        reason="this machine is none of x86-64-v4",
    ),
]


def options(target: Any) -> Options:
    return Options(form="native", pack_weights="always", target=target)


def encoder(folder: Path, target: Any) -> Saved:
    folder.mkdir(exist_ok=True)
    return Saved(folder, Encoder(), IDS, MASK, dynamic_shapes=SHAPES, options=options(target))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, kept_pieces: Any) -> Saved:
    return encoder(tmp_path_factory.mktemp("two"), (V3, V4))


@pytest.fixture(scope="module")
def v3(tmp_path_factory: pytest.TempPathFactory, kept_pieces: Any) -> Saved:
    return encoder(tmp_path_factory.mktemp("v3"), V3)


@pytest.fixture(scope="module")
def v4(tmp_path_factory: pytest.TempPathFactory, kept_pieces: Any) -> Saved:
    return encoder(tmp_path_factory.mktemp("v4"), V4)


def needing(artifact: Artifact, *more: str) -> Artifact:
    """An artifact that may use further extensions, too."""
    parts = artifact.fingerprint
    return replace(artifact, fingerprint={**parts, "instructions": [*parts["instructions"], *more]})


@pytest.fixture(scope="module")
def lesser(two: Saved, v3: Saved, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A file of which this machine runs the code for v3 only, and weights for that."""
    best, other = two.program.artifacts()
    made = object.__new__(Saved)
    folder = tmp_path_factory.mktemp("lesser")
    made.file, made.weights, made.program = folder / "model.hot", v3.weights, v3.program
    write(made.file, packed(needing(best, LACKED), other))
    return made


def pooled(program: Any) -> torch.Tensor:
    found: torch.Tensor = program(IDS, MASK)["pooled"]
    return found


# --- what is taken --------------------------------------------------------------------------------


def test_a_build_runs_the_best_and_says_so(two: Saved, v4: Saved) -> None:
    report = two.program.report
    assert (report.target, report.targets) == (V4, (V4, V3))
    assert f"runs the code for {V4}, of {V4}, {V3}" in str(report)
    assert two.program.artifact.fingerprint["target"] == V4
    assert torch.equal(pooled(two.program), pooled(v4.program))
    with torch.no_grad():
        torch.testing.assert_close(pooled(two.program), Encoder()(IDS, MASK)["pooled"])


def test_a_build_for_one_target_does_not_speak_of_targets(v3: Saved) -> None:
    assert (v3.program.report.target, v3.program.report.targets) == ("", ())
    assert "runs the code for" not in str(v3.program.report)


def test_a_load_takes_the_best_and_says_so(
    two: Saved, v4: Saved, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "hotstart"):
        program = hotstart.load(two.file, Encoder().eval())
    assert f"{two.file}: takes the code for {V4}, of {V4}, {V3}" in caplog.messages
    assert (program.report.target, program.report.targets) == (V4, (V4, V3))
    assert program.report.to_dict()["target"] == V4
    assert torch.equal(pooled(program), pooled(v4.program))


def test_a_load_takes_the_best_that_fits(lesser: Saved) -> None:
    program = hotstart.load(lesser.file, Encoder().eval())
    assert (program.report.target, program.report.targets) == (V3, (V4, V3))
    assert program.artifact.fingerprint["target"] == V3
    assert torch.equal(pooled(program), pooled(lesser.program))
    prepared = hotstart.load(lesser.file, weights=lesser.weights)
    assert prepared.report.target == V3
    assert torch.equal(pooled(prepared), pooled(lesser.program))


@opens_library_alone
@pytest.mark.parametrize(("kind", "target"), [("two", V4), ("lesser", V3)])
def test_a_load_without_torch_does_the_same(
    kind: str, target: str, request: pytest.FixtureRequest
) -> None:
    given: Saved = request.getfixturevalue(kind)
    found = given.without_torch(
        f"""
        result = program({IDS.tolist()}, {MASK.tolist()})
        report = program.report
        found = [result["pooled"].tolist(), report.target, report.targets, type(program).__name__]
        """
    )
    assert found[1:] == [target, [V4, V3], "TorchFreeProgram"]
    assert torch.equal(torch.tensor(found[0]), pooled(given.program))


@opens_library_alone
@pytest.mark.parametrize(("kind", "target"), [("two", V4), ("lesser", V3), ("v3", V3)])
def test_a_load_from_c_does_the_same(
    kind: str, target: str, request: pytest.FixtureRequest, library: Library
) -> None:
    given: Saved = request.getfixturevalue(kind)
    program = Program(library, given.file, given.weights)
    assert program.target() == target
    assert torch.equal(program(IDS, MASK)[0], pooled(given.program))


@opens_library_alone
def test_where_none_fits_the_error_has_what_each_takes(
    two: Saved, library: Library, tmp_path: Path
) -> None:
    best, other = two.program.artifacts()
    file = tmp_path / "model.hot"
    write(file, packed(needing(best, LACKED, "avx1024bw"), needing(other, LACKED)))
    with pytest.raises(IncompatibleArtifact) as refused:
        hotstart.load(file, Encoder().eval())
    assert refused.value.differences == (
        (f"instructions of {V4}", "a CPU with avx1024bw, avx1024f", "a CPU without"),
        (f"instructions of {V3}", "a CPU with avx1024f", "a CPU without"),
    )
    with pytest.raises(Refused) as in_c:
        Program(library, file, two.weights)
    assert str(in_c.value) == str(refused.value)
    alone = two.without_torch(
        f"""
        try:
            hotstart.load({str(file)!r}, weights=sys.argv[2])
        except hotstart.IncompatibleArtifact as error:
            found = [str(error), "torch" in sys.modules]
        """
    )
    assert alone == [str(refused.value), False]
    assert main(["load-check", "--no-source", str(file)]) == 4


@opens_library_alone
def test_what_the_manifest_needs_counts_whatever_the_index_says(
    two: Saved, library: Library, tmp_path: Path
) -> None:
    best, other = two.program.artifacts()
    made = [_checked(needing(each, LACKED), None) for each in (best, other)]
    file = tmp_path / "model.hot"
    write(file, pack_several([each._replace(instructions=["sse2"]) for each in made]))
    with pytest.raises(IncompatibleArtifact) as refused:
        hotstart.load(file, Encoder().eval())
    assert refused.value.differences == (("instructions", "a CPU with avx1024f", "a CPU without"),)
    with pytest.raises(Refused) as in_c:
        Program(library, file, two.weights)
    assert str(in_c.value) == str(refused.value)


@opens_library_alone
def test_weights_that_were_prepared_for_another_target_are_refused(
    two: Saved, v3: Saved, lesser: Saved, library: Library
) -> None:
    for file, weights, target in ((two.file, v3.weights, V4), (lesser.file, two.weights, V3)):
        with pytest.raises(IncompatibleArtifact) as refused:
            hotstart.load(file, weights=weights)
        ((part, _, found),) = refused.value.differences
        assert part == "units"
        assert found.endswith(f", for {target}")
        with pytest.raises(Refused, match=rf"units: .*, for {target}") as in_c:
            Program(library, file, weights)
        assert in_c.value.status == INCOMPATIBLE


# --- what is in the file --------------------------------------------------------------------------


def test_what_targets_have_in_common_is_there_once(two: Saved, v3: Saved, v4: Saved) -> None:
    data = two.file.read_bytes()
    assert len(data) < v3.file.stat().st_size + v4.file.stat().st_size - 4000
    assert data.count(b'"requirements":{') == 1  # the table of weights
    table = two.program.artifact.captured or two.program.artifact.left_out
    assert table is None or table == ()
    assert data.count(b"tensor_0") < 2 * v3.file.read_bytes().count(b"tensor_0")  # that of rotation


def test_the_format_is_one_that_older_versions_refuse(two: Saved, v3: Saved) -> None:
    assert two.file.read_bytes()[8:12] == b"\x02\0\0\0"
    assert v3.file.read_bytes()[8:12] == b"\x01\0\0\0"


def test_one_target_in_a_list_makes_the_file_of_that_target(v3: Saved, tmp_path: Path) -> None:
    assert Options(target=[V3]) == Options(target=V3)
    again = encoder(tmp_path, [V3])
    assert again.file.read_bytes() == v3.file.read_bytes()


def test_the_order_of_targets_does_not_matter(two: Saved, tmp_path: Path) -> None:
    assert Options(target=[V3, V4]) == Options(target=(V4, V3))
    assert encoder(tmp_path, (V4, V3)).file.read_bytes() == two.file.read_bytes()


def test_inspect_shows_all_targets(two: Saved, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = hotstart.inspect(two.file)
    assert manifest.fingerprint["target"] == V4
    assert [one.target for one in manifest.targets] == [V4, V3]
    for one, artifact in zip(manifest.targets, two.program.artifacts(), strict=True):
        assert one.units == len(artifact.units)
        assert one.kernels >= 2
        assert 0 < one.own_bytes < one.bytes < two.file.stat().st_size
        assert list(one.instructions) == artifact.fingerprint["instructions"]
    shared = manifest.targets[0].bytes - manifest.targets[0].own_bytes
    assert sum(one.own_bytes for one in manifest.targets) + shared < two.file.stat().st_size
    assert hotstart.inspect(two.file, V3).fingerprint["target"] == V3

    assert main(["inspect", str(two.file)]) == 0
    shown = capsys.readouterr().out
    assert "targets, the best first" in shown
    assert f"  {V3} " in shown
    assert main(["inspect", "--json", "--target", V3, str(two.file)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["fingerprint"]["target"] == V3
    assert [one["units"] for one in printed["targets"]] == [len(manifest.units)] * 2


def test_inspect_refuses_a_target_that_is_not_there(two: Saved, v3: Saved) -> None:
    with pytest.raises(OptionsError, match=rf"got 'x86-64-v2'; .* is for {V4}, {V3}"):
        hotstart.inspect(two.file, "x86-64-v2")
    with pytest.raises(OptionsError, match=rf"got '{V4}'; .* is for {V3}$"):
        hotstart.inspect(v3.file, V4)
    assert hotstart.inspect(v3.file, V3).targets == ()


# --- trust and damage -----------------------------------------------------------------------------


def bytes_of(file: Path, name: str, other: str) -> Iterator[int]:
    """Places in a file of which only one of two targets has the bytes."""
    targets = {one.target: one for one in container.read_targets(file)}
    pool = file.stat().st_size - max(sum(each) for one in targets.values() for each in one.ranges)
    used = [range(at, at + size) for at, size in targets[other].ranges]
    for at, size in targets[name].ranges:
        for place in (at, at + size // 2, at + size - 1):
            if not any(place in each for each in used):
                yield pool + place


def test_a_target_that_is_not_taken_is_not_read_but_verified(two: Saved, tmp_path: Path) -> None:
    damaged, data = tmp_path / "model.hot", two.file.read_bytes()
    places = list(bytes_of(two.file, V3, V4))
    assert places
    for place in places:
        damaged.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        program = hotstart.load(damaged, Encoder().eval())
        assert torch.equal(pooled(program), pooled(two.program))
        with pytest.raises(CorruptArtifact):
            inspection.verify(damaged)
        assert main(["verify", str(damaged)]) == 3
        assert main(["load-check", "--no-source", str(damaged)]) == 3


@opens_library_alone
def test_damage_to_what_is_taken_is_found_by_every_load(
    two: Saved, library: Library, tmp_path: Path
) -> None:
    damaged, data = tmp_path / "model.hot", two.file.read_bytes()
    index = range(160, 160 + int.from_bytes(data[24:32], "little"), 97)
    for place in (*range(0, 64, 5), *index, *bytes_of(two.file, V4, V3)):
        damaged.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises((CorruptArtifact, IncompatibleArtifact)):
            hotstart.load(damaged, Encoder().eval())
        if place < 160 + len(index):
            with pytest.raises(Refused):
                Program(library, damaged, two.weights)


HUGE = 2**62


@opens_library_alone
@pytest.mark.parametrize(
    "fields",
    [
        {"ranges": [[0, HUGE]]},
        {"ranges": [[HUGE, HUGE]]},
        {"ranges": [[-1, 5]]},
        {"ranges": []},
        {"ranges": [[0, 200]], "manifest_bytes": 190},
        {"ranges": [[0]]},
        {"manifest_bytes": HUGE},
        {"manifest_bytes": 5},
        {"sha256": "00" * 32},
        {"sha256": None},
        {"instructions": "avx"},
        {"target": 5},
    ],
    ids=str,
)
def test_an_index_that_does_not_hold_together_is_refused_from_c(
    fields: dict[str, Any], two: Saved, library: Library, tmp_path: Path
) -> None:
    data = two.file.read_bytes()
    index = index_of(data)
    index["targets"][0] |= fields
    (tmp_path / "model.hot").write_bytes(forged(index, pool_of(data)))
    with pytest.raises(Refused) as refused:
        Program(library, tmp_path / "model.hot", two.weights)
    assert refused.value.status == CORRUPT
    with pytest.raises(CorruptArtifact):
        hotstart.load(tmp_path / "model.hot", Encoder().eval())


def test_a_signature_stands_for_all_targets(two: Saved, tmp_path: Path) -> None:
    from hotstart.artifact import signing

    public, _ = signing.generate(tmp_path / "key")
    file = tmp_path / "model.hot"
    two.program.save(file, sign_key=tmp_path / "key", check=False)
    hotstart.load(file, Encoder().eval(), trusted_keys=[public])
    assert inspection.verify(file, [public])["signed_by"]
    with pytest.raises(UntrustedArtifact):
        hotstart.load(two.file, Encoder().eval(), trusted_keys=[public])
    # The index of another file, with the signature of this one.
    signed, other = file.read_bytes(), packed(*two.program.artifacts()[::-1])
    forged = b"".join(other)[:64] + signed[64:160] + b"".join(other)[160:]
    file.write_bytes(forged)
    with pytest.raises(UntrustedArtifact):
        hotstart.load(file, Encoder().eval(), trusted_keys=[public])


# --- saved again, checked, kept -------------------------------------------------------------------


def test_a_program_that_was_loaded_is_saved_for_all_targets(
    two: Saved, lesser: Saved, tmp_path: Path
) -> None:
    copied, again = tmp_path / "copied.hot", tmp_path / "again.hot"
    shutil.copyfile(two.file, copied)
    program = hotstart.load(copied, Encoder().eval())
    program.save(again, check=False)
    assert again.read_bytes() == two.file.read_bytes()
    copied.write_bytes(lesser.file.read_bytes())
    with pytest.raises(ArtifactError, match="expected the file that the program was loaded from"):
        program.save(again, check=False)
    copied.unlink()
    with pytest.raises(ArtifactError, match="expected a file that can be read"):
        program.save(again, check=False)
    assert again.read_bytes() == two.file.read_bytes()


def test_the_check_at_save_runs_all_targets(two: Saved, tmp_path: Path) -> None:
    file = tmp_path / "model.hot"
    two.program.save(file)
    for target in (V3, V4):
        assert hotstart.inspect(file, target).check["tensors"] > 0


def test_the_check_at_save_refuses_a_target_that_cannot_run_here(
    lesser: Saved, tmp_path: Path
) -> None:
    program = hotstart.load(lesser.file, Encoder().eval())
    with pytest.raises(OptionsError, match=rf"runs the code for {V4}, found one without {LACKED}"):
        program.save(tmp_path / "model.hot")
    program.save(tmp_path / "model.hot", check=False)


def actions(store: Store, target: Any, model: nn.Module) -> tuple[list[str], hotstart.Program]:
    """What was done for each piece and target of a build."""
    found: list[str] = []

    def listen(event: Event) -> None:
        if event.kind == "unit_finished":
            found.append(event.detail["action"])

    wanted = Options(target=target, on_event=listen)
    x = torch.ones(3, 8)
    return found, hotstart.compile(model, (x,), options=wanted, cache=store)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(x).softmax(-1)


def test_a_cache_has_pieces_by_target_and_programs_with_all(
    tmp_path: Path, compiled_anew: None
) -> None:
    store, model = Store(tmp_path / "store"), Small().eval()
    assert actions(store, V3, model)[0] == ["compiled"]
    found, built = actions(store, (V3, V4), model)
    assert found == ["compiled", "loaded"]  # for v4, which comes first, and for v3
    assert actions(store, V4, model)[0] == ["loaded"]
    nothing, program = actions(store, (V4, V3), model)
    assert nothing == []
    assert program.report.targets == (V4, V3)
    built.save(tmp_path / "built.hot", check=False)
    program.save(tmp_path / "found.hot", check=False)
    one, other = (hotstart.inspect(tmp_path / f"{name}.hot") for name in ("built", "found"))
    assert one.targets == other.targets
    assert [each.target for each in other.targets] == [V4, V3]
    assert main(["cache", "verify", "--cache", str(store.folder.root)]) == 0


def test_a_call_that_is_compiled_for_is_compiled_for_this_machine() -> None:
    wanted = Options(target=(V3, V4), compiler="op_by_op", on_miss="compile")
    program = hotstart.compile(Small().eval(), (torch.ones(3, 8),), options=wanted)
    assert program(torch.ones(2, 8)).shape == (2, 16)
    ((more,),) = program._more.values()
    assert more.artifact.fingerprint["target"] == V4
    assert more.report.targets == ()


def test_pieces_without_kernels_are_the_same_for_all_targets(tmp_path: Path) -> None:
    model, x = Small().eval(), torch.ones(3, 8)
    program = hotstart.compile(
        model, (x,), options=Options(target=(V3, V4), compiler="op_by_op", form="python")
    )
    program.save(tmp_path / "model.hot")
    units = [artifact.units[0] for artifact in program.artifacts()]
    assert units[0] == units[1]
    assert (tmp_path / "model.hot").read_bytes().count(units[0].source.encode()) == 1
    assert torch.equal(hotstart.load(tmp_path / "model.hot", model)(x), program(x))


def test_native_builds_for_this_machine_are_best() -> None:
    given = Options(target=(V3, "native"), compiler="op_by_op")
    assert given.targets == ("native", V3)


def test_torch_compile_takes_one_target() -> None:
    compiled = torch.compile(
        Small().eval(), backend="hotstart", options={"target": (V3, V4)}, fullgraph=True
    )
    with torch.no_grad(), pytest.raises(Exception, match="target: got") as raised:
        compiled(torch.ones(3, 8))
    assert isinstance(getattr(raised.value, "inner_exception", raised.value), OptionsError)


@pytest.mark.slow
def test_code_for_each_target_is_for_its_level(tmp_path: Path, compiled_anew: None) -> None:
    """Both are compiled in one process; neither has what only the other may use."""
    model, x = layer()
    wanted = Options(target=(V3, V4))
    program = hotstart.compile(model, (x,), dynamic_shapes=SIZES, options=wanted)
    levels: tuple[TargetName, ...] = ("x86-64-v4", "x86-64-v3")
    for level, artifact in zip(levels, program.artifacts(), strict=True):
        kernels = [kernel for unit in artifact.units for _, kernel in unit.kernels]
        assert artifact.native is not None
        code = [instructions(bytes(each.data), tmp_path) for each in kernels]
        code.append(instructions(bytes(artifact.native.library.data), tmp_path))
        assert not [line for text in code for line in forbidden(level, text)]
        assert any("%zmm" in text for text in code) == (level == V4)
        assert any("%ymm" in text for text in code)


# --- on a lesser processor, emulated --------------------------------------------------------------

WITH_TORCH = """
import sys, torch, hotstart
from tests.integration.alone import Encoder, IDS, MASK
from tests.integration.c_api import Library, Program
file, weights, library = sys.argv[1:]
program = hotstart.load(file, Encoder().eval())
program.save_weights(weights)
with torch.no_grad():
    wanted = Encoder()(IDS, MASK)["pooled"]
found = program(IDS, MASK)["pooled"]
in_c = Program(Library(library), file, weights)
print(program.report.target, in_c.target(), torch.allclose(found, wanted, atol=1e-5),
      torch.equal(in_c(IDS, MASK)[0], found))
"""

WITHOUT_TORCH = """
import sys, hotstart
file, weights = sys.argv[1:]
program = hotstart.load(file, weights=weights)
print(program.report.target, len(program([[1, 2]], [[1.0, 0.0]])["pooled"].tolist()),
      "torch" in sys.modules)
"""


@pytest.mark.slow
@opens_library_alone
def test_a_haswell_takes_the_code_for_v3(
    two: Saved, library: Library, c_library: Path, tmp_path: Path
) -> None:
    """qemu passes on this machine's /proc/cpuinfo, where another is not given by `-L`."""
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("there is no qemu-x86_64 (package qemu-user)")
    (tmp_path / "root" / "proc").mkdir(parents=True)
    flags = " ".join(allowed_instructions("x86-64-v3", ()))
    (tmp_path / "root" / "proc" / "cpuinfo").write_text(f"flags\t\t: fpu {flags}\n")
    path = os.pathsep.join([str(ROOT), str(ROOT / "src"), *filter(None, sys.path)])
    weights = tmp_path / "haswell.weights"

    def run(code: str, *given: Any) -> list[str]:
        done = subprocess.run(
            [emulator, "-L", str(tmp_path / "root"), "-cpu", "Haswell",
             os.path.realpath(sys.executable), "-c", code, *map(str, given)],
            capture_output=True, text=True, timeout=900, cwd=ROOT, check=False,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.split()

    library_file = c_library / "libhotstart.so"
    assert run(WITH_TORCH, two.file, weights, library_file) == [V3, V3, "True", "True"]
    assert run(WITHOUT_TORCH, two.file, weights) == [V3, "1", "False"]


def test_targets_are_known_by_name() -> None:
    names: list[TargetName] = ["x86-64-v2", "native", "x86-64-v4", "x86-64-v3"]
    assert Options(target=names).targets == ("native", V4, V3, "x86-64-v2")
