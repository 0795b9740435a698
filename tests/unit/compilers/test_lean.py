"""The generated module is reduced to the one function that runs."""

from __future__ import annotations

from textwrap import dedent

import pytest
import torch

from hotstart.compilers.inductor.lean import NotLean, reduce

GENERATED = dedent(
    """
    from ctypes import c_void_p
    import torch
    import os
    from math import inf, nan
    from torch import device, empty_strided
    from torch._inductor.async_compile import AsyncCompile
    from torch._inductor.select_algorithm import extern_kernels

    aten = torch.ops.aten
    empty_strided_cpu = torch._C._dynamo.guards._empty_strided_cpu
    async_compile = AsyncCompile()
    cpp_fused_0 = async_compile.cpp_pybinding(['float*'], 'source')
    async_compile.wait(globals())
    del async_compile

    class Runner:
        def __init__(self, partitions):
            self.partitions = partitions

        def call(self, args):
            arg0_1, arg1_1 = args
            args.clear()
            buf0 = empty_strided_cpu((2, 2), (2, 1), torch.float32)
            extern_kernels.mm(arg0_1, arg1_1, out=buf0)
            cpp_fused_0(buf0)
            return (buf0, inf, arg0_1)

    runner = Runner(partitions=[])
    call = runner.call

    def get_args():
        from torch._dynamo.testing import rand_strided
        return []
    """
)


def test_only_what_the_function_mentions_is_kept() -> None:
    made = reduce(GENERATED, ["cpp_fused_0", "cpp_fused_1"], [], outputs=2)
    assert made.source == dedent(
        """\
        import torch
        from math import inf
        empty_strided_cpu = torch._C._dynamo.guards._empty_strided_cpu

        def bind():

            def call(args):
                arg0_1, arg1_1 = args
                args.clear()
                buf0 = empty_strided_cpu((2, 2), (2, 1), torch.float32)
                torch.mm(arg0_1, arg1_1, out=buf0)
                cpp_fused_0(buf0)
                return (buf0, inf)
            return call
        """
    )
    assert made.kernels == ("cpp_fused_0",)


def test_what_is_kept_runs_without_the_rest() -> None:
    made = reduce(GENERATED, ["cpp_fused_0"], [], outputs=3)
    scope: dict[str, object] = {"cpp_fused_0": lambda out: out.mul_(2)}
    exec(made.source, scope)
    left = torch.eye(2)
    bind = scope["bind"]
    assert callable(bind)
    result = bind()([left, torch.ones(2, 2)])
    assert torch.equal(result[0], torch.full((2, 2), 2.0))
    assert result[2] is left


def test_tensor_constants_are_told() -> None:
    source = GENERATED.replace("(buf0, inf, arg0_1)", "(buf0, _tensor_constant0, arg0_1)")
    made = reduce(source, ["cpp_fused_0"], ["_tensor_constant0"], outputs=2)
    assert made.constants == ("_tensor_constant0",)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("torch._inductor.runtime.do(buf0)", "calls torch._inductor"),
        ("extern_kernels.bias_addmm(buf0)", "extern_kernels.bias_addmm"),
        ("run_intermediate_hooks('buf0', buf0)", "mentions run_intermediate_hooks"),
        ("self.partitions[0](buf0)", "mentions self"),
    ],
)
def test_what_only_inductor_provides_is_refused(line: str, reason: str) -> None:
    with pytest.raises(NotLean, match=reason):
        reduce(GENERATED.replace("cpp_fused_0(buf0)", line), ["cpp_fused_0"], [], outputs=2)


def with_lines(*lines: str) -> str:
    source = GENERATED.replace("async_compile = ", "assert_size_stride = print\nasync_compile = ")
    source = source.replace("async_compile = ", "reinterpret_tensor = print\nasync_compile = ", 1)
    return source.replace("cpp_fused_0(buf0)\n", "\n        ".join(lines) + "\n")


