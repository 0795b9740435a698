from __future__ import annotations

import builtins
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hotstart.cli import main
from hotstart.cli.app import _COMMANDS

pytest.importorskip("shtab", reason="the extra hotstart[cli] is not installed")


@pytest.fixture
def bash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The script for bash, as a file."""
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "hotstart.bash"
    script.write_text(capsys.readouterr().out)
    return script


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of some words."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    typed = " ".join(f"'{word}'" for word in words)
    words_of = f"COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}"
    ask = f'{words_of}; _shtab_hotstart; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(
        ["bash", "-c", f"source {script}; {ask}"], capture_output=True, text=True, check=False
    )
    return done.stdout.split()


def test_bash_completes_commands(bash: Path) -> None:
    assert set(completed(bash, "hotstart", "")) >= set(_COMMANDS)
    assert completed(bash, "hotstart", "load") == ["load-check"]


def test_bash_completes_flags_and_their_values(bash: Path) -> None:
    assert "--trusted-key" in completed(bash, "hotstart", "verify", "--tr")
    assert completed(bash, "hotstart", "build", "--compiler", "op") == ["op_by_op"]
    assert completed(bash, "hotstart", "cache", "pu") == ["push", "pull"]


def test_bash_completes_files(bash: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bash.parent / "encoder.hot").touch()
    monkeypatch.chdir(bash.parent)
    assert completed(bash, "hotstart", "verify", "enc") == ["encoder.hot"]


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_have_a_script_too(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "load-check" in capsys.readouterr().out


def test_what_is_missing_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "shtab":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["completion", "bash"]) == 1
    assert "pip install 'hotstart[cli]'" in capsys.readouterr().err
