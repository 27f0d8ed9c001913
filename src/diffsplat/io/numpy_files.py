"""Reading NumPy's ``.npy`` files."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffsplat.errors import InvalidInputError, explained_errors
from diffsplat.io.file_access import require_readable


def read_array(path: Path, dimensions: int) -> Tensor:
    """A float32 tensor of finite numbers.

    Args:
        path: a ``.npy`` file without pickled objects.
        dimensions: how many it has.

    Raises:
        ValueError: it cannot be read, or holds something else.
    """
    # A broken file may put anything anywhere.
    with explained_errors(f"{str(path)!r} is not a NumPy array of numbers", Exception):
        array = np.load(require_readable(path), allow_pickle=False)
        tensor = torch.from_numpy(np.asarray(array, dtype=np.float32))
    if tensor.ndim != dimensions or not bool(torch.isfinite(tensor).all()):
        raise InvalidInputError(
            f"{str(path)!r} has the shape {tuple(tensor.shape)}, expected {dimensions} dimensions of finite numbers"
        )
    return tensor
