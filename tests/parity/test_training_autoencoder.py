"""Recorded training steps of the splat autoencoders and their tiny decoders."""

from pathlib import Path

import pytest
import torch

from diffsplat.core import SplatGrid
from diffsplat.training.rendered_view_loss import ObjectLosses, RenderedViewLoss, RenderedViewWeights
from diffsplat.training.stages.autoencoder_stage import SplatVaeLoss, train_only
from support.training_recordings import (
    INPUT_VIEWS,
    RecordedStep,
    TrainingRecordings,
    box_distance,
    check_gradients,
    check_number,
    check_tensor,
    gradients_of,
    posterior_noise,
)

CASES = ("sd", "sdxl", "sd3", "sd_tiny", "sd3_tiny", "sd_weighted")
TERMS = {
    "grid": "latent_mse",
    "rgb": "image_mse",
    "mask": "mask_mse",
    "perceptual": "lpips",
    "coord": "coord_mse",
}


@pytest.fixture(scope="module")
def grid(training: TrainingRecordings, tmp_path_factory: pytest.TempPathFactory) -> SplatGrid:
    reconstructor = training.reconstructor(tmp_path_factory.mktemp("reconstructor"))
    with torch.no_grad():
        return reconstructor(training.views(slice(2)).take(slice(INPUT_VIEWS)))


def loss_of(step: RecordedStep) -> SplatVaeLoss:
    options = step.facts["options"]
    weights = RenderedViewWeights(
        perceptual=options["lpips_weight"],
        coord=options["coord_weight"],
        normal=options["normal_weight"],
        perceptual_size=options["lpips_resize"],
    )
    return SplatVaeLoss(
        RenderedViewLoss(weights, box_distance, "legacy"),
        grid_weight=options["recon_weight"],
        rendering_weight=options["render_weight"],
        decoder="tiny" if options["use_tiny_decoder"] else "full",
    )


def check_terms(step: RecordedStep, losses: ObjectLosses) -> None:
    terms = step.facts["terms"]
    check_number(f"{step.name} loss", losses.total.mean(), terms["loss"], 1e-4)
    for ours, value in losses.terms.items():
        if ours == "normal":
            check_number(f"{step.name} normal", 1 - value.mean(), terms["normal_cosim"], 1e-4)
        else:
            tolerance = 1e-5 if ours == "grid" else 1e-4
            check_number(f"{step.name} {ours}", value.mean(), terms[TERMS[ours]], tolerance)


@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients(training: TrainingRecordings, grid: SplatGrid, tmp_path: Path, name: str):
    step = training.step("gsvae_step", name)
    vae = training.splat_vae(name.split("_", maxsplit=1)[0], tmp_path)
    loss = loss_of(step)
    train_only(vae, loss.decoder)
    trained = {name for name, parameter in vae.named_parameters() if parameter.requires_grad}
    assert {".".join(part.split(".")[:2]) for part in trained} == set(step.facts["trainable"])
    with posterior_noise(step.tensor("vae_noise")):
        latents = vae.encode(grid, sample=True)
    check_tensor(f"{name} latents", latents.flatten(0, 1), vae.scale(step.tensor("latents")), 1e-4)
    losses = loss(vae, latents, grid, training.views(slice(2)))
    losses.total.mean().backward()
    check_terms(step, losses)
    check_gradients(step, gradients_of(vae), 1e-2)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "decoder"), [("sd", "full"), ("sd3", "full"), ("sd_tiny", "tiny"), ("sd3_tiny", "tiny")]
)
def test_decoded_grid(training: TrainingRecordings, tmp_path: Path, name: str, decoder: str):
    step = training.step("gsvae_step", name)
    vae = training.splat_vae(name.split("_", maxsplit=1)[0], tmp_path)
    latents = vae.scale(step.tensor("latents")[:1]).unsqueeze(0)
    decoded = vae.decode(latents, decoder="tiny" if name.endswith("tiny") else "full")
    check_tensor(f"{name} decoded", decoded.values[0], step.tensor("decoded_grid_view0"), 1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", ["sd", "sd3"])
def test_divergence_that_is_only_logged(
    training: TrainingRecordings, grid: SplatGrid, tmp_path: Path, name: str
):
    step = training.step("gsvae_step", name)
    posterior = training.splat_vae(name, tmp_path).posterior(grid)
    channels, height, width = posterior.mean.shape[1:]
    divergence = posterior.kl().mean() / (channels + height + width)
    check_number(f"{name} divergence", divergence, step.facts["terms"]["kl"], 1e-5)
