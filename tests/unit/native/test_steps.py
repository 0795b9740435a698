"""Statements of generated Python in C++: what is written for each, and what is refused."""

from __future__ import annotations

import ast
import ctypes
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hotstart
from hotstart._torch.native.c_shims import compile_command
from hotstart.native.operands import Callee, Surroundings
from hotstart.native.operators import NotNative
from hotstart.native.steps import Steps


def steps(**more: Any) -> Steps:
    around = {
        "kernels": {"cpp_fused_0": 4},
        "operators": {"mm": "torch.ops.aten.mm.default"},
        "bound": frozenset({"weight"}),
        "pieces": {"piece": Callee(results=2, written=frozenset({1}))},
        "declare": lambda line: None,
    }
    made = Steps(Surroundings(**{**around, **more}))
    made.given_number("s_0", "n[0]")
    made.given_tensor("x", "a[0]", 0)
    made.given_tensor("y", "a[1]", 1)
    return made


def written(source: str, **more: Any) -> list[str]:
    made = steps(**more)
    for statement in ast.parse(source).body:
        made.statement(statement)
    return made.lines


def test_a_buffer_is_allocated_and_freed_after_its_last_name() -> None:
    lines = written(
        "buf0 = empty_strided_cpu((s_0, 4), (4, 1), torch.float32)\nbuf1 = buf0\ndel buf0\ndel buf1"
    )
    assert lines == [
        "Tensor v1 = empty({n[0], 4}, {4, 1}, aoti_torch_dtype_float32());",
        "v1.reset();",
    ]


def test_a_kernel_is_called_by_its_number_with_addresses_and_sizes() -> None:
    lines = written("cpp_fused_0(x, weight, reinterpret_tensor(y, (2,), (1,), s_0), s_0)")
    assert lines == [
        "{",
        "  Tensor v1 = viewed(a[1].get(), {2}, {1}, n[0]);",
        "  reinterpret_cast<void (*)(void*, void*, void*, int64_t)>(kernels[4])"
        "(data(a[0].get()), data(b.tensor(0)), data(v1.get()), n[0]);",
        "}",
    ]


def test_an_operator_is_called_by_its_c_function() -> None:
    declared: list[str] = []
    lines = written("buf0 = torch.ops.aten.cumsum.default(x, dim=-1)", declare=declared.append)
    assert lines[0] == "Tensor v1;"
    assert "aoti_torch_cpu_cumsum(a[0].get(), (-1), nullptr, v1.result())" in lines[2]
    assert any(
        "Status aoti_torch_cpu_cumsum(Handle, int64_t, int32_t*, Handle*)" in d for d in declared
    )


def test_an_operator_without_a_c_function_goes_through_the_dispatcher() -> None:
    lines = written("buf0 = torch.ops.aten.view.default(x, [s_0, 2])")
    text = "\n".join(lines)
    assert "row[0] = shared(a[0].get());" in text
    assert "row[1] = listed({static_cast<uint64_t>(n[0]), static_cast<uint64_t>(2)});" in text
    assert 'torch_call_dispatcher("aten::view", ""' in text


def test_a_choice_by_sizes_defines_one_variable() -> None:
    lines = written(
        "if s_0 <= 4:\n"
        "    buf0 = empty_strided_cpu((s_0, 4), (4, 1), torch.float32)\n"
        "    cpp_fused_0(x, buf0)\n"
        "else:\n"
        "    buf0 = empty_strided_cpu((s_0, 8), (8, 1), torch.float32)\n"
        "del x\n"
        "del buf0"
    )
    assert lines == [
        "Tensor v1;",
        "if ((n[0] <= 4)) {",
        "  Tensor v2 = empty({n[0], 4}, {4, 1}, aoti_torch_dtype_float32());",
        "  {",
        "    reinterpret_cast<void (*)(void*, void*)>(kernels[4])"
        "(data(a[0].get()), data(v2.get()));",
        "  }",
        "  v1 = std::move(v2);",
        "} else {",
        "  Tensor v3 = empty({n[0], 8}, {8, 1}, aoti_torch_dtype_float32());",
        "  v1 = std::move(v3);",
        "}",
        "a[0].reset();",
        "v1.reset();",
    ]


def test_arguments_by_a_name_that_python_has_are_passed() -> None:
    by_name = written('z = torch.ops.aten.uniform.default(y, **{"from": 2.0, "to": 3.0})')
    assert by_name == written("z = torch.ops.aten.uniform.default(y, 2.0, 3.0)")


def test_arguments_that_are_not_written_out_have_no_native_form() -> None:
    with pytest.raises(NotNative, match="not written out"):
        written("z = torch.ops.aten.uniform.default(y, **more)")


def test_a_choice_by_sizes_may_write_to_what_is_there() -> None:
    lines = written("if s_0 < 2:\n    cpp_fused_0(x, y)\nelse:\n    cpp_fused_0(y, x)")
    assert [line for line in lines if not line.startswith("  ")] == [
        "if ((n[0] < 2)) {",
        "} else {",
        "}",
    ]


def test_a_piece_gets_what_dies_with_it_and_is_lent_the_rest() -> None:
    lines = written("args = [s_0, x, y]\ndel x\n(one, two) = piece(args)")
    assert "  const int64_t sizes[] = {n[0]};" in lines
    assert "  Tensor given[] = {std::move(a[0]), Tensor(a[1].get(), false)};" in lines
    assert "  b.others[0]->run(sizes, given, made);" in lines


