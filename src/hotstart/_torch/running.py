"""Give programs that run what they need of torch; write to torch's structured trace."""

from __future__ import annotations

import contextlib
import operator
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import overrides
from torch.overrides import TorchFunctionMode

from hotstart._torch.around import around_operators
from hotstart.dtypes import dtype_of, name_of


class TensorWatch:
    """Notices that a tensor's dtype, device, shape, strides or memory was replaced in place.

    `TensorGuards` is the C++ check that Dynamo's own guards use; it needs no Dynamo. What it
    compares with depends on the inference mode it is made in.
    """

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        from torch._C._dynamo.guards import TensorGuards

        self._tensors = tuple(tensors)
        self._addresses = list(map(torch.Tensor.data_ptr, tensors))
        self._checks: list[Callable[..., bool]] = []
        for inference in (False, True) if tensors else ():
            with torch.inference_mode(inference):
                guards = TensorGuards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None)
                self._checks.append(guards.check)

    def unchanged(self) -> bool:
        """Whether the tensors are as they were."""
        tensors = self._tensors
        if list(map(torch.Tensor.data_ptr, tensors)) != self._addresses:
            return False
        return not tensors or any(check(*tensors) for check in self._checks)


class VersionWatch:
    """Notices that tensors were written to in place.

    Autograd counts that in `_version`. It does not count what is written through `.data`, through
    NumPy or by other processes, nor what is written to a tensor made in inference mode, which has
    no count.

    Attributes:
        tensors: those that are watched.
    """

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        self.tensors = tuple(tensor for tensor in tensors if not tensor.is_inference())
        self._version = operator.attrgetter("_version")
        self._versions = list(map(self._version, self.tensors))

    def unchanged(self) -> bool:
        """Whether nothing was written to any of the tensors."""
        return list(map(self._version, self.tensors)) == self._versions


class MappingWatch:
    """Notices that dicts changed.

    CPython counts the changes of every dict up to 3.11; from 3.12 on torch counts those of the
    dicts it is asked about. Comparing numbers touches less memory than comparing contents.
    """

    def __init__(self, mappings: Sequence[dict[Any, Any]]) -> None:
        from torch._C._dynamo.guards import dict_version

        self._version = dict_version
        self._mappings = tuple(mappings)
        self._versions = list(map(dict_version, mappings))

    def unchanged(self) -> bool:
        """Whether nothing was set in or removed from any of the dicts."""
        return list(map(self._version, self._mappings)) == self._versions

    def changed(self) -> list[dict[Any, Any]]:
        """The dicts in which something was set or removed."""
        versions = zip(self._mappings, self._versions, strict=True)
        return [mapping for mapping, version in versions if self._version(mapping) != version]


def allow_kernels() -> None:
    """Tell kernels where the function is that gets the address of a tensor's data.

    They read it from the environment when they are loaded, so that they need not link torch.
    """
    guards: Any = torch._C._dynamo.guards
    address = guards._torchinductor_pyobject_tensor_data_ptr
    os.environ["_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR"] = str(address)


def reinterpret_tensor() -> Callable[..., torch.Tensor]:
    """The function that Inductor's code makes views with; `as_strided` knows no further offset.

    Private; torch 2.11 to 2.15.
    """
    guards: Any = torch._C._dynamo.guards
    made: Callable[..., torch.Tensor] = guards._reinterpret_tensor
    return made


def tensor_handles() -> Callable[[list[torch.Tensor]], list[Any]]:
    """A function that gives new handles of tensors, which whoever takes them has to delete.

    Private: it is how Inductor's own generated C++ gets tensors from Python. torch 2.11 to 2.15.
    """
    return torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors


def tensors_of_handles() -> Callable[[list[Any]], list[torch.Tensor]]:
    """A function that gives the tensors of handles, which are deleted; see `tensor_handles`."""
    return torch._C._aoti.alloc_tensors_by_stealing_from_void_ptrs


def autocast_check() -> Callable[[], bool]:
    """A function that tells whether any kind of autocast is on, in one C call."""
    return torch._C._is_any_autocast_enabled


def set_grad_enabled() -> Callable[[bool], None]:
    """The C function behind `torch.set_grad_enabled`, which is a class and five times slower."""
    return torch._C._set_grad_enabled


def autocast_state() -> tuple[tuple[str, str], ...]:
    """The device types autocast is on for, with the name of the dtype each casts to."""
    if not torch._C._is_any_autocast_enabled():
        return ()
    return tuple(
        (kind, name_of(torch.get_autocast_dtype(kind)))
        for kind in ("cpu", "cuda", "xpu", "hpu", "xla", "mtia", "ipu", "privateuseone")
        if torch.is_autocast_enabled(kind)
    )


