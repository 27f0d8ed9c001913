"""Texture images of all kinds and depths, and what is refused."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image, features

from diffsplat.render.meshes.texture_images import decode_texture


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


GREY = Image.fromarray(np.full((4, 4), 107 * 257, dtype=np.uint16))
COLOR = Image.new("RGB", (8, 8), (200, 40, 90))


@pytest.mark.parametrize(
    ("data", "expected", "tolerance"),
    [
        (encoded(GREY, "PNG"), (107, 107, 107, 255), 0),
        (encoded(GREY, "TIFF"), (107, 107, 107, 255), 0),
        (encoded(COLOR, "PNG"), (200, 40, 90, 255), 0),
        (encoded(COLOR, "BMP"), (200, 40, 90, 255), 0),
        (encoded(COLOR, "TGA"), (200, 40, 90, 255), 0),
        (encoded(COLOR, "TIFF"), (200, 40, 90, 255), 0),
        (encoded(COLOR, "WEBP", lossless=True), (200, 40, 90, 255), 0),
        (encoded(COLOR.convert("CMYK"), "JPEG", quality=95), (200, 40, 90, 255), 4),
        (encoded(COLOR.convert("L"), "PNG"), (94, 94, 94, 255), 1),
        (encoded(COLOR.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"), (200, 40, 90, 255), 1),
        (encoded(Image.new("LA", (2, 2), (50, 60)), "PNG"), (50, 50, 50, 60), 0),
        (encoded(Image.new("1", (8, 8), 1), "PNG"), (255, 255, 255, 255), 0),
    ],
)
def test_kinds(data, expected, tolerance):
    pixels = decode_texture(data)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.reshape(-1, 4), [expected] * (pixels.size // 4), atol=tolerance)


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_avif():
    pixels = decode_texture(encoded(COLOR, "AVIF", quality=95))
    np.testing.assert_allclose(pixels[4, 4], (200, 40, 90, 255), atol=6)


def test_large_images_are_made_smaller():
    assert decode_texture(encoded(Image.new("RGB", (2048, 1024)), "PNG")).shape == (256, 512, 4)


def test_colours_below_ignored_alpha_are_kept():
    """Half of the texels are transparent; where opacity does not count, their colour does."""
    clear = Image.new("RGBA", (1024, 1024), (200, 40, 90, 0))
    np.testing.assert_array_equal(
        decode_texture(encoded(clear, "PNG"), opaque=True)[5, 5], (200, 40, 90, 255)
    )


def huge_png(side):
    rows = zlib.compress(b"")
    head = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])

    def chunk(name, body):
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (huge_png(9000), "9000 x 9000 pixels"),
        (huge_png(40000), "far more than"),
        (encoded(COLOR, "PNG")[:-30], "broken image"),
        (b"no image", r"not an image of a known format \(PNG, JPEG,"),
        (encoded(Image.new("F", (4, 4), 90.0), "TIFF"), "floating-point pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
        (b"\xabKTX 20\xbb\r\n\x1a\n" + bytes(80), "KTX2"),
    ],
)
def test_refusals(data, message):
    with pytest.raises(ValueError, match=message):
        decode_texture(data)
