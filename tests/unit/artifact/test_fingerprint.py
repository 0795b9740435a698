"""The fingerprint says what machine and versions a process has, without importing torch."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Iterator

import hotstart
from hotstart.artifact.fingerprint import cpu_instructions, host
from tests.processes import python

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
