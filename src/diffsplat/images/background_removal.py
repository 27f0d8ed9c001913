"""A picture of one object, as image-conditioned models expect it: cut out, centred, on white."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from diffsplat.core import tensor_checks
from diffsplat.errors import InvalidInputError, MissingPackageError
from diffsplat.io.image_files import image_from_pillow, read_image, to_pixels

RemoveBackground = Literal["auto", "always", "never"]
"""When the background is removed; ``auto``: unless the picture has transparency of its own."""

Picture = str | Path | Image.Image | Tensor
"""A file, a Pillow image, or ``[3, H, W]`` sRGB, ``[4, H, W]`` with straight alpha, 0..1."""

BORDER_RATIO = 0.2
"""Share of the edge that an object leaves free, as the released models were used."""

# rembg's own default may only be used privately; this network, which the original used, is Apache-2.0.
_REMBG_NETWORK = "u2net"
_FAINTEST = 0.02
"""Alpha up to which a pixel is a matting's noise rather than a part of the object."""
_TRANSPARENT_SHARE = 0.01
"""Share of transparent pixels from which a picture counts as cut out."""
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
    image: Picture,
    *,
    size: int = 256,
    border_ratio: float = BORDER_RATIO,
    remove_background: RemoveBackground = "auto",
) -> ConditionImage:
    """Cut an object out, centre its bounding box in a square and put it on white.

    Args:
        image: the picture; of an animation the first frame counts.
        size: pixels per side of the result.
        border_ratio: share of the edge that stays free; the box's longer side takes the rest.
        remove_background: see :data:`RemoveBackground`. A picture without transparency whose background is not
            removed is taken whole: made square with white, without a border.

    Raises:
        ValueError: when the picture cannot be read, shows no object or one of a few pixels, an option is out of
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
    cut_out = _cut_out(load_picture(image), name, remove_background)
    if len(cut_out) == 3:
        return square_on_white(cut_out, size=size)
    inner = max(round(size * (1 - border_ratio)), 1)
    return _placed(_premultiplied(_cropped(cut_out, name)), inner, size)


def load_picture(image: Picture) -> Tensor:
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
    tensor_checks.require_floating("Picture", "image", image)
    tensor_checks.require_finite("Picture", "image", image)
    tensor_checks.require_range("Picture", "image", image, 0.0, 1.0)
    return image.detach().to("cpu", torch.float32).clamp(0, 1)


def square_on_white(picture: Tensor, *, size: int) -> ConditionImage:
    """A whole picture ``[3 or 4, H, W]`` on white, its longer side ``size`` pixels, centred in a square."""
    return _placed(_premultiplied(picture), size, size)


def _cut_out(picture: Tensor, name: str, remove_background: RemoveBackground) -> Tensor:
    """``[4, H, W]`` with straight alpha, or ``[3, H, W]`` where nothing is to be cut out."""
    match remove_background:
        case "always":
            return _without_background(picture, name)
        case "auto":
            return picture if _is_cut_out(picture) else _without_background(picture, name)
        case "never":
            return picture if _is_cut_out(picture) else _on_white(_premultiplied(picture))


def _is_cut_out(picture: Tensor) -> bool:
    return len(picture) == 4 and float((picture[3] < 0.5).float().mean()) >= _TRANSPARENT_SHARE


def _without_background(picture: Tensor, name: str) -> Tensor:
    rembg = _import_rembg(name)
    opaque = _on_white(_premultiplied(picture))
    try:
        session = rembg.new_session(_REMBG_NETWORK)
        mask = rembg.remove(Image.fromarray(to_pixels(opaque)), session=session, only_mask=True)
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"the background of {name} could not be removed, since rembg did not get its network "
            f"{_REMBG_NETWORK!r} ({error}); an image with transparency needs none"
        ) from error
    alpha = torch.from_numpy(np.array(mask.convert("L"))).float() / 255
    return torch.cat([opaque, alpha[None]])


def _import_rembg(name: str) -> Any:
    try:
        # Without it, rembg would end the whole process while it is imported.
        importlib.import_module("onnxruntime")
        return importlib.import_module("rembg")
    except ImportError as error:
        raise MissingPackageError(
            f"removing the background of {name} needs rembg, which is not installed: pip install "
            "'diffsplat[image]'; an image with transparency needs none"
        ) from error


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


def _premultiplied(picture: Tensor) -> Tensor:
    """``[4, H, W]`` colours times alpha, and alpha: what may be averaged without the hidden colours bleeding in."""
    alpha = picture[3:] if len(picture) == 4 else torch.ones_like(picture[:1])
    return torch.cat([picture[:3] * alpha, alpha])


def _on_white(premultiplied: Tensor) -> Tensor:
    return (premultiplied[:3] + 1 - premultiplied[3:]).clamp(0, 1)


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
    return ConditionImage(_on_white(canvas), canvas[3:].clamp(0, 1))
