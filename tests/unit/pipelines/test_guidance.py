"""Guidance of several views, against its formulas."""

import pytest
import torch

from diffsplat.models.text.text_condition import TextCondition
from diffsplat.pipelines.guidance import Conditions, Handover, denoiser_inputs, triangle_guidance


def test_triangle_rises_to_the_opposite_view_and_falls_again():
    assert triangle_guidance(1.0, 2.0, 4).tolist() == [1.0, 1.5, 2.0, 1.5]
    assert triangle_guidance(1.0, 4.0, 6).tolist() == pytest.approx([1.0, 2.0, 3.0, 4.0, 3.0, 2.0])
    assert triangle_guidance(3.0, 3.0, 4).tolist() == [3.0] * 4


@pytest.mark.parametrize(("timestep", "factor"), [(1000.0, 2), (900.0, 2), (899.9, 3), (1.0, 3)])
def test_the_refiner_predicts_below_its_level(timestep, factor):
    field = Handover(lambda x, _: 2 * x, lambda x, _: 3 * x, 0.9)
    latents = torch.randn(2, 4, 3, 8, 8)
    assert torch.equal(field(latents, torch.full((2,), timestep)), factor * latents)


def conditions(image: torch.Tensor | None = None) -> Conditions:
    text = TextCondition(torch.zeros(2, 3, 5))
    return Conditions(torch.arange(4.0)[None, :, None, None, None].expand(2, 4, 6, 8, 8), text, text, image)


def test_inputs_of_a_text_model_are_latents_and_rays():
    latents = torch.randn(2, 4, 3, 8, 8)
    inputs = denoiser_inputs(latents, conditions())
    assert inputs.shape == (2, 4, 9, 8, 8)
    assert torch.equal(inputs[:, :, :3], latents)
    assert torch.equal(inputs[:, :, 3:], conditions().rays)


def test_the_picture_comes_first_with_the_rays_of_view_0_and_mask_0():
    latents, image = torch.randn(2, 4, 3, 8, 8), torch.randn(2, 3, 8, 8)
    inputs = denoiser_inputs(latents, conditions(image))
    assert inputs.shape == (2, 5, 10, 8, 8)
    assert torch.equal(inputs[:, 0, :3], image)
    assert torch.equal(inputs[:, 1:, :3], latents)
    assert inputs[0, :, 3, 0, 0].tolist() == [0, 0, 1, 2, 3]
    assert inputs[0, :, 9, 0, 0].tolist() == [0, 1, 1, 1, 1]


def test_the_unconditional_half_comes_first_and_sees_no_picture():
    doubled = conditions(torch.ones(2, 3, 8, 8)).doubled()
    assert len(doubled.text.tokens) == 4
    assert doubled.image_latent is not None
    assert doubled.image_latent[:2].abs().max() == 0
    assert doubled.image_latent[2:].min() == 1


def test_a_network_of_several_kinds_has_the_image_in_further_channels_of_view_0():
    latents, image = torch.randn(2, 4, 3, 8, 8), torch.randn(2, 5, 8, 8)
    inputs = denoiser_inputs(latents, conditions(image), channels=14)
    assert inputs.shape == (2, 4, 14, 8, 8)
    assert torch.equal(inputs[:, :, :9], denoiser_inputs(latents, conditions()))
    assert torch.equal(inputs[:, 0, 9:], image)
    assert inputs[:, 1:, 9:].abs().max() == 0


def test_without_an_image_its_further_channels_are_zero():
    latents = torch.randn(2, 4, 3, 8, 8)
    inputs = denoiser_inputs(latents, conditions(), channels=14)
    assert inputs.shape == (2, 4, 14, 8, 8)
    assert torch.equal(inputs[:, :, :9], denoiser_inputs(latents, conditions()))
    assert inputs[:, :, 9:].abs().max() == 0
