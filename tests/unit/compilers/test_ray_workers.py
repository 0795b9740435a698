"""Jobs of a build that Ray's workers compile, with a cluster that is this process."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from torch import nn

from hotstart import Options, OptionsError
from hotstart.compilers import Job, OpByOpCompiler
from hotstart.compilers.workers import ray_workers as module
from hotstart.compilers.workers.outcome import Outcome
from hotstart.compilers.workers.pool import workers_of
from hotstart.compilers.workers.ray_cluster import (
    Cluster,
    Done,
    NotRun,
    WorkersLost,
    ray_connection,
)
from hotstart.compilers.workers.ray_workers import RayWorkers

OPTIONS = Options(compiler="op_by_op", jobs="ray")
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra hotstart[ray] is not installed"
)


class Here:
    """A cluster that runs a task in this process, once its result is wanted."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.names: dict[int, str] = {}
        self.calls: dict[int, Callable[[], Any]] = {}
        self.cancelled: list[str] = []
        self.lost = 0
        self.raises: Exception | None = None
        CLUSTERS.append(self)

    def submit(self, name: str, function: Callable[..., Any], *given: Any) -> int:
        task = len(self.names)
        self.names[task] = name
        self.calls[task] = lambda: function(*given)
        return task

    def result(self, task: int) -> Done:
        if self.raises is not None:
            raise self.raises
        return Done(self.calls[task](), "process 7 on there", self.lost)

    def cancel(self, tasks: Iterable[int]) -> None:
        self.cancelled.extend(self.names[task] for task in tasks)


CLUSTERS: list[Here] = []


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> RayWorkers:
    monkeypatch.setattr("hotstart.compilers.workers.errand.set_process_state", lambda _: [])
    monkeypatch.setattr(module, "Cluster", Here)
    monkeypatch.setattr(module, "prepare", lambda: None)
    monkeypatch.setattr(module, "require_ray", lambda: None)
    CLUSTERS.clear()
    return RayWorkers(OPTIONS)


@pytest.fixture
def cluster(workers: RayWorkers, jobs: list[Job]) -> Here:
    """The cluster, which all jobs were handed in to."""
    workers.expect("native", "", jobs)
    (made,) = CLUSTERS
    return made


def never(job: Job) -> Outcome:
    raise AssertionError(job.piece.name)


def found_elsewhere(monkeypatch: pytest.MonkeyPatch, **parts: str) -> None:
    """Have the machines of the cluster differ from this one."""
    here = module.surroundings()
    monkeypatch.setattr(module, "surroundings", lambda: {**here, **parts})


def test_units_come_back(workers: RayWorkers, cluster: Here, jobs: list[Job]) -> None:
    for job in jobs:
        found = workers.outcome(job, never)
        assert found is not None
        assert found.made == OpByOpCompiler().compile(job)
    totals = workers.totals()
    assert totals.processes == 1
    assert totals.seconds > 0
    assert totals.peak_memory_bytes > 0
    workers.close()
    assert cluster.cancelled == []