def test_what_a_piece_writes_to_is_known() -> None:
    made = steps()
    source = "z = y.detach().as_strided((2,), (1,))\nargs = [x, z]\n(one, two) = piece(args)"
    for statement in ast.parse(source).body:
        made.statement(statement)
    assert made.written_numbers() == [1], "a view writes to its base"


def test_an_operator_that_writes_is_known_to() -> None:
    made = steps()
    made.statement(ast.parse("torch.ops.aten.fill_.Scalar(weight, 2)").body[0])
    made.statement(ast.parse("z = torch.ops.aten.copy_.default(y, x)").body[0])
    assert made.written_names() == ["weight"]
    assert made.written_numbers() == [1]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "z = x.item()",
            "`z = x.item()`: x.item is Python, and C++ calls operators of torch.ops only",
        ),
        ("z = unknown(x)", "unknown is Python, and"),
        ("z = q", "C++ has no value for q"),
        ("while s_0: pass", "such a statement has no form in C++"),
        ("z = s_0 / 2", "Div of sizes"),
        ("z = torch.ops.aten.view.dtype(x, torch.float32)", None),
        ("z = torch.ops.aten.sum.dim_IntList(x, [0], dtype=None)", None),
        ("z = torch.ops.aten.item.default(x)", "returns number"),
        ("z = torch.ops.aten.add.Tensor(x, y, alpha=x)", "x is not a number made of sizes"),
        ("(a, b, c) = piece(args)", "piece is not a piece"),
        ("module.count = x", "such a statement has no form in C++"),
        ("if s_0 < 2:\n    z = s_0\nelse:\n    q = s_0", "depends on sizes"),
        ("if s_0 < 2:\n    del x\nelse:\n    del y", "more than to define a variable"),
        ("if s_0 < 2:\n    x = y\nelse:\n    x = y", "more than to define a variable"),
        ("if s_0 < 2:\n    z = y\nelse:\n    z = y", "more than a tensor"),
        ("if s_0 < 2:\n    z = s_0\nelse:\n    z = y", "more than a tensor"),
    ],
)
def test_what_is_no_step_is_refused_with_its_line(source: str, reason: str | None) -> None:
    if reason is None:
        assert written(source)
        return
    made = steps()
    with pytest.raises(NotNative) as refused:
        made.statement(ast.parse(source).body[0])
    assert reason in str(refused.value)
    assert str(refused.value).startswith("`")
    assert made.lines == [], "nothing is half written"


NUMBERS = st.recursive(
    st.one_of(st.integers(-9, 9).map(str), st.just("s_0"), st.just("s_1")),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "//", "%"]), inner).map(
            lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
        ),
        st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(
            lambda parts: f"{parts[0]}({parts[1]}, {parts[2]})"
        ),
        inner.map(lambda part: f"(-{part})"),
        inner.map(lambda part: f"{part}**2"),
    ),
    max_leaves=6,
)


@settings(max_examples=1, deadline=None)
@given(
    st.lists(NUMBERS, min_size=60, max_size=60),
    st.lists(st.integers(0, 50), min_size=2, max_size=2),
)
def test_sizes_are_computed_as_python_does(
    tmp_path_factory: pytest.TempPathFactory, expressions: list[str], sizes: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("sizes")
    names = {"s_0": sizes[0], "s_1": sizes[1]}
    made = steps()
    expected: list[tuple[str, int | None]] = []
    made.given_number("s_1", "n[1]")
    cases = []
    for expression in expressions:
        try:
            value = eval(expression, {}, names)
        except ZeroDivisionError:
            value = None
        if value is None or abs(value) < 1 << 40:
            expected.append((expression, value))
            cases.append(made.number(ast.parse(expression, mode="eval").body))
    parts = Path(hotstart.__file__).parent / "native"
    prelude = "\n".join((parts / name).read_text() for name in ("interface.h", "program.cpp"))
    body = "\n".join(f"    case {n}: return {case};" for n, case in enumerate(cases))
    (folder / "sizes.cpp").write_text(
        f"{prelude}\n"
        'extern "C" bool compute(int which, const int64_t* n, int64_t* result) {\n'
        "  try { *result = [&]() -> int64_t { switch (which) {\n"
        f"{body}\n    }} return 0; }}(); return true; }}\n"
        "  catch (const Failure&) { return false; }\n}\n"
    )
    command = compile_command(folder / "sizes.cpp", folder / "sizes.so")
    subprocess.run([*command, "-fvisibility=default"], check=True)
    compute = ctypes.CDLL(str(folder / "sizes.so")).compute
    given_sizes, result = (ctypes.c_int64 * 2)(*sizes), ctypes.c_int64()
    for number, (expression, value) in enumerate(expected):
        right = compute(number, given_sizes, ctypes.byref(result))
        assert (result.value if right & 1 else None) == value, expression


def test_scalars_of_a_linear_are_doubles_where_attention_gave_its_memory() -> None:
    """Attention gives floating-point numbers, of which an integer is as good a factor as a real."""
    source = """
attended = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default(x, x, x, scale=1.0)
first = attended[0]
out = reinterpret_tensor(first, (4, 8), (8, 1), 0)
torch.addmm(weight, y, weight, alpha=1, beta=1, out=out)
"""
    assert any("addmm_out" in line for line in written(source))
    unknown = source.replace("first", "x").replace("x = attended[0]", "")
    with pytest.raises(NotNative, match="takes 1 as number"):
        written(unknown)
