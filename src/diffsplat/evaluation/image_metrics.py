"""PSNR and SSIM of images."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from diffsplat.core import tensor_checks
from diffsplat.core.without_autocast import without_autocast
from diffsplat.errors import InvalidInputError
from diffsplat.evaluation.perceptual_distance import VggDistance

ImageMetric = Callable[[Tensor, Tensor], Tensor]
"""Images ``[..., 3, H, W]`` 0..1 and as many references to ``[...]`` figures."""

_WINDOW = 11
_SIGMA = 1.5
_K1 = 0.01
_K2 = 0.03


def image_metrics(perceptual: VggDistance | None = None) -> dict[str, ImageMetric]:
    """PSNR (dB), SSIM and, where its network is given, a perceptual distance, by the names of their figures."""
    metrics: dict[str, ImageMetric] = {"psnr": psnr, "ssim": ssim}
    return metrics if perceptual is None else {**metrics, perceptual.name: perceptual.of_views}


def psnr(image: Tensor, reference: Tensor) -> Tensor:
    """``[...]`` peak signal-to-noise ratios in dB of images ``[..., 3, H, W]`` 0..1; infinite for equal ones.

    Raises:
        ValueError: for shapes that differ or are no RGB images.
    """
    _check_pair("psnr", image, reference)
    error = (image - reference).square().mean(dim=(-3, -2, -1))
    return -10.0 * torch.log10(error)


@without_autocast
def ssim(image: Tensor, reference: Tensor) -> Tensor:
    """``[...]`` structural similarities of images ``[..., 3, H, W]`` 0..1, means over channels and windows inside.

    Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural
    similarity", IEEE TIP 13(4), 2004, equation 13 and section III.C: a Gaussian window of 11 x 11 pixels with
    a deviation of 1.5, K1 = 0.01, K2 = 0.03, for a dynamic range of 1.

    Raises:
        ValueError: for shapes that differ, are no RGB images or are smaller than the window.
    """
    _check_pair("ssim", image, reference)
    if min(image.shape[-2:]) < _WINDOW:
        raise InvalidInputError(
            f"ssim got images of {image.shape[-1]} x {image.shape[-2]} pixels, "
            f"expected at least {_WINDOW} x {_WINDOW}"
        )
    window = _gaussian_window(image)
    x = image.reshape(-1, 1, *image.shape[-2:])
    y = reference.reshape(-1, 1, *image.shape[-2:])
    mean_x, mean_y = _filter(x, window), _filter(y, window)
    variance_x = _filter(x * x, window) - mean_x * mean_x
    variance_y = _filter(y * y, window) - mean_y * mean_y
    covariance = _filter(x * y, window) - mean_x * mean_y
    c1, c2 = _K1**2, _K2**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    per_channel = (luminance * structure).mean(dim=(-3, -2, -1))
    return per_channel.reshape(image.shape[:-2]).mean(dim=-1)


def _check_pair(name: str, image: Tensor, reference: Tensor) -> None:
    tensor_checks.require_shape(name, "image", image, (3, None, None))
    tensor_checks.require_floating(name, "image", image)
    if image.shape != reference.shape:
        raise InvalidInputError(
            f"{name} got images of shape {tuple(image.shape)} and {tuple(reference.shape)}, "
            "expected the same shape"
        )


def _gaussian_window(like: Tensor) -> Tensor:
    """``[11]`` weights that sum to one."""
    half = _WINDOW // 2
    weights = [math.exp(-0.5 * (offset / _SIGMA) ** 2) for offset in range(-half, half + 1)]
    window = torch.tensor(weights, dtype=torch.float64)
    return (window / window.sum()).to(like)


def _filter(maps: Tensor, window: Tensor) -> Tensor:
    """Windowed means of ``[K, 1, H, W]`` maps, ``[K, 1, H - 10, W - 10]``."""
    horizontal = F.conv2d(maps, window.reshape(1, 1, 1, -1))
    return F.conv2d(horizontal, window.reshape(1, 1, -1, 1))
