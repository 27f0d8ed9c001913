"""Quantization of the weights of linear layers to eight or four bits."""

from typing import Any, Literal

from torch import nn

from diffsplat.errors import InvalidInputError, optional_package
from diffsplat.models.denoiser_families import uncompiled

QuantizedType = Literal["int8", "nf4"]

_QUANTIZED = ("denoiser", "text_denoiser", "refiner", "controlnet", "text_encoder")
"""Components with large matrices; the others are small, or hold convolutions."""
_OWN_SMALL = ("TextEncoder", "StoredPrompts")


def quantize_components(components: dict[str, Any], kind: QuantizedType) -> None:
    """Store the weights of linear layers in fewer bits, in place; they compute in the type of their input.

    Args:
        components: of a pipeline, by name.
        kind: ``int8``, eight bits with a scale a row, or ``nf4``, four bits with a scale for every 64 weights
            (Dettmers et al. 2023, "QLoRA").

    Raises:
        ValueError: for another kind.
        ModuleNotFoundError: without the package ``torchao``, or for ``nf4`` ``bitsandbytes``.
    """
    match kind:
        case "int8":
            with optional_package("weights in eight bits", "torchao", "quantize"):
                from torchao.quantization import Int8WeightOnlyConfig, quantize_

            def quantize(network: nn.Module) -> None:
                quantize_(network, Int8WeightOnlyConfig())
        case "nf4":
            with optional_package("weights in four bits", "bitsandbytes", "nf4"):
                import bitsandbytes  # noqa: F401

            quantize = _use_four_bits
        case _:
            raise InvalidInputError(f"the weights are to be quantised to {kind!r}, expected 'int8' or 'nf4'")
    for name in _QUANTIZED:
        network = uncompiled(components.get(name))
        if isinstance(network, nn.Module) and type(network).__name__ not in _OWN_SMALL:
            quantize(network)


def _use_four_bits(network: nn.Module) -> None:
    """Replace the linear layers, but those with hooks, of adapters, and of T5 that cast their input to their type."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    kept = {name for part in network.modules() for name in getattr(part, "_keep_in_fp32_modules", None) or ()}
    for parent in [part for part in network.modules() if not isinstance(part, nn.ModuleDict)]:
        for name, layer in parent.named_children():
            if type(layer) is nn.Linear and name not in kept and not layer._forward_pre_hooks:
                packed = Linear4bit(layer.in_features, layer.out_features, quant_type="nf4", device="meta")
                packed.weight = Params4bit(layer.weight.data, quant_type="nf4", module=packed)
                packed.bias = layer.bias
                setattr(parent, name, packed.to(layer.weight.device))
