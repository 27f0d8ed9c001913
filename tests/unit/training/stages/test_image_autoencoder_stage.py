"""The image autoencoder of the small models: its loss, its file, and the scale of its latents."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from diffsplat.training.stages.image_autoencoder_stage import ImageAutoencoderConfig, ImageAutoencoderStage

CONFIG = ImageAutoencoderConfig(widths=(4, 8), latent_channels=3, norm_groups=2, crop=16)


@pytest.fixture
def stage() -> ImageAutoencoderStage:
    torch.manual_seed(0)
    return ImageAutoencoderStage(CONFIG, torch.rand(6, 3, 32, 32))


def test_diffusers_opens_it_and_its_latents_have_unit_deviation(stage: ImageAutoencoderStage, tmp_path: Path):
    stage.save_pretrained(tmp_path)
    vae = AutoencoderKL.from_pretrained(tmp_path)
    assert vae.config["block_out_channels"] == [4, 8]
    images = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        latents = vae.encode(images * 2 - 1).latent_dist.mode() * vae.config["scaling_factor"]
    assert latents.shape == (64, 3, 16, 16)
    assert float(latents.std()) == pytest.approx(1, abs=0.02)


def test_an_earlier_run_gives_its_weights(stage: ImageAutoencoderStage, tmp_path: Path):
    stage.save_pretrained(tmp_path)
    other = ImageAutoencoderStage(CONFIG, torch.rand(2, 3, 32, 32))
    other.start_from(tmp_path)
    for name, tensor in stage.network.state_dict().items():
        assert torch.equal(other.network.state_dict()[name], tensor)
