"""Loss of the elevation network: the right interval of elevations, and the place inside it."""

import torch
from torch import Tensor
from torch.nn import functional

from diffsplat.training.rendered_view_loss import ObjectLosses


def elevation_losses(
    logits: Tensor, offsets: Tensor, degrees: Tensor, lower_bounds: Tensor, offset_weight: float = 1.0
) -> ObjectLosses:
    """Cross-entropy of the interval plus squared error of the degrees above its lower bound, image by image.

    Args:
        logits: ``[B, classes]`` of the intervals.
        offsets: ``[B]`` predicted degrees above an interval's lower bound; clamped to the interval.
        degrees: ``[B]`` true elevations, negative above the horizon as the weights count; all inside the intervals.
        lower_bounds: ``[classes]`` equally spaced degrees.
        offset_weight: of the squared error.
    """
    width = float(lower_bounds[1] - lower_bounds[0])
    interval = torch.floor((degrees - lower_bounds[0]) / width).long()
    target = degrees - lower_bounds[interval]
    classified = functional.cross_entropy(logits, interval, reduction="none")
    placed = (offsets.clamp(0, width) - target).square()
    terms = {"interval": classified.detach(), "offset": placed.detach()}
    return ObjectLosses(classified + offset_weight * placed, terms)
