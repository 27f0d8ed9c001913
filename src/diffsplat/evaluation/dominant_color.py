"""Which of the eleven basic colour words describes a rendered object, measured in CIELAB.

The words are the basic colour terms of Berlin & Kay, "Basic Color Terms", 1969. Light and shade move the
colour of a surface along a line of nearly constant hue and saturation, so every pixel first takes a family by
those two, the largest family wins, and the lightness of that family as a whole decides between the words that
share it (orange and brown, red and pink).
"""

import torch
from torch import Tensor

from diffsplat.core import tensor_checks
from diffsplat.core.srgb import srgb_to_linear
from diffsplat.errors import InvalidInputError
from diffsplat.images.color_words import ColorWord

# First CIELAB hue angle (degrees) of each family; magenta starts at the last one and wraps around to red.
_FAMILIES = ("red", "orange", "yellow", "green", "blue", "purple", "magenta")
_HUE_STARTS = (15.0, 48.0, 77.0, 112.0, 205.0, 308.0, 338.0)
_NEUTRAL_CHROMA = 8.0
_NEUTRAL_SATURATION = 0.22
# Real renders, medians over an object: black up to 14, grey 26 to 57, white from 62.
_BLACK_BELOW = 21.0
_WHITE_ABOVE = 60.0
_LIT_QUANTILE = 0.7
_OPAQUE = 0.5


def srgb_to_lab(colors: Tensor) -> Tensor:
    """CIE 1976 L*a*b* (D65, 2 degree observer) ``[..., 3]`` of sRGB colours ``[..., 3]`` 0..1 (IEC 61966-2-1)."""
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    xyz = srgb_to_linear(colors) @ torch.tensor(to_xyz, dtype=colors.dtype, device=colors.device).T
    relative = xyz / torch.tensor([0.95047, 1.0, 1.08883], dtype=colors.dtype, device=colors.device)
    epsilon, kappa = 216 / 24389, 24389 / 27
    f = torch.where(relative > epsilon, relative.clamp_min(epsilon) ** (1 / 3), (kappa * relative + 16) / 116)
    x, y, z = f.unbind(dim=-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)


def dominant_color(image: Tensor, alpha: Tensor) -> ColorWord:
    """The colour word of the largest part of one object.

    Args:
        image: ``[V, 3, H, W]`` sRGB 0..1 on white.
        alpha: ``[V, 1, H, W]`` coverage 0..1; what is less than half covered is not looked at.

    Raises:
        ValueError: for shapes that do not fit, or when no pixel is covered.
    """
    tensor_checks.require_shape("dominant_color", "image", image, (3, None, None))
    tensor_checks.require_shape("dominant_color", "alpha", alpha, (1, *image.shape[-2:]))
    covered = alpha.movedim(-3, -1).squeeze(-1) > _OPAQUE
    if not bool(covered.any()):
        raise InvalidInputError("dominant_color got an empty image, expected an object in it")
    weight = alpha.movedim(-3, -1)[covered].double()
    pixels = (image.movedim(-3, -1)[covered].double() - (1 - weight)) / weight
    lab = srgb_to_lab(pixels.clamp(0, 1))
    lightness, chroma = lab[:, 0], torch.linalg.vector_norm(lab[:, 1:], dim=-1)
    saturation = chroma / lightness.clamp_min(1.0)
    hue = torch.rad2deg(torch.atan2(lab[:, 2], lab[:, 1])) % 360
    colorful = (chroma > _NEUTRAL_CHROMA) & (saturation > _NEUTRAL_SATURATION)
    family = _families(hue, colorful, lightness)
    winner = int(torch.bincount(family).argmax())
    if winner >= len(_FAMILIES):
        return ("black", "grey", "white")[winner - len(_FAMILIES)]
    chosen = family == winner
    lit = float(lightness[chosen].quantile(_LIT_QUANTILE))
    return _word(_FAMILIES[winner], lit, float(saturation[chosen].median()), float(hue[chosen].median()))


def _families(hue: Tensor, colorful: Tensor, lightness: Tensor) -> Tensor:
    """``[N]`` index into the families of hue, followed by black, grey and white."""
    starts = torch.tensor(_HUE_STARTS, dtype=hue.dtype, device=hue.device)
    chromatic = (torch.bucketize(hue, starts, right=True) - 1) % len(_FAMILIES)
    shade = (lightness > _BLACK_BELOW).long() + (lightness > _WHITE_ABOVE).long()
    return torch.where(colorful, chromatic, len(_FAMILIES) + shade)


def _word(family: str, lightness: float, saturation: float, hue: float) -> ColorWord:  # noqa: PLR0911
    """Split the families that hold several words; lightness is that of the lit side."""
    match family:
        case "red" if lightness > 55 and saturation < 0.85:
            return "pink"
        case "red" if hue > 36 and saturation < 1.25:
            return "brown"
        case "orange" if saturation < 1.1 or lightness < 43:
            return "brown"
        case "yellow" if hue < 92 and (saturation < 0.6 or lightness < 55):
            return "brown"
        case "yellow" if lightness < 55:
            return "green"
        # CIELAB's hue lines bend here: a vivid blue has the angle of a pale violet.
        case "blue" if hue > 299 and saturation < 2.5:
            return "purple"
        case "magenta":
            return "pink" if lightness > 45 or saturation < 0.9 else "purple"
        case "red" | "orange" | "yellow" | "green" | "blue" | "purple":
            return family
    raise InvalidInputError(f"unknown family of colours {family!r}")
