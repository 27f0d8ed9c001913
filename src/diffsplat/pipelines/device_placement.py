"""Where a pipeline's networks are while they are used and while they are not."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Placement:
    """Device that networks compute on.

    Args:
        device: where they compute.
        offload: keep them on the CPU while they are not used, on the device only those that work together.
        streamed: networks whose layers come to the device by themselves, from :func:`stream_layers`.
    """

    def __init__(
        self, device: torch.device, *, offload: bool = False, streamed: tuple[Any, ...] = ()
    ) -> None:
        self.device = device
        self.offload = offload
        self.streamed = streamed

    @contextmanager
    def awake(self, *networks: Any) -> Iterator[None]:
        """Networks are on the device inside the block. None stands for a network that is absent."""
        moved = [network for network in networks if network is not None and self._moves(network)]
        for network in moved:
            network.to(self.device)
        try:
            yield
        finally:
            for network in moved:
                network.to("cpu")

    def _moves(self, network: Any) -> bool:
        return self.offload and not any(network is streamed for streamed in self.streamed)


def released_dtype(device: torch.device, *, low_memory: bool) -> torch.dtype:
    """What the weights of a released model are kept in: bfloat16 on a GPU or to save memory, else float32."""
    return torch.bfloat16 if low_memory or device.type == "cuda" else torch.float32


def stream_layers(network: Any, device: torch.device) -> None:
    """Keep a network on the CPU and bring each of its layers to the device only while it computes."""
    from diffusers.hooks.group_offloading import apply_group_offloading

    apply_group_offloading(network, device, offload_type="leaf_level")
