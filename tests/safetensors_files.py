"""Bytes of files in the format of safetensors."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hotstart.checkpoint.safetensors import DTYPES

NAMES = {name: dtype for dtype, name in DTYPES.items()}


def written(header: Any, data: bytes = b"", pad: int = 0) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode() + b" " * pad
    return struct.pack("<Q", len(text)) + text + data


def bytes_of(tensor: Tensor) -> bytes:
    flat = tensor.contiguous().view(-1)
    return bytes(flat.view(torch.uint8).tolist()) if flat.numel() else b""


def file_of(tensors: Mapping[str, Tensor], pad: int = 0) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, tensor in tensors.items():
        more = bytes_of(tensor)
        dtype = NAMES[str(tensor.dtype).removeprefix("torch.")]
        offsets = [len(data), len(data) + len(more)]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        data += more
    return written(header, data, pad)
