"""Read a file through one descriptor, and replace one whole. What is in it is not known here."""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from hotstart.errors import ArtifactError, CorruptArtifact
from hotstart.faults import path_of

Buffer = bytes | memoryview

TEMPORARY = ".hotstart-"
"""Start of the names of files that are being written, or that a killed process left unfinished."""


def write(file: str | os.PathLike[str], parts: Iterable[Buffer]) -> None:
    """Write a file such that the old one or the new one is there at every moment, whole.

    Raises:
        ArtifactError: the file cannot be written; the old one, if there was one, is untouched.
    """
    try:
        replace_file(Path(path_of("file", file)), parts)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArtifactError(
            f"{file}: expected a place that can be written, found: {reason}. What was there "
            "before is untouched; free some space or write to another folder."
        ) from error


def replace_file(target: Path, parts: Iterable[Buffer]) -> None:
    """Write a file under a temporary name, sync it and rename it, over the old one if there is one.

    Raises:
        OSError: it cannot be written; the old one, if there was one, is untouched.
    """
    temporary = target.parent / f"{TEMPORARY}{os.urandom(8).hex()}.tmp"
    try:
        with temporary.open("xb") as out:
            out.writelines(parts)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    # From here on the new file is there. A file system that cannot sync folders is no reason to
    # report that it is not.
    with contextlib.suppress(OSError):
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class OpenFile:
    """A regular file that is read once, from its beginning, through one descriptor.

    Attributes:
        name: for messages.
        size: bytes, when it was opened.

    Raises:
        ArtifactError: it cannot be read, or is no regular file.
    """

    # Opening a pipe or a device must not wait for its other end, nor make it our terminal.
    _FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

    __slots__ = ("_descriptor", "name", "size")

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            self._descriptor = os.open(name, self._FLAGS)
        except (OSError, ValueError) as error:  # ValueError: no path can have this text
            raise _unreadable(name, error) from error
        try:
            self.size = self._regular_size()
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._descriptor)

    def _regular_size(self) -> int:
        try:
            info = os.fstat(self._descriptor)
        except OSError as error:
            raise _unreadable(self.name, error) from error
        if not stat.S_ISREG(info.st_mode):
            found = "a folder" if stat.S_ISDIR(info.st_mode) else "a pipe or a device"
            raise ArtifactError(
                f"{self.name}: expected a regular file, found {found}. Check the path; copy what "
                "a pipe gives into a file and read that."
            )
        return info.st_size

    def mapped(self) -> mmap.mmap:
        """Map the whole file copy-on-write; it stays mapped after it is closed."""
        try:
            return mmap.mmap(self._descriptor, self.size, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:  # ValueError: it has become shorter
            raise _unreadable(self.name, error) from error

    def start(self, most: int) -> bytes:
        """Read the first `most` bytes, or all if there are fewer."""
        size = min(most, self.size)
        try:
            data = os.read(self._descriptor, size)
        except OSError as error:
            raise _unreadable(self.name, error) from error
        return data if len(data) == size else data + self.take(size - len(data))

    def take(self, size: int) -> memoryview:
        """Read the next `size` bytes, which the file had when it was opened.

        Raises:
            CorruptArtifact: it has become shorter.
        """
        data = self._memory(size)
        self._fill(data, lambda rest, _: os.readv(self._descriptor, [rest]))
        return data.toreadonly()

    def gather(self, ranges: Iterable[tuple[int, int]]) -> memoryview:
        """Read ranges of the file, by offset and size, into one memory.

        Raises:
            CorruptArtifact: it has become shorter.
        """
        ranges = list(ranges)
        data = self._memory(sum(size for _, size in ranges))
        end = 0
        for offset, size in ranges:
            part = data[end : end + size]
            self._fill(part, partial(self._read_at, offset))
            end += size
        return data.toreadonly()

    def _read_at(self, offset: int, rest: memoryview, done: int) -> int:
        return os.preadv(self._descriptor, [rest], offset + done)

    def _memory(self, size: int) -> memoryview:
        try:
            return memoryview(bytearray(size))
        except (MemoryError, OverflowError) as error:
            raise ArtifactError(
                f"{self.name}: expected {size} bytes of memory to read it into, found less. Load "
                "it where there is more memory, if it is what it should be."
            ) from error

    def _fill(self, data: memoryview, read: Callable[[memoryview, int], int]) -> None:
        """Fill memory by calls of `read`, given what is left of it and how much is done.

        Raises:
            CorruptArtifact: the file ends before.
        """
        done, size = 0, len(data)
        try:
            while done < size and (count := read(data[done:], done)):
                done += count
        except OSError as error:
            raise _unreadable(self.name, error) from error
        if done < size:
            missing = f"{size - done} more bytes"
            raise CorruptArtifact(self.name, "size", missing, "the end of the file")


def _unreadable(name: str, error: OSError | ValueError) -> ArtifactError:
    found = error.strerror if isinstance(error, OSError) else None
    return ArtifactError(
        f"{name}: expected a file that can be read, found: {found or error}. Check the path and "
        "its permissions."
    )
