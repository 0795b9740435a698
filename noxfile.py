"""The tests with every supported version of torch and of Python, `make matrix`; and the package.

`nox -l` lists them, `nox -s "tests-3.12(torch 2.15)"` runs one, and `nox -s tests -p 3.12` those of
one Python; what follows `--` goes to pytest. `make package` builds what is released, and tries it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

# The last patch release of every minor version.
TORCH = ("2.11.0", "2.12.1", "2.13.0", "2.14.1", "2.15.0")
PYTHON = ("3.11", "3.12", "3.13")

# Each is tried alone. Those for the demo and for developers are not for users of the package.
EXTRAS = ("cli", "sign", "remote", "report", "serve", "ray", "sentence-transformers")
INSTALLED = "qualification/installed.py"

nox.needs_version = ">=2026.10.20"
nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"
# An interpreter that is not there is a session that is skipped, and nox says so.
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
# Every torch with the oldest Python, every Python with the torch of constraints.txt.
nox.options.sessions = [
    "tests-3.11",
    *(f"tests-{python}(torch 2.13)" for python in PYTHON[1:]),
]


@nox.session(python=PYTHON)
@nox.parametrize("torch", TORCH, ids=[f"torch {release.rpartition('.')[0]}" for release in TORCH])
def tests(session: nox.Session, torch: str) -> None:
    """Install the package with one torch, and run the tests that are not slow."""
    constraints = Path(session.create_tmp(), "constraints.txt")
    constraints.write_text(_constraints(torch))
    # torch by itself first: what comes after finds it there and leaves it alone.
    session.install("--constraint", str(constraints), f"torch=={torch}")
    session.install("--constraint", str(constraints), "--editable", ".[cli,demo,dev]")
    session.env.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    session.run("python", "-m", "pytest", "-q", "-m", "not slow and not browser", *session.posargs)


def _constraints(torch: str) -> str:
    """constraints.txt, with another torch."""
    lines = Path("constraints.txt").read_text().splitlines()
    return "\n".join(f"torch=={torch}" if line.startswith("torch==") else line for line in lines)


@nox.session
def package(session: nox.Session) -> None:
    """Build sdist and wheel, install the wheel with what it declares and no more, and use it.

    `dist/` has both afterwards, and `sbom.json`: every package that was installed, as CycloneDX.
    What follows `--` are the extras to try, such as `nox -s package -- remote ray`, instead of all.
    """
    session.install("build", "twine", "cyclonedx-bom")
    dist = Path("dist").absolute()
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(dist))
    session.run("twine", "check", "--strict", *map(str, dist.iterdir()))
    for extra in session.posargs or ("", *EXTRAS):
        python = _installed(session, extra)
        session.run(python, "-I", INSTALLED, extra or "nothing", external=True)
        if not extra:
            session.run("cyclonedx-py", "environment", python, "-o", str(dist / "sbom.json"))
        shutil.rmtree(Path(python).parents[1])


def _installed(session: nox.Session, extra: str) -> str:
    """The Python of a new environment with the wheel and one of its extras."""
    folder = Path(session.create_tmp(), f"with-{extra or 'nothing'}")
    shutil.rmtree(folder, ignore_errors=True)
    session.run("python", "-m", "venv", str(folder))
    python = str(folder / "bin" / "python")
    (wheel,) = Path("dist").absolute().glob("*.whl")
    pip = (python, "-m", "pip", "install", "-qq", "--constraint", "constraints.txt")
    session.run(*pip, "torch", external=True)
    session.run(*pip, f"{wheel}[{extra}]" if extra else str(wheel), external=True)
    return python
