"""Cutting an object out of its image: its own transparency, or the background removed by rembg."""

import importlib
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffsplat.errors import InvalidInputError, MissingPackageError
from diffsplat.io.image_files import to_pixels

RemoveBackground = Literal["auto", "always", "never"]
"""When the background is removed; ``auto``: unless the image has transparency of its own."""

# rembg's own default may only be used privately; this network, which the original used, is Apache-2.0.
_REMBG_NETWORK = "u2net"
_TRANSPARENT_SHARE = 0.01
"""Share of transparent pixels from which an image counts as cut out."""


def cut_out(image: Tensor, name: str, remove_background: RemoveBackground) -> Tensor:
    """``[4, H, W]`` with straight alpha, or ``[3, H, W]`` where nothing is to be cut out."""
    match remove_background:
        case "always":
            return _without_background(image, name)
        case "auto":
            return image if _is_cut_out(image) else _without_background(image, name)
        case "never":
            return image if _is_cut_out(image) else on_white(premultiplied(image))


def _is_cut_out(image: Tensor) -> bool:
    return len(image) == 4 and float((image[3] < 0.5).float().mean()) >= _TRANSPARENT_SHARE


def _without_background(image: Tensor, name: str) -> Tensor:
    rembg = _import_rembg(name)
    opaque = on_white(premultiplied(image))
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


def premultiplied(image: Tensor) -> Tensor:
    """``[4, H, W]`` colours times alpha, and alpha: what may be averaged without the hidden colours bleeding in."""
    alpha = image[3:] if len(image) == 4 else torch.ones_like(image[:1])
    return torch.cat([image[:3] * alpha, alpha])


def on_white(premultiplied: Tensor) -> Tensor:
    """``[3, H, W]`` of premultiplied ``[4, H, W]``, on white."""
    return (premultiplied[:3] + 1 - premultiplied[3:]).clamp(0, 1)
