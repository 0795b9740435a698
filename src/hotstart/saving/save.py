"""Make the bytes of an artifact's file, after the check."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from hotstart import faults
from hotstart._torch.processes.ranks import has_other_processes
from hotstart.artifact import container, fingerprint
from hotstart.artifact.header import Sign
from hotstart.artifact.pool import TargetProgram, parts_of_several
from hotstart.artifact.write import to_manifest
from hotstart.errors import ArtifactError, OptionsError
from hotstart.events import Listener
from hotstart.records.artifact import Artifact
from hotstart.runtime.weights.weight_source import Source
from hotstart.saving.check import Checked, compare
from hotstart.saving.examples import Example

log = logging.getLogger("hotstart")


@dataclass(frozen=True)
class CheckInputs:
    """The weights and the calls that an artifact is checked with before it is written.

    Attributes:
        source: has the weights.
        examples: calls that it is run on, by name.
        partly: whether to write it, with a warning, if no inputs are found for some variants.
        listener: is told of variants as they are checked.
    """

    source: Source
    examples: Mapping[str, Sequence[Example]]
    partly: bool = False
    listener: Listener | None = None


def checked_parts(
    *artifacts: Artifact,
    sign: Sign | None = None,
    check: CheckInputs | None = None,
) -> list[bytes]:
    """Make the parts of an artifact's file, in order, after the check.

    Args:
        artifacts: the artifact; or one for each target, the best first.
        sign: signs the file, if it is to be signed.
        check: what to check each with, if that is wanted.

    Raises:
        ArtifactError: it cannot be written as data, or does not run from its file.
        OptionsError: this machine cannot run, so not check, the code for a target.
    """
    made = [_checked(artifact, check) for artifact in artifacts]
    if len(made) == 1:
        return container.file_parts(made[0].manifest, made[0].blobs, sign)
    return parts_of_several(made, sign)


def _checked(artifact: Artifact, check: CheckInputs | None) -> TargetProgram:
    """Check an artifact, and return what goes into the file for its target."""
    with faults.typed(_not_data):
        manifest, blobs = to_manifest(artifact)
        parts = container.file_parts(manifest, blobs)
    if check is not None and _is_for_here(artifact) and _can_be_run_alone(artifact, check.partly):
        _require_target(artifact)
        found = compare(artifact, parts, check.examples, check.source, check.listener)
        if found.unchecked:
            _tell(found, check.partly)
        manifest["check"] = msgspec.to_builtins(found)
    parts_of = artifact.fingerprint
    target, allowed = parts_of.get("target", "native"), parts_of.get("instructions", ())
    return TargetProgram(target, allowed, manifest, blobs)


def _is_for_here(artifact: Artifact) -> bool:
    """Tell whether a program is for this architecture; say in the log that another is not run."""
    platform, here = artifact.fingerprint.get("platform"), fingerprint.host()["platform"]
    if platform != here:
        target = artifact.fingerprint.get("target")
        log.warning("the code for %s is kept unchecked: this is %s", target, here)
    return bool(platform == here)


def _require_target(artifact: Artifact) -> None:
    """See that this machine runs the code for a target.

    Raises:
        OptionsError: it does not; the program was loaded from a file that has it besides.
    """
    allowed, target = artifact.fingerprint["instructions"], artifact.fingerprint.get("target")
    missing = sorted(set(allowed).difference(fingerprint.instructions()))
    if missing:
        raise OptionsError(
            f"check: expected a machine that runs the code for {target}, found one without "
            f"{', '.join(missing)}\ndo: copy the file that the program was loaded from, or save "
            "with check=False, or on a machine of that level"
        )


def _can_be_run_alone(artifact: Artifact, partly: bool) -> bool:
    """Tell whether a program runs without that other processes run it, too.

    Collectives are left out of the check; operators of the user's own may hold others.

    Raises:
        ArtifactError: it may not, and `partly` is not set.
    """
    names = [name for name, _ in artifact.requirements.operators]
    if not names or not has_other_processes():
        return True
    if not partly:
        raise ArtifactError(
            f"expected operators that run in this process alone, found {', '.join(names)}, which "
            "may wait for other processes of torch.distributed. Save with check=False, or where "
            "there is one process."
        )
    log.warning("the program is kept unchecked: %s may wait for other processes", ", ".join(names))
    return False


def _not_data(reason: str) -> ArtifactError:
    return ArtifactError(
        f"the program cannot be written as data: {reason}. Take what raises it out of the model's "
        "constants and defaults."
    )


def _tell(found: Checked, partly: bool) -> None:
    """Warn of variants for which no inputs were found.

    Raises:
        ArtifactError: there are such variants, and `partly` is not set.
    """
    if partly:
        for name, reason in found.unchecked:
            log.warning("variant %s is kept unchecked, as no inputs were found: %s", name, reason)
        return
    listed = "".join(f"\n  {name}: {reason}" for name, reason in found.unchecked)
    raise ArtifactError(
        "the check at save found no inputs that some variants run on, in this process or from the "
        f"file.\nexpected: values that the model's operators take\nfound:{listed}\n"
        "do: pass such values as save(..., check_inputs=(args, kwargs)), in a call of sizes that "
        "the variant serves; or save with check=False"
    )
