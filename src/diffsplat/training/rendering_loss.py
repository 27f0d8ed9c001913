"""The loss on rendered views."""

from torch import Tensor

from diffsplat.core import Rendering, Views

ABSOLUTE_WEIGHT = 0.1
"""Weight of the absolute colour error, added to the squared errors."""


def rendering_loss(rendering: Rendering, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
    """Squared error of colour and coverage plus a tenth of the absolute colour error.

    Args:
        rendering: ``[B, V]`` images on white.
        views: ``[B, V]`` views to match.

    Returns:
        The loss and its detached parts.
    """
    difference = rendering.rgb - views.image
    squared = difference.square().mean()
    coverage = (rendering.alpha - views.mask).square().mean()
    total = squared + coverage + ABSOLUTE_WEIGHT * difference.abs().mean()
    return total, {"rgb": squared.detach(), "alpha": coverage.detach()}
