"""Names, shapes and sizes of the full-size networks, made without memory for their weights.

The truth is the recorded list of the original's reconstructor, the stock diffusers networks in the public
configurations of the image-diffusion models, and the published numbers of parameters.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    ControlNetModel,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from torch import nn

from diffsplat.models.denoiser_families import VARIANTS, Variant
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.models.splat_vae import FULL_SIZE, SplatVAE
from diffsplat.pretrained.released_networks import (
    DIFFUSERS_CLASSES,
    denoiser_class,
    load_reconstructor,
    load_splat_vae,
    read_config,
)
from diffsplat.training.network_initialisation import controlnet_from_unet, widen_denoiser
from support.recordings import OFFICIAL

SD15 = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
PIXART_SIGMA_512 = {
    "sample_size": 64,
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "num_layers": 28,
    "cross_attention_dim": 1152,
    "caption_channels": 4096,
    "out_channels": 8,
}
SD35_MEDIUM = {
    "sample_size": 128,
    "num_attention_heads": 24,
    "attention_head_dim": 64,
    "num_layers": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "out_channels": 16,
    "pos_embed_max_size": 384,
    "dual_attention_layers": tuple(range(13)),
    "qk_norm": "rms_norm",
}
"""Of the public ``config.json`` files; what is not named there is the default of the class."""

FULL: list[tuple[type, dict[str, Any], int, str, float]] = [
    (UNet2DConditionModel, SD15, 4, "conv_in.weight", 0.86e9),
    (PixArtTransformer2DModel, PIXART_SIGMA_512, 4, "pos_embed.proj.weight", 0.61e9),
    (SD3Transformer2DModel, SD35_MEDIUM, 16, "pos_embed.proj.weight", 2.24e9),
]


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def make(kind: Any, **arguments: Any) -> Any:
    with torch.device("meta"):
        return kind(**arguments)


def write_hollow(network: nn.Module, path: Path) -> None:
    """A safetensors file of zeros with the shapes of a network, float32, that takes no space on the disk."""
    header, end = {}, 0
    for name, shape in shapes(network).items():
        begin, end = end, end + 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


@pytest.fixture(scope="module")
def reconstructor_shapes() -> dict[str, tuple[int, ...]]:
    recorded = json.loads((OFFICIAL / "manifest.json").read_text())["gsrecon"]
    return {name: tuple(shape) for name, shape in recorded.items()}


def test_reconstructor(reconstructor_shapes: dict[str, tuple[int, ...]], tmp_path: Path):
    network = make(GSRecon)
    assert shapes(network) == reconstructor_shapes
    assert parameters(network) == pytest.approx(42e6, rel=0.02)
    write_hollow(network, tmp_path / "model.safetensors")
    loaded = load_reconstructor(tmp_path)
    assert shapes(loaded) == reconstructor_shapes
    assert {block.attn.heads for block in loaded.transformer.blocks} == {8}


@pytest.mark.parametrize("extra", [6, 7], ids=["text", "image"])
@pytest.mark.parametrize(("kind", "config", "channels", "first", "count"), FULL)
def test_denoisers_equal_the_stock_networks_but_for_the_first_convolution(
    kind: Any, config: dict[str, Any], channels: int, first: str, count: float, extra: int, tmp_path: Path
):
    stock = make(kind, in_channels=channels, **config)
    stock.register_to_config(in_channels=channels + extra, input_concat_plucker=True)
    text = stock.to_json_string()
    for dead, name in DIFFUSERS_CLASSES.items():
        text = text.replace(f'"{name}"', f'"{dead}"')
    (tmp_path / "config.json").write_text(text)
    name, arguments = read_config(tmp_path)
    assert "input_concat_plucker" not in arguments
    network = make(denoiser_class(name), **arguments)

    found, expected = shapes(network), shapes(stock)
    assert list(found) == list(expected)
    different = [name for name in found if found[name] != expected[name]]
    assert different == [first]
    output, _, *kernel = expected[first]
    assert found[first] == (output, channels + extra, *kernel)
    assert parameters(network) == pytest.approx(count, rel=0.02)


@pytest.mark.parametrize("image", [False, True], ids=["text", "image"])
@pytest.mark.parametrize(("kind", "config", "channels", "first", "count"), FULL)
def test_training_widens_the_2d_networks_to_the_released_shapes(
    kind: Any, config: dict[str, Any], channels: int, first: str, count: float, image: bool
):
    network = make(kind, in_channels=channels, **config)
    released = make(kind, in_channels=channels + (7 if image else 6), **config)
    if kind is UNet2DConditionModel:
        released.register_to_config(out_channels=channels)
    with torch.device("meta"):
        widen_denoiser(network, channels, image=image)
    assert shapes(network) == shapes(released)
    assert shapes(network)[first][1] == channels + (7 if image else 6)
    assert parameters(network) == pytest.approx(count, rel=0.02)


def test_training_makes_a_controlnet_of_the_released_shapes():
    unet = make(UNet2DConditionModel, in_channels=10, **SD15)
    with torch.device("meta"):
        released = ControlNetModel.from_unet(unet, load_weights_from_unet=False)
        trained = controlnet_from_unet(unet)
    assert shapes(trained) == shapes(released)


def test_controlnet_of_the_text_unet():
    unet = make(UNet2DConditionModel, in_channels=10, **SD15)
    with torch.device("meta"):
        network = ControlNetModel.from_unet(unet, load_weights_from_unet=False)
    assert parameters(network) == pytest.approx(361e6, rel=0.02)
    assert shapes(network)["conv_in.weight"] == (320, 10, 3, 3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_splat_autoencoder(variant: Variant, tmp_path: Path):
    facts, levels = VARIANTS[variant], 4
    image_vae = make(
        AutoencoderKL,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        **FULL_SIZE,
        **facts,
    )
    tiny = make(AutoencoderTiny, out_channels=12, latent_channels=facts["latent_channels"])
    expected = {f"vae.{name}": shape for name, shape in shapes(image_vae).items()}
    expected |= {f"tiny_decoder.{name}": shape for name, shape in shapes(tiny.decoder).items()}
    # A grid has 12 channels where an image has three.
    expected["vae.encoder.conv_in.weight"] = (128, 12, 3, 3)
    expected["vae.decoder.conv_out.weight"] = (12, 128, 3, 3)
    expected["vae.decoder.conv_out.bias"] = (12,)

    network = make(SplatVAE, image_vae={**FULL_SIZE, **facts})
    assert shapes(network) == expected
    assert parameters(network) == pytest.approx(84e6, rel=0.02)
    assert network.latent_shape == (4, facts["latent_channels"], 32, 32)
    assert network.scaling_factor == facts["scaling_factor"]
    write_hollow(network, tmp_path / "model.safetensors")
    assert shapes(load_splat_vae(tmp_path, variant=variant)) == expected
