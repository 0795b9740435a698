"""Define whose files of a cache are believed, and how its own are signed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotstart.errors import ArtifactError, OptionsError, StoreError, UntrustedArtifact
from hotstart.records.guards import Change

if TYPE_CHECKING:
    from hotstart.artifact.header import Sign
    from hotstart.artifact.trust import Trust


@dataclass(frozen=True)
class Signatures:
    """Whose files are believed, and how those that are made here are signed.

    Attributes:
        sign: signs what is made here; None: it is not signed.
        trust: says what is wrong with a signature; None: no signature is asked for.
    """

    sign: Sign | None = None
    trust: Trust | None = None

    @property
    def believes_own(self) -> bool:
        """Tell whether what is made here would be believed by those who read it as this does."""
        return self.sign is not None or self.trust is None


def signatures_of(
    sign_key: str | os.PathLike[str] | None,
    trusted_keys: Sequence[str | os.PathLike[str] | bytes] | None,
) -> Signatures:
    """Read the keys of a store. The key that signs is trusted, with the others or alone.

    Raises:
        StoreError: they are no keys, or `cryptography` is missing.
    """
    if sign_key is None and trusted_keys is None:
        return Signatures()
    from hotstart.artifact import signing  # only who has keys needs it

    try:
        trust = signing.truster(trusted_keys)
        if sign_key is None:
            return Signatures(trust=trust)
        sign = signing.signer(sign_key)
        own, _ = sign(b"")
        return Signatures(sign, signing.truster([own, *_listed(trusted_keys)]))
    except (ArtifactError, OptionsError) as error:
        raise StoreError(str(error)) from error


def untrusted(error: UntrustedArtifact) -> Change:
    """Say as a change why a file is not believed."""
    return ("its signature", "by a trusted key", error.found)


def _listed(
    keys: Sequence[str | os.PathLike[str] | bytes] | None,
) -> Sequence[str | os.PathLike[str] | bytes]:
    return [keys] if isinstance(keys, str) else keys or ()
