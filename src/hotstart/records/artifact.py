"""The records of an artifact, in memory and in a file. Nothing here imports torch.

Everything a program needs at run time is data: source, bytes, tables and trees of the types below.
Live objects of the compiler stop at `CompiledUnit`. An artifact's manifest is these `msgspec`
structs as JSON: dtypes and devices are names in both, and where memory holds more than JSON can,
the manifest holds

- of a `Blob` or `Kernel`, the name;
- of a class, its path, `module:name`;
- of a `Value`, what `artifact.values` makes of it;
- of a `Tensor`, its name in the manifest's table of tensors.
"""

from typing import Any, ClassVar, Literal, TypeAlias

import msgspec

from hotstart.records.contract import Contract
from hotstart.records.groups import GroupSpec
from hotstart.records.guards import ModuleKind, Seen
from hotstart.records.nested import Value
from hotstart.records.report import PieceInfo
from hotstart.records.shapes import Variant
from hotstart.records.standalone import LeftOut, Naming, ResultType
from hotstart.records.wiring import Wiring

Tensor: TypeAlias = Any
"""A `torch.Tensor`."""


class Blob:
    """Bytes that a manifest names.

    Attributes:
        name: what the manifest says.
        data: the bytes; empty where only a manifest was read.
        file_name: how a file names the blob, given the name.
    """

    __slots__ = ("data", "name")
    file_name: ClassVar[str] = "{}"

    def __init__(self, name: str, data: bytes | memoryview = b"") -> None:
        self.name = name
        self.data = data

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and (self.name, self.data) == (other.name, other.data)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {len(self.data)} bytes)"


class Kernel(Blob):
    """Native code of units: a Python extension module, named by its SHA-256 in hex.

    Attributes:
        source: the C++ that it was compiled from; empty where that is not at hand. No file holds
            it, and it counts for nothing where kernels are compared.
    """

    __slots__ = ("source",)
    file_name = "kernel_{}.so"

    def __init__(self, name: str, data: bytes | memoryview = b"", source: str = "") -> None:
        super().__init__(name, data)
        self.source = source


class Code(msgspec.Struct, frozen=True):
    """Generated Python.

    Attributes:
        filename: what tracebacks and profilers show.
        source: the text, in UTF-8.
        bytecode: the same compiled, see `runtime.generated`; empty if that is not at hand.
    """

    filename: str
    source: Blob
    bytecode: Blob

    @property
    def text(self) -> str:
        """The source as text."""
        return str(self.source.data, "utf-8")


# --- the model ------------------------------------------------------------------------------------


class WeightSpec(msgspec.Struct, frozen=True):
    """A tensor the graph reads that is not an argument.

    Attributes:
        name: path from the model, such as `model.layers.0.mlp.up_proj.weight`.
        kind: `"parameter"`, `"buffer"` or `"attribute"` of a module; `"captured"` from elsewhere.
        dtype: its name, such as `float32`.
        device: its name, such as `cpu` or `cuda:0`.
        ties: other names of the same tensor.
        mutated: the graph writes to it.
        overlaps: names of further weights of the table that share memory with it, where calls write
            to one of the two.
    """

    name: str
    kind: Literal["parameter", "buffer", "attribute", "captured"]
    dtype: str
    device: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    ties: tuple[str, ...] = ()
    mutated: bool = False
    overlaps: tuple[str, ...] = ()


class TakenApart(msgspec.Struct, frozen=True):
    """A weight of a tensor subclass, whose inner tensors are entries of the table of weights.

    Attributes:
        name: path from the model. Names of its inner tensors begin with it and a dot.
        ties: other names of the same tensor.
        wrapping: what it is besides its inner tensors: the number of a `Wrapping`.
    """

    name: str
    ties: tuple[str, ...]
    wrapping: int


Wrapping: TypeAlias = tuple[tuple[str, str], ...]
"""What a tensor of a subclass is besides its inner tensors: its class, dtype, shape, strides, the
attributes that keep inner tensors, and its context, each part by name and as a text."""


