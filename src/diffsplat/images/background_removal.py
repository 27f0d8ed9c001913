"""Cutting an object out of its image: its own transparency, a network of rembg, or a background of one colour."""

import importlib
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from diffsplat.errors import InvalidInputError, MissingPackageError
from diffsplat.images.flood_fill import connected_to_border
from diffsplat.images.image_framing_options import ImageFraming
from diffsplat.io.image_files import to_pixels

_TRANSPARENT_SHARE = 0.01
"""Share of transparent pixels from which an image counts as cut out."""
_SAME_COLOR = 0.08
"""Largest difference of a channel, sRGB 0..1, between pixels of one plain colour: JPEG's noise and soft light."""
_PLAIN_SHARE = 0.7
"""Share of an image's edge that has the colour of a plain background; objects may reach the edge."""


def cut_out(image: Tensor, name: str, framing: ImageFraming) -> Tensor:
    """``[4, H, W]`` with straight alpha, or ``[3, H, W]`` where nothing is to be cut out."""
    match framing.cutout:
        case "rembg":
            return _without_background(image, name, framing.rembg_model)
        case "plain":
            return _without_plain_background(image, name)
        case "auto" if not _is_cut_out(image):
            return _without_any_background(image, name, framing.rembg_model)
        case "auto" | "none":
            return image if _is_cut_out(image) else on_white(premultiplied(image))


def _is_cut_out(image: Tensor) -> bool:
    return len(image) == 4 and float((image[3] < 0.5).float().mean()) >= _TRANSPARENT_SHARE


def _without_plain_background(image: Tensor, name: str) -> Tensor:
    """The object before the one colour that reaches the edges of the image."""
    opaque = on_white(premultiplied(image))
    edge = torch.cat([opaque[:, 0], opaque[:, -1], opaque[:, :, 0], opaque[:, :, -1]], dim=1)
    color = edge.median(dim=1).values
    share = float(((edge - color[:, None]).abs().amax(dim=0) < _SAME_COLOR).float().mean())
    if share < _PLAIN_SHARE:
        raise InvalidInputError(
            f"the background of {name} is not plain, only {share:.0%} of its edge has one colour: expected "
            "the cutout rembg, or an image with transparency"
        )
    same = (opaque - color[:, None, None]).abs().amax(dim=0) < _SAME_COLOR
    solid = 1 - torch.from_numpy(connected_to_border(same.numpy())).float()
    # Half a pixel softer, since the pixels of the rim are mixed with the background.
    soft = functional.avg_pool2d(solid[None], 3, stride=1, padding=1, count_include_pad=False)
    return torch.cat([opaque, solid * (0.5 + 0.5 * soft)])


def _without_any_background(image: Tensor, name: str, network: str) -> Tensor:
    """By rembg; where it is not installed, the object before a plain background."""
    try:
        _import_rembg(name)
    except MissingPackageError as missing:
        try:
            return _without_plain_background(image, name)
        except InvalidInputError:
            raise missing from None
    return _without_background(image, name, network)


def _without_background(image: Tensor, name: str, network: str) -> Tensor:
    rembg = _import_rembg(name)
    opaque = on_white(premultiplied(image))
    try:
        session = _session(rembg, network)
        mask = rembg.remove(Image.fromarray(to_pixels(opaque)), session=session, only_mask=True)
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"the background of {name} could not be removed, since rembg did not get its network "
            f"{network!r} ({error}); an image with transparency needs none"
        ) from error
    alpha = torch.from_numpy(np.array(mask.convert("L"))).float() / 255
    return torch.cat([opaque, alpha[None]])


@lru_cache(maxsize=1)
def _session(rembg: Any, network: str) -> Any:
    """A network of rembg, which takes seconds to load."""
    return rembg.new_session(network)


def _import_rembg(name: str) -> Any:
    try:
        # Without it, rembg would end the whole process while it is imported.
        importlib.import_module("onnxruntime")
        return importlib.import_module("rembg")
    except ImportError as error:
        raise MissingPackageError(
            f"removing the background of {name} needs rembg, which is not installed: pip install "
            "'diffsplat[image]'; an image with transparency or before one plain colour needs none"
        ) from error


def premultiplied(image: Tensor) -> Tensor:
    """``[4, H, W]`` colours times alpha, and alpha: what may be averaged without the hidden colours bleeding in."""
    alpha = image[3:] if len(image) == 4 else torch.ones_like(image[:1])
    return torch.cat([image[:3] * alpha, alpha])


def on_white(premultiplied: Tensor) -> Tensor:
    """``[3, H, W]`` of premultiplied ``[4, H, W]``, on white."""
    return (premultiplied[:3] + 1 - premultiplied[3:]).clamp(0, 1)
