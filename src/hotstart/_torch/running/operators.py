"""Look up what is registered of an operator."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch


def operator_schemas(name: str) -> list[str]:
    """The schemas of an operator's overloads; none if there is no such operator.

    `OpOverloadPacket._schemas` (2.11 to 2.15) says them all.
    """
    namespace, _, short = name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), short, None)
    schemas = {} if packet is None else packet._schemas
    return sorted(str(schema) for schema in schemas.values())


def registering_modules(targets: Iterable[Any]) -> list[str]:
    """The modules of torch's own that register some operators, which `import torch` may leave out.

    `OPDEFS` (2.11 to 2.15) has the function that `custom_op` was given. Such an operator is that of
    `torch.nn.functional.linear_cross_entropy`, which imports its module in its first call.
    """
    from torch._library import custom_ops

    found: dict[str, None] = {}
    for target in targets:
        packet = getattr(target, "overloadpacket", target)
        made = custom_ops.OPDEFS.get(getattr(packet, "_qualified_op_name", ""))
        home = "" if made is None else made._init_fn.__module__
        if home.startswith("torch."):
            found[home] = None
    return list(found)


def operator_code(name: str) -> list[Callable[..., Any]]:
    """The Python of an operator that a compiler runs or compiles; not what computes its results.

    How `torch.library` keeps it (2.11 to 2.15): `OPDEFS` has what `custom_op` and `triton_op` made,
    with the body of the latter, which is compiled; the registry has what `register_fake` was given.
    """
    from torch._library import custom_ops, simple_registry, triton

    made = custom_ops.OPDEFS.get(name)
    if made is not None:
        body = made._init_fn if triton.get_triton_kernels_for_op(name) else None
        return [code for code in (made._abstract_fn, body) if code is not None]
    kernel = simple_registry.singleton.find(name).fake_impl.kernel
    if kernel is None:
        return []
    held = [cell.cell_contents for cell in kernel.func.__closure__ or ()]  # torch wraps it
    return [kernel.func, *(code for code in held if callable(code))]


def is_written_in_python(name: str) -> bool:
    """Tell whether Python code computes an operator, which may do anything besides.

    `torch.library._impls` (2.11 to 2.15) lists what Python has registered: `namespace/name/key`.
    """
    namespace, _, short = name.partition("::")
    keys = [each.rsplit("/", 1) for each in torch.library._impls]
    computes = [key for made, key in keys if made == f"{namespace}/{short}" and key != "Meta"]
    return any(not key.startswith("Autograd") for key in computes)
