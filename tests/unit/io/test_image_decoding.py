"""Image files of other programs: colour profiles, sizes beyond bounds, and damage."""

import random
import struct
import time
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from diffsplat.errors import InvalidInputError
from diffsplat.io.image_decoding import DecodingLimits
from diffsplat.io.image_files import image_from_pillow, read_image
from support.damaged_files import damaged
from support.icc_profiles import SRGB_PRIMARIES, grey_profile, rgb_profile

RED, GREEN, BLUE = SRGB_PRIMARIES
SWAPPED = rgb_profile((GREEN, RED, BLUE), 2.2)
"""Its red is the green of sRGB, and the reverse."""


def encoded(mode: str, linear: float) -> float:
    """Grey of sRGB, 0..255, for light of this strength."""
    return 255 * (1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_colour_profile_is_honoured(tmp_path: Path, mode: str):
    image = Image.new("RGB", (4, 4), (255, 0, 0)).convert(mode)
    image.save(tmp_path / "a.png", icc_profile=SWAPPED)
    found = read_image(tmp_path / "a.png")
    expected = torch.tensor([0.0, 1.0, 0.0])[:, None, None].expand(3, 4, 4)
    torch.testing.assert_close(found[:3], expected, rtol=0, atol=0.02)
    assert len(found) == (4 if mode == "RGBA" else 3)
    with Image.open(tmp_path / "a.png") as opened:
        assert torch.equal(image_from_pillow(opened), found)


def test_alpha_is_no_colour(tmp_path: Path):
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 77))
    image.save(tmp_path / "a.png", icc_profile=SWAPPED)
    assert read_image(tmp_path / "a.png")[:, 0, 0].mul(255).round().tolist()[3] == 77


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_grey_profile_is_honoured(tmp_path: Path, mode: str):
    color = (128, 200) if mode == "LA" else 128
    Image.new(mode, (4, 4), color).save(tmp_path / "a.png", icc_profile=grey_profile(1.0))
    found = read_image(tmp_path / "a.png")[:, 0, 0].mul(255)
    assert found[:3].tolist() == pytest.approx([encoded("L", 128 / 255)] * 3, abs=1.5)


def test_a_gamma_is_honoured_unless_there_is_a_profile(tmp_path: Path):
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    def with_gamma(gamma: float, **options) -> Path:
        file = BytesIO()
        Image.new("RGBA", (4, 4), (128, 64, 255, 99)).save(file, "PNG", **options)
        data = file.getvalue()
        (tmp_path / "a.png").write_bytes(
            data[:33] + chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000))) + data[33:]
        )
        return tmp_path / "a.png"

    stored = [128, 64, 255, 99]
    assert read_image(with_gamma(0.45455))[:, 0, 0].mul(255).round().tolist() == stored
    linear = read_image(with_gamma(1.0))[:, 0, 0].mul(255).tolist()
    assert linear == pytest.approx([encoded("L", 128 / 255), encoded("L", 64 / 255), 255, 99], abs=0.6)
    swapped = read_image(with_gamma(1.0, icc_profile=SWAPPED))[:, 0, 0].mul(255).tolist()
    assert swapped == pytest.approx([64, 128, 255, 99], abs=4)


@pytest.mark.parametrize("junk", [b"no profile", grey_profile(1.0), SWAPPED[:200]])
def test_a_profile_that_does_not_fit_is_ignored(tmp_path: Path, junk: bytes):
    Image.new("RGB", (4, 4), (10, 200, 90)).save(tmp_path / "a.png", icc_profile=junk)
    assert read_image(tmp_path / "a.png")[:, 0, 0].mul(255).round().tolist() == [10, 200, 90]


@pytest.mark.parametrize(
    ("mode", "suffix"), [("RGB", ".jpg"), ("RGBA", ".png"), ("1", ".png"), ("P", ".png")]
)
def test_large_images_are_reduced(tmp_path: Path, mode: str, suffix: str):
    Image.new("RGB", (5000, 1000), (255, 255, 255)).convert(mode).save(tmp_path / f"a{suffix}")
    found = read_image(tmp_path / f"a{suffix}")
    assert found.shape == (4 if mode == "RGBA" else 3, 819, 4096)
    assert float(found.min()) > 0.99
    assert read_image(tmp_path / f"a{suffix}", DecodingLimits(longest_side=500)).shape[1:] == (100, 500)


