"""Recorded training steps of the reconstructor."""

from pathlib import Path
from typing import Any

import pytest
import torch

from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.render import render
from diffsplat.training.optimizers import Optimizers
from diffsplat.training.rendered_view_loss import (
    ObjectLosses,
    RenderedViewLoss,
    RenderedViewWeights,
    coordinate_image,
    normal_image,
)
from diffsplat.training.trainer_config import OptimConfig
from support.training_recordings import (
    INPUT_VIEWS,
    TrainingRecordings,
    box_distance,
    check_gradients,
    check_number,
    check_tensor,
    gradients_of,
)

CASES = (
    "step50_lpips_off",
    "step200_lpips_half",
    "step400_lpips_full",
    "defaults_step1",
    "coord_normal",
    "no_lpips_resize",
)
TERMS = {"rgb": "image_mse", "mask": "mask_mse", "perceptual": "lpips", "coord": "coord_mse"}
RENDERED_VIEWS = (0, 3, 6)


@pytest.fixture
def reconstructor(training: TrainingRecordings, tmp_path: Path) -> GSRecon:
    return training.reconstructor(tmp_path)


def loss_of(options: dict[str, Any]) -> RenderedViewLoss:
    weights = RenderedViewWeights(
        perceptual=options["lpips_weight"],
        coord=options["coord_weight"],
        normal=options["normal_weight"],
        warmup_start=options["lpips_warmup_start"],
        warmup_end=options["lpips_warmup_end"],
        perceptual_size=options["lpips_resize"],
    )
    return RenderedViewLoss(weights, box_distance, "legacy")


def losses_of(
    training: TrainingRecordings, reconstructor: GSRecon, loss: RenderedViewLoss, step: int
) -> ObjectLosses:
    views = training.views(slice(2))
    inputs = views.take(slice(INPUT_VIEWS))
    splats = reconstructor(inputs).to_splats(inputs.cameras, reconstructor.pixel_grid)
    return loss(render(splats, views.cameras, normals=loss.needs_normals), views, step)


@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients(training: TrainingRecordings, reconstructor: GSRecon, name: str):
    step = training.step("gsrecon_step", name)
    options, terms = step.facts["options"], step.facts["terms"]
    losses = losses_of(training, reconstructor, loss_of(options), options["step"])
    losses.total.mean().backward()
    check_number(f"{name} loss", losses.total.mean(), terms["loss"], 1e-5)
    for ours, recorded in TERMS.items():
        if ours in losses.terms:
            check_number(f"{name} {ours}", losses.terms[ours].mean(), terms[recorded], 1e-5)
    assert losses.terms.keys() >= {"rgb", "mask", "perceptual"}
    if "normal_cosim" in terms:
        check_number(f"{name} normal", 1 - losses.terms["normal"].mean(), terms["normal_cosim"], 1e-5)
    check_gradients(step, gradients_of(reconstructor), 1e-3)


@torch.no_grad()
def test_rendered_images(training: TrainingRecordings, reconstructor: GSRecon):
    step = training.step("gsrecon_step", "coord_normal")
    views = training.views(slice(1))
    inputs = views.take(slice(INPUT_VIEWS))
    splats = reconstructor(inputs).to_splats(inputs.cameras, reconstructor.pixel_grid)
    rendering = render(splats, views.cameras)
    images = {
        "image": rendering.rgb,
        "alpha": rendering.alpha,
        "coord": coordinate_image(rendering, views, "legacy"),
        "normal": normal_image(rendering),
        "raw_depth": rendering.depth,
    }
    for name, image in images.items():
        check_tensor(name, image[0, RENDERED_VIEWS], step.tensor(f"render_{name}"), 2e-3)


def test_parameters_after_clipping_and_one_adamw_step(training: TrainingRecordings, reconstructor: GSRecon):
    step = training.step("gsrecon_step", "defaults_step1")
    losses = losses_of(training, reconstructor, loss_of(step.facts["options"]), 1)
    losses.total.mean().backward()
    parameters = dict(reconstructor.named_parameters())
    optimizers = Optimizers(reconstructor, OptimConfig(betas=(0.9, 0.95), weight_decay=0.05, decayed="all"))
    norm = torch.nn.utils.clip_grad_norm_(optimizers.parameters, 1.0)
    check_number("norm before clipping", norm, step.facts["clip"]["norm"], 1e-3)
    optimizers.step(4e-4)
    compared = 0
    for key in step.tensors:
        name = key.removeprefix("defaults_step1.after_adamw.")
        if name == key:
            continue
        # A first step is about lr * sign(gradient), which rounding decides where the gradient is almost zero.
        gradient = step.gradients()[name].abs()
        steady = gradient > 1e-4 * gradient.max()
        check_tensor(f"{name} afterwards", parameters[name][steady], step.tensors[key][steady], 1e-4)
        compared += 1
    assert compared == 3
