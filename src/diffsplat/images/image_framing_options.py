"""Options of how an object is cut out of its image and framed. Needs no torch."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from tyro.conf import FlagCreatePairsOff, arg

from diffsplat.errors import require

Cutout = Literal["auto", "rembg", "plain", "none"]
"""What removes the background of an image: a network of rembg; its one colour; nothing. ``auto``: rembg, or where that
is not installed, the one colour, unless the image has transparency of its own."""

BORDER = 0.2
"""Share of the edge that an object leaves free, as the released models were used."""
LARGEST_BORDER = 0.9

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff")
"""Suffixes by which the images in a folder are found."""

REMBG_NETWORK = "u2net"
"""The network that the original used, under Apache-2.0; rembg's own default may only be used privately."""


@dataclass(frozen=True)
class ImageFraming:
    """How an object is cut out of its image and framed.

    Raises:
        ValueError: for a value out of bounds.
    """

    cutout: Cutout = "auto"
    """What removes the background of an image: rembg (a network), plain (a background of one colour, no network),
    none, or auto: unless the image is transparent, rembg, or plain where rembg is not installed."""
    rembg_model: Annotated[str, arg(metavar="NAME")] = REMBG_NETWORK
    """Network of rembg, for instance isnet-general-use or birefnet-general."""
    keep_framing: Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")] = False
    """Leave the object where and as large as it is in its image, instead of centring it with a border."""
    border: Annotated[
        float | None, arg(metavar="SHARE", help_behavior_hint=f"(default: {BORDER}; 0 of a whole image)")
    ] = None
    """Share of the edge that stays free around the object, 0 to 0.9."""

    def __post_init__(self) -> None:
        known = get_args(Cutout)
        require(self.cutout in known, "the cutout", repr(self.cutout), f"one of: {', '.join(known)}")
        if self.border is not None:
            require(0 <= self.border <= LARGEST_BORDER, "the border", self.border, f"0 to {LARGEST_BORDER}")
