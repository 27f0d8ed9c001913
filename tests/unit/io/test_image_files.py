"""Pillow alone is the truth for files; patterns are made so that every pixel and channel is told apart."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffsplat.errors import InvalidInputError
from diffsplat.io.image_decoding import DecodingLimits
from diffsplat.io.image_files import read_image, tile_images, write_image


def bytes_image(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def to_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("suffix", [".png", ".webp", ".PNG"])
def test_lossless_files_hold_every_byte(tmp_path: Path, channels: int, suffix: str):
    pixels = bytes_image(5, 7, channels)
    pixels[..., 3:] |= 1
    path = tmp_path / f"a{suffix}"
    write_image(to_tensor(pixels), path)
    with Image.open(path) as image:
        assert image.size == (7, 5)
        np.testing.assert_array_equal(np.asarray(image.convert("RGBA" if channels == 4 else "RGB")), pixels)
    back = read_image(path)
    assert back.shape == (channels, 5, 7)
    assert back.dtype == torch.float32
    torch.testing.assert_close(back, to_tensor(pixels), rtol=0, atol=1e-7)


def test_jpeg_is_close(tmp_path: Path):
    x = torch.linspace(0, 1, 32).expand(32, 32)
    image = torch.stack([x, x.T, 1 - x])
    write_image(image, tmp_path / "a.jpg")
    torch.testing.assert_close(read_image(tmp_path / "a.jpg"), image, rtol=0, atol=0.05)


def test_values_are_clipped_and_rounded(tmp_path: Path):
    values = torch.tensor([-3.0, 0.4 / 255, 0.6 / 255, 254.4 / 255, 254.6 / 255, 9.0])
    write_image(values.expand(3, 1, 6), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 1, 254, 255, 255]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.zeros(1, 4, 4), "expected \\[3, H, W\\]"),
        (torch.zeros(4, 4), "expected \\[3, H, W\\]"),
        (torch.zeros(3, 0, 4), "expected \\[3, H, W\\]"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "floating-point"),
        (torch.full((3, 4, 4), float("nan")), "NaN"),
    ],
)
def test_bad_images_leave_no_file(tmp_path: Path, image: Tensor, words: str):
    with pytest.raises(ValueError, match=words):
        write_image(image, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_bad_paths_to_write(tmp_path: Path):
    image = torch.zeros(3, 4, 4)
    with pytest.raises(InvalidInputError, match=r"expected an image: \.png, \.jpg"):
        write_image(image, tmp_path / "a.ply")
    with pytest.raises(InvalidInputError, match="cannot hold transparency"):
        write_image(torch.zeros(4, 4, 4), tmp_path / "a.jpg")
    (tmp_path / "a.png").write_bytes(b"mine")
    with pytest.raises(InvalidInputError, match="exists already"):
        write_image(image, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"mine"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_pixel_modes_of_other_programs(tmp_path: Path, mode: str):
    path = tmp_path / ("a.tif" if mode in ("CMYK", "I;16") else "a.png")
    if mode == "I;16":
        Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)).save(path)
        expected = [0, 32768 / 65535, 1]
    else:
        Image.fromarray(np.array([[[0] * 3, [255] * 3, [0] * 3]], np.uint8)).convert(mode).save(path)
        expected = [0.0, 1.0, 0.0]
    back = read_image(path)
    assert back.shape == (4 if "A" in mode else 3, 1, 3)
    torch.testing.assert_close(back[:3], torch.tensor(expected).expand(3, 1, 3), rtol=0, atol=1e-6)


def test_a_transparent_palette_colour_becomes_alpha(tmp_path: Path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=1)
    assert read_image(tmp_path / "a.png").flatten(1).T.tolist() == [[1, 0, 0, 1], [0, 1, 0, 0]]


def test_the_camera_orientation_is_applied(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise for viewing
    Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)).save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png")[:, :, 0].T.tolist() == [[1, 0, 0], [0, 0, 1]]


def test_broken_images_get_one_sentence(tmp_path: Path):
    write_image(torch.rand(3, 40, 40), tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    cases = {"text": (b"hello", "not an image file"), "empty": (b"", "not an image file")}
    cases["cut"] = (whole[: len(whole) // 2], "broken image file")
    for name, (data, words) in cases.items():
        (tmp_path / f"{name}.png").write_bytes(data)
        with pytest.raises(InvalidInputError, match=words):
            read_image(tmp_path / f"{name}.png")
    with pytest.raises(InvalidInputError, match="no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(InvalidInputError, match="more than 1000 pixels"):
        read_image(tmp_path / "good.png", DecodingLimits(max_pixels=1000))


def test_floating_point_pixels_are_refused(tmp_path: Path):
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(InvalidInputError, match="unknown range"):
        read_image(tmp_path / "a.tif")


def test_tiles_stand_in_reading_order():
    images = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 1, 2, 3)
    sheet = tile_images(images, columns=2, gap=1, background=9.0)
    expected = [
        [0, 0, 0, 9, 1, 1, 1],
        [0, 0, 0, 9, 1, 1, 1],
        [9, 9, 9, 9, 9, 9, 9],
        [2, 2, 2, 9, 3, 3, 3],
        [2, 2, 2, 9, 3, 3, 3],
        [9, 9, 9, 9, 9, 9, 9],
        [4, 4, 4, 9, 9, 9, 9],
        [4, 4, 4, 9, 9, 9, 9],
    ]
    assert sheet[0].tolist() == expected
    assert tile_images(images)[0].tolist() == [[v for v in range(5) for _ in range(3)]] * 2


@pytest.mark.parametrize(("count", "columns", "gap"), [(0, None, 0), (3, 0, 0), (3, 2, -1)])
def test_impossible_tilings(count: int, columns: int | None, gap: int):
    with pytest.raises(InvalidInputError, match="cannot tile"):
        tile_images(torch.zeros(count, 3, 2, 2), columns=columns, gap=gap)
