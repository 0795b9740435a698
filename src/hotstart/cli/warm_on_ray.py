"""`hotstart warm --on ray`: the factories run on the machines of a Ray cluster."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from hotstart.artifact.surroundings import (
    different,
    no_matter,
    set_for_compilers,
    surroundings,
)
from hotstart.cache.folder import default_place
from hotstart.cli import parse
from hotstart.cli.factory import call_factory, see_working_folder
from hotstart.cli.flags import Settings
from hotstart.cli.warm_progress import Shown
from hotstart.cli.warming import Place, Row, compile_into, compiled_row, failed_row
from hotstart.compilers.workers.errand import overheard
from hotstart.compilers.workers.ray_cluster import (
    RETRIES,
    Cluster,
    NotRun,
    Task,
    WorkersLost,
    ray_connection,
)
from hotstart.compilers.workers.worker_process import ENVIRONMENT
from hotstart.errors import HotstartError, OptionsError
from hotstart.events import Event
from hotstart.options import Jobs, Options

if TYPE_CHECKING:
    from hotstart.cache.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Order:
    """Input of a worker that compiles what a factory makes.

    Attributes:
        factory: the factory.
        settings: arguments of `hotstart.compile`, beside those of the factory.
        jobs: how many processes compile.
        place: where the program is kept.
        working_folder: where modules are looked for, too.
        threads: how many threads operators run in; programs are compiled for as many.
        surroundings: of the process that wants the program.
    """

    factory: parse.Factory
    settings: Settings
    jobs: Jobs
    place: Place
    working_folder: str
    threads: int
    surroundings: Mapping[str, str]


@dataclass(frozen=True)
class _Made:
    """The result of a worker.

    Attributes:
        row: describes it.
        names: of the programs that its folder has of the key; empty if there is an error.
        logged: logger, level and text of messages.
    """

    row: Row
    names: frozenset[str]
    logged: tuple[tuple[str, int, str], ...]

    def log(self) -> None:
        """Log here what was logged there."""
        for name, level, text in self.logged:
            logging.getLogger(name).log(level, "%s: %s", self.row["factory"], text)


def warm_on_ray(
    factories: Sequence[parse.Factory],
    settings: Settings,
    jobs: Jobs | None,
    place: Place,
    shown: Shown,
) -> Generator[Row]:
    """Compile what factories make on a Ray cluster, each once; what came of them as they end.

    Each is a task with a worker process of its own, of as many cores as there are `jobs`; where
    those are Ray's, it hands in its pieces as tasks of their own.

    Raises:
        OptionsError: no cluster can be reached.
        StoreError: the remote cannot be used.
    """
    folder = see_working_folder()
    place = replace(place, folder=Path(place.folder or default_place()).absolute())
    store = place.store()
    threads, here = torch.get_num_threads(), surroundings()
    orders = [
        _Order(factory, settings, jobs or 1, place, folder, threads, here)
        for factory in dict.fromkeys(factories)
    ]
    cores = jobs if isinstance(jobs, int) else 1
    with ray_connection():
        cluster = Cluster({**ENVIRONMENT, **set_for_compilers()}, cores=cores, fresh=True)
        for number in range(len(factories)):
            shown.begun(number)
            shown.heard(number, Event("phase_started", f"on {cluster.cores} cores of Ray"))
        for row in _rows(cluster, orders, store):
            yield from [row] * list(map(str, factories)).count(row["factory"])


def _rows(cluster: Cluster, orders: Sequence[_Order], store: Store) -> Generator[Row]:
    """Have orders compiled; what came of each, as they end. The others are cancelled at the end."""
    started = time.perf_counter()
    tasks: dict[Task, parse.Factory] = {}
    try:
        for order in orders:
            task = cluster.submit(str(order.factory), _compile, order)
            tasks[task] = order.factory
        while tasks:
            task = cluster.next_of(tasks)
            row = _row(cluster, task, tasks[task], store, started)
            del tasks[task]
            yield row
    finally:
        cluster.cancel(tasks)


def _row(cluster: Cluster, task: Task, factory: parse.Factory, store: Store, started: float) -> Row:
    """Describe what came of a factory; its program has to be where this process finds it."""
    try:
        done = cluster.result(task)
        made: _Made = done.value
        made.log()
        if done.lost:
            log.warning("%s: %d workers were lost; Ray has run it once more", factory, done.lost)
        if made.row["error"] or made.names & store.entry_names(made.row["key"]):
            return made.row
        error = (
            f"expected its program in {store}, found it only where {done.worker} keeps files. "
            "Give a --remote, or a --cache that all machines share."
        )
    except WorkersLost as lost:
        error = f"its worker was lost {1 + RETRIES} times, the last time since: {lost}"
    except NotRun as reason:
        error = f"expected a worker that runs it, found: {reason}"
    except HotstartError as raised:  # the remote failed
        error = str(raised)
    return failed_row(factory, time.perf_counter() - started, error)


# --- in a worker ----------------------------------------------------------------------------------


def _compile(order: _Order) -> _Made:
    """Compile what a factory makes, and describe what came of it."""
    started = time.perf_counter()
    names: frozenset[str] = frozenset()
    with overheard(logging.WARNING) as heard:
        try:
            row = compiled_row(order.factory, *_compiled(order))
            names = frozenset(entry.name for entry in order.place.store().probe(row["key"]))
        except HotstartError as raised:
            row = failed_row(order.factory, time.perf_counter() - started, str(raised))
        except (Exception, SystemExit) as raised:  # noqa: BLE001  whatever a factory does
            error = f"{type(raised).__name__}: {raised}"
            row = failed_row(order.factory, time.perf_counter() - started, error)
    return _Made(row, names, tuple(heard.logged))


def _compiled(order: _Order) -> tuple[str, float, str]:
    """Compile as the process that wants the program would.

    Raises:
        OptionsError: this worker would compile another one.
        HotstartError: see `compile_into`.
    """
    if Path(order.working_folder).is_dir():  # on a machine that has it
        os.chdir(order.working_folder)
    torch.set_num_threads(order.threads)
    model, from_factory = call_factory(order.factory)
    arguments = order.settings.beside(order.factory, from_factory)
    options = arguments["options"]
    targets = options.targets if isinstance(options, Options) else ("native",)
    native = "native" in targets
    differences = different(order.surroundings, surroundings(), no_matter(targets))
    if differences:
        listed = "\n  ".join(differences)
        raise OptionsError(
            f"the worker does not fit the process that runs hotstart warm:\n  {listed}\n"
            "do: install the same versions there"
            f"{', and name a --target that both processors have' if native else ''}"
        )
    return compile_into(
        order.factory, model, arguments, order.jobs, order.place, lambda event: None
    )
