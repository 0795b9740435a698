"""Read why Dynamo gave up from its errors."""

from __future__ import annotations

import re

from hotstart._torch.graphs.source_lines import user_line


def describe_failure(error: BaseException) -> tuple[str, str, str] | None:
    """Read why Dynamo gave up; None if an error is not one of Dynamo's.

    Returns:
        The user's file, line and source it happened at; what Dynamo met, in a sentence or two; what
        it suggests to change. The first and the last may be empty.
    """
    from torch._dynamo import exc
    from torch.fx.experimental.symbolic_shapes import (
        ConstraintViolationError,
        GuardOnDataDependentSymNode,
        PendingUnbackedSymbolNotFound,
    )

    known = (
        exc.TorchDynamoException,
        ConstraintViolationError,
        GuardOnDataDependentSymNode,
        PendingUnbackedSymbolNotFound,
    )
    if not isinstance(error, known):
        return None
    line = user_line(list(getattr(error, "real_stack", None) or ()))
    return line, *describe_reason(str(error))


def asks_contents(error: BaseException) -> bool:
    """Tell whether Dynamo gave up since Python asks what a tensor holds, as a branch does."""
    return _of_data(str(error)) is not None


def describe_reason(text: str) -> tuple[str, str]:
    """Read a message of Dynamo's, or the reason that it gives for ending a graph.

    Returns:
        What it met, in a sentence or two, and what it suggests to change, which may be empty.
    """
    reason, advice = _of_data(text) or _brief(text)
    for pattern, instead, to_do in _KNOWN:
        if found := re.search(pattern, reason):
            return (found.expand(instead) if instead else reason), to_do
    return reason, advice


_KNOWN: tuple[tuple[str, str, str], ...] = (
    # Libraries set up things once, such as transformers' hooks, under a lock.
    (
        r"`lock` context manager",
        "",
        "call the model once before, if it takes the lock in its first call only",
    ),
    (
        r"builtin `torch\.\S*sparse\w*tensor",
        "forward makes a sparse tensor, which Dynamo does not trace",
        "add up rows by index: result.index_add_(0, rows, weights[:, None] * x[columns])",
    ),
    (
        r"^Observed exception",
        "forward raises an error there, and nothing catches it",
        "call the model with inputs like those of the example to see the error",
    ),
    (
        r"logging\.Logger method",
        "forward asks a logger, which is no part of a graph",
        "log outside of forward, or leave it out where torch.compiler.is_compiling()",
    ),
    (
        r"the builtin `time\.(\w+)",
        r"forward asks for the time (time.\1), which is no part of a graph",
        "measure calls outside of forward, or leave it out where torch.compiler.is_compiling()",
    ),
    (
        r"using `torch\.autograd\.grad`",
        "forward asks torch.autograd.grad for gradients of tensors that it requires none of",
        "call x.requires_grad_() on them in forward; or torch.func.grad of a function",
    ),
    (
        r"Tensor\.backward\(\)",
        "forward calls backward(), which leaves gradients with tensors",
        "torch.autograd.grad, which returns them; or torch.func.grad of a function",
    ),
    (
        r"tolist\(\)",
        "tolist() of a tensor whose size differs from call to call, or of complex numbers",
        "return the tensor and call tolist() outside, or take a fixed number of elements",
    ),
    (
        r"does not support sparse Tensors",
        "",
        "use .to_dense(), or the tensors it is made of",
    ),
    (
        r"graph break should occur when calling `L\['(\w+)'\]\.(\w+)_`",
        r"`\2_` changes the shape or strides of the argument \1, not only what it holds",
        "use the operator without the underscore, and its result",
    ),
    (
        r"\b__build_class__\b",
        "forward defines a class",
        "define it outside of forward, and call it there",
    ),
    (
        r"Operator `aten\.linalg_lstsq\.",
        "the shapes that torch.linalg.lstsq gives follow from the rank of a matrix, too",
        "torch.linalg.pinv(a) @ b, or torch.linalg.qr and solve_triangular",
    ),
    (
        r"Operator `(aten\.\w+)\.\w+` does not have a meta kernel",
        r"torch does not know the shapes that `\1` gives without calling it",
        "call it on what the program returns, outside of forward",
    ),
)
"""Patterns of Dynamo's reasons, each with a reason in place of it (empty: as it is) and advice."""


def _of_data(text: str) -> tuple[str, str] | None:
    """Read what was asked of a number or a tensor whose contents are not known; None if nothing."""
    if re.match(r"\s*(?:Data-dependent branching|generic_jump )", text):
        asked = "a branch depends on the contents of a tensor"
    elif found := re.search(r"Could not guard on data-dependent expression (.+?) \(unhinted", text):
        if not re.search(r"[<>=]|Eq|Ne|And|Or|Not", found[1]):
            return (
                f"torch needs a plain number, and {found[1]} depends on the contents of a tensor",
                "compute with tensors in place of that number; momentum=None of a BatchNorm takes "
                "one in training mode: give it a number, or call eval()",
            )
        asked = f"a branch depends on the contents of a tensor: on {found[1]}"
    elif re.search(r"Could not extract specialized integer from data-dependent", text):
        return (
            "Python needs a number that depends on the contents of a tensor, as range() does",
            "loop over a fixed number, or with torch.while_loop; make lists of parts outside",
        )
    else:
        return None
    return asked, (
        "torch.cond with both branches, or torch.where; where one is always taken, say so before "
        "with torch._check; where it ends a loop, do all rounds, or compile one and loop outside"
    )


def _brief(text: str) -> tuple[str, str]:
    """Take what happened and what to do out of one of Dynamo's messages.

    They start with what happened, then give `Explanation:` and `Hint:` lines, a debug context,
    links, the stack, and how to see more of it.
    """
    text = re.split(
        r"\n\s*(?:Developer debug context|For more details|from user code|Set TORCH)", text
    )[0]
    what, *hints = re.split(r"\n\s*Hint: ", text)
    happened, _, explanation = what.partition("Explanation:")
    sentences = [_first_sentence(happened), _first_sentence(explanation)]
    useful = [
        _first_sentence(hint)
        for hint in hints
        if not hint.startswith(
            (
                "Please report",
                "This graph break is fundamental",
                "It may be possible",
                "If it is a Python builtin",
                "Your code may result in an error",
            )
        )
        and "torch._dynamo.config" not in hint
    ]
    return ": ".join(filter(None, sentences)), useful[0] if useful else ""


def _first_sentence(text: str) -> str:
    plain = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<!e\.g)(?<!i\.e)\. ", plain)[0].removesuffix(".")
