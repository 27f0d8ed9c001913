"""Boxes of objects that are drawn here, among haze, shadows and specks."""

import numpy as np
import pytest
import torch
from torch import Tensor

from diffsplat.errors import InvalidInputError
from diffsplat.images.flood_fill import connected_to_border
from diffsplat.images.visible_box import visible_box

BOX = (60, 160, 50, 130)


def drawn(strength: float = 1.0) -> Tensor:
    alpha = torch.zeros(256, 256)
    alpha[BOX[0] : BOX[1], BOX[2] : BOX[3]] = strength
    return alpha


def test_the_box_of_an_object():
    assert visible_box(drawn(), "a") == BOX


@pytest.mark.parametrize("strength", [0.03, 0.3, 1.0])
def test_the_box_of_a_transparent_object(strength: float):
    alpha = drawn(strength)
    alpha[5, 5] = 1.0
    assert visible_box(alpha, "a") == BOX


@pytest.mark.parametrize("faint", [0.03, 0.1, 0.25, 0.45])
def test_haze_and_shadows_do_not_count(faint: float):
    alpha = drawn()
    alpha[140:250, 10:250] = alpha[140:250, 10:250].clamp(min=faint)
    alpha[0, 0] = alpha[255, 255] = faint
    assert visible_box(alpha, "a") == BOX


def test_a_soft_shadow_that_fades_does_not_count():
    y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    shadow = 0.45 * torch.exp(-((x - 90) ** 2 / 5000 + (y - 170) ** 2 / 400))
    assert visible_box(torch.maximum(drawn(), shadow), "a") == BOX


@pytest.mark.parametrize(
    "places", [[(0, 0)], [(255, 0), (0, 255)], [(100, 250)], [(2, 90), (4, 90), (250, 91)]]
)
def test_specks_do_not_count(places: list[tuple[int, int]]):
    alpha = drawn()
    for row, column in places:
        alpha[row : row + 2, column : column + 2] = 1
    assert visible_box(alpha, "a") == BOX


def test_a_part_that_touches_or_is_large_counts():
    alpha = drawn()
    alpha[20:60, 90] = 1  # an antenna
    assert visible_box(alpha, "a") == (20, 160, 50, 130)
    alpha = drawn()
    alpha[200:220, 200:220] = 1  # 5 % of the object, apart from it
    assert visible_box(alpha, "a") == (60, 220, 50, 220)


def test_nothing_visible_is_refused():
    with pytest.raises(InvalidInputError, match="'a' is transparent or of one colour all over"):
        visible_box(torch.full((9, 9), 0.01), "'a'")
    with pytest.raises(InvalidInputError, match="is 2 x 2 pixels"):
        visible_box(drawn()[58:62, 48:52], "'a'")


def flooded(mask: np.ndarray) -> np.ndarray:
    """One pixel after the other."""
    height, width = mask.shape
    reached = np.zeros_like(mask)
    waiting = [
        (y, x) for y in range(height) for x in range(width) if y in (0, height - 1) or x in (0, width - 1)
    ]
    while waiting:
        y, x = waiting.pop()
        if 0 <= y < height and 0 <= x < width and mask[y, x] and not reached[y, x]:
            reached[y, x] = True
            waiting += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    return reached


@pytest.mark.parametrize("share", [0.0, 0.5, 0.6, 0.7, 1.0])
def test_flood_filling_agrees_with_a_search(share: float):
    source = np.random.default_rng(0)
    for height, width in ((1, 1), (1, 9), (30, 41)):
        mask = source.random((height, width)) < share
        np.testing.assert_array_equal(connected_to_border(mask), flooded(mask))
