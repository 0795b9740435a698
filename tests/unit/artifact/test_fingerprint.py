from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hotstart
from hotstart.artifact import fingerprint
from hotstart.artifact.fingerprint import cpu_instructions, host
from hotstart.guards.codes import codes_in
from hotstart.guards.sources import Source, changed_sources, sources

# Flags of one CPU of 2019 and the first lines of one of ARM, as Linux prints them.
X86 = [
    b"processor\t: 0\n",
    b"flags\t\t: fpu vme sse sse2 ht syscall nx lm pni fma cx16 xsave avx f16c rdrand hypervisor "
    b"abm avx2 erms invpcid rtm avx512f avx512_vnni pku ospke amx_tile\n",
    b"vmx flags\t: vnmi sse4_1\n",
    b"processor\t: 1\n",
    b"flags\t\t: gfni\n",
]
ARM = [b"processor\t: 0\n", b"BogoMIPS\t: 50.00\n", b"Features\t: fp asimd sve aes\n"]


def python(code: str, *arguments: str, cwd: Path | None = None) -> Any:
    """What a fresh process prints, read as JSON."""
    return run("-c", code, *arguments, cwd=cwd)


def run(*command: str, cwd: Path | None = None) -> Any:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- this process -------------------------------------------------------------------------------


def test_reading_a_process_without_torch_imports_no_torch() -> None:
    code = (
        "import json, sys; from hotstart.artifact.fingerprint import host; "
        "parts = host(); print(json.dumps([parts, 'torch' in sys.modules]))"
    )
    parts, imported = python(code)
    assert not imported
    import torch

    assert parts == host()
    assert (parts["torch"], parts["torch_build"]) == (
        torch.version.__version__,
        torch.version.git_version,
    )


def test_a_process_that_cannot_have_torch_has_no_version_of_it() -> None:
    code = (
        "import json, sys; sys.modules['torch'] = None; "
        "from hotstart.artifact.fingerprint import host; print(json.dumps(host()))"
    )
    parts = python(code)
    assert (parts["torch"], parts["torch_build"]) == (None, None)


def test_the_version_is_the_installed_one() -> None:
    assert importlib.metadata.version("hotstart") == hotstart.__version__


def test_the_platform_agrees_with_the_slow_way_to_ask() -> None:
    parts = host()
    assert parts["platform"] == f"{sys.platform}-{platform.machine()}"
    family, release = platform.libc_ver()
    assert parts["libc"] == (f"glibc {release}" if family == "glibc" else None)


def test_only_instructions_a_compiler_may_emit_count_on_x86() -> None:
    assert cpu_instructions(X86) == [
        *("abm", "amx_tile", "avx", "avx2", "avx512_vnni", "avx512f", "cx16", "f16c", "fma"),
        *("pni", "rdrand", "sse", "sse2"),
    ]


def test_every_feature_counts_on_arm() -> None:
    assert cpu_instructions(ARM) == ["aes", "asimd", "fp", "sve"]


def test_other_processors_have_no_instructions_to_tell() -> None:
    assert cpu_instructions([b"processor : 0\n", b"cpu : POWER9\n"]) == []


def test_reading_stops_at_the_first_processor() -> None:
    def lines() -> Iterator[bytes]:
        yield from X86[:2]
        raise AssertionError("read on")

    assert cpu_instructions(lines())


# --- source files -------------------------------------------------------------------------------


def functions(*files: str) -> list[types.CodeType]:
    """The code of all functions in some files."""
    return [
        code
        for file in files
        for code in codes_in(compile(Path(file).read_bytes(), file, "exec"))
        if code.co_name != "<module>"
    ]


def changed(recorded: dict[str, Source], loose: bool = False) -> list[tuple[str, str, str]]:
    return changed_sources(recorded, loose)


FUNCTION = "def f(x):\n    return x\n"


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


def package(folder: Path, content: str = FUNCTION) -> Path:
    """A package `hs_pack` with modules `hs_pack.part` and `hs_pack.inner.leaf`."""
    for name in ("__init__.py", "part.py", "inner/__init__.py", "inner/leaf.py"):
        file = folder / "hs_pack" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return folder


