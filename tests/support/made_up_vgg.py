"""VGG16 weights and images by formula, for which the packages lpips and stlpips-pytorch were asked for distances."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

CONVOLUTIONS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
LPIPS_INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Numbers of the convolutions in torchvision's ``features``."""
ST_LPIPS_NAMES = (
    *("1.0", "1.2", "2.6", "2.8", "3.12", "3.14", "3.16"),
    *("4.20", "4.22", "4.24", "5.28", "5.30", "5.32"),
)
"""Slice and number of the convolutions of the shift-tolerant variant, whose pooling has a layer more."""


def waves(shape: tuple[int, ...], number: int) -> Tensor:
    """Numbers in -1..1 without a pattern that a convolution would see."""
    count = int(torch.tensor(shape).prod())
    phase = torch.arange(count, dtype=torch.float64) * (1.61803398875 + 0.01 * number)
    return torch.sin(phase * phase.add(number).sqrt()).float().reshape(shape)


def vgg_weights() -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of every convolution."""
    layers, inputs = [], 3
    for number, width in enumerate(CONVOLUTIONS):
        weight = waves((width, inputs, 3, 3), number) * (4 / (9 * inputs)) ** 0.5
        layers.append((weight, 0.1 * waves((width,), number)))
        inputs = width
    return layers


def linear_weights() -> dict[str, Tensor]:
    """The metric's weights, none negative."""
    widths = (64, 128, 256, 512, 512)
    return {
        f"lin{index}.model.1.weight": waves((1, width, 1, 1), index).abs()
        for index, width in enumerate(widths)
    }


def torchvision_weights() -> dict[str, Tensor]:
    return {
        f"features.{index}.{kind}": part
        for index, pair in zip(LPIPS_INDICES, vgg_weights(), strict=True)
        for kind, part in zip(("weight", "bias"), pair, strict=True)
    }


def shift_tolerant_weights() -> dict[str, Tensor]:
    layers = {
        f"net.slice{name}.{kind}": part
        for name, pair in zip(ST_LPIPS_NAMES, vgg_weights(), strict=True)
        for kind, part in zip(("weight", "bias"), pair, strict=True)
    }
    return {**layers, **linear_weights()}


def image_pairs() -> tuple[Tensor, Tensor]:
    """Two pairs of images ``[2, 3, 48, 40]`` in -1..1: another image, and the same one shifted by a pixel."""
    first = waves((2, 3, 6, 5), 20)
    first = torch.nn.functional.interpolate(first, (48, 40), mode="bilinear", align_corners=False)
    second = torch.stack([first[1], first[1].roll(1, dims=-1)])
    return first, second


def save_lpips(folder: Path) -> Path:
    """A folder of weights as ``load_perceptual_distance`` reads it."""
    folder.mkdir(exist_ok=True)
    save_file(torchvision_weights(), folder / "vgg16-397923af.safetensors")
    save_file(linear_weights(), folder / "vgg.safetensors")
    return folder


def lpips_by_definition(image: Tensor, reference: Tensor) -> float:
    """LPIPS of images ``[3, H, W]`` in 0..1 in NumPy's float64, by Zhang et al. 2018, equation 1."""
    mean, deviation = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    pair = np.stack([part.double().movedim(0, -1).numpy() * 2 - 1 for part in (image, reference)])
    features, distance = (pair - mean) / deviation, 0.0
    linear = iter(linear_weights().values())
    for layer, (kernel, bias) in enumerate(vgg_weights()):
        if layer in (2, 4, 7, 10):
            height, width = (size // 2 for size in features.shape[1:3])
            blocks = features[:, : 2 * height, : 2 * width].reshape(2, height, 2, width, 2, -1)
            features = blocks.max(axis=(2, 4))
        padded = np.pad(features, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        summed = np.tensordot(windows, kernel.double().numpy(), ((3, 4, 5), (1, 2, 3)))
        features = np.maximum(summed + bias.double().numpy(), 0)
        if layer in (1, 3, 6, 9, 12):
            one, other = features / (np.sqrt((features**2).sum(axis=-1, keepdims=True)) + 1e-10)
            weight = next(linear).double().numpy().ravel()
            distance += float((weight * (one - other) ** 2).sum(axis=-1).mean())
    return distance
