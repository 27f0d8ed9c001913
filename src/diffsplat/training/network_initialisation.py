"""Initial weights of every network of the paper, from 2D diffusion models or from its own earlier stages."""

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from diffsplat.core import GRID_CHANNELS, PixelGrid
from diffsplat.errors import InvalidInputError, require
from diffsplat.models.rays_and_noise_levels import PLUCKER_CHANNELS
from diffsplat.models.splat_reconstructor import GSRecon

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
    from diffusers.models.controlnets.controlnet import ControlNetModel
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    from diffsplat.models.splat_vae import SplatVAE
    from diffsplat.pretrained.released_networks import Denoiser

CONTROL_WIDTHS = (16, 32, 96, 256)
"""Channels of the encoder of control images (Zhang et al. 2023)."""

_FIRST_LOG_VARIANCE = -6.0
"""Of the latents of an untrained autoencoder."""

_IMAGE_CHANNELS = 3
_REPEATS = GRID_CHANNELS // _IMAGE_CHANNELS
_SHARED_SETTINGS = (
    "block_out_channels",
    "layers_per_block",
    "latent_channels",
    "norm_num_groups",
    "scaling_factor",
    "shift_factor",
    "use_quant_conv",
    "use_post_quant_conv",
    "mid_block_add_attention",
)
"""Arguments of an image autoencoder that the splat autoencoder keeps."""


def splat_vae_from_image_vae(
    image_vae: "AutoencoderKL", *, image_size: int = 256, pixel_grid: PixelGrid = "legacy"
) -> "SplatVAE":
    """A splat autoencoder that codes each three of its twelve channels as the image autoencoder codes colours.

    The first convolution's weights are repeated over the inputs and *not* divided, the last convolution's weights
    and biases over the outputs.

    Args:
        image_vae: of the 2D diffusion model whose latent space is shared.
        image_size: edge of the grids in pixels.
        pixel_grid: that of the reconstructor.
    """
    from diffsplat.models.splat_vae import SplatVAE

    settings: Any = image_vae.config
    arguments = {name: settings[name] for name in _SHARED_SETTINGS if name in settings}
    splat_vae = SplatVAE(arguments, (), (), image_size, pixel_grid=pixel_grid)
    state = image_vae.state_dict()
    state["encoder.conv_in.weight"] = _repeated(state["encoder.conv_in.weight"], dim=1)
    for kind in ("weight", "bias"):
        state[f"decoder.conv_out.{kind}"] = _repeated(state[f"decoder.conv_out.{kind}"], dim=0)
    splat_vae.vae.load_state_dict(state)
    return splat_vae


def add_tiny_decoder(autoencoder: "SplatVAE", tiny: "AutoencoderTiny") -> "SplatVAE":
    """The same autoencoder with a new tiny decoder, which starts from that of the image autoencoder's distillation.

    Raises:
        ValueError: when the distillation is of another latent space.
    """
    settings: Any = tiny.config
    if settings.latent_channels != autoencoder.latent_channels:
        raise InvalidInputError(
            f"the tiny image autoencoder has {settings.latent_channels} latent channels, expected the "
            f"{autoencoder.latent_channels} of the splat autoencoder"
        )
    sizes = {
        "tiny_widths": tuple(settings.decoder_block_out_channels),
        "tiny_blocks": tuple(settings.num_decoder_blocks),
    }
    extended = type(autoencoder)(**{**autoencoder.config, **sizes})
    extended.vae.load_state_dict(autoencoder.vae.state_dict())
    cast(nn.Module, extended.tiny_decoder).load_state_dict(_tiny_state(tiny))
    return extended


def widen_denoiser(network: "Denoiser", latent_channels: int, *, image: bool = False) -> None:
    """Let a denoiser take rays beside noisy latents, and a mask where it will see an image; in place.

    The weights of the new channels are zero, so that it is the same function of the latents at first.

    Args:
        network: the denoiser of a 2D diffusion model, or one of text that becomes one of images.
        latent_channels: channels of the noisy latents.
        image: whether it will be conditioned on an image.

    Raises:
        ValueError: when it takes more channels already.
    """
    layer: Any = network.conv_in if hasattr(network, "conv_in") else network.pos_embed.proj
    convolution, settings = cast(nn.Conv2d, layer), cast(Any, network.config)
    channels = latent_channels + PLUCKER_CHANNELS + (1 if image else 0)
    # Without a number of its own, the output of these networks would follow the widened input.
    outputs = settings.out_channels or settings.in_channels
    convolution.weight = nn.Parameter(widen_input(convolution.weight.detach(), channels))
    convolution.in_channels = channels
    network.register_to_config(in_channels=channels, out_channels=outputs)


