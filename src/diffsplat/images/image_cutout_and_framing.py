"""Condition images: one object, cut out of its background and framed in a square on white."""

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from diffsplat.core import tensor_checks
from diffsplat.errors import require
from diffsplat.images.background_removal import cut_out, on_white, premultiplied
from diffsplat.images.image_framing_options import BORDER, ImageFraming
from diffsplat.images.visible_box import Box, visible_box
from diffsplat.io.image_decoding import DecodingLimits
from diffsplat.io.image_files import image_from_pillow, read_image

ImageSource = str | Path | Image.Image | Tensor
"""A file, a Pillow image, or ``[3, H, W]`` sRGB, ``[4, H, W]`` with straight alpha, 0..1."""

_LONGEST_SIDE = 2048
"""Pixels to which a larger file is reduced; models use a few hundred."""
_OPAQUE = 0.5
_WHITE = 0.98
"""Coverage from which a pixel is the object, and value of the channels from which it is background."""


@dataclass(frozen=True)
class ConditionImage:
    """An object on white.

    Args:
        image: ``[3, S, S]`` sRGB 0..1.
        alpha: ``[1, S, S]`` coverage of the object, 0..1.
    """

    image: Tensor
    alpha: Tensor

    @property
    def outline(self) -> Tensor:
        """``[1, S, S]`` True where the object is: where it is opaque, or if all of it is, where it is not white."""
        covered = self.alpha > _OPAQUE
        top, bottom, left, right = _bounds(covered[0])
        if not covered[:, top:bottom, left:right].all():
            return covered
        return covered & (self.image < _WHITE).any(dim=0, keepdim=True)


def prepare_condition_image(
    image: ImageSource, *, size: int = 256, framing: ImageFraming | None = None
) -> ConditionImage:
    """Cut an object out, centre its bounding box in a square and put it on white.

    Args:
        image: the image; of an animation the first frame counts.
        size: pixels per side of the result.
        framing: how; see :class:`.ImageFraming`. The box is that of the visible
            object: neither faint haze or shadow around it nor a speck beside it counts. Its longer side leaves the
            border free. An image without transparency whose background is not removed is taken whole: made square
            with white.

    Raises:
        ValueError: when the image cannot be read, shows no object or one of a few pixels, the background is not
            plain where it should be, or rembg cannot fetch its network.
        ImportError: when the background has to be removed and rembg is not installed.
    """
    require(size >= 1, "the size of a condition image", size, "at least 1")
    chosen = framing or ImageFraming()
    name = repr(str(image)) if isinstance(image, str | Path) else "the image"
    object_image = cut_out(load_image(image), name, chosen)
    premultiplied_image = premultiplied(object_image)
    if len(object_image) == 3 or chosen.keep_framing:
        box, border = (0, object_image.shape[1], 0, object_image.shape[2]), chosen.border or 0.0
    else:
        box, border = visible_box(object_image[3], name), BORDER if chosen.border is None else chosen.border
    return _placed(premultiplied_image, box, max(round(size * (1 - border)), 1), size)


def load_image(image: ImageSource) -> Tensor:
    """``[3, H, W]`` sRGB or ``[4, H, W]`` with straight alpha, float32 0..1 on the CPU.

    Raises:
        ValueError: for a file that cannot be read, or a tensor of another shape or range.
    """
    if isinstance(image, str | Path):
        return read_image(image, DecodingLimits(longest_side=_LONGEST_SIDE))
    if isinstance(image, Image.Image):
        return image_from_pillow(image)
    valid = image.ndim == 3 and image.shape[0] in (3, 4) and 0 not in image.shape
    require(valid, "the shape of the image", tuple(image.shape), "[3, H, W] or [4, H, W]")
    tensor_checks.require_floating("load_image", "image", image)
    tensor_checks.require_finite("load_image", "image", image)
    tensor_checks.require_range("load_image", "image", image, 0.0, 1.0)
    return image.detach().to("cpu", torch.float32).clamp(0, 1)


def square_on_white(image: Tensor, *, size: int) -> ConditionImage:
    """A whole image ``[3 or 4, H, W]`` on white, its longer side ``size`` pixels, centred in a square."""
    return _placed(premultiplied(image), (0, image.shape[1], 0, image.shape[2]), size, size)


def _placed(premultiplied: Tensor, box: Box, inner: int, size: int) -> ConditionImage:
    """Scale the longer side of a box to ``inner`` pixels and centre it in a square of ``size``."""
    top, bottom, left, right = box
    cropped = premultiplied[:, top:bottom, left:right]
    height, width = cropped.shape[-2:]
    scale = inner / max(height, width)
    target = (max(round(height * scale), 1), max(round(width * scale), 1))
    resized = functional.interpolate(
        cropped[None], size=target, mode="bilinear", align_corners=False, antialias=True
    )[0]
    canvas = torch.zeros(4, size, size)
    top, left = (size - target[0]) // 2, (size - target[1]) // 2
    canvas[:, top : top + target[0], left : left + target[1]] = resized
    return ConditionImage(on_white(canvas), canvas[3:].clamp(0, 1))


def _bounds(mask: Tensor) -> Box:
    """Rows and columns of a mask ``[H, W]`` between which it is True; the whole of an empty one."""
    rows, columns = (mask.any(dim=axis).nonzero().flatten().tolist() for axis in (1, 0))
    return (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) if rows else (0, len(mask), 0, mask.shape[1])
