"""Link to libtorch_cpu without reading it, which takes a linker a fifth of a second of a core.

A shared object names the libraries that it needs; which of them has a name is found at a load. So
an empty library of the same name serves the linker as well.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import torch

from hotstart._torch.cross import LIBTORCH, in_place_of_libtorch

_LOAD, _DYNAMIC = 1, 2  # kinds of segments
_STRINGS, _SONAME = 5, 14  # tags of the dynamic segment


def folder_to_link(compiler: str, folder: Path) -> Path:
    """Find a folder with a libtorch_cpu to link to, for this processor.

    Args:
        compiler: links.
        folder: may get an empty library of that name, and is there as long as somebody links.

    Raises:
        OSError: there is no such compiler.
        subprocess.SubprocessError: it refuses.
    """
    libraries = Path(torch.__file__).parent / "lib"
    if soname(libraries / LIBTORCH) != LIBTORCH:
        return libraries
    return in_place_of_libtorch(compiler, folder)


@functools.cache
def soname(library: Path) -> str:
    """Read the name by which others need a library; empty for what is no ELF of 64 bit.

    The layout is that of the System V ABI: a header, segments, and in one of them pairs of a tag
    and a number.
    """
    try:
        with library.open("rb") as file:
            if file.read(6) != b"\x7fELF\x02\x01":  # 64 bit, the lower byte first
                return ""
            return _soname(file)
    except OSError:
        return ""


def _soname(file: BinaryIO) -> str:
    segments = list(_segments(file))
    tags: dict[int, int] = {}
    for kind, offset, _, size in segments:
        if kind == _DYNAMIC:
            file.seek(offset)
            tags = dict(struct.iter_unpack("<QQ", file.read(size // 16 * 16)))
    if _SONAME not in tags or _STRINGS not in tags:
        return ""
    address = tags[_STRINGS] + tags[_SONAME]
    for kind, offset, start, size in segments:
        if kind == _LOAD and start <= address < start + size:
            file.seek(offset + address - start)
            return file.read(256).partition(b"\0")[0].decode()
    return ""


def _segments(file: BinaryIO) -> Iterator[tuple[int, int, int, int]]:
    """List kind, offset, address and size in the file of each segment."""
    file.seek(0)
    header = file.read(64)
    (start,) = struct.unpack_from("<Q", header, 32)
    size, count = struct.unpack_from("<HH", header, 54)
    file.seek(start)
    table = file.read(size * count)
    for number in range(count):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", table, number * size)
        yield kind, offset, address, length
