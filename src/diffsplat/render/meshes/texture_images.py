"""Texture images of meshes, decoded to 8-bit sRGB with straight alpha."""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from diffsplat.errors import InvalidInputError
from diffsplat.io.image_decoding import FLOATING_POINT, readable_formats, reduced

TEXTURE_LIMIT = 512
MAX_PIXELS = 1 << 26
_KTX2 = b"\xabKTX 20\xbb\r\n\x1a\n"
_FORMATS = (
    *("PNG", "JPEG", "MPO", "WEBP", "AVIF", "BMP", "DIB", "TGA", "TIFF", "GIF"),
    *("DDS", "JPEG2000", "PSD", "PCX", "PPM", "ICO", "SGI", "QOI"),
)


def decode_texture(data: bytes, *, opaque: bool = False) -> NDArray[np.uint8]:
    """``[H, W, 4]`` of an image file, at most ``TEXTURE_LIMIT`` pixels a side.

    Args:
        data: the content of the file.
        opaque: ignore the image's alpha, whose colours are kept beneath it.

    Raises:
        ValueError: it is not an image, broken, or has more than ``MAX_PIXELS`` pixels.
    """
    if data.startswith(_KTX2):
        raise InvalidInputError("is a KTX2 image (KHR_texture_basisu), which is not read: convert it to PNG")
    known = readable_formats(_FORMATS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=known) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise InvalidInputError(
                        f"has {image.width} x {image.height} pixels, expected at most {MAX_PIXELS}"
                    )
                pixels = _eight_bits(image)
                chosen = pixels.convert("RGB") if opaque else pixels
                return np.array(reduced(chosen, TEXTURE_LIMIT).convert("RGBA"))
    except (InvalidInputError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise InvalidInputError(f"has far more than {MAX_PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        if data[4:12] == b"ftypavif":
            raise InvalidInputError("is an AVIF image, which needs Pillow 11.3 or newer") from error
        raise InvalidInputError(f"is not an image of a known format ({', '.join(known)})") from error
    except Exception as error:  # Pillow's decoders raise whatever a broken file happens to trigger
        raise InvalidInputError(f"is a broken image ({type(error).__name__})") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise InvalidInputError(FLOATING_POINT)
    if image.mode.startswith("I"):
        grey = np.asarray(image, dtype=np.float32) / 65535 * 255
        return Image.fromarray((grey.clip(0, 255) + 0.5).astype(np.uint8)).convert("RGBA")
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    return image.convert("RGBA")
