"""What is known of variables of generated code, from one statement to the next."""

from __future__ import annotations

import ast

import torch

from hotstart.compilers.inductor.variables import FLOAT32, Known, Strided, Variables, reads

CALL = """
def call(args):
    arg0_1, arg1_1, arg2_1, packed = args
    s_0 = arg0_1
    buf0 = empty_strided_cpu((s_0, 8), (8, 1), torch.float32)
    buf1 = reinterpret_tensor(arg1_1, (2, s_0), (s_0, 1), 0)
    buf2 = torch.ops.mkldnn._linear_pointwise.default(buf0, packed, None, 'none', [-1], '')
    buf3 = buf0
    del buf0
    buf3 = torch.ops.aten.something.default(buf2)
"""


def variables(text: str = CALL, until: int | None = None) -> Variables:
    """The variables before a statement, by number, or at the end."""
    call = ast.parse(text).body[0]
    assert isinstance(call, ast.FunctionDef)
    inputs = [3, torch.zeros(3, 4, dtype=torch.bfloat16), torch.zeros(2, 3).t()]
    found = Variables(call, (0, 1, 2), inputs, {0: 2})
    for statement in call.body[:until]:
        found.see(statement)
    return found


def of(text: str, known: Variables) -> Known:
    return known.of(ast.parse(text, mode="eval").body)


def test_arguments_are_known_by_their_examples() -> None:
    known = variables(until=0)
    assert known.arguments == ["arg0_1", "arg1_1", "arg2_1", "packed"]
    assert of("arg0_1", known) == Known(0, least=2)
    assert of("arg1_1", known) == Known(1, "torch.bfloat16", Strided(("3", "4"), ("4", "1")))
    assert of("arg2_1", known) == Known(2, FLOAT32, Strided(("3", "2"), ("1", "3")))
    assert of("packed", known) == Known(3)


def test_sums_and_products_of_sizes_have_a_least_value() -> None:
    known = variables()
    assert of("s_0 * (s_0 + 3)", known).least == 10
    assert of("s_0 - 1", known).least is None
    assert of("s_0 * s_1", known).least is None


def test_tensors_are_known_by_what_makes_them() -> None:
    known = variables(until=5)
    assert of("buf0", known) == Known(None, FLOAT32, Strided(("s_0", "8"), ("8", "1")))
    assert of("buf1", known) == Known(None, "torch.bfloat16", Strided(("2", "s_0"), ("s_0", "1")))
    assert of("buf2", known) == Known(None, FLOAT32)


def test_nothing_is_known_of_a_variable_that_is_deleted_or_gets_an_unknown_value() -> None:
    known = variables(until=6)
    assert of("buf3", known) == of("buf0", known) != Known()
    after = variables()
    assert of("buf3", after) == of("buf0", after) == Known()
    assert after.have({"buf3", "s_0"})
    assert not after.have({"buf0"})


def test_nothing_is_known_of_what_a_statement_of_another_kind_stores() -> None:
    known = variables(CALL + "    for buf2, other in pairs:\n        s_0 = 1\n")
    assert of("buf2", known) == of("other", known) == of("s_0", known) == Known()
    assert known.have({"other"})


def test_behind_branches_is_known_what_all_of_them_make_known() -> None:
    known = variables(
        CALL
        + """
    if s_0 <= 4:
        buf2 = empty_strided_cpu((s_0, 8), (8, 1), torch.float32)
        first = s_0
        del buf1
    else:
        buf2 = torch.ops.mkldnn._linear_pointwise.default(buf2, packed, None, 'none', [-1], '')
"""
    )
    assert of("buf2", known) == Known(None, FLOAT32)
    assert of("s_0", known) == Known(0, least=2)
    assert not known.have({"first"})
    assert not known.have({"buf1"})


def test_reads_are_counted_wherever_they_are() -> None:
    call = ast.parse(CALL).body[0]
    assert isinstance(call, ast.FunctionDef)
    assert (reads(call, "s_0"), reads(call, "buf0"), reads(call, "buf3")) == (3, 2, 0)
