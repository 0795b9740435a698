"""Source files that were traced are recorded, and compared function by function."""

from __future__ import annotations

import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from hotstart.artifact import fingerprint
from hotstart.guards.sources import sources
from tests.processes import python
from tests.unit.guards.source_files import COMPARE, FUNCTION, RECORD, changed, functions, package

# --- source files -------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the module `hs_shop.till`, imported."""
    file = tmp_path / "hs_shop" / "till.py"
    file.parent.mkdir()
    file.write_text(FUNCTION)
    module = types.ModuleType("hs_shop.till")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "hs_shop.till", module)
    return file


def test_a_moved_folder_has_the_same_sources_and_no_path_in_them(tmp_path: Path) -> None:
    one, other = (python(RECORD, str(package(tmp_path / name))) for name in ("one", "other"))
    assert one == other
    assert list(one) == ["hs_pack", "hs_pack.inner.leaf", "hs_pack.part"]
    for source in one.values():
        ((name, digest),) = source["functions"]
        assert name == "f"
        for each in (digest, source["content"]):
            assert len(each) == 32
            assert set(each) <= set("0123456789abcdef")


def test_sources_are_found_without_importing_them(tmp_path: Path) -> None:
    recorded = python(RECORD, str(package(tmp_path / "one")))
    moved = package(tmp_path / "other")
    assert python(COMPARE, str(moved), json.dumps(recorded)) == [[], []]


def test_sources_that_changed_or_went_are_named(tmp_path: Path) -> None:
    folder = package(tmp_path)
    recorded = python(RECORD, str(folder))
    (folder / "hs_pack" / "part.py").write_text("def f(x): return x + 1\n")
    (folder / "hs_pack" / "__init__.py").write_text("def g(x): return x\n")
    (folder / "hs_pack" / "inner" / "leaf.py").unlink()
    changed, _ = python(COMPARE, str(folder), json.dumps(recorded))
    digest = recorded["hs_pack.part"]["functions"][0][1]
    (first, *renamed), (leaf, was, gone), (part, then, now) = changed
    assert (first, renamed) == ("source hs_pack.f", [f"code {digest[:8]}", "no such function"])
    assert (leaf, was, gone) == (
        "source hs_pack.inner.leaf",
        f"content {recorded['hs_pack.inner.leaf']['content'][:8]}",
        "no such file",
    )
    assert part == "source hs_pack.part.f"
    assert now.startswith("code ")
    assert now != then == f"code {digest[:8]}"


@pytest.mark.parametrize(
    "content",
    [
        FUNCTION + "# a comment",
        f"import os\n\n\n{FUNCTION}\n\ndef other(): pass\n",
        "def f(x):\n    'A docstring.'\n    return (\n        x\n    )\n",
        f"{FUNCTION}\nif True:\n    def f(x): return 2\n",
    ],
)
def test_a_file_may_change_around_its_functions(source: Path, content: str) -> None:
    recorded = sources(functions(str(source)))
    source.write_text(content)
    assert changed(recorded) == []


def test_a_file_that_is_no_python_any_more_is_named(source: Path) -> None:
    recorded = sources(functions(str(source)))
    source.write_text("def f(x) return x\n")
    ((name, expected, _),) = changed(recorded)
    assert (name, expected) == ("source hs_shop.till", "Python")


def test_functions_that_guards_compare_may_be_left_to_them(source: Path) -> None:
    source.write_text("def f(x): return x\ndef g(x): return x\n")
    f, g = functions(str(source))
    recorded = sources([f, g], [g])
    source.write_text("def f(x): return 1\ndef g(x): return 1\n")
    assert [name for name, _, _ in changed(recorded)] == [
        "source hs_shop.till.f", "source hs_shop.till.g"
    ]  # fmt: skip
    assert [name for name, _, _ in changed(recorded, loose=True)] == ["source hs_shop.till.g"]
    source.unlink()
    assert changed(sources([f]), loose=True) == []


def test_a_package_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    recorded = python(RECORD, str(package(tmp_path / "one")))
    changed, _ = python(COMPARE, str(tmp_path), json.dumps(recorded))
    assert [found for _, _, found in changed] == ["no such file"] * 3


def test_an_imported_module_is_compared_where_it_was_imported_from(source: Path) -> None:
    recorded = sources(functions(str(source)))
    assert changed(recorded) == []
    source.write_text("def f(x): return 2\n")
    assert [name for name, _, _ in changed(recorded)] == ["source hs_shop.till.f"]


def test_a_file_is_recorded_once_under_its_shortest_name(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("till", "src.hs_shop.till", "__main__", "__mp_main__"):
        monkeypatch.setitem(sys.modules, name, sys.modules["hs_shop.till"])
    assert list(sources(functions(str(source)) * 2)) == ["till"]


def test_a_file_reached_by_another_path_is_the_same(source: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(source.parent)
    assert list(sources(functions(str(link / source.name)))) == ["hs_shop.till"]


def test_what_is_no_code_of_the_user_is_left_out(tmp_path: Path) -> None:
    import torch

    orphan = tmp_path / "orphan.py"
    orphan.write_text(FUNCTION)
    code = python.__code__
    assert not sources(
        code.replace(co_filename=name)
        for name in [
            "<string>",
            "<eval_with_key>.1",
            "",
            "no\0file",
            str(tmp_path / "gone.py"),
            str(tmp_path),
            str(orphan),  # no module's
            json.__file__,
            torch.__file__,
            torch.nn.functional.__file__,
            fingerprint.__file__,
        ]
    )


def test_installed_packages_are_recorded() -> None:
    code = python.__code__.replace(co_filename=pytest.__file__)
    assert list(sources([code])) == ["pytest"]


def test_packages_inside_the_standard_library_folder_are_recorded(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = source.parent / "site-packages" / "extra.py"
    installed.parent.mkdir()
    installed.write_text(FUNCTION)
    extra = types.ModuleType("extra")
    extra.__file__ = str(installed)
    monkeypatch.setitem(sys.modules, "extra", extra)
    monkeypatch.setattr(os, "__file__", str(source.parent / "os.py"))
    assert list(sources(functions(str(source), str(installed)))) == ["extra"]


def test_looking_for_files_leaves_lazy_modules_alone(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lazy(types.ModuleType):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(f"asked for {name}")

    monkeypatch.setitem(sys.modules, "hs_lazy", Lazy("hs_lazy"))
    monkeypatch.setitem(sys.modules, "hs_none", None)
    recorded = sources(functions(str(source)))
    assert list(recorded) == ["hs_shop.till"]
    assert changed(recorded | {"__main__:till.py": recorded["hs_shop.till"]}) == []


# --- scripts ------------------------------------------------------------------------------------


def test_of_modules_called_like_a_script_one_with_its_content_counts(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = {"__main__:till.py": sources(functions(str(source)))["hs_shop.till"]}
    other = types.ModuleType("hs_bank.till")
    other.__file__ = str(tmp_path / "till.py")
    Path(other.__file__).write_text("def f(x): return 3\n")
    # before and after the one looked for
    for name in ("hs_bank.till", "hs_shop.till", "hs_other_bank.till"):
        module = sys.modules["hs_shop.till"] if name == "hs_shop.till" else other
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setitem(sys.modules, name, module)
    assert changed(recorded) == []
    monkeypatch.delitem(sys.modules, "hs_shop.till")
    assert len(changed(recorded)) == 1
