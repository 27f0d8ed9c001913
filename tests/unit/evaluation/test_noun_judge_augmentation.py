"""Distortions of pictures against what each of them promises."""

import pytest
import torch

from diffsplat.evaluation.noun_judge_augmentation import DISTORTIONS, Distortion
from diffsplat.images.gaussian_blur import gaussian_blur, with_border

SIZE = 64


def disc(center: tuple[float, float], radius: float = 8.0) -> torch.Tensor:
    """``[1, 3, SIZE, SIZE]`` a red disc on white; its centre as (row, column)."""
    grid = torch.arange(SIZE) + 0.5
    inside = (grid[:, None] - center[0]) ** 2 + (grid[None] - center[1]) ** 2 < radius**2
    return torch.where(inside, torch.tensor([0.8, 0.2, 0.1])[:, None, None], torch.ones(()))[None]


def middle(image: torch.Tensor) -> tuple[float, float]:
    dark = (1 - image).mean(dim=(0, 1))
    grid = torch.arange(SIZE) + 0.5
    return tuple(float((dark.sum(dim=axis) * grid).sum() / dark.sum()) for axis in (1, 0))


@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_white_stays_white_and_a_picture_changes(distortion):
    white = torch.ones(2, 3, SIZE, SIZE)
    torch.testing.assert_close(distortion(white, 0), white)
    image = disc((30.0, 40.0))
    changed = distortion(image, 3)
    assert changed.shape == image.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert (changed - image).abs().max() > 0.05
    assert torch.equal(changed, distortion(image, 3))


def test_nothing_is_changed_that_nobody_asked_for():
    image = disc((20.0, 25.0))
    assert torch.equal(Distortion()(image, 0), image)


def test_mirroring_and_zooming_move_the_object():
    image = disc((20.0, 24.0))
    assert middle(Distortion(mirrored=True)(image, 0)) == pytest.approx((20.0, 40.0), abs=0.1)
    # The middle of the picture stays where it is: offsets of -12 and -8 from 32.
    assert middle(Distortion(zoom=0.75)(image, 0)) == pytest.approx((23.0, 26.0), abs=0.2)


def test_colors():
    image = disc((32.0, 32.0))
    assert Distortion(colors="exchanged")(image, 0)[0, :, 32, 32].tolist() == pytest.approx([0.2, 0.1, 0.8])
    assert Distortion(colors="grey")(image, 0)[0, :, 32, 32].tolist() == pytest.approx([1.1 / 3] * 3)
    assert Distortion(gamma=2.0)(image, 0)[0, :, 32, 32].tolist() == pytest.approx([0.64, 0.04, 0.01])


def test_every_picture_is_bent_in_its_own_way():
    first, second = Distortion(bend=0.03)(disc((32.0, 32.0)).expand(2, -1, -1, -1), 5)
    assert (first - second).abs().max() > 0.1


def test_blurring_a_point_gives_the_gaussian():
    image = torch.zeros(SIZE, SIZE, dtype=torch.float64)
    image[32, 32] = 1.0
    offsets = torch.arange(SIZE, dtype=torch.float64) - 32
    bell = torch.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 2.0**2)) / (2 * torch.pi * 2.0**2)
    torch.testing.assert_close(gaussian_blur(image, 2.0), bell, atol=2e-4, rtol=0)


def test_borders_repeat_the_outermost_pixels():
    image = torch.arange(6.0).reshape(1, 2, 3)
    assert with_border(image, 1)[0].tolist() == [
        [0, 0, 1, 2, 2],
        [0, 0, 1, 2, 2],
        [3, 3, 4, 5, 5],
        [3, 3, 4, 5, 5],
    ]
