"""The released networks from their files (layout: see :mod:`diffsplat.pretrained.release_layout`).

Every function that loads a network makes it in evaluation mode on the CPU, with the weights as stored unless ``dtype``
says what they are converted to. It raises ``FileNotFoundError`` when a file or a shard is missing, and ``ValueError``
when one is damaged, pickled, or of another network.
"""

import inspect
import itertools
import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffsplat.errors import InvalidInputError
from diffsplat.io.json_files import read_json
from diffsplat.models.denoiser_families import VARIANTS, Variant
from diffsplat.models.elevation_network import ElevationConfig, ElevationEstimator
from diffsplat.models.splat_reconstructor import INPUT_CHANNELS, GSRecon
from diffsplat.pretrained.release_catalogue import RELEASED_IMAGE_SIZE
from diffsplat.pretrained.safetensors_files import WeightFiles, build, find_weights, hollow_buffers

if TYPE_CHECKING:
    from diffusers.models.controlnets.controlnet import ControlNetModel
    from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    from diffsplat.models.splat_vae import SplatVAE

    Denoiser = UNet2DConditionModel | PixArtTransformer2DModel | SD3Transformer2DModel

_DENOISER_MODULES = {
    "UNet2DConditionModel": "unets.unet_2d_condition",
    "PixArtTransformer2DModel": "transformers.pixart_transformer_2d",
    "SD3Transformer2DModel": "transformers.transformer_sd3",
}
"""Modules of diffusers by the class of their denoiser; they take seconds to import."""

DIFFUSERS_CLASSES = {
    "UNetMV2DConditionModel": "UNet2DConditionModel",
    "CrossAttnDownBlockMV2D": "CrossAttnDownBlock2D",
    "UNetMidBlockMV2DCrossAttn": "UNetMidBlock2DCrossAttn",
    "CrossAttnUpBlockMV2D": "CrossAttnUpBlock2D",
    "PixArtTransformerMV2DModel": "PixArtTransformer2DModel",
    "SD3TransformerMV2DModel": "SD3Transformer2DModel",
    "MVControlNetModel": "ControlNetModel",
}
"""Class of diffusers that has the same weights, by class of the original code."""

_DIFFUSERS_STEM = "diffusion_pytorch_model"
_STATE_STEM = "model"
_RELEASED_HEAD_WIDTH = 64
_GROUPS = 32
"""Groups of the normalisation in every released network."""


def read_config(folder: str | Path) -> tuple[str, dict[str, Any]]:
    """Class of diffusers and its arguments, from the ``config.json`` of a denoiser of the original code or diffusers.

    Keys that the class does not know are left out, such as those of the moving average.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when it is damaged or describes another network.
    """
    path = Path(folder) / "config.json"
    content = {key: _with_diffusers_classes(value) for key, value in read_json(path).items()}
    kind = content.get("_class_name")
    if kind not in _DENOISER_MODULES:
        raise InvalidInputError(
            f"{str(path)!r} describes a {kind!r}, expected one of: {', '.join(_DENOISER_MODULES)}"
        )
    known = inspect.signature(denoiser_class(kind).__init__).parameters
    return kind, {key: value for key, value in content.items() if key in known}


def denoiser_class(kind: str) -> "type[Denoiser]":
    """A class of diffusers by its name."""
    return getattr(import_module(f"diffusers.models.{_DENOISER_MODULES[kind]}"), kind)


def load_denoiser(folder: str | Path, *, dtype: torch.dtype | None = None) -> "Denoiser":
    """A released denoiser as a network of diffusers.

    Args:
        folder: ``unet_ema`` or ``transformer_ema`` of an iteration.
        dtype: of the weights.
    """
    kind, arguments = read_config(folder)
    weights = find_weights(folder, _DIFFUSERS_STEM)
    network = build(lambda: denoiser_class(kind)(**arguments), weights, dtype)
    embedding = getattr(network, "pos_embed", None)
    if embedding is not None and hollow_buffers(embedding):
        embedding.register_buffer("pos_embed", _sine_positions(embedding), persistent=False)
    left = hollow_buffers(network)
    if left:
        raise RuntimeError(f"the buffers {left} of a {kind} were not made, expected none but positions")
    return network


