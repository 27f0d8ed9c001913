"""Which arithmetic a device is good at."""

from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]
"""``auto`` is bfloat16 autocast where the device computes in it, else float32."""


def computes_in_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16; emulating them would be far slower than float32."""
    match device.type:
        case "cuda":
            return torch.cuda.is_bf16_supported(including_emulation=False)
        case "cpu":
            capabilities = getattr(torch.cpu, "get_capabilities", dict)()
            return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
        case _:
            return False


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The autocast context of a precision on a device."""
    enabled = precision == "bf16" or (precision == "auto" and computes_in_bf16(device))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
