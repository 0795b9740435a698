"""A file with several targets: what is in it, and how `inspect` shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import hotstart
from hotstart import Options
from hotstart.cli import main
from hotstart.errors import OptionsError
from tests.integration.alone import Saved
from tests.integration.several_targets.encoders import ON_V4, V3, V4, encoder

pytestmark = ON_V4


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