def load_controlnet(
    folder: str | Path, unet: "UNet2DConditionModel", *, dtype: torch.dtype | None = None
) -> "ControlNetModel":
    """A released ControlNet.

    Its own ``config.json`` holds the defaults of its class and is not read: blocks and heads are the UNet's, input
    channels and those of the control image's encoder are those of the weights.

    Args:
        folder: ``controlnet`` of an iteration.
        unet: the denoiser that it was trained for, or that of images.
        dtype: of the weights.
    """
    from diffusers.configuration_utils import FrozenDict
    from diffusers.models.controlnets.controlnet import ControlNetModel

    weights = find_weights(folder, _DIFFUSERS_STEM)
    encoder = "controlnet_cond_embedding"
    first = weights.shape(f"{encoder}.conv_in.weight")
    # Every second convolution of the encoder widens; the others keep the width of the one before.
    widths = [
        weights.shape(f"{encoder}.blocks.{index}.weight")[0]
        for index in range(1, _count(weights, f"{encoder}.blocks."), 2)
    ]

    config = {**unet.config, "in_channels": weights.shape("conv_in.weight")[1]}
    unet_like: Any = SimpleNamespace(config=FrozenDict(config))

    def make() -> ControlNetModel:
        return ControlNetModel.from_unet(
            unet_like,
            conditioning_embedding_out_channels=(first[0], *widths),
            load_weights_from_unet=False,
            conditioning_channels=first[1],
        )

    return build(make, weights, dtype)


