"""Decoding image files of unknown origin: upright, in sRGB, and within bounds of memory."""

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from diffsplat.core.srgb import linear_to_srgb
from diffsplat.errors import InvalidInputError, explained_errors

_FORMATS = (
    *("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000"),
    *("TGA", "PPM", "DDS", "QOI", "PSD", "PCX", "SGI"),
)
"""Formats whose decoders run no other program and keep to the size in the file's head."""
_MAX_PIXELS = 8192 * 6144
"""As large as photos of phones; decoding takes up to 20 bytes of memory for each."""
_LONGEST_SIDE = 4096
_PNG_PIXELS_PER_BYTE = 8 * 1032
"""Most pixels of one bit that a byte of deflated data can hold."""

IMAGE_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, AssertionError),
    *(ArithmeticError, RuntimeError, MemoryError, struct.error, zlib.error),
    Image.DecompressionBombError,
)
"""What Pillow raises for broken files."""

_TURNS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes an orientation that a camera noted."""

_SRGB_GAMMA = 1 / 2.2
_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


FLOATING_POINT = "holds floating-point pixels of unknown range, expected 8 or 16 bits"


class TooManyPixelsError(InvalidInputError):
    """An image is larger than is allowed."""


@dataclass(frozen=True)
class DecodingLimits:
    """What is decoded.

    Args:
        formats: Pillow's names of the formats that are read.
        max_pixels: width times height of an image as it is stored.
        longest_side: pixels to which a larger image is reduced.
    """

    formats: tuple[str, ...] = _FORMATS
    max_pixels: int = _MAX_PIXELS
    longest_side: int = _LONGEST_SIDE


def decode_image(source: Path | BinaryIO, name: str, limits: DecodingLimits) -> Image.Image:
    """The first frame of an image file.

    Args:
        source: the file.
        name: what the sentence of an error calls it.
        limits: what is decoded; the pixels are counted before any is.

    Returns:
        Mode ``RGB`` or ``RGBA`` with 8 bits, or ``F`` in 0..1 for greyscale of 16 bits; turned upright, in sRGB.

    Raises:
        TooManyPixelsError: beyond the limit.
        ValueError: when it is not an image of these formats, or broken.
    """
    with ExitStack() as stack:
        # Pillow maps files that it opens itself into memory, and there mistakes the sides of turned TIFF images.
        file = stack.enter_context(source.open("rb")) if isinstance(source, Path) else source
        stack.enter_context(warnings.catch_warnings())
        # Of many pixels, which are counted here, and of broken metadata.
        warnings.simplefilter("ignore")
        return _decoded(file, name, limits)


def _decoded(source: BinaryIO, name: str, limits: DecodingLimits) -> Image.Image:
    try:
        opened = _opened(source, limits.formats)
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(name, limits) from error
    except UnidentifiedImageError as error:
        formats = ", ".join(limits.formats)
        raise InvalidInputError(
            f"{name} is not an image file in a format that is read ({formats}){_hint(source)}"
        ) from error
    except IMAGE_DAMAGE as error:
        raise InvalidInputError(f"{name} is a broken image file: {error}") from error
    with opened:
        if opened.width * opened.height > limits.max_pixels:
            raise _too_many_pixels(name, limits)
        if opened.format == "PNG" and opened.width * opened.height > _PNG_PIXELS_PER_BYTE * _size(source):
            raise InvalidInputError(f"{name} is a broken image file: it is too short for its pixels")
        with explained_errors(f"{name} is a broken image file", *IMAGE_DAMAGE):
            if max(opened.size) > limits.longest_side:
                # JPEG files can be decoded at a fraction of their size.
                opened.draft(opened.mode, (limits.longest_side, limits.longest_side))
            return plain_image(opened, name, limits.longest_side)


def plain_image(image: Image.Image, name: str, longest_side: int) -> Image.Image:
    """A Pillow image in one of the modes of :func:`decode_image`.

    Raises:
        ValueError: for floating-point pixels, whose range is not known.
    """
    image.load()
    upright = _turned_upright(reduced(_expanded(image, name), longest_side))
    if upright.mode != "F":
        upright = _in_srgb(upright).convert("RGBA" if upright.mode == "RGBA" else "RGB")
    # What has been applied must not be applied again.
    upright.info = {}
    return upright


def _opened(source: BinaryIO, formats: tuple[str, ...]) -> Image.Image:
    return Image.open(source, formats=readable_formats(formats))


def readable_formats(formats: Sequence[str]) -> list[str]:
    """Those of Pillow's formats that this installation of it can read."""
    Image.init()
    return [name for name in formats if name in Image.OPEN]


