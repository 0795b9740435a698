"""Record how names in checkpoints of a model may differ from the names that the model has.

Nothing here imports a library: what transformers does when it loads a checkpoint is read from the
model that it made.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from hotstart._torch.subclasses.inner_tensors import inner_names
from hotstart.model import ModelIndex
from hotstart.records.standalone import Naming, Prefix, Rename

log = logging.getLogger("hotstart")

_OLD_NORMS = (
    Rename(r"LayerNorm\.gamma$", "LayerNorm.weight"),
    Rename(r"LayerNorm\.beta$", "LayerNorm.bias"),
)
"""Names that transformers before 5 changes in every model."""


def naming_of(index: ModelIndex) -> Naming:
    """Record the names that checkpoints of a model may have.

    Args:
        index: of the model.
    """
    prefixes: list[Prefix] = []
    renames: list[Rename] = []
    for path, module in _of_a_library(index):
        prefixes += _prefixes(f"{path}." if path else "", module)
        renames += _renames(module)
    renames += _flattened(index)
    return Naming(tuple(dict.fromkeys(prefixes)), tuple(dict.fromkeys(renames)))


def naming_of_part(index: ModelIndex, path: str) -> Naming:
    """Record the names that checkpoints of a whole model have for one module of it.

    Args:
        index: of the whole model.
        path: of the module.
    """
    whole, start = naming_of(index), f"{path}."
    under = [Prefix("", start)] + [
        Prefix("", prefix.theirs + start[len(prefix.ours) :])
        for prefix in whole.prefixes
        if start.startswith(prefix.ours)
    ]
    return Naming(tuple(dict.fromkeys(under)), whole.renames)


def _flattened(index: ModelIndex) -> Iterator[Rename]:
    """The names that torchao gives inner tensors in safetensors: `_weight_qdata`."""
    for place in index.places:
        tensor = place.get()
        names = inner_names(tensor)
        if names and type(tensor).__module__.partition(".")[0] == "torchao":
            inner = "|".join(map(re.escape, names))
            key = re.escape(place.key)
            yield Rename(rf"(^|\.)_{key}_({inner})$", rf"\g<1>{place.key}.\g<2>")


def _of_a_library(index: ModelIndex) -> Iterator[tuple[str, torch.nn.Module]]:
    """The outermost modules that say by which name a model with a head has its body."""
    found: list[str] = []
    for path, module in index.modules.items():
        inside = any(not outer or path.startswith(f"{outer}.") for outer in found)
        if not inside and isinstance(getattr(type(module), "base_model_prefix", None), str):
            found.append(path)
            yield path, module


def _prefixes(start: str, module: torch.nn.Module) -> Iterator[Prefix]:
    """Names of the module alone; of its body alone; of a model with a head, whose body it is."""
    if start:
        yield Prefix(start, "")
    base: str = getattr(type(module), "base_model_prefix")  # noqa: B009  a library's
    if base and base in module._modules:
        yield Prefix(f"{start}{base}.", "")
    elif base:
        yield Prefix(start, f"{base}.")


def _renames(module: torch.nn.Module) -> Iterable[Rename]:
    """List the names that transformers changes when it loads a checkpoint into a model."""
    library = sys.modules.get("transformers.conversion_mapping")
    if library is None:
        given = getattr(type(module), "_checkpoint_conversion_mapping", None) or {}
        pairs = given.items() if isinstance(given, Mapping) else ()
        return [*(Rename(str(old), str(new)) for old, new in pairs), *_OLD_NORMS]
    try:
        transforms = library.get_model_conversion_mapping(module)
        return [rename for one in transforms if (rename := _rename(one)) is not None]
    except Exception as error:  # noqa: BLE001  whatever another version of the library raises
        log.warning(
            "names that transformers changes when it loads a checkpoint are not recorded, since it "
            "does not say them: %r",
            error,
        )
        return ()


def _rename(transform: Any) -> Rename | None:
    """A change of names alone; None for one that computes tensors or depends on other names."""
    if type(transform).__name__ not in ("WeightRenaming", "PrefixChange"):
        return None
    if len(transform.target_patterns) != 1:
        return None
    compiled = transform.compiled_sources
    first = min(compiled.groupindex.values()) + 1
    if r"\1" in transform.target_patterns[0] and len(transform.source_patterns) != 1:
        return None  # which group is meant depends on the pattern that is found
    literal = (part.replace("\\", "\\\\") for part in transform.target_patterns[0].split(r"\1"))
    scopes: tuple[str, ...] = ()
    if transform.scope_prefix is not None:
        inner = f"{transform.scope_prefix}." if transform.scope_prefix else ""
        outer = f"{transform.base_model_prefix}." if transform.base_model_prefix else ""
        scopes = tuple(dict.fromkeys([outer + inner, inner]))
    return Rename(compiled.pattern, rf"\g<{first}>".join(literal), scopes)
