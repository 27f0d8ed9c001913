"""Activations that are computed again in the backward pass instead of being kept (Chen et al. 2016)."""

import functools

from torch import nn
from torch.utils.checkpoint import checkpoint

from diffsplat.errors import InvalidInputError


def checkpoint_activations(network: nn.Module) -> None:
    """Keep only the inputs of a network's blocks: those that diffusers checkpoints, or the members of its lists.

    Results and names of parameters stay what they are.

    Raises:
        ValueError: for a network without blocks.
    """
    if not _checkpoint_blocks(network):
        raise InvalidInputError(
            f"gradient_checkpointing is on, but {type(network).__name__} has no blocks; expected it off"
        )


def _checkpoint_blocks(network: nn.Module) -> bool:
    """Whether there are some; lists inside of blocks are left alone."""
    if hasattr(network, "enable_gradient_checkpointing"):
        network.enable_gradient_checkpointing()  # pyright: ignore[reportCallIssue]
        return True
    if not isinstance(network, nn.ModuleList):
        return True in [_checkpoint_blocks(child) for child in network.children()]
    for block in network:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    return len(network) > 0
