"""Repainting flat-coloured objects: their palette, and colour cubes that turn its main colours into another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffsplat.data.color_naming import color_shares, color_words, paint_of
from diffsplat.images.color_words import COLOR_WORDS, ColorWord
from diffsplat.images.oklab import FloatArray, oklab_to_srgb, srgb_to_oklab

LUT_SIZE = 33
_CLUSTERS = 8
_LIGHTNESS_WEIGHT = 0.6
_MERGE_DISTANCE = 0.075
_SAME_HUE = 0.975
_PAINTED_SHARE = 0.6
_FLAT_SPREAD = 0.13
"""Standard deviation of the lightness below which a colour counts as flat."""


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


def repaints(
    rgb: FloatArray, words: tuple[ColorWord, ...], most: int, seed: int
) -> Iterator[tuple[ColorWord, FloatArray]]:
    """Colour cubes that repaint an object so that one other word describes it.

    Args:
        rgb: ``[N, 3]`` sRGB 0..1, the object's colours.
        words: those that describe it now.
        most: how many cubes at most; none when the object's colours are not flat.
        seed: of the order of the words and of the shades.
    """
    colors = palette(rgb) if most else None
    if colors is None or float((colors.shares * colors.spread).sum()) >= _FLAT_SPREAD:
        return
    made = 0
    for word in np.random.default_rng([seed, 1]).permutation(np.array(COLOR_WORDS)).tolist():
        if word in words or made == most:
            continue
        lut = repaint_lut(colors, word, seed)
        if color_words(color_shares(apply_lut(lut, rgb))) == (word,):
            made += 1
            yield word, lut


def repaint_lut(colors: Palette, word: ColorWord, seed: int) -> FloatArray:
    """A colour cube ``[33, 33, 33, 3]`` that paints the largest clusters, at least 60 %, in ``word``.

    Shades inside a cluster keep their order and most of their contrast; other clusters keep their colour.
    """
    covered = np.concatenate([[0.0], np.cumsum(colors.shares)[:-1]])
    painted = covered < _PAINTED_SHARE
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
    lab = srgb_to_oklab(paint_of(word))
    angle = np.radians(random.uniform(-4.0, 4.0))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.concatenate([[lab[0] + random.uniform(-0.025, 0.025)], turn @ lab[1:]])


def apply_lut(lut: FloatArray, rgb: FloatArray) -> FloatArray:
    """Colours ``[N, 3]`` through a cube ``[S, S, S, 3]`` by trilinear interpolation."""
    place = np.clip(rgb, 0.0, 1.0) * (len(lut) - 1)
    low = np.minimum(place.astype(np.int64), len(lut) - 2)
    part = place - low
    total = np.zeros((len(rgb), 3))
    for corner in np.ndindex(2, 2, 2):
        offset = np.array(corner)
        share = np.where(offset, part, 1 - part).prod(axis=1, keepdims=True)
        total += share * lut[tuple((low + offset).T)]
    return total
