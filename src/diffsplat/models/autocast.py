"""Automatic mixed precision, and which devices gain from it."""

from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]
"""``auto`` is bfloat16 autocast where the device is faster in it, else float32."""


def faster_in_bf16(device: torch.device) -> bool:
    """Whether a device is faster in bfloat16 than in float32.

    Of CPUs, those with AMX are, and AMD's with AVX-512: about three times on Zen 4. Intel's with AVX-512 and no AMX,
    as in some virtual machines, are not: a core reached 95 GFLOP/s where float32 reached 170, and a training step
    took almost twice as long. They are told apart by AVX-512's half precision, which AMD's lack up to Zen 5.
    """
    match device.type:
        case "cuda":
            return torch.cuda.is_bf16_supported(including_emulation=False)
        case "cpu":
            capabilities = getattr(torch.cpu, "get_capabilities", dict)()
            dot_products = capabilities.get("avx512_bf16") and not capabilities.get("avx512_fp16")
            return bool(capabilities.get("amx_bf16") or dot_products)
        case _:
            return False


def autocast(
    device: torch.device, precision: Precision, weights: torch.dtype = torch.float32
) -> torch.autocast:
    """The autocast context of a precision on a device; by itself none for weights in float16."""
    automatic = weights != torch.float16 and faster_in_bf16(device)
    enabled = precision == "bf16" or (precision == "auto" and automatic)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
