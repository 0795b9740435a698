"""Tell a listener how far the check at save is."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

from hotstart.events import Event, Listener
from hotstart.saving.check_process import SharedFolder

_EVERY_S = 0.2
"""So often it is looked for what the other process has run."""

Step = tuple[int, str]


class CheckProgress:
    """Tells of each variant when it has run from its file, and when its results were compared.

    Args:
        names: of all variants.
        listener: is told; None: nobody is.
    """

    def __init__(self, names: Sequence[str], listener: Listener | None) -> None:
        self._names = names
        self._listener = listener
        self._done: set[Step] = set()

    @contextlib.contextmanager
    def following(self, shared: SharedFolder) -> Iterator[None]:
        """Tell what another process has run while the context lasts, from a thread."""
        if self._listener is None:
            yield
            return
        ended = threading.Event()
        follower = threading.Thread(target=self._follow, args=(shared, ended), daemon=True)
        follower.start()
        try:
            yield
        finally:
            ended.set()
            follower.join()

    def compared(self, variant: int) -> None:
        """Tell that the results of a variant were compared."""
        self._tell(variant, "compared")

    def _follow(self, shared: SharedFolder, ended: threading.Event) -> None:
        last = False
        while not last:
            last = ended.wait(_EVERY_S)
            for attempt in shared.attempts():
                if attempt.state == "ran":
                    self._tell(attempt.variant, "run from the file")

    def _tell(self, variant: int, step: str) -> None:
        if self._listener is None or (variant, step) in self._done:
            return
        self._done.add((variant, step))
        done, total = len(self._done), 2 * len(self._names)
        name = self._names[variant]
        self._listener(Event("variant_checked", name, 0.0, done, total, {"step": step}))
