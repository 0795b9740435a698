"""Say which bytes of a file with several targets belong to each, and put equal ones in it once.

For each target there is what a file of one target has after its header: manifest, gap, blobs. Their
bytes lie in one *pool*, and the index lists the ranges of it that make up each. The header has the
digest of the index, the index those of the manifests, and they those of their blobs; so a target
that is not loaded is not read, and yet cannot be changed. A pool has no bytes that no range is of.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated

import msgspec

from hotstart.errors import CorruptArtifact

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Target(msgspec.Struct, frozen=True):
    """Entry of the index for a target.

    Attributes:
        target: its name.
        instructions: the instruction set extensions that its code may use.
        manifest_bytes: the size of its manifest.
        sha256: digest of the manifest, in hexadecimal.
        ranges: offset in the pool and size, in bytes; together they are its bytes, in order.
    """

    target: str
    instructions: tuple[str, ...]
    manifest_bytes: _Count
    sha256: str
    ranges: tuple[tuple[_Count, _Count], ...]

    @property
    def size(self) -> int:
        """Bytes of the manifest and blobs."""
        return sum(size for _, size in self.ranges)

    def start(self, most: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges of the first bytes, `most` of them or all."""
        for offset, size in self.ranges:
            yield offset, min(size, most)
            most -= min(size, most)


class Index(msgspec.Struct, frozen=True):
    """The targets of a file, the best first."""

    targets: Annotated[tuple[Target, ...], msgspec.Meta(min_length=1)]


Choose = Callable[[Sequence[Target]], Target]


def first(targets: Sequence[Target]) -> Target:
    """Choose the best target, whatever this machine is."""
    return targets[0]


def decoded(name: str, text: bytes, pool: int) -> tuple[Target, ...]:
    """Read an index whose digest was checked.

    Args:
        name: the file.
        text: the index.
        pool: bytes of the pool.

    Raises:
        CorruptArtifact: it is none, or has ranges that are not in the pool.
    """
    try:
        # As text, since a decoder of bytes skips what it does not look for, UTF-8 or not.
        targets = msgspec.json.decode(text.decode(), type=Index).targets
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        expected = "a JSON object with a list of targets"
        raise CorruptArtifact(name, "index", expected, f"this: {error}") from error
    names = [each.target for each in targets]
    if len(set(names)) < len(names):
        raise CorruptArtifact(name, "index", "different targets", ascii(names))
    for each in targets:
        if any(offset + size > pool for offset, size in each.ranges):
            expected = f"ranges in a pool of {pool} bytes"
            raise CorruptArtifact(name, "index", expected, f"others, of {each.target!a}")
        if each.size < each.manifest_bytes:
            expected = f"a manifest of {each.manifest_bytes} bytes"
            raise CorruptArtifact(name, "index", expected, f"{each.size} bytes of {each.target!a}")
    return targets


def own_bytes(targets: Sequence[Target]) -> list[int]:
    """Count the bytes that each target has and no other, in their order."""
    found = []
    for target in targets:
        others = [each for other in targets if other is not target for each in other.ranges]
        found.append(_covered([*others, *target.ranges]) - _covered(others))
    return found


def _covered(ranges: Iterable[tuple[int, int]]) -> int:
    """Count the bytes that are in any of some ranges."""
    count = end = 0
    for offset, size in sorted(ranges):
        count += max(0, offset + size - max(end, offset))
        end = max(end, offset + size)
    return count


def require_used(name: str, targets: Iterable[Target], pool: int) -> None:
    """See that every byte of a pool is in a range of some target.

    Raises:
        CorruptArtifact: some are not, so no digest stands for them.
    """
    used = _covered(each for target in targets for each in target.ranges)
    if used < pool:
        raise CorruptArtifact(name, "size", f"{used} bytes that targets use", f"{pool}")
