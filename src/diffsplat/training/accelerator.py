"""The device and the processes of a run, through accelerate."""

from typing import Any, Literal

import torch

from diffsplat.errors import InvalidInputError, optional_package

Device = Literal["auto", "cpu", "cuda"]


def make_accelerator(device: Device) -> Any:
    """An accelerator; ``auto`` takes the GPU when there is one.

    Raises:
        ValueError: for a GPU that is not there, or without accelerate.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InvalidInputError("device is cuda, which torch does not find here; expected cpu or auto")
    with optional_package("training", "accelerate", "train"):
        from accelerate import Accelerator
    return Accelerator(cpu=device == "cpu" or not torch.cuda.is_available())
