"""Losses on rendered views and on splat grids."""

from torch import Tensor

from diffsplat.core import Rendering, Views
from diffsplat.core.splat_grid import DEPTH, OPACITY, RGB, ROTATION, SCALE, unit_range

ABSOLUTE_WEIGHT = 0.1
"""Weight of the absolute colour error beside the squared errors."""

GRID_WEIGHTS = ((RGB, 1.0), (SCALE, 0.3), (ROTATION, 0.2), (DEPTH, 50.0))
"""Weights of squared errors of grid channels where a Gaussian is opaque.

A depth that is wrong by 0.005 moves a splat by about a pixel of a 128-pixel view from the side, which costs as
much as a colour that is wrong by 0.05.
"""

SHOWN_FLOOR = 0.02
"""Weight of transparent Gaussians in the grid loss, so that they stay tame."""


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


def grid_loss(predicted: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted squared error of grid channels; what a transparent Gaussian looks like hardly counts.

    Args:
        predicted: ``[B, V, 12, H, W]`` values, not yet clamped.
        target: ``[B, V, 12, H, W]`` values in [-1, 1].

    Returns:
        The loss and its detached parts.
    """
    squared = (predicted - target).square()
    shown = unit_range(target[:, :, OPACITY]).clamp_min(SHOWN_FLOOR)
    opacity = squared[:, :, OPACITY].mean()
    total = opacity
    for channels, weight in GRID_WEIGHTS:
        total = total + weight * (squared[:, :, channels] * shown).mean()
    return total, {"opacity": opacity.detach(), "depth": (squared[:, :, DEPTH] * shown).mean().detach()}