def test_a_worker_has_one_core_and_does_not_wait_by_spinning(
    workers: RayWorkers, cluster: Here
) -> None:
    assert workers._options.jobs == 1
    assert cluster.environment["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize(
    ("part", "found"), [("torch", "2.12.1"), ("hotstart", "0.1"), ("C++ compiler", "g++ 9")]
)
def test_another_machine_compiles_nothing_and_the_log_says_why_once(
    part: str,
    found: str,
    workers: RayWorkers,
    cluster: Here,
    jobs: list[Job],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    found_elsewhere(monkeypatch, **{part: found})
    assert [workers.outcome(job, never) for job in jobs] == 4 * [None]
    (told,) = (r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
    assert "process 7 on there" in told
    assert f"{part}: expected" in told
    assert f"found {found}" in told
    assert workers.totals().processes == 0


def test_another_processor_compiles_nothing_for_this_one(
    workers: RayWorkers, cluster: Here, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    found_elsewhere(monkeypatch, instructions="sse")
    assert workers.outcome(jobs[0], never) is None


def test_another_processor_compiles_for_a_level(
    workers: RayWorkers, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    workers.expect("native", "", ())
    workers.expect("x86-64-v2", "", jobs)
    found_elsewhere(monkeypatch, instructions=f"{module.surroundings()['instructions']} more")
    assert workers.outcome(jobs[0], never) is not None


def test_the_errand_of_another_version_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "prepare", lambda: None)
    expected = {**module.surroundings(), "hotstart": "9.0"}
    answer = module.answer_of(module.compile_errand(expected, ["native"], b"nothing to unpickle"))
    assert answer.refused.startswith("hotstart: expected 9.0, found")


def test_a_piece_whose_workers_are_lost_each_time_is_an_error(
    workers: RayWorkers, cluster: Here, jobs: list[Job]
) -> None:
    cluster.raises = WorkersLost("out of memory")
    found = workers.outcome(jobs[0], never)
    assert found is not None
    assert found.made is None
    assert "every Ray worker that compiled it was lost" in found.failed
    assert "out of memory" in found.failed


def test_what_the_cluster_does_not_run_compiles_here(
    workers: RayWorkers, cluster: Here, jobs: list[Job], caplog: pytest.LogCaptureFixture
) -> None:
    cluster.raises = NotRun("ModuleNotFoundError: No module named 'hotstart'")
    assert workers.outcome(jobs[0], never) is None
    assert "No module named 'hotstart'" in caplog.text


def test_a_lost_worker_is_told_of(
    workers: RayWorkers, cluster: Here, jobs: list[Job], caplog: pytest.LogCaptureFixture
) -> None:
    cluster.lost = 1
    assert workers.outcome(jobs[0], never) is not None
    assert f"1 Ray worker was lost while compiling {jobs[0].piece.name}" in caplog.text


def test_an_interrupted_build_cancels_all_that_is_left(
    workers: RayWorkers, cluster: Here, jobs: list[Job]
) -> None:
    assert workers.outcome(jobs[0], never) is not None
    cluster.calls[1] = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        workers.outcome(jobs[1], never)
    workers.close()
    assert cluster.cancelled == [job.piece.name for job in jobs[1:]]


def test_other_jobs_of_a_group_replace_those_before(
    workers: RayWorkers, cluster: Here, jobs: list[Job]
) -> None:
    workers.expect("native", "", jobs[2:])
    assert cluster.cancelled == [job.piece.name for job in jobs[:2]]
    assert workers.outcome(jobs[0], never) is None
    assert len(cluster.names) == 4


def test_jobs_of_another_target_stay(workers: RayWorkers, cluster: Here, jobs: list[Job]) -> None:
    workers.expect("x86-64-v3", "", ())
    assert cluster.cancelled == []
    assert workers.outcome(jobs[0], never) is not None


def test_jobs_that_are_not_asked_for_any_more_are_cancelled(
    workers: RayWorkers, cluster: Here
) -> None:
    workers.expect("native", "", ())
    assert len(cluster.cancelled) == 4


def test_one_job_compiles_here(workers: RayWorkers, jobs: list[Job]) -> None:
    workers.expect("native", "", jobs[:1])
    assert CLUSTERS == []
    assert workers.outcome(jobs[0], never) is None


def test_a_large_model_has_workers_import_torch_early(workers: RayWorkers) -> None:
    workers.start_early(nn.Linear(2, 2))
    (cluster,) = CLUSTERS
    assert not cluster.names
    workers.start_early(nn.Sequential(*(nn.Linear(2, 2) for _ in range(20))))
    assert len(cluster.names) == 2
    workers.close()
    assert len(cluster.cancelled) == 2


@needs_ray
def test_jobs_decides_who_compiles() -> None:
    assert isinstance(workers_of(Options(jobs="ray")), RayWorkers)
    assert not workers_of(Options(jobs="ray", tune=True)).takes_jobs


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OptionsError, match=r"expected the package ray, found none\n.*\[ray\]"):
        workers_of(Options(jobs="ray"))


@needs_ray
@pytest.mark.parametrize("connect", [lambda: Cluster({}), lambda: ray_connection().__enter__()])
def test_without_a_cluster_the_error_says_how_to_start_one(
    connect: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    def init(**given: Any) -> None:
        assert given["address"] == "auto"
        raise ConnectionError("Could not find any running Ray instance.\nMore.")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(OptionsError, match=r"found: Could not find any running .*\n.*ray start"):
        connect()