class Requirements(msgspec.Struct, frozen=True):
    """Requirements on a model: modules, weights and code as at the build.

    Attributes:
        weights: the tensors that graphs read from the model, by slot number.
        unread: names of the model's parameters that no graph reads.
        modes: the `training` flag of every module whose flag forward reads, by path.
        kinds: the different things that were read of modules besides tensors.
        modules: for each module that was read, its path and the number of its kind.
        hooks: hooks of all modules there are, each by name and as a text of its code.
        operators: those that did not come with torch, each by name and as a text of its schemas
            and of the code that a compiler runs.
        seen: what was read outside of the modules: globals, closures, the environment.
        groups: the groups of processes that calls talk in, by number.
        taken_apart: the weights of tensor subclasses.
        wrappings: the different things that they are besides inner tensors.
        set_up: whether the first call of the model, which the build made, has set up what graphs
            read: a load makes it too, where the model does not fit without.
    """

    weights: tuple[WeightSpec, ...]
    unread: tuple[str, ...]
    modes: tuple[tuple[str, bool], ...]
    kinds: tuple[ModuleKind, ...]
    modules: tuple[tuple[str, int], ...]
    hooks: tuple[tuple[str, str], ...] = ()
    operators: tuple[tuple[str, str], ...] = ()
    seen: tuple[Seen, ...] = ()
    groups: tuple[GroupSpec, ...] = ()
    taken_apart: tuple[TakenApart, ...] = ()
    wrappings: tuple[Wrapping, ...] = ()
    set_up: bool = False

    def know_ranks(self) -> bool:
        """Tell whether a program is of several processes, or knows which of them it is in."""
        return bool(self.groups) or any(
            one.start == "ranks" and one.name != "initialized" for one in self.seen
        )


# --- compiled pieces ------------------------------------------------------------------------------


class Proof(msgspec.Struct, frozen=True):
    """Result of comparing a unit with the operators it was made from.

    Attributes:
        sizes: at which sizes the unit did what the operators do, such as `batch=2, seq=7`; `static`
            where there is nothing to choose.
        skipped: why it was not compared at others.
        without: a pass of the compiler that was left out, since it made the unit wrong.
        why: how.
    """

    sizes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    without: str = ""
    why: str = ""


class Preparation(msgspec.Struct, frozen=True):
    """Tensors that depend on weights alone, made once for as long as the weights stay as they are.

    Attributes:
        code: defines `prepare(*weights) -> tuple`; and `unpacked(*weights) -> tuple`, which makes
            tensors that a unit runs with as well, without packing, where `packs`. Either has None
            for a tensor that the unit does without.
        weights: the weights it takes, by number among those of the unit.
        packs: whether weights are put into the order that a kernel reads them in.
    """

    code: Code
    weights: tuple[int, ...]
    packs: bool


class CompiledUnit(msgspec.Struct, frozen=True):
    """A different piece compiled for some sizes: data that any process can turn into a callable.

    Attributes:
        key: hash of everything that reached the compiler.
        code: defines `bind(*weights) -> call`, where `call(args: list) -> tuple` takes the sizes
            and the tensors that are no weights, and empties the list. `bind` takes the weights
            that are `kept`, then what the preparations make.
        kernels: by the names that the code calls them.
        constants: tensors, by the names that the code has for them.
        loose: outputs, by number, whose strides are not known to be the traced ones.
        op_by_op: why the unit runs the captured operators instead of compiled code; empty if it
            does not, or if that is what was asked for.
        proof: what comparing it with its operators has shown.
        kept: weights that it runs with as they are, by number; None if it is all.
        preparations: make what it runs with in place of the others.
        not_packed: why it runs with all weights as they are, although they should be packed; empty
            if it does not.
        linears: how they are computed, where that was measured: by Inductor's `template`, by oneDNN
            on `packed` weights, or `plain`.
    """

    key: str
    code: Code
    kernels: tuple[tuple[str, Kernel], ...] = ()
    constants: tuple[tuple[str, Tensor], ...] = ()
    loose: tuple[int, ...] = ()
    op_by_op: str = ""
    proof: Proof = Proof()
    kept: tuple[int, ...] | None = None
    preparations: tuple[Preparation, ...] = ()
    not_packed: str = ""
    linears: str = ""

    @property
    def source(self) -> str:
        """The code as text."""
        return self.code.text

    def __repr__(self) -> str:
        return f"CompiledUnit({self.key!r}, {len(self.kernels)} kernels)"


