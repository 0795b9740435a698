"""The functions of a program's variants, with the weights they run on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from hotstart.runtime.weights import Weights

Run = Callable[..., Any]
Binder = Callable[[list[torch.Tensor]], Run]


class Binding:
    """Hands out the variants' functions, bound to the weights the model has now.

    Binding is lazy, so that a program can be built for a model that has no weights yet. Functions
    are replaced all at once: a call that is under way keeps those it started with.
    """

    def __init__(self, weights: Weights, binders: Sequence[Binder]) -> None:
        self._weights = weights
        self._binders = binders
        self._lock = threading.Lock()
        self._runs: tuple[Run, ...] | None = None

    def __call__(self) -> tuple[Run, ...]:
        """The functions, by variant.

        Raises:
            ModelMismatch: the model's tensors do not fit.
        """
        runs = self._runs
        if runs is not None and not self._weights.changed():
            return runs
        with self._lock:
            if self._runs is None or self._weights.changed():
                # Forgotten first: if the weights do not fit, the next call finds that out again.
                self._runs = None
                tensors = self._weights.fetch()
                self._runs = tuple(bind(tensors) for bind in self._binders)
            return self._runs
