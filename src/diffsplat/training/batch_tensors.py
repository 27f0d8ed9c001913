"""Moving batches of any type to a device, and counting their samples."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor


def to_device(batch: Any, device: torch.device) -> Any:
    """Move every tensor of a batch of tensors, containers and dataclasses."""
    if device.type == "cpu":
        return batch
    if hasattr(batch, "to"):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    if is_dataclass(batch) and not isinstance(batch, type):
        moved = {f.name: to_device(getattr(batch, f.name), device) for f in fields(batch)}
        return replace(batch, **moved)
    return batch


def batch_size(batch: Any) -> int:
    """Length of the first dimension of the first tensor in a batch; 1 when there is none."""
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.ndim else 1
    if is_dataclass(batch) and not isinstance(batch, type):
        return batch_size([getattr(batch, f.name) for f in fields(batch)])
    parts = list(batch.values()) if isinstance(batch, Mapping) else batch
    if isinstance(parts, list | tuple):
        for part in parts:
            if isinstance(part, Tensor | Mapping | list | tuple) or is_dataclass(part):
                return batch_size(part)
    return 1
