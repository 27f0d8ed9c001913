"""Flood filling of masks from their border."""

import numpy as np
from numpy.typing import NDArray


def connected_to_border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The parts of a mask ``[H, W]`` that reach its border, through neighbours above, below, left and right."""
    reached = np.zeros_like(mask)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        reached[edge] = mask[edge]
    count = -1
    while count != (count := int(np.count_nonzero(reached))):
        reached = _along_rows(mask, reached)
        reached = _along_rows(mask.T, reached.T).T
    return reached


def _along_rows(mask: NDArray[np.bool_], reached: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill every run of a row that is reached anywhere."""
    starts = mask.copy()
    starts[:, 1:] &= ~mask[:, :-1]
    run = np.cumsum(starts)
    filled = np.zeros(int(run[-1]) + 1, dtype=bool)
    filled[run[reached.ravel()]] = True
    return mask & filled[run].reshape(mask.shape)
