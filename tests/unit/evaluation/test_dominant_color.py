import pytest
import torch

from diffsplat.evaluation.dominant_color import dominant_color, srgb_to_lab
from diffsplat.images.color_words import COLOR_WORDS

# CIE Lab of the sRGB primaries (D65), as tabulated by Bruce Lindbloom's colour calculator.
LAB = {
    (255, 0, 0): (53.24, 80.09, 67.20),
    (0, 255, 0): (87.73, -86.18, 83.18),
    (0, 0, 255): (32.30, 79.19, -107.86),
    (255, 255, 255): (100.0, 0.0, 0.0),
    (0, 0, 0): (0.0, 0.0, 0.0),
    (128, 128, 128): (53.59, 0.0, 0.0),
}

# Colours whose CSS name says the basic term.
NAMED = {
    "red": [(255, 0, 0), (139, 0, 0), (220, 20, 60), (178, 34, 34)],
    "orange": [(255, 165, 0), (255, 140, 0)],
    "yellow": [(255, 255, 0), (255, 215, 0), (240, 230, 140)],
    "green": [(0, 128, 0), (0, 255, 0), (34, 139, 34), (46, 139, 87), (152, 251, 152), (107, 142, 35)],
    "blue": [(0, 0, 255), (65, 105, 225), (0, 0, 128), (135, 206, 235), (70, 130, 180), (25, 25, 112)],
    "purple": [(128, 0, 128), (138, 43, 226), (75, 0, 130), (147, 112, 219), (148, 0, 211)],
    "pink": [(255, 192, 203), (255, 105, 180), (255, 20, 147), (255, 182, 193)],
    "brown": [(139, 69, 19), (160, 82, 45), (210, 180, 140), (101, 67, 33)],
    "black": [(0, 0, 0), (20, 20, 22)],
    "white": [(255, 255, 255), (245, 245, 245), (255, 250, 240)],
    "grey": [(128, 128, 128), (105, 105, 105), (112, 128, 144)],
}


def painted(
    color: tuple[int, int, int], *, shades: tuple[float, ...] = (1.0,)
) -> tuple[torch.Tensor, torch.Tensor]:
    """A square on white, in strips that are lit differently."""
    image, alpha = torch.ones(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
    strips = torch.tensor(shades).repeat_interleave(-(-16 // len(shades)))[:16]
    image[:, :, 8:24, 8:24] = torch.tensor(color)[:, None, None] / 255 * strips
    alpha[..., 8:24, 8:24] = 1
    return image, alpha


@pytest.mark.parametrize(("color", "lab"), LAB.items())
def test_lab_of_known_colors(color, lab):
    measured = srgb_to_lab(torch.tensor(color, dtype=torch.float64) / 255)
    torch.testing.assert_close(measured, torch.tensor(lab, dtype=torch.float64), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("word", "color"), [(word, color) for word, colors in NAMED.items() for color in colors]
)
def test_named_colors(word, color):
    assert dominant_color(*painted(color)) == word


@pytest.mark.parametrize("word", [word for word in COLOR_WORDS if word not in ("black", "grey", "white")])
def test_shading_does_not_change_the_word(word):
    image, alpha = painted(NAMED[word][0], shades=(1.0, 0.9, 0.75, 0.6))
    assert dominant_color(image, alpha) == word


def test_the_largest_part_counts_and_the_background_does_not():
    image, alpha = painted((0, 0, 255))
    image[:, :, 8:13, 8:24] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    assert dominant_color(image, alpha) == "blue"
    image[:, :, 8:20, 8:24] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    assert dominant_color(image, alpha) == "red"


def test_half_transparent_pixels_are_judged_without_the_white_behind_them():
    color = torch.tensor([0.55, 0.0, 0.0])[:, None, None]
    image = (0.6 * color + 0.4).expand(1, 3, 8, 8)
    assert dominant_color(image, torch.full((1, 1, 8, 8), 0.6)) == "red"


def test_views_are_counted_together():
    blue, mask = painted((0, 0, 255))
    red, _ = painted((255, 0, 0))
    assert dominant_color(torch.cat([blue, red, blue]), torch.cat([mask] * 3)) == "blue"


def test_an_empty_image_has_no_color():
    with pytest.raises(ValueError, match="empty image"):
        dominant_color(torch.ones(1, 3, 8, 8), torch.zeros(1, 1, 8, 8))
