"""A script that was traced is recorded by its name, and found however it is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.processes import python, run
from tests.unit.guards.source_files import COMPARE

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
