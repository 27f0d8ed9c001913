"""Losses on rendered views and on splat grids."""

import torch
from torch import Tensor

from diffsplat.core import Rendering, Views
from diffsplat.core.splat_grid import DEPTH, OPACITY, unit_range
from diffsplat.models.component_autoencoder import CHANNEL_WEIGHTS

ABSOLUTE_WEIGHT = 0.1
"""Weight of the absolute colour error beside the squared errors."""

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
    total = torch.zeros_like(opacity)
    for channels, weight in CHANNEL_WEIGHTS:
        seen = opacity if channels == OPACITY else (squared[:, :, channels] * shown).mean()
        total = total + weight * seen
    return total, {"opacity": opacity.detach(), "depth": (squared[:, :, DEPTH] * shown).mean().detach()}
