"""Uploaded images: bytes to a Pillow image of modest size."""

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps

from diffsplat.errors import InvalidInputError
from diffsplat.web.server_limits import Limits

FORMATS = ("PNG", "JPEG", "WEBP")
_LONGEST_SIDE = 2048
"""Pixels to which a larger image is reduced; models use a few hundred."""

_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError),
    *(NotImplementedError, struct.error, zlib.error, Image.DecompressionBombError),
)
"""What Pillow raises for files that are broken."""


class TooLargeError(InvalidInputError):
    """More bytes or pixels than are allowed."""


def decode_image(data: bytes, name: str, limits: Limits) -> Image.Image:
    """The first frame of a PNG, JPEG or WebP file.

    Args:
        data: the file.
        name: what the sentence calls it.
        limits: bounds of bytes and pixels; the pixels are counted before any is decoded.

    Raises:
        TooLargeError: beyond the limits.
        ValueError: when it is no such file, or a broken one.
    """
    if len(data) > limits.max_upload_bytes:
        raise TooLargeError(f"the {name} has {len(data)} bytes, expected at most {limits.max_upload_bytes}")
    try:
        opened = Image.open(BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(name, limits) from error
    except _DAMAGE as error:
        raise InvalidInputError(f"the {name} is no image, expected a PNG, JPEG or WebP file") from error
    if opened.width * opened.height > limits.max_pixels:
        raise _too_many_pixels(name, limits)
    try:
        opened.load()
        return _reduced(opened)
    except _DAMAGE as error:
        raise InvalidInputError(f"the {name} is a broken {opened.format} file") from error


def _too_many_pixels(name: str, limits: Limits) -> TooLargeError:
    return TooLargeError(f"the {name} has too many pixels, expected at most {limits.max_pixels} in all")


def _reduced(image: Image.Image) -> Image.Image:
    """8 bits a channel, upright, and no larger than is of use."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        grey = np.asarray(upright, dtype=np.float64).clip(0, 65535) / 257
        upright = Image.fromarray(grey.astype(np.uint8))
    plain = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    plain.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    plain.info.clear()
    return plain
