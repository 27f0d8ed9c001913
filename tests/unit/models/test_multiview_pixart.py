"""The own PixArt transformer against diffusers', applied to every view with attention across the views."""

from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from torch import Tensor, nn

from diffsplat.models.denoiser_forward_pass import network_output
from diffsplat.models.multiview_attention import set_multiview_attention
from diffsplat.models.multiview_pixart import MultiViewPixArt, make_denoiser
from diffsplat.models.text.text_condition import TextCondition

SHIPPED = Path(str(files("diffsplat"))) / "weights" / "mini"
VIEWS = 4


def stock_like(own: MultiViewPixArt) -> Any:
    """The network of diffusers with the same configuration and weights, in float64."""
    config = own.config
    width = config["num_attention_heads"] * config["attention_head_dim"]
    stock = cast(
        nn.Module,
        PixArtTransformer2DModel(**config, cross_attention_dim=width, use_additional_conditions=False),
    )
    stock.load_state_dict(own.state_dict())
    set_multiview_attention(stock, VIEWS)
    return stock.double().eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def compare(own: MultiViewPixArt) -> None:
    """Outputs for two objects at two noise levels, their prompts of different lengths."""
    stock = stock_like(own)
    config = own.config
    inputs = noise(2, VIEWS, config["in_channels"], config["sample_size"], config["sample_size"])
    timestep = torch.tensor([31.4, 900.0])
    text = noise(2, 9, config["caption_channels"], seed=1)
    mask = torch.arange(9) < torch.tensor([[4], [7]])
    condition = TextCondition(text, mask)
    with torch.no_grad():
        expected = network_output(stock, inputs, timestep, condition)
        found = network_output(own.double(), inputs, timestep, condition)
    assert expected.abs().mean() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("size", "patch"), [(8, 2), (4, 1), (128, 32)])
def test_random_weights_give_what_diffusers_computes(size: int, patch: int):
    own = make_denoiser(
        latent_channels=3, latent_size=size, width=128, layers=2, text_channels=24, patch=patch
    )
    with torch.no_grad():
        for number, parameter in enumerate(own.parameters()):
            parameter.copy_(noise(*parameter.shape, seed=number) * 0.2)
    compare(own)


@pytest.mark.parametrize("part", ["denoiser", "refiner"])
def test_the_shipped_weights_give_what_diffusers_computes(part: str):
    compare(MultiViewPixArt.from_pretrained(SHIPPED / part))
