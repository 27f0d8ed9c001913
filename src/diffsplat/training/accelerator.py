"""The device and the processes of a run, through accelerate."""

from typing import Any, Literal

import torch

from diffsplat.errors import InvalidInputError

Device = Literal["auto", "cpu", "cuda"]


def make_accelerator(device: Device) -> Any:
    """An accelerator; ``auto`` takes the GPU when there is one.

    Raises:
        ValueError: for a GPU that is not there, or without accelerate.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InvalidInputError("device is cuda, which torch does not find here; expected cpu or auto")
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise InvalidInputError("training needs accelerate; install diffsplat[train]") from error
    return Accelerator(cpu=device == "cpu" or not torch.cuda.is_available())