@contextlib.contextmanager
def autocast_regions(state: Iterable[tuple[str, str]]) -> Iterator[None]:
    """Be in the regions of autocast that `autocast_state` told of, and in no others."""
    wanted = dict(state)
    with contextlib.ExitStack() as stack:
        for kind, _ in autocast_state():
            if kind not in wanted:
                stack.enter_context(torch.autocast(kind, enabled=False))
        for kind, dtype in wanted.items():
            stack.enter_context(torch.autocast(kind, dtype_of(dtype)))
        yield


CONFIGS = (
    "torch._dynamo.config",
    "torch._inductor.config",
    "torch._functorch.config",
    "torch.fx.experimental._config",
)
_NO_MATTER = {"cache", "threads", "limit", "log", "logging", "debug", "verbose", "worker"}
"""Settings with these words in their names change how, not what, torch compiles."""


def compile_state() -> dict[str, str]:
    """What decides how torch compiles, and is set for a whole process, by name.

    Configurations (`_config`, 2.11 to 2.15) count by what was set in them; nobody can have set
    anything in one that is not imported.
    """
    found = {
        "default dtype": str(torch.get_default_dtype()),
        "default device": str(torch.get_default_device()),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()),
        "matmul precision": torch.get_float32_matmul_precision(),
        "mkldnn": str(torch.backends.mkldnn.enabled),
        "autocast": str(autocast_state()),
    }
    for module in CONFIGS:
        entries = getattr(sys.modules.get(module), "_config", {})
        for name, entry in entries.items():
            given = entry.user_override
            given = given.get() if isinstance(given, ContextVar) else given  # as it is up to 2.11
            changed = type(given) is not object and given != entry.default
            if changed and _NO_MATTER.isdisjoint(name.replace(".", "_").split("_")):
                found[f"{module}.{name}"] = repr(given)
    return found


def is_compiled(model: Any) -> bool:
    """Whether something is what `torch.compile` made of a module or of a function."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is None:
        return False  # nothing was compiled yet, and importing it takes seconds
    made = hasattr(model, "_torchdynamo_orig_callable")
    disabled = getattr(model, "_torchdynamo_disable", False)
    return isinstance(model, dynamo.OptimizedModule) or (made and not disabled)


def global_hook_dicts() -> dict[str, dict[int, Any]]:
    """Where the hooks are kept that run at every call of any module, by name."""
    from torch.nn.modules import module

    return {
        "_global_forward_hooks": module._global_forward_hooks,
        "_global_forward_pre_hooks": module._global_forward_pre_hooks,
    }


def global_hooks() -> dict[str, dict[int, Any]]:
    """Those of which there are some."""
    return {name: held for name, held in global_hook_dicts().items() if held}


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


def without_assertions() -> contextlib.AbstractContextManager[Any]:
    """Have operators not assert anything about tensors' contents, in this thread."""

    def unasserted(func: Any, args: Any, kwargs: Any) -> Any:
        if getattr(func, "overloadpacket", None) is torch.ops.aten._assert_async:
            return None
        return func(*args, **kwargs)

    return around_operators(unasserted)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Run operators as in a call: without autograd, and outside of the modes this thread is in.

    `_disable_current_modes` (2.11 to 2.15) takes a tracer's modes off for a while. Autocast is
    what it is around; a region that code enters and does not leave, since it raises, is left.
    """
    from torch.utils._python_dispatch import _disable_current_modes

    autocast = torch.autocast(
        "cpu", dtype=torch.get_autocast_dtype("cpu"), enabled=torch.is_autocast_enabled("cpu")
    )
    with torch.no_grad(), _disable_current_modes(), autocast:
        yield


@contextlib.contextmanager
def function_mode(mode: TorchFunctionMode) -> Iterator[None]:
    """Enter a mode that code inside may take off, as Dynamo's bytecode does with all there are.

    `_get_current_function_mode_stack` (2.11 to 2.15) tells whether it was taken off.
    """
    mode.__enter__()
    try:
        yield
    finally:
        if mode in overrides._get_current_function_mode_stack():
            mode.__exit__(None, None, None)


def trace_artifact(name: str, payload: Callable[[], str]) -> None:
    """Add a text to torch's structured trace, where `tlparse` shows it."""
    from torch._logging._internal import trace_structured

    trace_structured(
        "artifact",
        metadata_fn=lambda: {"name": name, "encoding": "string"},
        payload_fn=payload,
        expect_trace_id=False,
    )
