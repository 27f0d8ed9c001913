"""The families of networks that denoise splat latents. Needs no torch."""

from typing import Any, Literal

from diffsplat.errors import InvalidInputError

Family = Literal["unet", "pixart", "sd3"]
"""Network of a released backbone, of diffusers: ``UNet2DConditionModel``, ``PixArtTransformer2DModel``,
``SD3Transformer2DModel``."""

NetworkFamily = Family | Literal["multiview"]
"""These, and the own :class:`~diffsplat.models.multiview_pixart.MultiViewPixArt`."""

_FAMILIES: dict[str, NetworkFamily] = {
    "MultiViewPixArt": "multiview",
    "UNet2DConditionModel": "unet",
    "ControlNetModel": "unet",
    "PixArtTransformer2DModel": "pixart",
    "SD3Transformer2DModel": "sd3",
}


def network_family(network: object) -> NetworkFamily:
    """Family of a network, by the name of its class, so that no other has to be imported.

    Raises:
        ValueError: when it is none of them.
    """
    for kind in type(uncompiled(network)).__mro__:
        if kind.__name__ in _FAMILIES:
            return _FAMILIES[kind.__name__]
    known = ", ".join(_FAMILIES)
    raise InvalidInputError(
        f"a {type(network).__name__} cannot denoise several views, expected one of: {known}"
    )


def uncompiled(network: Any) -> Any:
    """The network inside of what ``torch.compile`` made of it; any other as it is."""
    return getattr(network, "_orig_mod", network)
