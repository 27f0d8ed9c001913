"""Networks whose weights are split over the processes of a run (FSDP, Zhao et al. 2023), and whole ones for files."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn


def shard(network: nn.Module, device: torch.device, processes: int) -> None:
    """Split the parameters of a network, in place; a block's are gathered while it computes.

    The network must be called as a whole. The members of its lists are its blocks.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes,))
    for blocks in network.children():
        for block in blocks if isinstance(blocks, nn.ModuleList) else ():
            fully_shard(block, mesh=mesh)
    # By default the outermost weights stay gathered until a backward pass, which an evaluation has not.
    fully_shard(network, mesh=mesh, reshard_after_forward=True)


def whole(tensor: Tensor) -> Tensor:
    """A split tensor put together, to be asked for by all processes; any other as it is."""
    return cast(Any, tensor).full_tensor() if _is_split(tensor) else tensor


def own_part(tensor: Tensor) -> Tensor:
    """This process' part of a split tensor, in the same memory; any other as it is."""
    return cast(Any, tensor).to_local() if _is_split(tensor) else tensor


@torch.no_grad()
def whole_tensors(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Split tensors put together, one after another, on the CPU of the processes that keep them.

    All processes call it.
    """
    kept: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        together = whole(tensor)
        if keep:
            kept[name] = together.cpu() if _is_split(tensor) else tensor
    return kept


def split_like(tensor: Tensor, other: Tensor | None) -> Tensor:
    """This process' part of a whole tensor, split as another one of the same shape is."""
    if other is None or not _is_split(other) or tensor.shape != other.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = cast(Any, other).device_mesh, cast(Any, other).placements
    return distribute_tensor(tensor.to(other.device, other.dtype), mesh, placements, src_data_rank=None)


def _is_split(tensor: Tensor) -> bool:
    """Whether it is a ``DTensor``, whose class takes a second to import."""
    return hasattr(tensor, "full_tensor")


@contextmanager
def as_unsharded(network: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """A split network looks like the one it was made of, with whole weights, to what writes it to a file."""
    kind = type(network)
    network.__class__ = kind.__bases__[1]  # FSDP puts a class of its own in front
    network.state_dict = lambda *_, **__: dict(weights)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        del network.state_dict
        network.__class__ = kind
