"""A job that another process compiles: what goes there, and what comes back."""

from __future__ import annotations

import dataclasses
import logging
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import hotstart
from hotstart import Options
from hotstart._torch.processes.process_state import ProcessState, process_state, set_process_state
from hotstart.compilers import Job, OpByOpCompiler
from hotstart.compilers.workers.errand import Errand, answer_of, errand_data, run
from tests.unit.compilers.taken_jobs import taken_jobs

OPTIONS = Options(compiler="op_by_op")


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Job:
    given = (torch.randn(2, 4),)
    job, *_ = taken_jobs(
        monkeypatch,
        lambda: hotstart.compile(nn.Linear(4, 4).eval(), given, options=OPTIONS),
    )
    return job


@pytest.fixture
def state() -> ProcessState:
    found = process_state()
    assert found is not None
    return found


def test_the_unit_comes_back(job: Job, state: ProcessState) -> None:
    answer = answer_of(run(errand_data(job, OPTIONS, state)))
    assert answer.made == OpByOpCompiler().compile(job)
    assert answer.refused == answer.failed == ""
    assert answer.seconds > 0
    assert answer.peak_bytes > 0


def test_an_error_comes_back_as_text(
    job: Job, state: ProcessState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile(self: OpByOpCompiler, job: Job) -> Any:
        raise ValueError("no")

    monkeypatch.setattr(OpByOpCompiler, "compile", compile)
    answer = answer_of(run(errand_data(job, OPTIONS, state)))
    assert answer.made is None
    assert answer.failed == "ValueError: no"
    assert answer.told.startswith("Traceback")


def test_another_compiler_is_refused(job: Job, state: ProcessState) -> None:
    answer = answer_of(run(errand_data(job, Options(), state)))
    assert answer.made is None
    assert "its key is" in answer.refused


def test_bytes_that_mean_nothing_are_refused() -> None:
    assert "UnpicklingError" in answer_of(run(b"nothing")).refused


def test_a_setting_that_is_no_data_is_refused(job: Job, state: ProcessState) -> None:
    options = Options(compiler="op_by_op", inductor={"post_grad_custom_pre_pass": lambda graph: 0})
    with pytest.raises(Exception, match="pickle"):
        errand_data(job, options, state)


def test_listeners_and_folders_stay_behind(job: Job, state: ProcessState) -> None:
    options = Options(compiler="op_by_op", on_event=lambda event: None, debug_dir="somewhere")
    errand: Errand = pickle.loads(errand_data(job, options, state))
    assert errand.options.on_event is None
    assert errand.options.debug_dir is None


def test_logs_and_warnings_are_repeated_once(
    job: Job,
    state: ProcessState,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    compiles = OpByOpCompiler.compile

    def compile(self: OpByOpCompiler, job: Job) -> Any:
        logging.getLogger("hotstart.somewhere").warning("%d things", 2)
        warnings.warn("odd", FutureWarning, stacklevel=1)
        return compiles(self, job)

    monkeypatch.setattr(OpByOpCompiler, "compile", compile)
    answer = answer_of(run(errand_data(job, OPTIONS, state)))
    assert hotstarts(caplog) == []
    with pytest.warns(FutureWarning, match="odd") as warned:
        answer.repeat()
    assert len(warned) == 1
    assert warned[0].filename == __file__
    (record,) = hotstarts(caplog)
    assert (record.name, record.getMessage()) == ("hotstart.somewhere", "2 things")


def hotstarts(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Records of hotstart's; torch has a log of its own, which is structured."""
    return [record for record in caplog.records if record.name.startswith("hotstart")]


# --- the state of the process ---------------------------------------------------------------------


def test_a_state_says_what_was_set_in_configurations() -> None:
    from torch._inductor import config

    with config.patch({"cpp.simdlen": 256}):
        state = process_state()
    assert state is not None
    assert state.settings["torch._inductor.config"]["cpp.simdlen"] == 256


def test_a_state_is_set_whole(state: ProcessState) -> None:
    from torch._inductor import config

    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    try:
        torch.set_num_threads(threads + 1)
        torch.set_default_dtype(torch.float64)
        config.cpp.simdlen = 256
        assert set_process_state(state) == []
        assert torch.get_num_threads() == threads
        assert torch.get_default_dtype() == dtype
        assert config.cpp.simdlen is None
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        config.cpp.simdlen = None


def test_a_state_is_set_where_the_flags_of_backends_are_frozen(
    state: ProcessState, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as importing `torch.testing._internal.common_utils` does for the rest of a process
    monkeypatch.setattr(torch.backends, "__allow_nonbracketed_mutation_flag", False)
    off = dataclasses.replace(state, described={**state.described, "mkldnn": "False"}, mkldnn=False)
    try:
        assert set_process_state(off) == []
        assert not torch.backends.mkldnn.enabled
    finally:
        assert set_process_state(state) == []
    assert torch.backends.mkldnn.enabled


def test_what_cannot_be_set_is_named(state: ProcessState) -> None:
    config = "torch._inductor.config.post_grad_custom_pre_pass"
    other = dataclasses.replace(state, described={**state.described, config: "<a function>"})
    assert set_process_state(other) == [config]


@pytest.mark.parametrize("mode", [torch.device("meta"), torch.autocast("cpu")])
def test_a_mode_has_no_state(mode: Any) -> None:
    with mode:
        assert process_state() is None
