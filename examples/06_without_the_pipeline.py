"""From prompt to splats step by step: what DiffSplatPipeline does with the embedded model, without the class.

python examples/06_without_the_pipeline.py "a red armchair" --out armchair.ply
"""

from pathlib import Path

import torch
import tyro
from torch import Tensor
from torch.nn import functional

from diffsplat.core import Splats
from diffsplat.data.training_vocabulary import TrainingVocabulary
from diffsplat.geometry import ring_cameras
from diffsplat.io.splat_formats import write_splats
from diffsplat.models.autocast import autocast
from diffsplat.models.denoiser_forward_pass import network_output
from diffsplat.models.multiview_pixart import MultiViewPixArt
from diffsplat.models.principal_component_autoencoder import ComponentAutoencoder
from diffsplat.models.rays_and_noise_levels import TIMESTEPS, denoised_channels, denoiser_rays
from diffsplat.models.text.quantized_sentence_encoder import TextEncoder
from diffsplat.models.text.text_condition import TextCondition
from diffsplat.pipelines.surface_smoothing import clean_surfaces
from diffsplat.pipelines.unfamiliar_prompts import KnownWords
from diffsplat.pretrained.model_folders import TEXT_DENOISER, ModelFolder
from diffsplat.pretrained.schedulers import load_scheduler


@torch.no_grad()
def generate(prompt: str, seed: int = 0) -> Splats:
    """Splats ``[N]`` of one object."""
    model = ModelFolder.find("mini")
    folder, defaults = model.folder, model.defaults()
    text_encoder = TextEncoder.from_pretrained(folder / "text_encoder")
    denoiser = MultiViewPixArt.from_pretrained(folder / denoiser_of(prompt, model, text_encoder)).eval()
    refiner = MultiViewPixArt.from_pretrained(folder / "refiner").eval()
    autoencoder = ComponentAutoencoder.from_pretrained(folder / "autoencoder").eval()
    scheduler = load_scheduler(folder / "scheduler")

    # Conditions: the encoded prompt, an empty one to guide away from, and the viewing rays of four cameras.
    text = TextCondition.concatenate([text_encoder([""]), text_encoder([prompt])])
    cameras = ring_cameras(defaults.elevation_deg, size=autoencoder.image_size).for_objects(1)
    rays = denoiser_rays(cameras, autoencoder.latent_size)

    def predicted_flow(latents: Tensor, timestep: Tensor) -> Tensor:
        """Direction from clean latents to noise; the refiner takes over at low noise levels.

        At the highest levels nothing is guided, so that objects differ.
        """
        level = timestep / TIMESTEPS
        low = float(level) < defaults.refined_below
        network, scale = (refiner, defaults.refiner_guidance) if low else (denoiser, defaults.guidance)
        inputs = torch.cat([latents, rays], dim=2)
        # The general denoiser has further channels for an image, which are zero without one.
        inputs = functional.pad(inputs, (0, 0, 0, 0, 0, network.config["in_channels"] - inputs.shape[2]))
        inputs = inputs.expand(2, -1, -1, -1, -1)
        without, with_text = network_output(network, inputs, timestep.expand(2), text).chunk(2)
        guided = float(level) < defaults.guided_below
        clean = without + scale * (with_text - without) if guided else with_text
        return (latents - clean) / level

    # Denoising: from normal noise [1, views, channels, height, width] to the latents of the object.
    shape = (autoencoder.views, denoised_channels(denoiser.config), *autoencoder.latent_shape[2:])
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(seed))[None]
    scheduler.set_timesteps(defaults.steps)
    with autocast(latents.device, "auto"):
        for timestep in scheduler.timesteps:
            flow = predicted_flow(latents, timestep)
            latents = scheduler.step(flow, timestep, latents, return_dict=False)[0]

    # Decoding: a Gaussian for every pixel of four views, smoothed, then placed in the world.
    grid = clean_surfaces(autoencoder.decode(latents), cameras, defaults.smoothing)
    return grid.to_splats(cameras)[0]


def denoiser_of(prompt: str, model: ModelFolder, text_encoder: TextEncoder) -> str:
    """Folder of the denoiser of text alone, where it knows every object that the prompt names; else the general one."""
    words = TrainingVocabulary.from_folder(model.folder)
    of_text = TrainingVocabulary.from_folder(model.folder / TEXT_DENOISER)
    known = words is not None and KnownWords(words, text_encoder, of_text).are_of_text(prompt)
    return TEXT_DENOISER if known else "denoiser"


def main(
    prompt: tyro.conf.Positional[str] = "a red armchair", out: Path = Path("a-red-armchair.ply")
) -> None:
    """Write the splats of a prompt."""
    write_splats(generate(prompt).visible(), out, force=True)
    print(out)


if __name__ == "__main__":
    tyro.cli(main)
