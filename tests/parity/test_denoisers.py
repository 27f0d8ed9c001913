"""One pass of every kind of denoiser against recorded outputs."""

from typing import Any

import pytest
import torch
from torch import Tensor

from diffsplat.models.denoiser_forward_pass import Residuals, control_residuals, network_output
from diffsplat.models.multiview_attention import set_multiview_attention
from diffsplat.models.text.text_condition import TextCondition
from diffsplat.pretrained.released_networks import load_controlnet, load_denoiser
from support.recordings import Recordings, relative_error

TOLERANCE = 2e-5
DENOISERS = ("unet_text", "unet_image", "pixart_text", "pixart_image", "sd3_text", "sd3_image")
CONTROL_SCALE = 0.8


def multiview(network: Any, views: int) -> Any:
    set_multiview_attention(network, views)
    return network


def per_object(io: dict[str, Tensor], name: str) -> Tensor:
    """One entry an object of what the original repeats for every view."""
    views, values = int(io["num_views"]), io[name]
    return values[::views] if len(values) == len(io["sample"]) else values


def text_of(io: dict[str, Tensor]) -> TextCondition:
    mask = per_object(io, "encoder_attention_mask") > 0.5 if "encoder_attention_mask" in io else None
    pooled = io.get("pooled_projections")
    return TextCondition(per_object(io, "encoder_hidden_states"), mask, pooled)


def inputs_of(io: dict[str, Tensor]) -> Tensor:
    return io["sample"].unflatten(0, (-1, int(io["num_views"])))


@pytest.mark.parametrize("name", DENOISERS)
@torch.no_grad()
def test_denoiser(recordings: Recordings, name: str):
    io = recordings.tensors(f"{name}_io")
    network = multiview(load_denoiser(recordings.path(name)), int(io["num_views"]))
    output = network_output(network, inputs_of(io), per_object(io, "timestep"), text_of(io))
    assert relative_error(output.flatten(0, 1), io["out"]) < TOLERANCE


@torch.no_grad()
def controlled(recordings: Recordings) -> tuple[Residuals, Tensor, dict[str, Tensor]]:
    """Residuals, output of the UNet with them, and the recording."""
    io = recordings.tensors("controlnet_io")
    views = int(io["num_views"])
    unet = multiview(load_denoiser(recordings.path("unet_text")), views)
    controlnet = multiview(load_controlnet(recordings.path("controlnet"), unet), views)
    inputs, timestep, text = inputs_of(io), per_object(io, "timestep"), text_of(io)
    control = io["controlnet_cond"].unflatten(0, (-1, views))
    residuals = control_residuals(controlnet, inputs, timestep, text, control, scale=CONTROL_SCALE)
    return residuals, network_output(unet, inputs, timestep, text, residuals), io


def test_controlnet(recordings: Recordings):
    residuals, output, io = controlled(recordings)
    for index, down in enumerate(residuals.down):
        assert relative_error(down, io[f"down_{index}"]) < TOLERANCE
    assert f"down_{len(residuals.down)}" not in io
    assert relative_error(residuals.middle, io["mid"]) < TOLERANCE
    assert relative_error(output.flatten(0, 1), io["out"]) < TOLERANCE


@pytest.mark.parametrize("name", DENOISERS)
@torch.no_grad()
def test_one_view_is_the_stock_network_bit_for_bit(recordings: Recordings, name: str):
    io = recordings.tensors(f"{name}_io")
    network, text = load_denoiser(recordings.path(name)), text_of(io)
    count = text.tokens.shape[0]
    inputs = inputs_of(io)[:count, :1]
    timestep = per_object(io, "timestep")[:count]
    stock = network_output(network, inputs, timestep, text)
    assert torch.equal(network_output(multiview(network, 1), inputs, timestep, text), stock)