def load_splat_vae(
    folder: str | Path,
    *,
    variant: Variant | None = None,
    image_vae: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> "SplatVAE":
    """A released splat autoencoder.

    No configuration was released with it. Widths, depths, latent channels and the tiny decoder follow from the
    weights; the scale of the latents and the groups of the normalisation do not.

    Args:
        folder: an iteration of the release.
        variant: which latent space; may be left out where ``image_vae`` is given or the latents have 16 channels.
        image_vae: the ``config.json`` of the backbone's image VAE, whose latent space and normalisation are shared.
        dtype: of the weights.

    Raises:
        ValueError: also when the latent space remains open.
    """
    from diffsplat.models.splat_vae import SplatVAE

    weights = find_weights(folder, _STATE_STEM)
    arguments = {**_image_vae_shapes(weights), **_latent_space(weights, variant, image_vae)}
    widths, blocks = _tiny_shapes(weights)
    return build(
        lambda: SplatVAE(image_vae=arguments, tiny_widths=widths, tiny_blocks=blocks), weights, dtype
    )


def load_reconstructor(
    folder: str | Path, *, heads: int | None = None, dtype: torch.dtype | None = None
) -> GSRecon:
    """The reconstructor of an iteration of the release; its sizes follow from its weights.

    They do not tell the number of attention heads, which have 64 channels each by default.
    """
    weights = find_weights(folder, _STATE_STEM)
    dim, inputs = weights.shape("x_embedder.weight")
    blocks = _count(weights, "transformer.blocks.")
    patch = math.isqrt(inputs // INPUT_CHANNELS)
    chosen = heads or max(1, dim // _RELEASED_HEAD_WIDTH)

    def make() -> GSRecon:
        return GSRecon(dim=dim, blocks=blocks, heads=chosen, patch=patch, image_size=RELEASED_IMAGE_SIZE)

    return build(make, weights, dtype)


def load_elevation_state(folder: str | Path) -> dict[str, Tensor]:
    """The weights of an elevation network by name, in float32."""
    shards = find_weights(folder, _STATE_STEM).shards(torch.float32)
    return {name: tensor for shard in shards for name, tensor in shard.items()}


def load_elevation_network(folder: str | Path) -> ElevationEstimator:
    """An elevation network in float32.

    Args:
        folder: an iteration of the release, or of this package, whose ``config.json`` tells what no weight does.
    """
    state, path = load_elevation_state(folder), Path(folder) / "config.json"
    stored = read_json(path) if path.is_file() else {}
    return ElevationEstimator.from_state_dict(
        state, ElevationConfig.of_state_dict(state, heads=stored.get("heads"))
    )


def _sine_positions(embedding: Any) -> Tensor:
    """``[1, N, D]`` position embedding of diffusers' ``PatchEmbed`` that is computed instead of stored."""
    computed = type(embedding)(
        height=embedding.height * embedding.patch_size,
        width=embedding.width * embedding.patch_size,
        patch_size=embedding.patch_size,
        in_channels=1,
        embed_dim=embedding.proj.out_channels,
        interpolation_scale=embedding.interpolation_scale,
    )
    return computed.pos_embed


def _image_vae_shapes(weights: WeightFiles) -> dict[str, Any]:
    """The arguments of ``AutoencoderKL`` that the weights tell."""
    down = "vae.encoder.down_blocks."
    widths = [
        weights.shape(f"{down}{stage}.resnets.0.conv1.weight")[0] for stage in range(_count(weights, down))
    ]
    return {
        "block_out_channels": widths,
        "layers_per_block": _count(weights, f"{down}0.resnets."),
        "latent_channels": weights.shape("vae.decoder.conv_in.weight")[1],
        "use_quant_conv": "vae.quant_conv.weight" in weights.entries,
        "use_post_quant_conv": "vae.post_quant_conv.weight" in weights.entries,
        "mid_block_add_attention": "vae.encoder.mid_block.attentions.0.to_q.weight" in weights.entries,
    }


def _latent_space(
    weights: WeightFiles, variant: Variant | None, image_vae: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The arguments of ``AutoencoderKL`` that the weights do not tell."""
    given = image_vae or {}
    if image_vae is None:
        variant = variant or _only_variant(weights)
    # The first releases of Stable Diffusion leave the factor to the default of diffusers.
    facts = VARIANTS[variant] if variant else {**VARIANTS["sd"], **given}
    return {
        "scaling_factor": facts["scaling_factor"],
        "shift_factor": facts["shift_factor"],
        "norm_num_groups": given.get("norm_num_groups", _GROUPS),
    }


def _only_variant(weights: WeightFiles) -> Variant:
    channels = weights.shape("vae.decoder.conv_in.weight")[1]
    fitting: list[Variant] = [
        name for name, facts in VARIANTS.items() if facts["latent_channels"] == channels
    ]
    if len(fitting) != 1:
        raise InvalidInputError(
            f"the autoencoder {str(weights.folder)!r} has {channels} latent channels, which does not tell its "
            f"variant, expected one of: {', '.join(VARIANTS)}; or the configuration of its image VAE"
        )
    return fitting[0]


def _tiny_shapes(weights: WeightFiles) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Widths and numbers of residual blocks of the tiny decoder's stages; empty when there is none.

    Its layers are a convolution, then for every stage its blocks, an upsampling but in the last, and a convolution.
    """
    layers = "tiny_decoder.layers."
    count = _count(weights, layers)
    plain = [index for index in range(count) if f"{layers}{index}.weight" in weights.entries]
    blocks = [index for index in range(count) if f"{layers}{index}.conv.0.weight" in weights.entries]
    bounds = list(itertools.pairwise(plain))
    widths = tuple(weights.shape(f"{layers}{end}.weight")[1] for _, end in bounds)
    return widths, tuple(sum(start < index < end for index in blocks) for start, end in bounds)


def _count(weights: WeightFiles, prefix: str) -> int:
    """How many numbered members a list of layers has, by the names of their weights."""
    numbers = {name.removeprefix(prefix).split(".")[0] for name in weights.entries if name.startswith(prefix)}
    return 1 + max(map(int, numbers), default=-1)


def _with_diffusers_classes(value: Any) -> Any:
    """Replace names of classes in a configuration, in lists too."""
    if isinstance(value, list):
        return [_with_diffusers_classes(entry) for entry in value]
    return DIFFUSERS_CLASSES.get(value, value) if isinstance(value, str) else value