RECORD = """
import json, sys
sys.path.insert(0, sys.argv[1])
import hs_pack.part, hs_pack.inner.leaf
import msgspec
from hotstart.guards.sources import sources
modules = [hs_pack, hs_pack.part, hs_pack.inner.leaf]
print(json.dumps(msgspec.to_builtins(sources([m.f.__code__ for m in modules]))))
"""

COMPARE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import msgspec
from hotstart.guards.sources import Source, changed_sources
recorded = msgspec.convert(json.loads(sys.argv[2]), dict[str, Source])
changed = changed_sources(recorded, loose=False)
print(json.dumps([changed, [name for name in sys.modules if name.startswith("hs_pack")]]))
"""


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

SCRIPT = """
import json, sys
import msgspec
from hotstart.guards.sources import Source, changed_sources, sources
def f(): pass
if __name__ == "__main__":
    recorded = msgspec.json.decode(sys.argv[1] if sys.argv[1:] else "{}", type=dict[str, Source])
    found = msgspec.to_builtins(sources([f.__code__]))
    print(json.dumps([found, changed_sources(recorded, loose=False)]))
"""

OTHER_SCRIPT = """
import json, sys
sys.path.insert(0, "lib")
import train
import msgspec
from hotstart.guards.sources import Source, changed_sources
recorded = msgspec.json.decode(sys.argv[1], type=dict[str, Source])
print(json.dumps(changed_sources(recorded, loose=False)))
"""


def recorded_script(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "train.py").write_text(SCRIPT)
    recorded, _ = run("train.py", cwd=tmp_path)
    assert list(recorded) == ["__main__:train.py"]
    return dict(recorded)


def test_a_script_is_recorded_by_its_base_name_however_it_is_run(tmp_path: Path) -> None:
    recorded = recorded_script(tmp_path)
    assert run(str(tmp_path / "train.py"))[0] == recorded
    assert run("-m", "train", cwd=tmp_path)[0] == recorded


def test_a_script_that_is_run_again_fits(tmp_path: Path) -> None:
    recorded = recorded_script(tmp_path)
    assert run("train.py", json.dumps(recorded), cwd=tmp_path) == [recorded, []]


def test_a_script_that_was_edited_does_not_fit(tmp_path: Path) -> None:
    recorded = recorded_script(tmp_path)
    (tmp_path / "train.py").write_text(SCRIPT.replace("def f(): pass", "def f(): return 1"))
    ((name, expected, found),) = run("train.py", json.dumps(recorded), cwd=tmp_path)[1]
    assert name == "source __main__:train.py.f"
    assert expected != found
    assert found.startswith("code ")


def test_a_script_may_be_imported_by_another(tmp_path: Path) -> None:
    recorded = recorded_script(tmp_path)
    (tmp_path / "lib").mkdir()
    (tmp_path / "train.py").rename(tmp_path / "lib" / "train.py")
    (tmp_path / "serve.py").write_text(OTHER_SCRIPT)
    assert run("serve.py", json.dumps(recorded), cwd=tmp_path) == []


def test_the_script_itself_counts_before_any_module_called_like_it(tmp_path: Path) -> None:
    recorded = recorded_script(tmp_path)
    (tmp_path / "lib").mkdir()
    (tmp_path / "train.py").rename(tmp_path / "lib" / "train.py")
    (tmp_path / "train.py").write_text(OTHER_SCRIPT)
    ((name, _, _),) = run("train.py", json.dumps(recorded), cwd=tmp_path)
    assert name == "source __main__:train.py.f"


def test_a_script_that_nobody_runs_or_imports_is_not_found(tmp_path: Path) -> None:
    recorded = recorded_script(tmp_path)
    assert python(COMPARE, str(tmp_path), json.dumps(recorded))[0] == [
        [
            "source __main__:train.py",
            f"content {recorded['__main__:train.py']['content'][:8]}",
            "no such file",
        ]
    ]


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


MULTIPROCESSING = """
import json, multiprocessing
from hotstart.guards.sources import sources
def f(queue): queue.put(list(sources([f.__code__])))
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=f, args=(queue,))
    process.start()
    found = queue.get(timeout=100)
    process.join()
    print(json.dumps(found))
"""


def test_a_script_has_its_name_in_spawned_processes_too(tmp_path: Path) -> None:
    (tmp_path / "spawn.py").write_text(MULTIPROCESSING)
    assert list(run("spawn.py", cwd=tmp_path)) == ["__main__:spawn.py"]
