"""The splat autoencoder against outputs recorded from the original implementation (CPU, float32)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffsplat.core import SplatGrid
from diffsplat.models.splat_vae import SplatVAE
from diffsplat.pretrained.released_networks import load_splat_vae
from support.recordings import Recordings, relative_error

TOLERANCE = 2e-5


@dataclass(frozen=True)
class Case:
    vae: SplatVAE
    recorded: dict[str, Tensor]
    config: dict[str, Any]

    @property
    def grid(self) -> SplatGrid:
        return SplatGrid(self.recorded["gs"].unsqueeze(0))

    @property
    def unscaled(self) -> Tensor:
        return self.recorded["latents"].unsqueeze(0)

    @property
    def scaled(self) -> Tensor:
        return self.recorded["scaling_factor"] * (self.unscaled - self.recorded["shift_factor"])


@pytest.fixture(scope="module", params=["sd", "sdxl", "sd3"])
def case(
    request: pytest.FixtureRequest, recordings: Recordings, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    name = f"gsvae_{request.param}"
    config, recorded = recordings.json(f"{name}_config.json"), recordings.tensors(f"{name}_io")
    folder = tmp_path_factory.mktemp(name)
    Path(folder / "model.safetensors").symlink_to(recordings.path(f"{name}_weights.safetensors").resolve())
    return Case(load_splat_vae(folder, image_vae=config), recorded, config)


@torch.no_grad()
def test_mode_latents(case: Case):
    latents = case.vae.encode(case.grid)
    assert relative_error(latents, case.scaled) < TOLERANCE


@torch.no_grad()
def test_divergence_from_a_unit_gaussian(case: Case):
    divergence = case.vae.posterior(case.grid).kl().mean()
    assert relative_error(divergence.reshape(1), case.recorded["kl"]) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize(("decoder", "recorded"), [("full", "recon"), ("tiny", "recon_tiny")])
def test_decoding(case: Case, decoder: Any, recorded: str):
    decoded = case.vae.decode(case.scaled, decoder=decoder)
    assert relative_error(decoded.values[0], case.recorded[recorded]) < TOLERANCE


def test_scale_of_the_latents(case: Case):
    assert case.vae.scaling_factor == pytest.approx(float(case.recorded["scaling_factor"]))
    assert case.vae.shift_factor == pytest.approx(float(case.recorded["shift_factor"]))


def test_sizes_are_those_of_the_recorded_configuration(case: Case):
    found: Any = case.vae.vae.config
    for name in ("block_out_channels", "layers_per_block", "latent_channels", "norm_num_groups"):
        expected = case.config[name]
        assert found[name] == (expected if isinstance(expected, int) else list(expected))


@torch.no_grad()
def test_saved_and_loaded_again(case: Case, tmp_path: Path):
    case.vae.save_pretrained(tmp_path)
    again = SplatVAE.from_pretrained(tmp_path)
    assert torch.equal(again.decode(case.scaled).values, case.vae.decode(case.scaled).values)
