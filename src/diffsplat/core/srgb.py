"""The sRGB transfer function (IEC 61966-2-1), for numpy arrays and torch tensors of any shape."""

from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = TypeVar("Array", Tensor, NDArray[np.floating])


def linear_to_srgb(linear: Array) -> Array:
    """sRGB in 0..1 of linear light in 0..1, in its floating-point type."""
    bright = 1.055 * linear.clip(min=0.0031308) ** (1 / 2.4) - 0.055
    return _where(linear <= 0.0031308, 12.92 * linear, bright)


def srgb_to_linear(srgb: Array) -> Array:
    """Linear light in 0..1 of sRGB in 0..1, in its floating-point type."""
    bright = ((srgb.clip(min=0.04045) + 0.055) / 1.055) ** 2.4
    return _where(srgb <= 0.04045, srgb / 12.92, bright)


def _where(condition: Any, dark: Any, bright: Any) -> Any:
    if isinstance(condition, Tensor):
        return torch.where(condition, dark, bright)
    return np.where(condition, dark, bright)
