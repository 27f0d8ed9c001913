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
    if hasattr(network, "enable_gradient_checkpointing"):
        network.enable_gradient_checkpointing()  # pyright: ignore[reportCallIssue]
        return
    blocks = [block for module in network.modules() if isinstance(module, nn.ModuleList) for block in module]
    if not blocks:
        raise InvalidInputError(
            f"gradient_checkpointing is on, but {type(network).__name__} has no blocks; expected it off"
        )
    for block in blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
