"""Write the weights that a program runs with, as they were prepared, to a file that is mapped."""

from __future__ import annotations

import bisect
import ctypes
import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence

import msgspec
import torch

from hotstart._torch.running.opaque import is_opaque, layout_of, memory_of, opaque_over
from hotstart.artifact import weights_file
from hotstart.artifact.disk import Buffer
from hotstart.artifact.weights_compatibility import table_digest, unit_digests, weights_fingerprint
from hotstart.artifact.weights_file import Stored, StoredPreparation, Stretch, Table
from hotstart.checkpoint.prepared import page_sums
from hotstart.dtypes import name_of
from hotstart.errors import ArtifactError
from hotstart.records.artifact import Artifact, WeightSpec
from hotstart.records.shapes import spanned
from hotstart.runtime.bind import Packable
from hotstart.runtime.tensors import TENSOR_TYPES, describe_tensor, is_lazy_view
from hotstart.runtime.weights import preparations as runtime
from hotstart.runtime.weights.released import Released


class _Place(msgspec.Struct, frozen=True):
    """The place of a tensor in the memory of this process.

    Attributes:
        address: of its first byte.
        size: bytes from there to its last.
        stride: its strides; none where it is packed for oneDNN.
        layout: of one that is packed.
    """

    address: int
    size: int
    stride: tuple[int, ...]
    layout: bytes | None = None


class _Chosen(msgspec.Struct, frozen=True):
    """Contents to write to a file.

    Attributes:
        made: what preparations made, each with the name of its code and the `id` of its weights.
        only_packed: addresses of storages of weights that nothing reads but these preparations.
    """

    made: tuple[tuple[str, tuple[int, ...], runtime.PreparedTensors], ...]
    only_packed: set[int]


def prepared_weights(
    artifact: Artifact, found: Packable, left_out: Collection[int]
) -> Iterator[Buffer]:
    """Make the parts of a file of prepared weights, in order.

    Args:
        artifact: what the program is made of.
        found: its weights, and what was made of them; kept until the last part was taken.
        left_out: slots of tensors that checkpoints leave out.

    Raises:
        ArtifactError: a tensor does not lie in memory that can be written as it is.
    """
    chosen = _choose(artifact, found)
    tensors = _Tensors()
    names: dict[str, int] = {}
    for slot, spec in enumerate(artifact.requirements.weights):
        if spec.kind == "captured" or (slot in left_out and spec.mutated):
            continue  # the artifact brings them
        tensor = found.tensors[slot]
        packed = slot not in left_out and _storage(tensor) in chosen.only_packed
        gone = packed or type(tensor) is Released
        names[spec.name] = tensors.add(tensor, None if gone else _place_of_weight(spec, tensor))
    made = tuple(
        StoredPreparation(
            file,
            tuple(map(tensors.number, ids)),
            tuple(None if t is None else tensors.add(t, _place(t)) for t in each.tensors),
            each.bytes,
        )
        for file, ids, each in chosen.made
    )
    yield from _parts(artifact, tensors, names, made)


def _choose(artifact: Artifact, found: Packable) -> _Chosen:
    """Choose what is written of what preparations made.

    What is made of something that calls change, or that the artifact brings, is made again at every
    load, and its weights are written as they are.

    Raises:
        ArtifactError: it cannot be made again, since its weights were released.
    """
    changed = _changed(artifact)
    specs = artifact.requirements.weights
    fixed = {
        id(tensor)
        for slot, tensor in enumerate(found.tensors)
        if slot not in changed and specs[slot].kind != "captured"
    }
    written = {_storage(found.tensors[slot]) for slot in changed}
    made, copied, read = [], set[int](), set(found.in_use)
    for file, ids, each in found.prepared.made():
        memory = {_storage(weight) for weight in each.weights if type(weight) is not Released}
        if fixed.issuperset(ids) and not memory & written and all(map(_lasts, each.tensors)):
            made.append((file, ids, each))
            copied |= memory if each.bytes else set()
        elif any(type(weight) is Released for weight in each.weights):
            raise ArtifactError(
                "expected weights that are made again at every load, since calls change what they "
                "are made of, found only what was made of them. Load the program with the original "
                "weights, and save_weights before release_unpacked."
            )
        else:
            read |= memory
    return _Chosen(tuple(made), copied - read)


def _changed(artifact: Artifact) -> set[int]:
    """Find the weights that calls write to or replace, by slot."""
    stitched = (each for call in artifact.calls for each in call.stitched)
    names = {f"{path}.{name}".lstrip(".") for each in stitched for path, name in each.sets}
    specs = artifact.requirements.weights
    return {
        slot
        for slot, spec in enumerate(specs)
        if spec.mutated or not names.isdisjoint((spec.name, *spec.ties))
    }


def _storage(tensor: torch.Tensor) -> int:
    """Return the address of a tensor's storage; that of stand-ins is nowhere."""
    return 0 if type(tensor) is Released else tensor.untyped_storage().data_ptr()


# --- tensors in memory ----------------------------------------------------------------------------


def _lasts(tensor: torch.Tensor | None) -> bool:
    """Tell whether memory and layout say everything about what a preparation made."""
    if tensor is None:
        return True
    if type(tensor) not in TENSOR_TYPES or tensor.device.type != "cpu":
        return False
    plain = tensor.layout is torch.strided and not is_lazy_view(tensor)
    return is_opaque(tensor) or (plain and not tensor.is_quantized)


def _place_of_weight(spec: WeightSpec, tensor: torch.Tensor) -> _Place:
    """Find a weight in memory, with the strides that the table has.

    Raises:
        ArtifactError: it is on another device.
    """
    if not _lasts(tensor):
        raise ArtifactError(
            f"{spec.name}: expected a weight in the memory of the CPU, found "
            f"{describe_tensor(tensor)}. Prepared weights are for programs that run on the CPU."
        )
    size = spanned(spec.shape, spec.stride) * tensor.itemsize
    return _Place(tensor.data_ptr(), size, spec.stride)


