"""The families of stock diffusers networks that denoise splat latents. Needs no torch."""

from typing import Literal

from diffsplat.errors import InvalidInputError

Family = Literal["unet", "pixart", "sd3"]
"""Which stock network: ``UNet2DConditionModel``, ``PixArtTransformer2DModel``,
``SD3Transformer2DModel``."""

_FAMILIES: dict[str, Family] = {
    "UNet2DConditionModel": "unet",
    "ControlNetModel": "unet",
    "PixArtTransformer2DModel": "pixart",
    "SD3Transformer2DModel": "sd3",
}


def network_family(network: object) -> Family:
    """Which stock network an object is, without importing the others.

    Raises:
        ValueError: when it is none of them.
    """
    for kind in type(network).__mro__:
        if kind.__name__ in _FAMILIES:
            return _FAMILIES[kind.__name__]
    known = ", ".join(_FAMILIES)
    raise InvalidInputError(
        f"a {type(network).__name__} cannot denoise several views, expected one of: {known}"
    )
