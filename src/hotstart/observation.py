"""Learn from calls what to compile: `hotstart.observe`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from hotstart.api import compile
from hotstart.observing.observed import ObservedCalls
from hotstart.observing.recorder import Recorder, recording
from hotstart.observing.targets import Target, targets_of


@contextlib.contextmanager
def observe(observed: Target | Mapping[str, Target]) -> Iterator[ObservedCalls]:
    """Record how modules or methods are called while the `with` block runs.

    Calls run as they would; no tensor is kept. Calls from all threads count, those that a call
    makes of itself do not, nor do those that raise. A copy of the module is not observed.

    Args:
        observed: a module, whose `forward` is observed; a bound method, such as `vae.decode`; or a
            mapping of names to several of these.

    Raises:
        OptionsError: it is none of these, or the object has no place for an attribute.
    """
    wanted = targets_of(observed)
    recorders = {name: Recorder(target.about) for name, target in wanted.items()}
    models = {name: target.model for name, target in wanted.items()}
    with contextlib.ExitStack() as stack:
        for name, target in wanted.items():
            stack.enter_context(recording(target.owner, target.method, recorders[name]))
        yield ObservedCalls({}, models, recorders, compile)
