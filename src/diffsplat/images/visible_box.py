"""The bounding box of what is visible of an object that was cut out."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from diffsplat.errors import InvalidInputError

Box = tuple[int, int, int, int]
"""First row, one past the last row, first column, one past the last column."""

_FAINTEST = 0.02
"""Alpha up to which a pixel is a matting's noise rather than a part of the object."""
_SOLID = 0.5
"""Share of the object's alpha from which a pixel belongs to it rather than to its haze or shadow."""
_PEAK_SHARE = 0.01
"""Share of the visible pixels that are at least as opaque as the object."""
_SPECK_SHARE = 0.005
"""Share of the solid pixels that, apart from all others, are specks."""
_SMALLEST_OBJECT = 8
"""Pixels that an object has at least along its longer side."""


def visible_box(alpha: Tensor, name: str) -> Box:
    """The box of the visible object, without haze, shadows and specks around it.

    Args:
        alpha: ``[H, W]`` in 0..1.
        name: what the sentence of an error calls the image.

    Raises:
        ValueError: when there is no object, or one of a few pixels.
    """
    visible = alpha[alpha > _FAINTEST]
    if not len(visible):
        raise InvalidInputError(f"{name} is transparent or of one colour all over, expected an object in it")
    rank = len(visible) - int(len(visible) * _PEAK_SHARE)
    peak = float(visible.kthvalue(rank).values)
    solid = (alpha >= _SOLID * peak).numpy()
    top, bottom, left, right = _without_specks(solid)
    if max(bottom - top, right - left) < _SMALLEST_OBJECT:
        raise InvalidInputError(
            f"the object in {name} is {right - left} x {bottom - top} pixels, "
            f"expected at least {_SMALLEST_OBJECT} along one side"
        )
    return top, bottom, left, right


def _without_specks(solid: NDArray[np.bool_]) -> Box:
    """The box of a mask, less a few pixels beside it that empty rows or columns separate from the rest."""
    speck = int(np.count_nonzero(solid) * _SPECK_SHARE)
    top, bottom, left, right = 0, solid.shape[0], 0, solid.shape[1]
    while True:
        before = (top, bottom, left, right)
        part = solid[top:bottom, left:right]
        first, last = _extent(np.count_nonzero(part, axis=1), speck)
        top, bottom = top + first, top + last
        part = solid[top:bottom, left:right]
        first, last = _extent(np.count_nonzero(part, axis=0), speck)
        left, right = left + first, left + last
        if (top, bottom, left, right) == before:
            return before


def _extent(counts: NDArray[np.integer], speck: int) -> tuple[int, int]:
    """First index of ``counts [N]`` and one past the last, less groups of up to ``speck`` at either end."""
    full = np.flatnonzero(counts)
    ends = np.flatnonzero(np.diff(full) > 1)
    starts = [int(full[0]), *(int(full[end + 1]) for end in ends)]
    stops = [*(int(full[end]) + 1 for end in ends), int(full[-1]) + 1]
    sizes = [int(counts[start:stop].sum()) for start, stop in zip(starts, stops, strict=True)]
    while len(sizes) > 1 and sizes[0] <= speck:
        del sizes[0], starts[0], stops[0]
    while len(sizes) > 1 and sizes[-1] <= speck:
        del sizes[-1], starts[-1], stops[-1]
    return starts[0], stops[-1]
