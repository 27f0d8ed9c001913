"""Reading NumPy's ``.npy`` files."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffsplat.errors import DiffSplatError, InvalidInputError, one_line
from diffsplat.io.file_access import require_readable


def read_array(path: Path, dimensions: int) -> Tensor:
    """A float32 tensor of finite numbers.

    Args:
        path: a ``.npy`` file without pickled objects.
        dimensions: how many it has.

    Raises:
        ValueError: it cannot be read, or holds something else.
    """
    try:
        array = np.load(require_readable(path), allow_pickle=False)
        tensor = torch.from_numpy(np.asarray(array, dtype=np.float32))
    except DiffSplatError:
        raise
    except Exception as error:  # a broken file may put anything anywhere
        raise InvalidInputError(f"{str(path)!r} is no NumPy array of numbers: {one_line(error)}") from error
    if tensor.ndim != dimensions or not bool(torch.isfinite(tensor).all()):
        raise InvalidInputError(
            f"{str(path)!r} has the shape {tuple(tensor.shape)}, expected {dimensions} dimensions of finite numbers"
        )
    return tensor