class Stitched(msgspec.Struct, frozen=True):
    """The generated Python of one variant.

    Attributes:
        code: defines `bind(weights, units, constants, owners) -> run`.
        units: keys of the units it calls, by position.
        constants: objects the code refers to by position because no literal says them.
        weights: slots of the weights it reads, by position.
        owners: paths of the modules whose attributes a call replaces, by position.
        sets: the attributes it replaces, each as the path of the module and the name.
        types: classes of results, by the names that the code has for them.
    """

    variant: Variant
    code: Code
    units: tuple[str, ...]
    constants: tuple[Value, ...]
    weights: tuple[int, ...]
    owners: tuple[str, ...] = ()
    sets: tuple[tuple[str, str], ...] = ()
    types: tuple[tuple[str, ResultType], ...] = ()

    @property
    def source(self) -> str:
        """The code as text."""
        return self.code.text

    def __repr__(self) -> str:
        return f"Stitched({self.variant.name!r}, {len(self.units)} units)"


class StitchedCall(msgspec.Struct, frozen=True):
    """One way to call a model, compiled.

    Attributes:
        name: as it was given; empty where a program takes calls of one kind only.
        method: dotted path from the model to what is called; empty for the model itself.
        contract: what a call must satisfy.
        stitched: the generated code, by variant.
    """

    name: str
    method: str
    contract: Contract
    stitched: tuple[Stitched, ...]


class NativeProgram(msgspec.Struct, frozen=True):
    """The functions of variants, and of the units that they call, as native code.

    Attributes:
        library: calls kernels and the C functions of libtorch_cpu; `hotstart_native_program` gives
            what it does as a table of C functions, `hotstart_functions` gives it to Python.
        source: the C++ that it was compiled from; nothing reads it but people.
        kernels: those that it calls, in the order in which it wants to be told of them.
        units: code that binds the bodies of units, by key: defines `bind` as `CompiledUnit.code`
            does, given `native`.
        runs: code that binds and calls the variants, in the order of the calls: defines `bind` as
            `Stitched.code` does; None for a variant that runs as Python.
        wiring: what that code does, as data; None in files of versions that did not find it out.
    """

    library: Kernel
    source: Blob
    kernels: tuple[Kernel, ...]
    units: tuple[tuple[str, Code], ...]
    runs: tuple[Code | None, ...]
    wiring: Wiring | None = None


class Artifact(msgspec.Struct, frozen=True):
    """A compiled model as data: what a program is made of, in this process or another.

    Attributes:
        requirements: what the model must bring.
        calls: the ways it can be called, in the order in which a call is matched with them.
        units: the compiled units that the code calls.
        captured: tensors the graph reads that no module keeps, each with its slot.
        pieces: what a user sees of the pieces.
        fingerprint: named parts that decide where it fits; see `hotstart.artifact.fingerprint`.
        report: the build's report, as a dict.
        left_out: tensors of the model that no checkpoint holds, as they were when it was saved;
            None where it was not saved, or by a version that did not keep them.
        naming: how names of checkpoints may differ.
        native: the variants as native code, if they have that form.
    """

    requirements: Requirements
    calls: tuple[StitchedCall, ...]
    units: tuple[CompiledUnit, ...]
    captured: tuple[tuple[int, Tensor], ...]
    pieces: tuple[PieceInfo, ...]
    fingerprint: dict[str, Any]
    report: dict[str, Any]
    left_out: tuple[LeftOut, ...] | None = None
    naming: Naming = Naming()
    native: NativeProgram | None = None
