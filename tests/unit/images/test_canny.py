"""Edges against those of OpenCV: recorded ones always, live ones where OpenCV is installed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from diffsplat.images.canny import canny_edges, grey_of

RECORDED = Path(__file__).parent / "recorded" / "canny_opencv.npz"
"""Pictures of :func:`pictures`, with OpenCV 5.0's ``cvtColor(..., COLOR_RGB2GRAY)`` and ``Canny(grey, 100, 200)``."""


def pictures(count: int) -> Iterator[NDArray[np.uint8]]:
    """Colour pictures of odd sizes: noise, soft noise, waves with edges of every direction, flat shapes."""
    random = np.random.default_rng(7)
    for index in range(count):
        height, width = (int(side) for side in random.integers(1, 56, 2))
        y, x = np.mgrid[:height, :width]
        noise = random.uniform(0, 255, (height, width, 3))
        angle, wavelength = random.uniform(0, 2 * np.pi), random.uniform(4, 60)
        wave = np.sin((np.cos(angle) * x + np.sin(angle) * y) * 2 * np.pi / wavelength)
        round_ = np.hypot(x - random.uniform(0, 56), y - random.uniform(0, 56)) < random.uniform(2, 30)
        match index % 4:
            case 0:
                values = noise
            case 1:
                values = (
                    noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1) + np.roll(noise, (1, 1), (0, 1))
                ) / 4
            case 2:
                values = 127 + wave[..., None] * random.uniform(20, 127, 3)
            case _:
                values = np.where(round_[..., None], random.uniform(0, 255, 3), 255)
        yield values.astype(np.uint8)


def test_edges_recorded_from_opencv():
    with np.load(RECORDED) as recorded:
        count = sum(name.startswith("rgb") for name in recorded)
        assert count >= 12
        for index in range(count):
            grey = grey_of(recorded[f"rgb{index}"])
            np.testing.assert_array_equal(grey, recorded[f"grey{index}"])
            np.testing.assert_array_equal(canny_edges(grey), recorded[f"edges{index}"])
        assert any(recorded[f"edges{index}"].any() for index in range(count))


def test_edges_of_opencv_itself():
    cv2 = pytest.importorskip("cv2")
    for picture in pictures(200):
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        np.testing.assert_array_equal(grey_of(picture), grey)
        for low, high in ((100, 200), (20, 60), (0, 0), (700, 900)):
            np.testing.assert_array_equal(canny_edges(grey, low, high), cv2.Canny(grey, low, high) > 0)


def test_a_step_is_one_line():
    grey = np.zeros((9, 12), dtype=np.uint8)
    grey[:, 6:] = 255
    edges = canny_edges(grey)
    # The two columns beside a step have the same gradient; the first of them is the edge.
    assert np.flatnonzero(edges.all(axis=0)).tolist() == [5]
    assert edges.sum() == 9
    assert np.array_equal(canny_edges(grey.T.copy()), edges.T)


def test_weak_edges_live_only_beside_strong_ones():
    # A step of 40 has the magnitude 160: between the thresholds.
    grey = np.zeros((20, 16), dtype=np.uint8)
    grey[:, 8:] = 40
    assert not canny_edges(grey).any()
    grey[:5, 8:] = 255
    assert canny_edges(grey)[6:, 7].all()


def test_flat_pictures_have_no_edges():
    assert not canny_edges(np.full((1, 1), 200, dtype=np.uint8)).any()
    assert not canny_edges(np.full((7, 3), 200, dtype=np.uint8)).any()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="expected bytes"):
        canny_edges(np.zeros((4, 4)))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="expected bytes"):
        canny_edges(np.zeros((4, 4, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="200 and 100"):
        canny_edges(np.zeros((4, 4), dtype=np.uint8), 200, 100)
