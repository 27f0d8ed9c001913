"""Uploaded images: bytes to a Pillow image of modest size."""

from io import BytesIO

from PIL import Image

from diffsplat.errors import InvalidInputError
from diffsplat.io.image_decoding import DecodingLimits, TooManyPixelsError
from diffsplat.io.image_decoding import decode_image as decode_within
from diffsplat.web.server_limits import Limits

FORMATS = ("PNG", "JPEG", "WEBP")
_LONGEST_SIDE = 2048
"""Pixels to which a larger image is reduced; models use a few hundred."""


class TooLargeError(InvalidInputError):
    """More bytes or pixels than are allowed."""


def decode_image(data: bytes, name: str, limits: Limits) -> Image.Image:
    """The first frame of a PNG, JPEG or WebP file, 8 bits a channel, upright, in sRGB.

    Args:
        data: the file.
        name: what the sentence calls it.
        limits: bounds of bytes and pixels; the pixels are counted before any is decoded.

    Raises:
        TooLargeError: beyond the limits.
        ValueError: when it is not such a file, or broken.
    """
    if len(data) > limits.max_upload_bytes:
        raise TooLargeError(f"the {name} has {len(data)} bytes, expected at most {limits.max_upload_bytes}")
    bounds = DecodingLimits(FORMATS, limits.max_pixels, _LONGEST_SIDE)
    try:
        image = decode_within(BytesIO(data), f"the {name}", bounds)
    except TooManyPixelsError as error:
        raise TooLargeError(str(error)) from error
    if image.mode == "F":
        return image.point(lambda value: value * 255 + 0.5).convert("RGB")
    return image
