"""Colours as people name them: measuring them in pictures, and painting objects in other ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from diffsplat.core.srgb import linear_to_srgb, srgb_to_linear
from diffsplat.errors import InvalidInputError

ColorWord = Literal[
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey"
]
COLOR_WORDS: tuple[ColorWord, ...] = get_args(ColorWord)
NEUTRAL_WORDS = ("black", "white", "grey")

FloatArray = NDArray[np.floating]
LUT_SIZE = 33
_CLUSTERS = 8
_LIGHTNESS_WEIGHT = 0.6
_MERGE_DISTANCE = 0.075
_SAME_HUE = 0.975

# Swatches in sRGB bytes; a colour takes the word of the nearest one in Oklab.
_SWATCHES: dict[ColorWord, tuple[tuple[int, int, int], ...]] = {
    "red": (
        (255, 0, 0),
        (210, 30, 35),
        (170, 25, 30),
        (130, 15, 20),
        (225, 70, 60),
        (185, 50, 50),
        (95, 10, 14),
    ),
    "orange": ((255, 140, 0), (240, 120, 30), (225, 105, 20), (255, 165, 60), (205, 95, 25), (240, 150, 70)),
    "yellow": (
        (255, 255, 0),
        (250, 215, 40),
        (235, 195, 50),
        (255, 240, 120),
        (215, 180, 30),
        (230, 215, 90),
        (228, 172, 55),
        (245, 190, 70),
        (250, 205, 95),
    ),
    "green": (
        (0, 255, 0),
        (40, 160, 60),
        (20, 100, 40),
        (110, 190, 60),
        (85, 140, 50),
        (150, 210, 110),
        (70, 110, 80),
        (30, 140, 110),
        (10, 60, 25),
        (120, 200, 160),
        (90, 110, 45),
        (120, 140, 60),
        (60, 80, 30),
    ),
    "blue": (
        (0, 0, 255),
        (40, 80, 200),
        (25, 45, 120),
        (70, 140, 220),
        (120, 185, 235),
        (20, 25, 70),
        (60, 110, 160),
        (0, 170, 220),
        (90, 130, 190),
        (40, 150, 180),
        (150, 190, 225),
        (60, 70, 140),
        (75, 165, 180),
    ),
    "purple": (
        (128, 0, 128),
        (120, 50, 170),
        (90, 40, 120),
        (160, 100, 200),
        (190, 150, 220),
        (60, 20, 80),
        (140, 80, 150),
    ),
    "pink": (
        (255, 150, 190),
        (240, 110, 165),
        (255, 190, 205),
        (225, 90, 140),
        (250, 60, 160),
        (225, 150, 165),
    ),
    "brown": (
        (120, 70, 35),
        (90, 50, 25),
        (150, 95, 55),
        (60, 35, 20),
        (165, 115, 75),
        (105, 80, 55),
        (135, 65, 45),
        (190, 140, 95),
        (70, 50, 40),
        (175, 130, 80),
        (125, 95, 60),
        (155, 80, 60),
        (205, 165, 120),
        (180, 155, 120),
        (150, 110, 60),
        (110, 60, 50),
        (225, 190, 145),
        (240, 205, 155),
        (190, 105, 65),
        (205, 125, 75),
        (215, 150, 105),
    ),
    "black": ((0, 0, 0), (25, 25, 25), (45, 45, 45), (35, 35, 42), (45, 38, 35)),
    "white": (
        (255, 255, 255),
        (238, 238, 236),
        (218, 218, 218),
        (240, 232, 218),
        (225, 228, 238),
        (232, 220, 205),
    ),
    "grey": (
        (128, 128, 128),
        (95, 95, 95),
        (165, 165, 165),
        (115, 122, 130),
        (130, 125, 118),
        (185, 185, 185),
        (72, 74, 78),
        (150, 158, 165),
        (165, 158, 148),
        (85, 92, 102),
    ),
}
_TARGETS: dict[ColorWord, tuple[int, int, int]] = {
    "red": (200, 35, 35),
    "orange": (238, 125, 25),
    "yellow": (242, 205, 45),
    "green": (50, 150, 60),
    "blue": (40, 88, 198),
    "purple": (122, 55, 165),
    "pink": (244, 145, 185),
    "brown": (112, 68, 38),
    "black": (30, 30, 32),
    "white": (240, 240, 238),
    "grey": (128, 130, 132),
}


@dataclass(frozen=True)
class Palette:
    """Clusters of an object's unlit colours.

    Args:
        centers: ``[K, 3]`` Oklab.
        shares: ``[K]`` part of the visible surface, adding up to 1, falling.
        spread: ``[K]`` standard deviation of the lightness inside each cluster.
    """

    centers: FloatArray
    shares: FloatArray
    spread: FloatArray


def srgb_to_oklab(rgb: FloatArray) -> FloatArray:
    """sRGB 0..1 ``[..., 3]`` to Oklab (Ottosson, "A perceptual color space for image processing", 2020)."""
    rgb = np.clip(np.asarray(rgb, dtype=np.float64), 0.0, 1.0)
    return np.cbrt(srgb_to_linear(rgb) @ _LINEAR_TO_LMS.T) @ _LMS_TO_LAB.T


def oklab_to_srgb(lab: FloatArray) -> FloatArray:
    """Oklab ``[..., 3]`` to sRGB 0..1, cut off at the gamut."""
    linear = np.clip((np.asarray(lab, dtype=np.float64) @ _LAB_TO_LMS.T) ** 3 @ _LMS_TO_LINEAR.T, 0.0, 1.0)
    return linear_to_srgb(linear)


_LINEAR_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LMS_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_LMS_TO_LINEAR = np.linalg.inv(_LINEAR_TO_LMS)
_LAB_TO_LMS = np.linalg.inv(_LMS_TO_LAB)
_SWATCH_WORD = np.array([index for index, word in enumerate(COLOR_WORDS) for _ in _SWATCHES[word]])
_SWATCH_LAB = srgb_to_oklab(np.array([rgb for word in COLOR_WORDS for rgb in _SWATCHES[word]]) / 255.0)


def color_shares(rgb: FloatArray, weights: FloatArray | None = None) -> dict[ColorWord, float]:
    """Part of the pixels ``rgb [N, 3]`` (sRGB 0..1) that each colour word describes; the parts add up to 1.

    Raises:
        ValueError: there are no pixels.
    """
    if len(rgb) == 0:
        raise InvalidInputError("got no pixels to name colours of, expected at least one")
    weights = np.ones(len(rgb)) if weights is None else weights
    distance = (_SWATCH_LAB**2).sum(-1) - 2 * srgb_to_oklab(rgb) @ _SWATCH_LAB.T
    words = _SWATCH_WORD[distance.argmin(axis=1)]
    sums = np.bincount(words, weights=weights, minlength=len(COLOR_WORDS))
    return dict(zip(COLOR_WORDS, (sums / max(sums.sum(), 1e-12)).tolist(), strict=True))


def color_words(shares: dict[ColorWord, float]) -> tuple[ColorWord, ...]:
    """The one or two words that describe an object with these shares; none when no word would be true.

    One word covers at least half of the object, or 40 % when all other colours are neutral; a second word
    covers at least a quarter.
    """
    ranked = sorted(COLOR_WORDS, key=lambda word: -shares[word])
    first, second = ranked[:2]
    most, next_most = shares[first], shares[second]
    colorful: list[ColorWord] = [w for w in ranked if shares[w] >= 0.12 and w not in NEUTRAL_WORDS]
    if most < 0.5 and len(colorful) == 1 and shares[colorful[0]] >= 0.4:
        return (colorful[0],)
    if next_most >= 0.25 and most + next_most >= 0.75:
        return first, second
    return (first,) if most >= 0.5 else ()


def palette(rgb: FloatArray) -> Palette:
    """Group the colours ``rgb [N, 3]`` (sRGB 0..1) of an object by nearness in Oklab, repeatably."""
    lab = srgb_to_oklab(rgb)
    scaled = lab * np.array([_LIGHTNESS_WEIGHT, 1.0, 1.0])
    centers = _farthest_points(scaled, _CLUSTERS)
    for _ in range(12):
        nearest = _nearest(scaled, centers)
        centers = np.stack(
            [
                scaled[nearest == k].mean(axis=0) if (nearest == k).any() else centers[k]
                for k in range(len(centers))
            ]
        )
    nearest = _nearest(scaled, centers)
    group = _merged(centers, np.bincount(nearest, minlength=len(centers)))[nearest]
    members = [lab[group == g] for g in np.unique(group)]
    members.sort(key=len, reverse=True)
    return Palette(
        np.stack([m.mean(axis=0) for m in members]),
        np.array([len(m) / len(lab) for m in members]),
        np.array([m[:, 0].std() for m in members]),
    )


def _nearest(points: FloatArray, centers: FloatArray) -> NDArray[np.integer]:
    return ((points[:, None] - centers[None]) ** 2).sum(-1).argmin(axis=1)


def _farthest_points(points: FloatArray, count: int) -> FloatArray:
    chosen = [points.mean(axis=0)]
    distance = ((points - chosen[0]) ** 2).sum(-1)
    while len(chosen) < count and distance.max() > 1e-4:
        chosen.append(points[distance.argmax()])
        distance = np.minimum(distance, ((points - chosen[-1]) ** 2).sum(-1))
    return np.stack(chosen)


def _merged(centers: FloatArray, sizes: NDArray[np.integer]) -> NDArray[np.integer]:
    """Group number of each centre: centres close to a larger one join it."""
    group = np.arange(len(centers))
    order = np.argsort(-sizes)
    for position, k in enumerate(order):
        for larger in order[:position]:
            if group[larger] == larger and _alike(centers[k], centers[larger]):
                group[k] = larger
                break
    return group


def _alike(one: FloatArray, other: FloatArray) -> bool:
    """Near each other, or clearly of the same hue and so shades of one paint."""
    if np.linalg.norm(one - other) < _MERGE_DISTANCE:
        return True
    chroma = np.linalg.norm(one[1:]), np.linalg.norm(other[1:])
    if min(chroma) < 0.04:
        return False
    return bool(one[1:] @ other[1:] > _SAME_HUE * chroma[0] * chroma[1] and abs(one[0] - other[0]) < 0.2)


def repaint_lut(colors: Palette, word: ColorWord, seed: int, *, share: float = 0.6) -> FloatArray:
    """A colour cube ``[33, 33, 33, 3]`` that paints the largest clusters, at least ``share``, in ``word``.

    Shades inside a cluster keep their order and most of their contrast; other clusters keep their colour.
    """
    covered = np.concatenate([[0.0], np.cumsum(colors.shares)[:-1]])
    painted = covered < share
    axis = np.linspace(0.0, 1.0, LUT_SIZE)
    cube = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    lab = srgb_to_oklab(cube)
    weight = np.array([_LIGHTNESS_WEIGHT, 1.0, 1.0])
    distance = (((lab[..., None, :] - colors.centers) * weight) ** 2).sum(-1)
    nearness = np.exp(-(distance - distance.min(axis=-1, keepdims=True)) / (2 * 0.02**2))
    nearness /= nearness.sum(axis=-1, keepdims=True)
    amount = nearness[..., painted].sum(axis=-1, keepdims=True)
    middle = (colors.shares[painted, None] * colors.centers[painted]).sum(0) / colors.shares[painted].sum()
    target = _jittered(word, seed)
    lightness = np.clip(target[0] + 0.75 * (lab[..., 0] - middle[0]), 0.08, 0.99)
    chroma = np.minimum(lightness / target[0], 1.15)[..., None] * target[1:]
    repainted = oklab_to_srgb(np.concatenate([lightness[..., None], chroma], axis=-1))
    return (cube * (1 - amount) + repainted * amount).astype(np.float32)


def _jittered(word: ColorWord, seed: int) -> FloatArray:
    """The word's paint in Oklab with a small, repeatable change of lightness and hue."""
    random = np.random.default_rng([seed, COLOR_WORDS.index(word)])
    lab = srgb_to_oklab(np.array(_TARGETS[word]) / 255.0)
    angle = np.radians(random.uniform(-4.0, 4.0))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.concatenate([[lab[0] + random.uniform(-0.025, 0.025)], turn @ lab[1:]])