def test_grey_of_16_bits_is_reduced_with_all_its_bits(tmp_path: Path):
    Image.fromarray(np.full((10, 5000), 12345, np.uint16)).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    assert found.shape == (3, 8, 4096)
    torch.testing.assert_close(found, torch.full_like(found, 12345 / 65535), rtol=0, atol=1e-6)


def test_hidden_colours_do_not_bleed_when_an_image_is_reduced(tmp_path: Path):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[::2, ::2] = (255, 255, 255, 255)
    pixels[1::2, 1::2] = (0, 255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png", DecodingLimits(longest_side=2))
    assert bool((found[:3, found[3] > 0.05] > 0.98).all())


def test_more_pixels_than_fit_into_memory_are_refused_before_they_are_decoded(tmp_path: Path):
    Image.new("1", (8193, 6144)).save(tmp_path / "a.png")
    start = time.process_time()
    with pytest.raises(InvalidInputError, match="more than 50331648 pixels"):
        read_image(tmp_path / "a.png")
    assert time.process_time() - start < 0.2


def test_a_short_file_of_many_pixels_is_refused(tmp_path: Path):
    Image.new("L", (64, 64)).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:24] = struct.pack(">II", 6000, 6000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(InvalidInputError, match="too short for its pixels"):
        read_image(tmp_path / "a.png")


def test_photos_of_phones_are_named(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(InvalidInputError, match="HEIF photo, save it as JPEG"):
        read_image(tmp_path / "a.jpg")


def good_images() -> dict[str, bytes]:
    """A small image in every kind of file that Pillow writes and this package reads."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 31, 4), dtype=np.uint8)
    rgba = Image.fromarray(noise)
    rgb = rgba.convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = {
        "PNG": (rgba, {"exif": exif, "icc_profile": SWAPPED}),
        "JPEG": (rgb, {"exif": exif, "icc_profile": SWAPPED}),
        "WEBP": (rgba, {"exif": exif}),
        "GIF": (rgb.quantize(16), {"transparency": 1, "save_all": True, "append_images": [rgb.quantize(8)]}),
        "BMP": (rgb, {}),
        "TIFF": (rgb, {"compression": "tiff_lzw"}),
        "JPEG2000": (rgb, {}),
        "TGA": (rgba, {"compression": "tga_rle"}),
        "PPM": (rgb, {}),
        "DDS": (rgba, {}),
        "PCX": (rgb, {}),
        "SGI": (rgb, {}),
    }
    if features.check("avif"):
        kinds["AVIF"] = (rgba, {"exif": exif.tobytes()})
    files: dict[str, bytes] = {}
    for kind, (image, options) in kinds.items():
        target = BytesIO()
        image.save(target, kind, **options)
        files[kind] = target.getvalue()
    grey, palette = BytesIO(), BytesIO()
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(grey, "PNG")
    rgb.quantize(4).save(palette, "PNG", transparency=b"\0\x80\xff")
    return files | {"PNG of 16 bits": grey.getvalue(), "PNG with a palette": palette.getvalue()}


def tried(path: Path) -> str | None:
    """What the reader says against a file, or None when its image is fine."""
    try:
        image = read_image(path)
    except InvalidInputError as error:
        return str(error)
    assert image.shape[0] in (3, 4)
    assert 0 <= float(image.min()) <= float(image.max()) <= 1
    return None


def check(folder: Path, rounds: int, seed: int) -> None:
    source, path = random.Random(seed), folder / "a.png"
    files = good_images()
    for name, data in files.items():
        path.write_bytes(data)
        assert read_image(path).shape[1:] in ((24, 31), (31, 24)), name
    read = refused = 0
    for number in range(rounds):
        path.write_bytes(damaged(list(files.values())[number % len(files)], source))
        start = time.process_time()
        message = tried(path)
        assert message is None or message.startswith(f"{str(path)!r} ")
        read += message is None
        refused += message is not None
        assert time.process_time() - start < 10
    assert read
    assert refused


def test_damaged_images_are_read_or_refused(tmp_path: Path):
    check(tmp_path, rounds=300, seed=0)


@pytest.mark.slow
def test_many_damaged_images_are_read_or_refused(tmp_path: Path):
    check(tmp_path, rounds=10_000, seed=1)


def test_a_transparent_grey_of_16_bits_becomes_alpha(tmp_path: Path):
    """PNG with a tRNS chunk, which names one grey value."""
    pixels = np.array([[0, 0x6B6B]], np.uint16)
    rows = b"\0" + pixels.astype(">u2").tobytes()
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 0, 0, 0, 0)),
        *((b"tRNS", b"\0\0"), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")),
    ]
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    back = read_image(tmp_path / "a.png")
    assert (back * 255).round().flatten(1).T.tolist() == [[0, 0, 0, 0], [107, 107, 107, 255]]


def test_grey_of_32_bits_is_refused(tmp_path: Path):
    Image.fromarray(np.full((4, 4), 1 << 20, np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(InvalidInputError, match="grey values up to 1048576, expected 8 or 16 bits"):
        read_image(tmp_path / "a.tif")


CORNERS = np.kron(np.array([[60, 120], [180, 240]], np.uint8), np.ones((4, 8), np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize(("orientation", "corners"), [(3, (240, 180, 120, 60)), (6, (180, 60, 240, 120))])
def test_images_of_any_mode_are_turned_upright(
    tmp_path: Path, kind: str, mode: str, orientation: int, corners: tuple[int, ...]
):
    """A camera upside down, or turned so that its left is up; corners in reading order."""
    if (kind, mode) == ("WEBP", "I;16"):
        pytest.skip("no such files")
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = (
        Image.fromarray(CORNERS.astype(np.uint16) * 257)
        if mode == "I;16"
        else Image.fromarray(CORNERS).convert(mode)
    )
    image.save(tmp_path / "a", kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    found = read_image(tmp_path / "a")[0].mul(255).round()
    assert found.shape == ((16, 8) if orientation == 6 else (8, 16))
    assert (*found[0, [0, -1]].tolist(), *found[-1, [0, -1]].tolist()) == corners


def test_premultiplied_pillow_images(tmp_path: Path):
    grey = Image.new("LA", (4, 4), (100, 128)).convert("La")
    color = Image.new("RGBA", (4, 4), (100, 100, 100, 128)).convert("RGBa")
    for image in (grey, color):
        found = image_from_pillow(image)[:, 0, 0].mul(255)
        assert found.tolist() == pytest.approx([100, 100, 100, 128], abs=1.5)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_files_without_their_end_are_named(tmp_path: Path, kind: str):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow without AVIF")
    data = good_images()[kind]
    for size in (14, 20, len(data) // 2):
        (tmp_path / "a").write_bytes(data[:size])
        with pytest.raises(InvalidInputError, match="broken"):
            read_image(tmp_path / "a")


def test_empty_files_and_others_are_named(tmp_path: Path):
    for data, words in (
        (b"", "not an image file in a format that is read .*: it is empty"),
        (b"<svg/>", r"in a format that is read \(PNG, JPEG,"),
    ):
        (tmp_path / "a.png").write_bytes(data)
        with pytest.raises(InvalidInputError, match=words):
            read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    "entry",
    [
        (0x011A, 1, 4, b"\1\2\3\4"),  # a resolution in bytes
        (0x011A, 9, 1, b"\xff\xff\xff\xff"),  # a negative one
        (0x8769, 4, 1, b"\xff\xff\0\0"),  # more entries beyond the end
        (0x9999, 77, 1, b"\0\0\0\0"),  # of no known type
    ],
)
def test_odd_metadata_hinders_neither_reading_nor_turning(tmp_path: Path, entry: tuple):
    entries = ((0x0112, 3, 1, b"\6\0\0\0"), entry)
    packed = b"".join(struct.pack("<HHI4s", *values) for values in entries)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + bytes(20)
    Image.fromarray(CORNERS).save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png").shape == (3, 16, 8)
