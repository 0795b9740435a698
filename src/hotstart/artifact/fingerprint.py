"""Describe this process by named parts that decide where an artifact fits: versions and machine.

`compatibility` compares them with those of a file. All of this is on the path of every load, so
nothing here imports torch or reads more than it needs.

Known limit: Linux shows no flag for extensions of about 2023 and later (AVX-VNNI-INT8, AVX-IFMA,
CMPCCXADD, APX and others), so CPUs that differ in these alone look the same here.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hotstart.guards.sources import spec_of
from hotstart.targets import (
    TargetName,
    allowed_instructions,
    architecture_of,
    is_foreign,
    this_architecture,
)
from hotstart.version import VERSION

# Flags of /proc/cpuinfo for which -march=native lets gcc 14 or clang 19 emit instructions on their
# own: the families that grow, then the rest. Left out is what only system code asks for by name
# (transactions, protection keys, cache control, waiting, shadow stacks, saving state): microcode,
# kernels and hypervisors hide these on some of otherwise equal machines.
_X86_FAMILIES = ("sse", "avx", "amx_")
_X86_OTHERS = frozenset(
    """
    cmov cx8 mmx mmxext 3dnow 3dnowext 3dnowprefetch pni ssse3 cx16 lahf_lm movbe popcnt abm
    bmi1 bmi2 tbm adx f16c fma fma4 xop apx cmpccxadd rao_int
    aes vaes pclmulqdq vpclmulqdq gfni sha_ni sha512 sm3 sm4 rdrand rdseed rdpid
    """.split()  # noqa: SIM905  a table is easier to check than a list of one name a line
)


def host() -> dict[str, Any]:
    """Read the parts of this process, in the order in which they are compared."""
    torch, build = _torch_version()
    system = os.uname()
    return {
        "hotstart": VERSION,
        "python": _python(),
        "bytecode": importlib.util.MAGIC_NUMBER.hex(),
        "torch": torch,
        "torch_build": build,
        "platform": f"{sys.platform}-{system.machine}",
        "libc": _libc(),
        "instructions": instructions(),
    }


def cpu_instructions(lines: Iterable[bytes]) -> list[str]:
    """Read the instruction set extensions of the first CPU from lines of `/proc/cpuinfo`, sorted.

    On x86 these are the ones that a compiler may emit, on ARM all, elsewhere none. Reading stops
    once they are found.
    """
    for line in lines:
        key, _, value = line.partition(b":")
        match key.strip():
            case b"flags":
                flags = value.decode().split()
                return sorted(f for f in flags if f in _X86_OTHERS or f.startswith(_X86_FAMILIES))
            case b"Features":
                return sorted(value.decode().split())
    return []


def allowed(target: TargetName, libc: str | None = None) -> dict[str, Any]:
    """Read the parts of this process, with the instructions that code for a target may use.

    Args:
        target: what the code is for. Of another architecture, all but the machine is as here.
        libc: the C library that code for another architecture is built for.
    """
    parts = host()
    made = {**parts, "instructions": allowed_instructions(target, parts["instructions"])}
    if is_foreign(target):
        here, there = this_architecture(), architecture_of(target)
        made |= {name: made[name].replace(here, there) for name in ("python", "platform")}
        made["libc"] = libc
    return made


def packing(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Take the parts that decide how weights are packed, out of those of this process.

    oneDNN chooses the order of a packed weight by the vector instructions it may use.
    """
    flags = parts["instructions"]
    known = sorted(flag for flag in flags if flag.startswith(_X86_FAMILIES) or flag == "fma")
    most = [os.environ.get(name, "") for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")]
    return {
        "instructions": known or flags,
        "most instructions for oneDNN": next(filter(None, most), ""),
    }


# --- this process -------------------------------------------------------------------------------


def _python() -> str:
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]  # .cpython-311-x86_64-linux-gnu.so
    abi = suffix.strip(".").rpartition(".")[0]
    version = sys.version_info
    return f"{sys.implementation.name}-{version.major}{version.minor} ({abi})"


def _torch_version() -> tuple[str | None, str | None]:
    """Read the version and git commit of torch without importing it."""
    loaded = sys.modules.get("torch.version")
    if loaded is not None:
        return loaded.__version__, getattr(loaded, "git_version", None)
    spec = spec_of("torch")
    if spec is None or spec.origin is None:
        return None, None
    import ast  # costs a few milliseconds, and only where torch is not loaded

    values: dict[str, str] = {}
    for node in ast.parse(Path(spec.origin).with_name("version.py").read_bytes()).body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(value)))
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=str(value)))
            ):
                values[name] = value
    return values.get("__version__"), values.get("git_version")


def _libc() -> str | None:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):  # a libc that does not know the name
        return None


def instructions() -> list[str]:
    """Read the instruction set extensions of this machine's processor, as `cpu_instructions`."""
    try:
        with Path("/proc/cpuinfo").open("rb") as lines:
            return cpu_instructions(lines)
    except OSError:
        return []
