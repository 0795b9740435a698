"""What is changed of Inductor's C++ GEMM template is there in this version of torch."""

from types import SimpleNamespace

import pytest
import torch
from torch._inductor import lowering  # noqa: F401  the others can only be imported after it

from torch._inductor.codegen import cpp_gemm_template  # isort: skip
from torch._inductor.codegen.cpp_micro_gemm import CppMicroGemmFP32Vec  # isort: skip
from torch._inductor.utils import parallel_num_threads  # isort: skip

from hotstart._torch.inductor.faster_gemm import faster_gemm
from hotstart._torch.packing.linears import NoTemplate, Templates, linears_by_template
from tests.versions import has_template


def kernel_text() -> str:
    blocking = cpp_gemm_template.GemmBlocking(4, 24, 1)
    dtypes = [torch.float32] * 4
    gemm = CppMicroGemmFP32Vec("gemm", *dtypes, blocking)
    kernel = SimpleNamespace(assert_function="TORCH_CHECK")
    return gemm.codegen_define(kernel)  # type: ignore[arg-type]


def test_columns_are_held_in_registers_only_meanwhile() -> None:
    before = kernel_text()
    with faster_gemm():
        assert kernel_text().count("asm(") == 1
    assert kernel_text() == before
    assert "asm(" not in before


@has_template
def test_work_is_shared_out_in_more_parts_than_threads_only_meanwhile() -> None:
    before = cpp_gemm_template.GEMM_TEMPLATE
    with faster_gemm():
        text = cpp_gemm_template.GEMM_TEMPLATE
        assert "schedule(static" not in text
        assert "omp parallel num_threads" not in text
        parts = cpp_gemm_template.parallel_num_threads()  # type: ignore[attr-defined]
        assert parts > parallel_num_threads()
    assert before == cpp_gemm_template.GEMM_TEMPLATE
    assert "schedule(static" in before


@has_template
def test_threads_that_go_by_their_own_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    text = cpp_gemm_template.GEMM_TEMPLATE.replace("#pragma omp for", "#pragma")  # as in 2.11
    monkeypatch.setattr(cpp_gemm_template, "GEMM_TEMPLATE", text)
    with pytest.raises(NoTemplate, match="getting all the threads"):
        linears_by_template(Templates()).__enter__()