def _place(tensor: torch.Tensor) -> _Place:
    """Find what a preparation made in memory.

    Raises:
        ArtifactError: a packed tensor cannot be made of its memory and its layout again.
    """
    if not is_opaque(tensor):
        size = spanned(tensor.shape, tensor.stride()) * tensor.itemsize
        return _Place(tensor.data_ptr(), size, tuple(tensor.stride()))
    (address, size), layout = memory_of(tensor), layout_of(tensor)
    try:
        memory = torch.frombuffer(_bytes_at(address, size), dtype=torch.uint8)
        same = layout_of(opaque_over(memory, tensor.shape, tensor.dtype, layout)) == layout
    except RuntimeError as error:
        raise _not_again(str(error)) from error
    if not same:
        raise _not_again("another layout")
    return _Place(address, size, (), layout)


def _not_again(found: str) -> ArtifactError:
    return ArtifactError(
        f"expected a packed weight that can be made of its bytes again, found: {found}. Use the "
        "original weights with this version of torch."
    )


def _bytes_at(address: int, size: int) -> memoryview:
    return memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")


class _Tensors:
    """The tensors of a file, each once."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._tensors: list[tuple[torch.Tensor, _Place | None]] = []

    def add(self, tensor: torch.Tensor, place: _Place | None) -> int:
        """Number a tensor; without a place only its shape is kept."""
        if id(tensor) not in self._numbers:
            self._numbers[id(tensor)] = len(self._tensors)
            self._tensors.append((tensor, place))
        return self._numbers[id(tensor)]

    def number(self, key: int) -> int:
        """Look up a tensor by its `id`."""
        return self._numbers[key]

    def places(self) -> list[_Place]:
        """List where tensors are."""
        return [place for _, place in self._tensors if place is not None]

    def stored(self, here: _Stretches, layouts: Sequence[bytes]) -> tuple[Stored, ...]:
        """Describe all tensors, given the stretches that they lie in and layouts of packed ones."""
        return tuple(_stored(tensor, place, here, layouts) for tensor, place in self._tensors)


def _stored(
    tensor: torch.Tensor, place: _Place | None, here: _Stretches, layouts: Sequence[bytes]
) -> Stored:
    dtype, shape = name_of(tensor.dtype), tuple(tensor.shape)
    if place is None:
        return Stored(dtype, shape, tuple(tensor.stride()))
    number = here.number(place)
    offset = place.address - here.listed[number][0]
    if place.layout is not None:
        return Stored(dtype, shape, (), number, offset, layouts.index(place.layout))
    if offset % tensor.itemsize:
        raise ArtifactError(
            f"expected tensors that lie at multiples of their elements' size, found "
            f"{describe_tensor(tensor)} at {offset} of memory that it shares with another. Clone "
            "one of the two."
        )
    return Stored(dtype, shape, place.stride, number, offset)


class _Stretches:
    """The stretches of memory that some places are in: those that overlap are in one.

    Attributes:
        listed: address and size of each, in the order of the first place in it.
    """

    def __init__(self, places: Sequence[_Place]) -> None:
        merged = _merged({(place.address, place.size) for place in places})
        self._starts = [address for address, _ in merged]
        order = dict.fromkeys(self._position(place) for place in places)
        self._numbers = {position: number for number, position in enumerate(order)}
        self.listed = [merged[position] for position in order]

    def number(self, place: _Place) -> int:
        """Look up the stretch that a place is in."""
        return self._numbers[self._position(place)]

    def _position(self, place: _Place) -> int:
        return bisect.bisect_right(self._starts, place.address) - 1


def _merged(places: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merge addresses and sizes that overlap, in the order of addresses."""
    found: list[tuple[int, int]] = []
    for address, size in sorted(places):
        if found and address < sum(found[-1]):
            first, length = found[-1]
            found[-1] = (first, max(length, address + size - first))
        elif found and address == found[-1][0]:  # the first of the two is empty
            found[-1] = (address, size)
        else:
            found.append((address, size))
    return found


# --- the file -------------------------------------------------------------------------------------


def _parts(
    artifact: Artifact,
    tensors: _Tensors,
    names: dict[str, int],
    made: tuple[StoredPreparation, ...],
) -> Iterator[Buffer]:
    places = tensors.places()
    layouts = tuple(dict.fromkeys(p.layout for p in places if p.layout is not None))
    here = _Stretches(places)
    stretches, size = weights_file.placed(length for _, length in here.listed)
    memory = list(_memory(here.listed, stretches, size))
    whole = hashlib.sha256()
    for part in memory:
        whole.update(part)
    table = Table(
        fingerprint=weights_fingerprint(bool(layouts)),
        units=unit_digests(artifact.units),
        specs=table_digest(artifact.requirements),
        memory=size,
        sums=page_sums(memory),
        sha256=whole.hexdigest(),
        stretches=tuple(stretches),
        layouts=layouts,
        tensors=tensors.stored(here, layouts),
        weights=names,
        made=made,
    )
    yield weights_file.head(table)
    yield from memory


def _memory(
    here: Sequence[tuple[int, int]], stretches: Sequence[Stretch], whole: int
) -> Iterator[memoryview]:
    """The memory of a file, from that of this process, with zeros between stretches."""
    end = 0
    for (address, size), stretch in zip(here, stretches, strict=True):
        yield memoryview(bytes(stretch.offset - end))
        if size:
            yield _bytes_at(address, size)
        end = stretch.offset + size
    yield memoryview(bytes(whole - end))
