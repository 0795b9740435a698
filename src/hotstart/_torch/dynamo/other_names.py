"""Record aliases: further names by which a trace reached an object.

Dynamo keeps the name by which it read an object first. Under a second name it only guards that both
are one object, and not even that if one is a local variable and the other a global. In another
process the names may refer to different objects, so guards apply to every name. Private names, of
torch 2.11 to 2.15: `variables.builder.make_dupe_guard`, which is called with both.
"""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from hotstart._torch.dynamo.guards import Read, is_table_of_types, object_named
from hotstart._torch.in_between import in_between


class OtherNames:
    """The names of objects besides the first one, in Dynamo's words."""

    def __init__(self) -> None:
        self._others: defaultdict[str, dict[str, None]] = defaultdict(dict)

    def note(self, other: Any, first: Any) -> None:
        """Keep that an object has a further source."""
        if first is None or other is None or is_table_of_types(other.name):
            return
        if other.name != first.name:
            self._others[first.name][other.name] = None

    def of_objects(self, scopes: Mapping[str, Any]) -> OtherNames:
        """Those of objects that are neither modules nor tensors: these are known by identity."""
        found = OtherNames()
        for first, others in self._others.items():
            if not isinstance(object_named(first, scopes), torch.nn.Module | torch.Tensor):
                found._others[first] = others
        return found

    def under_all_names(
        self, read: Iterable[tuple[Read, str, Any]]
    ) -> tuple[tuple[Read, str, Any], ...]:
        """List the reads of a trace by every name that it reached the objects by."""
        return tuple(
            dict.fromkeys(
                (kind, each, key) for kind, name, key in read for each in (name, *self.of(name))
            )
        )

    def of(self, name: str, used: frozenset[str] = frozenset()) -> Iterator[str]:
        """The aliases of a name, by those of every object on the way to it."""
        for end in [step.start() for step in re.finditer(r"[.\[]", name)] + [len(name)]:
            first = name[:end]
            if first in used:
                continue
            for other in self._others.get(first, ()):
                renamed = other + name[end:]
                yield renamed
                yield from self.of(renamed, used | {first})


@contextlib.contextmanager
def recording_other_names() -> Iterator[OtherNames]:
    """Collect the aliases in a trace of this thread."""
    from torch._dynamo.variables import builder

    found = OtherNames()

    def note(make: Any, source: Any, first: Any) -> Any:
        found.note(source, first)
        return make(source, first)

    with in_between(builder, "make_dupe_guard", note):
        yield found
