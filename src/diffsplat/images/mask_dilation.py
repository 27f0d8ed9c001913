"""Dilation of masks."""

from torch import Tensor
from torch.nn import functional


def dilated(mask: Tensor, reach: int) -> Tensor:
    """A mask ``[*B, H, W]`` of at least three dimensions, grown by ``reach`` pixels to all sides, diagonals included.

    To erode one, dilate what it leaves out.
    """
    return functional.max_pool2d(mask.float(), 2 * reach + 1, stride=1, padding=reach) > 0
