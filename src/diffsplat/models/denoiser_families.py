"""The families of networks that denoise splat latents, and their latent spaces. Needs no torch."""

from typing import Any, Literal

from diffsplat.errors import InvalidInputError

Family = Literal["unet", "pixart", "sd3"]
"""Network of a released backbone, of diffusers: ``UNet2DConditionModel``, ``PixArtTransformer2DModel``,
``SD3Transformer2DModel``."""

NetworkFamily = Family | Literal["multiview"]
"""These, and the own :class:`~diffsplat.models.multiview_pixart.MultiViewPixArt`."""

Variant = Literal["sd", "sdxl", "sd3"]
"""Image-diffusion family whose latent space an autoencoder shares."""

VARIANTS: dict[Variant, dict[str, Any]] = {
    "sd": {"latent_channels": 4, "scaling_factor": 0.18215, "shift_factor": None},
    "sdxl": {"latent_channels": 4, "scaling_factor": 0.13025, "shift_factor": None},
    "sd3": {
        "latent_channels": 16,
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    },
}
"""What differs between the image VAEs: arguments of diffusers' ``AutoencoderKL``."""

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
        ValueError: for a network of another class.
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
