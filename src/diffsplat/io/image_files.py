"""Reading and writing images as torch tensors ``[C, H, W]`` in 0..1."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffsplat.core import tensor_checks
from diffsplat.errors import InvalidInputError, require
from diffsplat.io.file_access import atomic_path, require_readable, require_suffix
from diffsplat.io.image_decoding import DecodingLimits, decode_image, plain_image

_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG"},
    ".jpg": {"format": "JPEG", "quality": 95},
    ".jpeg": {"format": "JPEG", "quality": 95},
    ".webp": {"format": "WEBP", "lossless": True},
}


def write_image(image: Tensor, path: str | Path, *, force: bool = False) -> None:
    """Write an image; the file is complete or absent.

    Args:
        image: ``[3, H, W]`` sRGB or ``[4, H, W]`` with straight alpha, 0..1; values beyond are clipped.
        path: ``.png``, ``.webp`` (both lossless in 8 bits) or ``.jpg``.
        force: allow an existing file to be replaced.

    Raises:
        ValueError: for a wrong shape, NaN, an unknown suffix, alpha in a ``.jpg``, or a path that cannot be
            written.
    """
    suffix = require_suffix(path, _SAVE_OPTIONS, "an image: ")
    pixels = to_pixels(image)
    if pixels.shape[-1] == 4 and suffix in (".jpg", ".jpeg"):
        raise InvalidInputError(f"{str(path)!r} cannot hold transparency, expected .png or .webp for RGBA")
    with atomic_path(path, force=force) as temporary:
        Image.fromarray(pixels).save(temporary, **_SAVE_OPTIONS[suffix])


def read_image(path: str | Path, limits: DecodingLimits | None = None) -> Tensor:
    """Read an image file.

    Args:
        path: PNG, JPEG, WebP, TIFF, GIF, BMP, AVIF or another of the formats that Pillow decodes.
        limits: on its pixels; by default 50 million, reduced to at most 4096 a side.

    Returns:
        ``[3, H, W]``, or ``[4, H, W]`` with straight alpha where the file has transparency; float32 sRGB in
        0..1, from the colour profile of the file where it has one, turned upright when the camera noted its
        orientation.

    Raises:
        ValueError: when the file is missing, no image, broken, or absurdly large.
    """
    image = decode_image(require_readable(path), repr(str(path)), limits or DecodingLimits())
    return _to_tensor(image)


def image_from_pillow(image: Image.Image) -> Tensor:
    """The pixels of a Pillow image, as :func:`read_image` gives those of a file.

    Raises:
        ValueError: for floating-point pixels, whose range is not known.
    """
    return _to_tensor(plain_image(image, "the image", DecodingLimits.longest_side))


def tile_images(
    images: Tensor, *, columns: int | None = None, gap: int = 0, background: float = 1.0
) -> Tensor:
    """Arrange images in a grid, in reading order.

    Args:
        images: ``[N, C, H, W]``.
        columns: images side by side; all of them by default.
        gap: pixels between neighbours.
        background: value of the gaps and of empty cells.

    Returns:
        ``[C, rows * (H + gap) - gap, columns * (W + gap) - gap]``.

    Raises:
        ValueError: for no images, no columns or a negative gap.
    """
    tensor_checks.require_shape("tile_images", "images", images, (None, None, None, None))
    count, channels, height, width = images.shape
    across = count if columns is None else columns
    if count < 1 or across < 1 or gap < 0:
        raise InvalidInputError(f"cannot tile {count} images in {across} columns with gaps of {gap} pixels")
    rows = -(-count // across)
    canvas = images.new_full(
        (channels, rows * (height + gap) - gap, across * (width + gap) - gap), background
    )
    for index, image in enumerate(images):
        top, left = (index // across) * (height + gap), (index % across) * (width + gap)
        canvas[:, top : top + height, left : left + width] = image
    return canvas


def to_pixels(image: Tensor) -> NDArray[np.uint8]:
    """``[H, W, C]`` bytes, rounded, of ``[C, H, W]`` values in 0..1 with 3 or 4 channels.

    Raises:
        ValueError: for a wrong shape or dtype, or NaN.
    """
    valid = image.ndim == 3 and image.shape[0] in (3, 4) and 0 not in image.shape
    require(valid, "the shape of an image", tuple(image.shape), "[3, H, W] or [4, H, W]")
    tensor_checks.require_floating("to_pixels", "image", image)
    tensor_checks.require_finite("to_pixels", "image", image)
    scaled = (image.detach().float().clamp(0, 1) * 255 + 0.5).to(device="cpu", dtype=torch.uint8)
    return scaled.permute(1, 2, 0).contiguous().numpy()


def _to_tensor(image: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(image))
    if image.mode == "F":
        return pixels.expand(3, -1, -1).contiguous()
    return pixels.permute(2, 0, 1).float() / 255
