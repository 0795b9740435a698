"""Kernels whose loops let no exception out before they have ended."""

from hotstart._torch.inductor.raising_kernels import raising

KERNEL = """
#include <torch/csrc/inductor/cpp_prefix.h>
extern "C"  void  kernel(const int64_t* in_ptr0,
                       float* out_ptr0)
{
    #pragma omp parallel num_threads(2)
    {
        #pragma omp for collapse(2)
        for(int64_t x0=0; x0<8L; x0+=1)
        {
            for(int64_t x1=0; x1<8L; x1+=1)
            {
                {
                    TORCH_CHECK((0 <= tmp2) & (tmp2 < ks0), "index out of bounds: 0 <= tmp2 < ks0");
                }
            }
        }
    }
    finished = nullptr;
}
"""


def test_what_is_thrown_is_kept_in_the_innermost_shared_loop_and_thrown_at_the_end() -> None:
    written = raising(KERNEL)
    body = written[written.index('extern "C"') :].splitlines()
    assert body[2:4] == ["{", "    Kept kept;"]
    assert body[-3:] == ["    finished = nullptr;", "    kept.rethrow();", "}"]
    turn = [line.strip() for line in body[10:18]]
    assert turn == [
        "{",
        "try {",
        "{",
        "if (!((0 <= tmp2) & (tmp2 < ks0))) throw_out_of_range(ks0);",
        "}",
        "} catch (...) { kept.keep(); }",
        "}",
        "}",
    ]


def test_kernels_that_throw_nothing_stay_as_they_are() -> None:
    source = "\n".join(line for line in KERNEL.splitlines() if "TORCH_CHECK" not in line)
    assert raising(source) == source