def _size(source: BinaryIO) -> int:
    """Bytes of a file."""
    place = source.tell()
    size = source.seek(0, io.SEEK_END)
    source.seek(place)
    return size


def _hint(source: BinaryIO) -> str:
    """What else a file may be that is often taken for an image."""
    source.seek(0)
    head = source.read(12)
    if not head:
        return ": it is empty"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return ": it is a HEIF photo, save it as JPEG or PNG"
    if head.startswith(_STARTS) or head[4:12] == b"ftypavif":
        return ": it starts like one, but is broken or cut"
    return ""


def _too_many_pixels(name: str, limits: DecodingLimits) -> TooManyPixelsError:
    return TooManyPixelsError(f"{name} has more than {limits.max_pixels} pixels")


def _expanded(image: Image.Image, name: str) -> Image.Image:
    """The image with pixels that may be averaged: a channel for each colour and for transparency, no palette."""
    if image.mode == "La":
        return image.convert("LA").convert("RGBA")
    if image.mode == "F":
        raise InvalidInputError(f"{name} {FLOATING_POINT}")
    if image.mode.startswith("I"):
        # 16-bit greyscale, the only kind of wider numbers that Pillow reads from common files.
        grey = np.array(image, dtype=np.float32)
        if grey.max() > 65535:
            raise InvalidInputError(f"{name} holds grey values up to {grey.max():.0f}, expected 8 or 16 bits")
        if "transparency" in image.info:
            visible = Image.fromarray(grey != image.info["transparency"]).convert("L")
            return Image.merge("LA", (Image.fromarray((grey / 257).astype(np.uint8)), visible)).convert(
                "RGBA"
            )
        grey /= 65535
        wide = Image.fromarray(grey.clip(0, 1, out=grey))
        wide.info = dict(image.info)
        return wide
    if image.has_transparency_data and image.mode != "RGBA":
        return image.convert("RGBA")
    if image.mode in ("1", "P"):
        return image.convert("L" if image.mode == "1" else "RGB")
    return image


def reduced(image: Image.Image, longest_side: int) -> Image.Image:
    """An image no side of which is longer; colours are averaged by their alpha."""
    scale = longest_side / max(image.size)
    if scale >= 1:
        return image
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def _turned_upright(image: Image.Image) -> Image.Image:
    """The image turned upright by the orientation in its metadata, which may be broken."""
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except IMAGE_DAMAGE:
        return image
    return image if turn is None else image.transpose(turn)


def _in_srgb(image: Image.Image) -> Image.Image:
    """The colours of a profile or a gamma that the file names as sRGB; a profile that cannot be used is ignored."""
    stored = image.info.get("icc_profile")
    if stored:
        try:
            return _from_profile(image, stored)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            return image
    gamma = image.info.get("gamma")
    if "srgb" in image.info or not isinstance(gamma, float) or not 0.1 < gamma < 10:
        return image
    return image if abs(gamma - _SRGB_GAMMA) < 0.01 else _from_gamma(image, gamma)


def _from_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """Colours of an ICC profile in sRGB; as they are where it is for other channels than the image has."""
    modes = {b"GRAY": ("L", ("L",)), b"RGB ": ("RGB", ("L", "RGB", "RGBA")), b"CMYK": ("CMYK", ("CMYK",))}
    space = profile[16:20]
    mode, fitting = modes.get(space, ("", ()))
    if image.mode not in fitting and not (space == b"GRAY" and _is_grey(image)):
        return image
    source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image.convert(mode), source, target, outputMode="RGB")
    if converted is None:
        return image
    if image.mode == "RGBA":
        converted.putalpha(image.getchannel("A"))
    return converted


def _is_grey(image: Image.Image) -> bool:
    """Whether an image has channels for red, green and blue, all with the same values."""
    if image.mode not in ("RGB", "RGBA"):
        return False
    red, green, blue = (image.getchannel(index).tobytes() for index in range(3))
    return red == green == blue


def _from_gamma(image: Image.Image, gamma: float) -> Image.Image:
    """Pixels that are light to the power of ``gamma``."""
    light = np.linspace(0, 1, 256) ** (1 / gamma)
    table = np.rint(linear_to_srgb(light) * 255).astype(int).tolist()
    plain = image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB")
    same = list(range(256))
    bands = [same if band == "A" else table for band in plain.getbands()]
    return plain.point([value for band in bands for value in band])
