"""Condition images: one object, centred in a square on white, as image-conditioned models expect it."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from diffsplat.core import tensor_checks
from diffsplat.errors import InvalidInputError
from diffsplat.images.background_removal import RemoveBackground, cut_out, on_white, premultiplied
from diffsplat.io.image_files import image_from_pillow, read_image

ImageSource = str | Path | Image.Image | Tensor
"""A file, a Pillow image, or ``[3, H, W]`` sRGB, ``[4, H, W]`` with straight alpha, 0..1."""

BORDER_RATIO = 0.2
"""Share of the edge that an object leaves free, as the released models were used."""

_FAINTEST = 0.02
"""Alpha up to which a pixel is a matting's noise rather than a part of the object."""
_SMALLEST_OBJECT = 8
"""Pixels that an object has at least along its longer side."""


@dataclass(frozen=True)
class ConditionImage:
    """An object on white.

    Args:
        image: ``[3, S, S]`` sRGB 0..1.
        alpha: ``[1, S, S]`` coverage of the object, 0..1.
    """

    image: Tensor
    alpha: Tensor


def prepare_condition_image(
    image: ImageSource,
    *,
    size: int = 256,
    border_ratio: float = BORDER_RATIO,
    remove_background: RemoveBackground = "auto",
) -> ConditionImage:
    """Cut an object out, centre its bounding box in a square and put it on white.

    Args:
        image: the image; of an animation the first frame counts.
        size: pixels per side of the result.
        border_ratio: share of the edge that stays free; the box's longer side takes the rest.
        remove_background: see :data:`RemoveBackground`. An image without transparency whose background is not
            removed is taken whole: made square with white, without a border.

    Raises:
        ValueError: when the image cannot be read, shows no object or one of a few pixels, an option is out of
            range, or rembg cannot fetch its network.
        ImportError: when the background has to be removed and rembg is not installed.
    """
    if size < 1 or not 0 <= border_ratio < 1:
        raise InvalidInputError(
            f"the size {size} and the border ratio {border_ratio:g} are not as expected: "
            "at least 1, and at least 0 but below 1"
        )
    if remove_background not in get_args(RemoveBackground):
        raise InvalidInputError(
            f"remove_background is {remove_background!r}, expected one of {', '.join(get_args(RemoveBackground))}"
        )
    name = repr(str(image)) if isinstance(image, str | Path) else "the image"
    object_image = cut_out(load_image(image), name, remove_background)
    if len(object_image) == 3:
        return square_on_white(object_image, size=size)
    inner = max(round(size * (1 - border_ratio)), 1)
    return _placed(premultiplied(_cropped(object_image, name)), inner, size)


def load_image(image: ImageSource) -> Tensor:
    """``[3, H, W]`` sRGB or ``[4, H, W]`` with straight alpha, float32 0..1 on the CPU.

    Raises:
        ValueError: for a file that cannot be read, or a tensor of another shape or range.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        return image_from_pillow(image)
    if image.ndim != 3 or image.shape[0] not in (3, 4) or 0 in image.shape:
        raise InvalidInputError(
            f"the image has the shape {tuple(image.shape)}, expected [3, H, W] or [4, H, W]"
        )
    tensor_checks.require_floating("load_image", "image", image)
    tensor_checks.require_finite("load_image", "image", image)
    tensor_checks.require_range("load_image", "image", image, 0.0, 1.0)
    return image.detach().to("cpu", torch.float32).clamp(0, 1)


def square_on_white(image: Tensor, *, size: int) -> ConditionImage:
    """A whole image ``[3 or 4, H, W]`` on white, its longer side ``size`` pixels, centred in a square."""
    return _placed(premultiplied(image), size, size)


def _cropped(cut_out: Tensor, name: str) -> Tensor:
    """The bounding box of the object."""
    solid = cut_out[3] > _FAINTEST
    rows, columns = torch.nonzero(solid.any(dim=1)).flatten(), torch.nonzero(solid.any(dim=0)).flatten()
    if not len(rows):
        raise InvalidInputError(f"{name} is transparent all over, expected an object in it")
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    if max(bottom - top, right - left) < _SMALLEST_OBJECT:
        raise InvalidInputError(
            f"the object in {name} is {right - left} x {bottom - top} pixels, "
            f"expected at least {_SMALLEST_OBJECT} along one side"
        )
    return cut_out[:, top:bottom, left:right]


def _placed(premultiplied: Tensor, inner: int, size: int) -> ConditionImage:
    """Scale the longer side to ``inner`` pixels and centre it in a square of ``size``."""
    height, width = premultiplied.shape[-2:]
    scale = inner / max(height, width)
    target = (max(round(height * scale), 1), max(round(width * scale), 1))
    resized = functional.interpolate(
        premultiplied[None], size=target, mode="bilinear", align_corners=False, antialias=True
    )[0]
    canvas = torch.zeros(4, size, size)
    top, left = (size - target[0]) // 2, (size - target[1]) // 2
    canvas[:, top : top + target[0], left : left + target[1]] = resized
    return ConditionImage(on_white(canvas), canvas[3:].clamp(0, 1))
