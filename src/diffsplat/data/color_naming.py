"""The colour words of an object, from its pixels."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from diffsplat.data.object_labels import read_table
from diffsplat.errors import InvalidInputError
from diffsplat.images.color_words import COLOR_WORDS, NEUTRAL_WORDS, ColorWord
from diffsplat.images.oklab import FloatArray, srgb_to_oklab


def color_shares(rgb: FloatArray) -> dict[ColorWord, float]:
    """Part of the pixels ``rgb [N, 3]`` (sRGB 0..1) that each colour word describes; the parts add up to 1.

    Raises:
        ValueError: there are no pixels.
    """
    if len(rgb) == 0:
        raise InvalidInputError("got no pixels to name colours of, expected at least one")
    words, swatches = _swatches()
    distance = (swatches**2).sum(-1) - 2 * srgb_to_oklab(rgb) @ swatches.T
    counts = np.bincount(words[distance.argmin(axis=1)], minlength=len(COLOR_WORDS))
    return dict(zip(COLOR_WORDS, (counts / len(rgb)).tolist(), strict=True))


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


def paint_of(word: ColorWord) -> FloatArray:
    """The sRGB colour 0..1 ``[3]`` in which objects are repainted to deserve ``word``."""
    return np.array(read_table("color_swatches")[word]["paint"]) / 255.0


@cache
def _swatches() -> tuple[NDArray[np.integer], FloatArray]:
    """For all swatches the index of their word ``[K]``, and their Oklab colours ``[K, 3]``."""
    table = read_table("color_swatches")
    words = [index for index, word in enumerate(COLOR_WORDS) for _ in table[word]["swatches"]]
    colors = [rgb for word in COLOR_WORDS for rgb in table[word]["swatches"]]
    return np.array(words), srgb_to_oklab(np.array(colors) / 255.0)
