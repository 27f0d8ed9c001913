"""Devices: where a pipeline's networks compute, and where they are kept while they are not in use."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from diffsplat.errors import InvalidInputError
from diffsplat.pipelines.pipeline_interfaces import Movable


class Placement:
    """Device that networks compute on.

    Args:
        device: where they compute.
        offload: keep them on the CPU while they are not used, on the device only those that work together.
        streamed: networks whose layers come to the device by themselves, from :func:`stream_layers`.
    """

    def __init__(
        self, device: torch.device, *, offload: bool = False, streamed: tuple[Movable, ...] = ()
    ) -> None:
        self.device = device
        self.offload = offload
        self.streamed = streamed

    @contextmanager
    def on_device(self, *networks: Movable) -> Iterator[None]:
        """Networks are on the device inside the block."""
        streamed = {id(network) for network in self.streamed}
        moved = [network for network in networks if self.offload and id(network) not in streamed]
        for network in moved:
            network.to(self.device)
        try:
            yield
        finally:
            for network in moved:
                network.to("cpu")


def stream_layers(network: Any, device: torch.device) -> None:
    """Keep a network on the CPU and bring each of its layers to the device only while it computes."""
    from diffusers.hooks.group_offloading import apply_group_offloading

    apply_group_offloading(network, device, offload_type="leaf_level")


def choose_device(name: str) -> torch.device:
    """A device that is there; ``auto`` is CUDA where there is one, else the CPU.

    Raises:
        ValueError: for another name, or a CUDA device that torch does not see.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidInputError(f"unknown device {name!r}, expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise InvalidInputError(f"the device {name!r} is not supported, expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InvalidInputError(
            f"there is no device {name!r}: torch sees {torch.cuda.device_count()} CUDA devices"
        )
    return device


def device_and_dtype(
    *args: Any, device: Any = None, dtype: torch.dtype | None = None
) -> tuple[torch.device | None, torch.dtype | None]:
    """Device and type out of the arguments of a ``to``: in any order, each optional.

    Raises:
        ValueError: for a CUDA device that is not there, or a type that is not of floating point.
        TypeError: for anything else, or two of a kind.
    """
    for value in args:
        if isinstance(value, torch.dtype):
            if dtype is not None:
                raise TypeError(f"two types were given, {dtype} and {value}, expected one")
            dtype = value
        elif isinstance(value, str | int | torch.device):
            if device is not None:
                raise TypeError(f"two devices were given, {device} and {value}, expected one")
            device = value
        else:
            raise TypeError(f"{value!r} was given, expected a device such as 'cuda' or a torch.dtype")
    if dtype is not None and not dtype.is_floating_point:
        raise InvalidInputError(f"the type is {dtype}, expected a floating-point one such as torch.bfloat16")
    if device is None:
        return None, dtype
    return choose_device(f"cuda:{device}" if isinstance(device, int) else str(device)), dtype
