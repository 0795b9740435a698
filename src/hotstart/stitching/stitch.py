"""Join the pieces of a variant with straight-line Python."""

from __future__ import annotations

import keyword
import textwrap
from collections.abc import Iterable, Iterator, Mapping

from torch import fx

from hotstart.capture.captured import ContainerChange, example_of
from hotstart.partition import Piece, Plan
from hotstart.records.artifact import CompiledUnit, Requirements, Stitched
from hotstart.records.contract import Contract
from hotstart.records.layout import fit
from hotstart.records.nested import (
    Attributes,
    Map,
    Seq,
    Slot,
    Tree,
    is_container,
    walk,
)
from hotstart.records.shapes import Variant
from hotstart.records.trees import slots
from hotstart.runtime.code.generated import stitched_code
from hotstart.runtime.code.identifiers import Names, assignment
from hotstart.stitching.emit import Emitter, comment
from hotstart.stitching.piece import emit_nodes
from hotstart.stitching.results import Results


def stitch(
    plan: Plan,
    requirements: Requirements,
    contract: Contract,
    variant: Variant,
    units: Mapping[str, CompiledUnit],
) -> Stitched:
    """Write the function that runs a variant.

    The function is made by `bind(weights, units, constants, owners)`, which gives every piece its
    weights. It takes the sizes of the contract's axes, then its tensors, in order, then those that
    some variant returns as the caller passed them, then containers of the caller's that it returns
    or changes, and builds the model's own result. Pieces are
    called with a list that they empty, so that they can free what only they need; every other
    value is deleted after its last use.

    Args:
        plan: the pieces.
        requirements: names the weights.
        contract: names the arguments.
        variant: the sizes it is for.
        units: by piece name, the unit that a compiled piece runs.

    Raises:
        NotExpressible: an inlined piece or the result mentions something no source stands for.
    """
    return _Stitcher(plan, requirements, contract, variant, units).stitched()


