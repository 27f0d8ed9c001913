"""Gaussian blur of images."""

import torch
from torch import Tensor
from torch.nn import functional


def gaussian_blur(images: Tensor, deviation: float) -> Tensor:
    """Gaussian smoothing, the border repeated and the Gaussian cut off at three deviations.

    Args:
        images: ``[..., H, W]``.
        deviation: of the Gaussian, in pixels, above zero.
    """
    reach = max(1, int(3 * deviation))
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / deviation).square())
    kernel = kernel / kernel.sum()
    bordered = with_border(images, reach)
    flat = bordered.reshape(-1, 1, *bordered.shape[-2:])
    flat = functional.conv2d(functional.conv2d(flat, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return flat.reshape(images.shape)


def with_border(images: Tensor, width: int) -> Tensor:
    """``[..., H, W]`` images with their outermost pixels repeated ``width`` times on every side."""
    flat = images.reshape(-1, 1, *images.shape[-2:])
    flat = functional.pad(flat, (width, width, width, width), mode="replicate")
    return flat.reshape(*images.shape[:-2], *flat.shape[-2:])
