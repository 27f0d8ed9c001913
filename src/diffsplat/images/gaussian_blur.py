"""Gaussian blur of images."""

from math import exp

from torch import Tensor
from torch.nn import functional


def gaussian_blur(images: Tensor, deviation: float) -> Tensor:
    """Gaussian smoothing, the border repeated and the Gaussian cut off at three deviations.

    Args:
        images: ``[..., H, W]``.
        deviation: of the Gaussian, in pixels, above zero.
    """
    reach = max(1, int(3 * deviation))
    weights = [exp(-0.5 * (offset / deviation) ** 2) for offset in range(-reach, reach + 1)]
    weights = [weight / sum(weights) for weight in weights]
    return _weighted_sum(_weighted_sum(with_border(images, reach), weights, -1), weights, -2)


def _weighted_sum(images: Tensor, weights: list[float], dim: int) -> Tensor:
    """Sum of neighbours along ``dim``, which gets shorter; on a CPU a convolution of one channel is slower."""
    length = images.shape[dim] - len(weights) + 1
    total = images.narrow(dim, 0, length) * weights[0]
    for start, weight in enumerate(weights[1:], start=1):
        total.add_(images.narrow(dim, start, length), alpha=weight)
    return total


def with_border(images: Tensor, width: int) -> Tensor:
    """``[..., H, W]`` images with their outermost pixels repeated ``width`` times on every side."""
    flat = images.reshape(-1, 1, *images.shape[-2:])
    flat = functional.pad(flat, (width, width, width, width), mode="replicate")
    return flat.reshape(*images.shape[:-2], *flat.shape[-2:])