def test_checks_of_arguments_are_left_out_and_others_kept() -> None:
    source = with_lines(
        "assert_size_stride(arg0_1, (2, 2), (2, 1))",
        "assert_size_stride(arg1_1, (2, 2), (2, 1))",
        "assert_size_stride(buf0, (2, 2), (2, 1))",
    )
    made = reduce(source, [], [], outputs=2, weights=[1])
    assert "arg0_1, (2, 2)" not in made.source
    assert "arg1_1, (2, 2)" not in made.source
    assert "assert_size_stride(buf0, (2, 2), (2, 1))" in made.source


def test_checks_of_several_arguments_are_left_out() -> None:
    source = with_lines("assert_size_stride_grouped((arg0_1, arg1_1), ((2, 2), (2, 2)), 'input')")
    made = reduce(source, [], [], outputs=2)
    assert "assert_size_stride_grouped" not in made.source


def test_the_check_of_what_an_operator_returned_comes_along() -> None:
    source = (
        "from torch._inductor.runtime.runtime_utils import assert_tensor_metadata\n"
        + with_lines(
            "price = torch.clone(buf0)",
            "assert_tensor_metadata(price, (2, 2), (2, 1), torch.float64, 'torch.ops.shop.price')",
        )
    )
    made = reduce(source, [], [], outputs=3)
    scope: dict[str, object] = {}
    exec(made.source, scope)
    bind = scope["bind"]
    assert callable(bind)
    with pytest.raises(RuntimeError, match=r"shop\.price returned torch\.float32.*float64"):
        bind()([torch.eye(2), torch.ones(2, 2)])


@pytest.mark.parametrize(
    "check",
    [
        "assert_size_stride(made, (2, 2), (2, 1), 'torch.ops.mkldnn._linear_pointwise.default')",
        "assert_alignment(made, 16, 'functools.partial(<function at 0x7f>)')",
        "assert_tensor_metadata(made, (2, 2), (2, 1), torch.float32, 'partial at 0x7f')",
    ],
)
def test_what_was_allocated_as_it_has_to_be_is_not_checked(check: str) -> None:
    allocated = "fresh = empty_strided_cpu((2, 2), (2, 1), torch.float32)"
    made = reduce(with_lines(allocated, "made = fresh", check), [], [], outputs=2)
    assert check.partition("(")[0] + "(made" not in made.source


def test_weights_and_views_of_them_are_bound_once() -> None:
    source = with_lines(
        "s2 = 2",
        "view(reinterpret_tensor(arg1_1, (4,), (1,), 0))",
        "view(reinterpret_tensor(arg1_1, (4,), (1,), 0))",
        "view(reinterpret_tensor(arg1_1, (s2, 2), (2, 1), 0))",
        "view(reinterpret_tensor(arg0_1, (4,), (1,), 0))",
        "del arg0_1, arg1_1",
        "del arg1_1",
    ).replace("async_compile = ", "view = print\nasync_compile = ", 1)
    made = reduce(source, [], [], outputs=1, weights=[1])
    assert made.source.partition("def bind")[2] == dedent(
        """\
        (arg1_1):
            view_1 = reinterpret_tensor(arg1_1, (4,), (1,), 0)

            def call(args):
                arg0_1, = args
                args.clear()
                buf0 = empty_strided_cpu((2, 2), (2, 1), torch.float32)
                torch.mm(arg0_1, arg1_1, out=buf0)
                s2 = 2
                view(view_1)
                view(view_1)
                view(reinterpret_tensor(arg1_1, (s2, 2), (2, 1), 0))
                view(reinterpret_tensor(arg0_1, (4,), (1,), 0))
                del arg0_1
                return (buf0,)
            return call
        """
    )


def test_a_unit_of_weights_alone_takes_nothing_apart() -> None:
    made = reduce(GENERATED, ["cpp_fused_0"], [], outputs=1, weights=[0, 1])
    assert "def bind(arg0_1, arg1_1):" in made.source
    assert "= args" not in made.source


def test_code_that_reuses_the_name_of_a_weight_is_refused() -> None:
    with pytest.raises(NotLean, match="name of a weight"):
        reduce(with_lines("arg1_1 = buf0"), [], [], outputs=1, weights=[1])
    reduce(with_lines("arg1_1 = buf0"), [], [], outputs=1, weights=[0])


def test_a_module_without_the_function_is_refused() -> None:
    with pytest.raises(NotLean, match="call"):
        reduce("import torch\n", [], [], outputs=1)
