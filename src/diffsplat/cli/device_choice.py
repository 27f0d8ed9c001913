"""The device that a command runs on."""

import torch

from diffsplat.errors import InvalidInputError


def choose_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU.

    Raises:
        ValueError: for an unknown name, or CUDA without such a device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidInputError(f"unknown device {name!r}, expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise InvalidInputError(f"the device {name!r} is not supported, expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InvalidInputError(
            f"the device {name!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices"
        )
    return device
