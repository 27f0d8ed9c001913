"""Devices: where a pipeline's networks compute, and where they lie while they are not used."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from diffsplat.errors import InvalidInputError
from diffsplat.pipelines.pipeline_protocols import Movable


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
        moved = [network for network in networks if self._moves(network)]
        for network in moved:
            network.to(self.device)
        try:
            yield
        finally:
            for network in moved:
                network.to("cpu")

    def _moves(self, network: Movable) -> bool:
        return self.offload and not any(network is streamed for streamed in self.streamed)


def released_dtype(device: torch.device, *, low_memory: bool) -> torch.dtype:
    """Type of a released model's weights: bfloat16 on a GPU or to save memory, else float32."""
    return torch.bfloat16 if low_memory or device.type == "cuda" else torch.float32


def stream_layers(network: Any, device: torch.device) -> None:
    """Keep a network on the CPU and bring each of its layers to the device only while it computes."""
    from diffusers.hooks.group_offloading import apply_group_offloading

    apply_group_offloading(network, device, offload_type="leaf_level")


def choose_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU.

    Raises:
        ValueError: for an unknown name, or CUDA without such a device.
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
            f"the device {name!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices"
        )
    return device
