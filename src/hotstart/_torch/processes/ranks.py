"""Groups of processes, as programs find them when they are loaded.

Private name of torch 2.11 to 2.15: `distributed_c10d._resolve_process_group`, which finds a group
by the name that operators take.
"""

from __future__ import annotations

from typing import Any

import torch


def asks_if_initialized(value: Any) -> bool:
    """Tell whether something that was read is `torch.distributed.is_initialized`."""
    return _available() and value is torch.distributed.is_initialized


def is_initialized() -> bool:
    """Tell whether this process takes part in `torch.distributed`."""
    return _available() and torch.distributed.is_initialized()


def has_other_processes() -> bool:
    """Tell whether this process is one of several in `torch.distributed`."""
    return is_initialized() and torch.distributed.get_world_size() > 1


def own_rank() -> tuple[int, int]:
    """The rank of this process, and how many processes there are, where `is_initialized`."""
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _available() -> bool:
    import torch.distributed as dist

    return dist.is_available()


def is_group(value: Any) -> bool:
    """Tell whether something is a group of processes."""
    return _available() and isinstance(value, torch.distributed.ProcessGroup)


def is_mesh(value: Any) -> bool:
    """Tell whether something is a device mesh: groups of processes, one for each dimension."""
    if not _available():
        return False
    from torch.distributed.device_mesh import DeviceMesh

    return isinstance(value, DeviceMesh)


def group_named(name: str) -> Any:
    """The group of a name; None if there is none in this process."""
    if not is_initialized():
        return None
    from torch.distributed import distributed_c10d

    resolve: Any = getattr(distributed_c10d, "_resolve_process_group")  # noqa: B009  not exported
    try:
        return resolve(name)
    except (RuntimeError, ValueError, KeyError):
        return None


def world_group() -> Any:
    """The group of all processes; None where `torch.distributed` is not initialised."""
    return torch.distributed.group.WORLD if is_initialized() else None


def world_place() -> tuple[Any, str]:
    """Find where torch keeps the group of all processes: an object, and an attribute of it."""
    return torch.distributed.group, "WORLD"


def name_of_group(group: Any) -> str:
    """The name by which operators of this process know a group."""
    return str(group.group_name)


def described_group(group: Any) -> str:
    """The description that a group was made with; empty if it has none."""
    description = str(group.group_desc)
    return "" if description == "undefined" else description.removeprefix("mesh_")


def mesh_groups(mesh: Any) -> list[Any]:
    """The groups of a mesh that this process is in, by dimension."""
    return [mesh.get_group(dimension) for dimension in range(mesh.ndim)]


def group_text(value: Any) -> str:
    """Describe a group or a mesh alike in all its processes; `"no group"` for anything else."""
    if is_group(value):
        return f"group of {value.size()}"
    if is_mesh(value):
        return f"mesh {list(value.shape)} {', '.join(value.mesh_dim_names or ())}".rstrip()
    return "no group"
