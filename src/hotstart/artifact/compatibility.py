"""Say whether a file fits here, before it is loaded.

A file that was built elsewhere, or by another version, is compared part by part: `misfits` is a
plain comparison of what `fingerprint` reads, so tests need no other hardware. A part that does not
fit is named together with what is missing; another format of the file is refused before that,
in `container`. Nothing here imports torch.
"""

import contextlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from hotstart.artifact import container, fingerprint
from hotstart.artifact.container import Container
from hotstart.artifact.target_index import Target
from hotstart.errors import ArtifactError, CorruptArtifact, IncompatibleArtifact
from hotstart.guards.sources import Source, changed_sources
from hotstart.targets import architecture_for
from hotstart.version import VERSION

log = logging.getLogger("hotstart")

_NOT_COMPARED = frozenset({"target", "options", "graph", "sources"})
"""Parts that say what was built, not where it runs; sources are compared by `changed_sources`."""

File = str | os.PathLike[str]
Difference = tuple[str, str, str]
Scope = Literal["all", "beside_guards", "found"]
"""The functions to compare.

all: every one that was traced.
beside_guards: only those that no guard covers; guards are compared after this.
found: only those whose files exist here; none of them is going to run."""


class Preface(msgspec.Struct, frozen=True):
    """The part of a manifest that says where the artifact fits."""

    fingerprint: dict[str, Any]


def best_that_fits(targets: Sequence[Target]) -> Target:
    """Choose the best target that the processor of this machine runs.

    If it runs none, that is the last one of its architecture, else the last of all; whether the
    rest fits, `require_fit` says.
    """
    here = set(fingerprint.instructions())
    fitting = (target for target in targets if here.issuperset(target.instructions))
    mine = architecture_for(here)
    near = (t for t in reversed(targets) if architecture_for(t.instructions) == mine)
    return next(fitting, next(near, targets[-1]))


def require_fit(contents: Container, compare_source: bool, scope: Scope = "beside_guards") -> None:
    """Compare the fingerprint of a file, or of the target that was read, with this process.

    Args:
        contents: the artifact.
        compare_source: whether functions that were traced count.
        scope: which of them.

    Raises:
        CorruptArtifact: there is no fingerprint.
        IncompatibleArtifact: with every part that differs.
    """
    file = contents.file
    try:
        expected = msgspec.json.decode(contents.manifest, type=Preface).fingerprint
        here = fingerprint.host()
        differences = misfits(expected, here)
        if contents.targets:
            differences = list(_by_target(differences, contents.targets, here))
        if compare_source:
            recorded = msgspec.convert(expected.get("sources", {}), dict[str, Source])
            differences += changed_sources(
                recorded, loose=scope == "beside_guards", required=scope != "found"
            )
    except (msgspec.MsgspecError, TypeError, ValueError, AttributeError) as error:
        raise CorruptArtifact(file, "manifest", "a fingerprint", str(error)) from error
    if differences:
        raise IncompatibleArtifact(file, differences)
    if contents.target is not None:
        names = ", ".join(target.target for target in contents.targets)
        log.info("%s: takes the code for %s, of %s", file, contents.target.target, names)


def _by_target(
    differences: Iterable[Difference], targets: Sequence[Target], here: Mapping[str, Any]
) -> Iterator[Difference]:
    """Say of each target, instead of the one that was read, what the processor lacks for it."""
    lacking = [
        (f"{name} of {target.target}", expected, found)
        for target in targets
        for name, expected, found in misfits({"instructions": list(target.instructions)}, here)
    ]
    for difference in differences:
        if difference[0] == "instructions" and len(lacking) == len(targets):
            yield from lacking
        else:
            yield difference


def unreadable(file: File, manifest: bytes, error: Exception) -> ArtifactError:
    """The error for a verified manifest that cannot be read: another version's, or none of ours."""
    with contextlib.suppress(msgspec.MsgspecError):
        built = msgspec.json.decode(manifest, type=Preface).fingerprint.get("hotstart")
        if isinstance(built, str) and built != VERSION:
            here = f"those of hotstart {VERSION}, which cannot read them: {error}"
            return IncompatibleArtifact(file, [("records", f"those of hotstart {built}", here)])
    return CorruptArtifact(file, "manifest", "what hotstart writes", f"this: {error}")


def load_check(file: File, compare_source: bool = True) -> None:
    """Say whether an artifact would load here, as far as that shows without a model.

    Functions are compared as their files define them: closures, defaults and globals show only when
    the file is loaded. Imports none of them.

    Raises:
        ArtifactError: as `inspection.verify`; `IncompatibleArtifact` with every part that differs.
    """
    every = list(container.read_all(file))
    require_fit(container.pick(every, best_that_fits), compare_source, "all")


# --- part by part ---------------------------------------------------------------------------------


def misfits(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """List the parts of `expected` that `found` does not fit, in order; sources are not compared.

    Args:
        expected: parts an artifact was built with, by name.
        found: parts of this process, as of `host`, and whatever else the artifact names.

    Returns:
        For each part that does not fit: its name, what was expected and what was found, as text.
    """
    problems: list[tuple[str, str, str]] = []
    for name, needed in expected.items():
        here = found.get(name)
        if name in _NOT_COMPARED or needed in (here, {}):  # {}: devices in older files
            continue
        if name == "instructions" and isinstance(needed, list) and isinstance(here, list):
            if missing := sorted(set(needed).difference(here)):
                problems.append((name, f"a CPU with {', '.join(missing)}", "a CPU without"))
        elif name in ("hotstart", "libc") and isinstance(needed, str):
            if not _same_or_newer(needed, here):
                problems.append((name, f"{needed} or newer", part_text(here)))
        else:
            problems.append((name, part_text(needed), part_text(here)))
    return problems


def part_text(value: Any) -> str:
    """Write a part of a fingerprint in one line."""
    if value is None or value == [] or value == {}:
        return "nothing"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {part_text(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(part_text, value))
    return str(value)


def _same_or_newer(needed: str, here: Any) -> bool:
    """Tell whether a release such as `glibc 2.36` is met: the same name, and at least its number.

    Suffixes such as `.dev0` do not count.
    """
    if not isinstance(here, str):
        return False
    family, release = _release(needed)
    family_here, release_here = _release(here)
    return family == family_here and bool(release) and release_here >= release


def _release(text: str) -> tuple[str, list[int]]:
    found = re.match(r"(\D*)(\d+(?:\.\d+)*)", text)
    if found is None:
        return text, []
    # 1.0 is no older than 1.0.0
    return found[1], [int(number) for number in re.sub(r"(\.0+)+$", "", found[2]).split(".")]
