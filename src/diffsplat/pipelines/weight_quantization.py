"""Weights in eight bits, which halves the memory of bfloat16."""

from typing import Any, Literal

from torch import nn

from diffsplat.errors import InvalidInputError, optional_package
from diffsplat.models.network_families import uncompiled

QuantizedType = Literal["int8"]

_QUANTIZED = ("denoiser", "refiner", "controlnet", "text_encoder")
"""Components with large matrices; the others are small, or hold convolutions."""
_OWN_SMALL = ("TextEncoder", "StoredPrompts")


def quantize_components(components: dict[str, Any], kind: QuantizedType) -> None:
    """Store the weights of linear layers in eight bits with a scale a row, in place; they compute in their old type.

    Args:
        components: of a pipeline, by name.
        kind: ``int8``.

    Raises:
        ValueError: for another kind.
        ModuleNotFoundError: without the package ``torchao``.
    """
    if kind != "int8":
        raise InvalidInputError(f"the weights are to be quantised to {kind!r}, expected 'int8'")
    with optional_package("weights in eight bits", "torchao", "quantize"):
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    for name in _QUANTIZED:
        network = uncompiled(components.get(name))
        if isinstance(network, nn.Module) and type(network).__name__ not in _OWN_SMALL:
            quantize_(network, Int8WeightOnlyConfig())


def stored_bytes(network: nn.Module) -> int:
    """Memory of a network's weights and buffers."""
    tensors = [*network.parameters(), *network.buffers()]
    return sum(_bytes(tensor) for tensor in tensors)


def _bytes(tensor: Any) -> int:
    """Of a tensor, or of the parts that a quantised one is made of."""
    if hasattr(tensor, "__tensor_flatten__") and type(tensor).__name__ not in ("Parameter", "Tensor"):
        names, _ = tensor.__tensor_flatten__()
        return sum(_bytes(getattr(tensor, name)) for name in names)
    return tensor.numel() * tensor.element_size()
