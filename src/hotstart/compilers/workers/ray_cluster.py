"""Run functions on a Ray cluster, which schedules them. No other module imports Ray.

Whoever may reach the cluster can run code in its workers, and what they give is unpickled here: it
has to be trusted as this process is.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from hotstart.errors import OptionsError

if TYPE_CHECKING:
    from types import ModuleType

log = logging.getLogger(__name__)

RETRIES = 3
"""Most runs of a task after the first, if its worker is lost each time."""

Task: TypeAlias = Any
"""A function that was handed in: the reference that Ray gives. Ray's own type is generic."""


@dataclass(frozen=True)
class Done:
    """Result of a task.

    Attributes:
        value: the function's result.
        worker: the process that ran it, by number and machine.
        lost: how many workers were lost before.
    """

    value: Any
    worker: str
    lost: int


class WorkersLost(Exception):
    """Every worker that ran a task was lost; the message says how."""


class NotRun(Exception):
    """The cluster cannot run a task; the message says why."""


class Cluster:
    """A connection to a Ray cluster, and the way in which it runs functions.

    A connection of this process is used if there is one, and left open at the end, so that workers
    are kept for the next build.

    Args:
        environment: variables that the workers have, besides their own.
        cores: cores that each function takes.
        fresh: whether each function has a worker process of its own.

    Raises:
        OptionsError: Ray is not installed, or no cluster can be reached.
    """

    def __init__(
        self, environment: Mapping[str, str], *, cores: int = 1, fresh: bool = False
    ) -> None:
        self._ray: Any = _connected()
        self._run = self._ray.remote(
            num_cpus=cores,
            max_retries=RETRIES,
            max_calls=1 if fresh else 0,
            runtime_env={"env_vars": dict(environment)},
        )(_run)
        self._warn_without(cores)

    def _warn_without(self, cores: int) -> None:
        """Warn if no machine has so many cores; a cluster that scales may start one that has."""
        nodes = (node["Resources"].get("CPU", 0) for node in self._ray.nodes() if node["Alive"])
        most = int(max(nodes, default=0))
        if most < cores:
            log.warning(
                "a task takes %d cores, and no machine of the Ray cluster has more than %d: it "
                "waits until one joins. Take fewer jobs, or add a machine.",
                cores,
                most,
            )

    @property
    def cores(self) -> int:
        """Count the cores of all machines of the cluster."""
        return int(self._ray.cluster_resources().get("CPU", 0))

    def submit(self, name: str, function: Callable[..., Any], *given: Any) -> Task:
        """Hand in a function, which the workers import, with data to call it with.

        Args:
            name: what Ray calls the task.
            function: one of a module.
            given: its arguments.
        """
        return self._run.options(name=name).remote(function, given)

    def result(self, task: Task) -> Done:
        """Wait for a task.

        Raises:
            WorkersLost: its worker ended each time.
            NotRun: the cluster cannot run it.
        """
        errors = self._ray.exceptions
        try:
            done: Done = self._ray.get(task)
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
            raise WorkersLost(_first_line(error)) from None
        except errors.RayTaskError as error:
            raise NotRun(_first_line(error.cause, f"{type(error.cause).__name__}: ")) from None
        except errors.RayError as error:
            raise NotRun(_first_line(error, f"{type(error).__name__}: ")) from None
        return done

    def next_of(self, tasks: Iterable[Task]) -> Task:
        """Wait until one of some tasks has ended."""
        ((task, *_), _) = self._ray.wait(list(tasks))
        return task

    def cancel(self, tasks: Iterable[Task]) -> None:
        """Drop tasks that wait, and end the workers of those that run."""
        for task in tasks:
            try:
                self._ray.cancel(task, force=True)
            except Exception as error:  # noqa: BLE001  the connection is lost, and they with it
                log.debug("a task is not cancelled: %s", error)


@contextlib.contextmanager
def ray_connection() -> Iterator[None]:
    """Connect for a while, if this process is not connected, with Ray's messages on stderr.

    Ray prints on stdout, from threads of its own, when a worker was lost.

    Raises:
        OptionsError: Ray is not installed, or no cluster can be reached.
    """
    require_ray()
    import ray

    connected = ray.is_initialized()
    with contextlib.redirect_stdout(sys.stderr):
        _connected()
        try:
            yield
        finally:
            if not connected:
                ray.shutdown()


def require_ray() -> None:
    """Check that Ray is installed, without importing it.

    Raises:
        OptionsError: it is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise OptionsError(
            "ray: expected the package ray, found none\ndo: pip install 'hotstart[ray]'"
        )


def _connected() -> ModuleType:
    """Import Ray, and connect if this process is not.

    `address="auto"` (2.50 to 2.60) is that of `RAY_ADDRESS`, else of the cluster that was last
    started on this machine; none is started.
    """
    require_ray()
    import ray

    if not ray.is_initialized():
        try:
            ray.init(address="auto", log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise OptionsError(
                f"ray: expected a running cluster, found: {_first_line(error)}\n"
                "do: call ray.init() first, or set RAY_ADDRESS, or start one here: "
                "ray start --head; its Ray and Python must have the versions of this process"
            ) from error
    return ray


def _run(function: Callable[..., Any], given: tuple[Any, ...]) -> Done:
    """Run in a worker what was handed in."""
    value = function(*given)
    return Done(value, _worker_name(), _attempt())


@functools.cache
def _worker_name() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _attempt() -> int:
    """Count the runs of the task of this worker before this one.

    Private, and the only place where Ray says so (2.60); 0 if it does not.
    """
    from ray._private import worker

    this: Any = worker.global_worker
    asked: Callable[[], int] = getattr(
        this.core_worker, "get_current_task_attempt_number", lambda: 0
    )
    return asked()


def _first_line(error: object, before: str = "") -> str:
    return f"{before}{error}".strip().partition("\n")[0]