class _Stitcher:
    """Writes the function of one variant; takes what `stitch` takes."""

    def __init__(
        self,
        plan: Plan,
        requirements: Requirements,
        contract: Contract,
        variant: Variant,
        units: Mapping[str, CompiledUnit],
    ) -> None:
        self.plan = plan
        self.requirements = requirements
        self.variant = variant
        self.units = units
        self.graph = plan.graph
        self.names = Names(["bind", "run", "args", "weights", "units", "constants", "owners"])
        self.emitter = Emitter(self.names)
        self.results = Results(self.emitter, self.names, self._slot)
        self.weight_names: dict[int, str] = {}
        self.unit_names: dict[str, str] = {}
        self.owner_names: dict[str, str] = {}
        self.view_names: dict[Slot, str] = {}
        self.bindings: list[str] = []
        self.axis_names = {}
        for dim in contract.axes:
            self.axis_names[dim.name] = self.names.new(dim.name)
            self.emitter.axis(dim.name, self.axis_names[dim.name])
        self.argument_names = [self.names.new(spec.path) for spec in contract.tensors]
        self.given_names = {
            slot: self.names.new(f"{contract.tensors[slot].path}_as_given")
            for slot in contract.given
        }
        inside = (found for p in contract.parameters for found in walk(p.tree, p.name))
        paths = [path for path, tree in inside if is_container(tree)]
        self.object_names = {
            number: self.names.new(f"{paths[number]}_as_given") for number in contract.objects
        }

    def stitched(self) -> Stitched:
        body = self._body()
        types = self.results.types.values()
        lines = [
            f"# Stitched by hotstart for {self.variant.name}.",
            *self.emitter.header(),
            *(
                comment(f"{n} is {t.path.replace(':', '.')}")
                for n, t in self.results.types.values()
            ),
            "",
            "",
            "def bind(weights, units, constants, owners):",
            *self._unpack(self.weight_names.values(), "weights"),
            *self._unpack(self.unit_names.values(), "units"),
            *self._unpack(self.emitter.constant_names(), "constants"),
            *self._unpack(self.owner_names.values(), "owners"),
            *(f"    {line}" for line in self.bindings),
            "",
            f"    def run({', '.join(self._parameters())}):",
            *(f"        {line}" for line in body),
            "",
            "    return run",
        ]
        return Stitched(
            variant=self.variant,
            code=stitched_code(self.variant, "\n".join(lines) + "\n"),
            units=tuple(self.unit_names),
            constants=tuple(self.emitter.constants),
            weights=tuple(self.weight_names),
            owners=tuple(self.owner_names),
            sets=tuple((update.owner, update.name) for update in self.graph.captured.updates),
            types=tuple(types),
        )

    def _parameters(self) -> list[str]:
        tensors = [*self.argument_names, *self.given_names.values()]
        return [*self.axis_names.values(), *tensors, *self.object_names.values()]

    @staticmethod
    def _unpack(names: Iterable[str], source: str) -> list[str]:
        names = list(names)
        if not names:
            return []
        line = f"    {assignment(names, source)}"
        if len(line) <= 100:
            return [line]
        return ["    (", *(f"        {name}," for name in names), f"    ) = {source}"]

    # --- body -------------------------------------------------------------------------------------

    def _body(self) -> list[str]:
        for node, slot in self.graph.placeholders.items():
            if slot.kind == "arg":
                self.emitter.let(node, self.argument_names[slot.index])
            else:
                self.emitter.let(node, self.weight(slot.index))
        keep = set(self.graph.returned()) | {
            node for node, slot in self.graph.placeholders.items() if slot.kind == "weight"
        }
        lines: list[str] = self._unused_arguments()
        for piece, dying in zip(self.plan.pieces, self._dying(keep), strict=True):
            if piece.name in self.units:
                lines += self._call(piece, dying)
            else:
                lines += self._inline(piece, dying, keep)
        updates, outputs = self.graph.captured.updates, self.graph.captured.outputs
        lines += self._taken_views(self.graph.captured.trees())
        for update in updates:
            value = self.results.written(update.value)
            lines.append(self._set(self.owner(update.owner), update.name, value))
        for change in self.graph.captured.changes:
            lines += self._change(change)
        return [*lines, f"return {self.results.written(outputs)}"]

    def _change(self, change: ContainerChange) -> list[str]:
        """Write the contents that forward leaves in a container of the caller.

        The caller's objects go on being of their own classes, so these are imported.
        """
        name, written = self.object_names[change.number], self.results.with_imported_classes
        match change.contents:
            case Map(_, entries):
                values = ((key, written(value)) for key, value in entries)
                pairs = ", ".join(f"{self.emitter.value(key)}: {value}" for key, value in values)
                contents = self.names.new("contents")
                fill = f"{name}.update({contents})"
                return [f"{contents} = {{{pairs}}}", f"{name}.clear()", fill]
            case Attributes(_, fields):
                set_ = (self._set(name, field, written(item)) for field, item in fields)
                return [*set_, *(f"delattr({name}, {field!r})" for field in change.removed)]
            case Seq(_, items):
                listed = ", ".join(written(item) for item in items)
                return [f"{name}[:] = [{listed}]"]
        raise AssertionError(change)

    @staticmethod
    def _set(owner: str, name: str, value: str) -> str:
        if name.isidentifier() and not keyword.iskeyword(name):
            return f"{owner}.{name} = {value}"
        return f"setattr({owner}, {name!r}, {value})"

    def _taken_views(self, trees: Iterable[Tree]) -> Iterator[str]:
        """Make the views that are read as attributes of tensors, each once for all its places."""
        for slot in dict.fromkeys(slot for tree in trees for slot in slots(tree) if slot.views):
            base = self._slot(Slot(slot.kind, slot.index))
            self.view_names[slot] = self.names.new("_".join([base, *slot.views]))
            # Detached, as in `_view`.
            yield f"{self.view_names[slot]} = {'.'.join([f'{base}.detach()', *slot.views])}"

    def _unused_arguments(self) -> list[str]:
        """Delete arguments that the graph does not read."""
        wanted = set(self.graph.returned()).union(*(piece.inputs for piece in self.plan.pieces))
        placeholders = self.graph.placeholders.items()
        read = {slot.index for node, slot in placeholders if slot.kind == "arg" and node in wanted}
        unused = [name for i, name in enumerate(self.argument_names) if i not in read]
        return [f"del {', '.join(unused)}"] if unused else []

    def _dying(self, keep: set[fx.Node]) -> list[list[fx.Node]]:
        """List for each piece the values from outside that it uses last."""
        seen = set(keep)
        dying: list[list[fx.Node]] = []
        for piece in reversed(self.plan.pieces):
            last = [node for node in piece.inputs if node not in seen]
            seen.update(last)
            dying.append(last)
        return dying[::-1]

    def _call(self, piece: Piece, dying: list[fx.Node]) -> list[str]:
        numbers = {number.name: number.symbol for number in self.graph.captured.numbers}
        sizes = [
            self.emitter.value(numbers[axis]) if axis in numbers else self.axis_names[axis]
            for axis in piece.axes
            if axis in numbers or not isinstance(self.variant.of(axis), int)
        ]
        weights = [node for node in piece.inputs if self.graph.is_weight(node)]
        passed = [node for node in piece.inputs if not self.graph.is_weight(node)]
        viewed = dict.fromkeys(piece.views.values())
        dead = [self.emitter.variable(node) for node in dying if node not in viewed]
        outputs = [self.emitter.define(node) for node in piece.outputs]
        function = self.names.new(piece.name)
        self.bindings += _listed(
            f"{function} = {self.unit(piece)}(", map(self.emitter.variable, weights), ")"
        )
        lines = _listed("args = [", [*sizes, *map(self.emitter.variable, passed)], "]")
        lines += [f"del {', '.join(dead)}"] if dead else []
        call = assignment(outputs, f"{function}(args)")
        lines.append(f"{call}  {comment(', '.join(piece.layers))}" if piece.layers else call)
        loose = (piece.outputs[index] for index in self.units[piece.name].loose)
        lines += (line for node in loose for line in self._fit(node))
        for base in viewed:
            views = (node for node, of in piece.views.items() if of is base)
            lines += (line for node in views for line in self._view(node, base))
            lines += [f"del {self.emitter.variable(base)}"] if base in dying else []
        return lines

    def _inline(self, piece: Piece, dying: list[fx.Node], keep: set[fx.Node]) -> list[str]:
        needed_later = keep | set(piece.outputs) | (set(piece.inputs) - set(dying))
        lines = emit_nodes(self.graph, piece, self.emitter, needed_later)
        tensors = (node for node in piece.outputs if node not in self.graph.flowing)
        return [*lines, *(line for node in tensors for line in self._fit(node))]

    def _view(self, node: fx.Node, base: fx.Node) -> list[str]:
        """Make a view of a piece's input, as traced, or give the input another name."""
        number = self.graph.expression
        view, of = example_of(node), example_of(base)
        source, name = self.emitter.variable(base), self.emitter.define(node)
        if view is of:  # an operator that writes to its argument returns it
            return [f"{name} = {source}"]
        parts = [self.emitter.value(tuple(map(number, n))) for n in (view.shape, view.stride())]
        offset = number(view.storage_offset()) - number(of.storage_offset())
        start = []
        if offset != 0:
            start = [f"{name} = {source}.storage_offset() + {self.emitter.value(offset)}"]
            parts.append(name)
        # Detached, since a view of a tensor that requires grad requires it even without autograd.
        return [*start, f"{name} = {source}.detach().as_strided({', '.join(parts)})"]

    def _fit(self, node: fx.Node) -> list[str]:
        """Copy a value if its strides are not the traced ones.

        Compiled pieces rely on the traced strides, and what torch predicts for an operator is not
        always what the operator does.
        """
        variable = self.emitter.variable(node)
        example = example_of(node)
        strides = self.emitter.value(tuple(map(self.graph.expression, example.stride())))
        function = self.emitter.imported(fit)
        return [
            f"if {variable}.stride() != {strides}:",
            f"    {variable} = {function}({variable}, {strides})",
        ]

    # --- names ------------------------------------------------------------------------------------

    def unit(self, piece: Piece) -> str:
        """Name the unit that a piece runs; pieces that share a unit share the name."""
        key = self.units[piece.name].key
        if key not in self.unit_names:
            self.unit_names[key] = self.names.new(f"unit_{len(self.unit_names)}")
        return self.unit_names[key]

    def weight(self, slot: int) -> str:
        """The variable of a weight."""
        if slot not in self.weight_names:
            self.weight_names[slot] = self.names.new(self.requirements.weights[slot].name)
        return self.weight_names[slot]

    def owner(self, path: str) -> str:
        """The variable of a module whose attribute is replaced."""
        if path not in self.owner_names:
            self.owner_names[path] = self.names.new(f"module_{path}" if path else "module")
        return self.owner_names[path]

    def _slot(self, slot: Slot) -> str:
        if slot.views:
            return self.view_names[slot]
        if slot.kind == "arg":
            return self.given_names[slot.index]
        if slot.kind == "object":
            return self.object_names[slot.index]
        if slot.kind == "weight":
            return self.weight(slot.index)
        node_or_number = self.graph.output.args[0][slot.index]
        if slot.kind == "size" and node_or_number not in self.graph.flowing:
            number = self.graph.number(node_or_number)
            return self.emitter.value(number)
        return self.emitter.variable(node_or_number)


def _listed(start: str, items: Iterable[str], end: str) -> list[str]:
    """Write a statement around a list of names, over several lines if one is too long."""
    listed = ", ".join(items)
    if len(start) + len(listed) + len(end) <= 92:
        return [start + listed + end]
    wrapped = textwrap.wrap(listed, 88, break_long_words=False, break_on_hyphens=False)
    return [start, *(f"    {part}" for part in wrapped), end]