def controlnet_from_unet(unet: "UNet2DConditionModel", downsampling: int = 8) -> "ControlNetModel":
    """A ControlNet that adds nothing at first: the UNet's encoder, a new image encoder, and zero convolutions.

    Args:
        unet: the trained text-conditioned denoiser; it has to stay frozen.
        downsampling: pixels of a control image a latent, a power of 2 up to 8.
    """
    from diffusers.models.controlnets.controlnet import ControlNetModel

    widths = CONTROL_WIDTHS[: downsampling.bit_length()]
    return ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=widths, conditioning_channels=_IMAGE_CHANNELS
    )


def widen_input(weight: Tensor, channels: int) -> Tensor:
    """Add input channels that have no effect before training.

    Args:
        weight: ``[O, I, k, k]`` weight of a convolution.
        channels: number of input channels afterwards, at least ``I``.

    Returns:
        ``[O, channels, k, k]``; the new channels come last and are zero.

    Raises:
        ValueError: for fewer channels than there are.
    """
    if channels < weight.shape[1]:
        raise InvalidInputError(
            f"cannot widen {weight.shape[1]} input channels to {channels}, expected at least as many"
        )
    added = weight.new_zeros(weight.shape[0], channels - weight.shape[1], *weight.shape[2:])
    return torch.cat([weight, added], dim=1)


@torch.no_grad()
def initialise_reconstructor(network: GSRecon) -> None:
    """Draw the weights that the original's reconstructor starts from, in place.

    Depths, scales and opacities start at zero before their activations: a half-transparent sheet of Gaussians at
    the object's distance.

    Raises:
        ValueError: for a network that predicts what to add to known geometry.
    """
    kind = network.parametrization
    require(kind == "absolute", "the reconstructor's parametrization", repr(kind), "'absolute'")
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for head in (network.out_depth, network.out_scale, network.out_opacity):
        nn.init.zeros_(head.weight)


@torch.no_grad()
def pass_input_on(vae: "AutoencoderKL") -> None:
    """Let an autoencoder pass its input on at first, in place; one that is trained for minutes needs it.

    Residual branches start at zero, convolutions that keep the size as orthogonal matrices at their centre, and
    the others as orthogonal matrices over their window. Latents start with little noise, the same for all.
    """
    for name, layer in vae.named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        if name.endswith(".conv2"):
            nn.init.zeros_(layer.weight)
        elif layer.stride == (1, 1):
            center = layer.kernel_size[0] // 2
            matrix = nn.init.orthogonal_(layer.weight.new_empty(layer.weight.shape[:2]))
            nn.init.zeros_(layer.weight)[:, :, center, center] = matrix
        else:
            nn.init.orthogonal_(layer.weight)
    if vae.quant_conv is not None:
        half = len(vae.quant_conv.weight) // 2
        nn.init.zeros_(vae.quant_conv.weight[half:])
        nn.init.constant_(cast(Tensor, vae.quant_conv.bias)[half:], _FIRST_LOG_VARIANCE)


def _repeated(weight: Tensor, dim: int) -> Tensor:
    """Weights of three colour channels for each of the grid's four triples along ``dim``."""
    if weight.shape[dim] != _IMAGE_CHANNELS:
        raise InvalidInputError(
            f"the image autoencoder has {weight.shape[dim]} image channels, expected {_IMAGE_CHANNELS}"
        )
    return torch.cat([weight] * _REPEATS, dim=dim)


def _tiny_state(tiny: "AutoencoderTiny") -> dict[str, Tensor]:
    """The weights of a tiny decoder with the last convolution repeated."""
    state = tiny.decoder.state_dict()
    last = max(int(name.split(".")[1]) for name in state)
    for kind in ("weight", "bias"):
        name = f"layers.{last}.{kind}"
        state[name] = _repeated(state[name], dim=0)
    return state
