"""Recipes of the paper's denoisers and ControlNets (DiffSplat, ICLR 2025, section 4.1 and appendix)."""

from dataclasses import replace
from typing import get_args

from diffsplat.pretrained.release_catalogue import ControlKind
from diffsplat.training.recipes.recipe import NetworkRecipe
from diffsplat.training.rendered_view_loss import RenderedViewWeights
from diffsplat.training.stages.denoiser_configs import BackboneDenoiserConfig, BackboneName
from diffsplat.training.stages.diffusion_stage import DiffusionConfig
from diffsplat.training.stages.rendering_loss_options import RenderingLossOptions
from diffsplat.training.stages.stage_recipe import GradientTraining
from diffsplat.training.trainer_config import EmaConfig, OptimConfig, TrainerConfig
from diffsplat.training.view_batches import ViewSourceConfig

_STEPS = 65_100
"""100 epochs of 83,296 objects in batches of 128: 8 GPUs with 16 objects each."""

_OPTIM = OptimConfig(
    lr=1e-4,
    betas=(0.9, 0.999),
    weight_decay=0.01,
    decayed="all",
    warmup_steps=1_000,
    warmup_from_zero=True,
    schedule="constant",
)

_TRAINER = TrainerConfig(
    steps=_STEPS,
    optim=_OPTIM,
    ema=EmaConfig(decay=0.9999),
    accumulation=2,
    evaluate_every=5_000,
    checkpoint_minutes=30,
)
_VIEWS = ViewSourceConfig(batch_size=8, composition="released", image_size=256)
_RENDERING = RenderingLossOptions(RenderedViewWeights(perceptual=1.0), perceptual="lpips")

_SUMMARIES: dict[BackboneName, str] = {
    "sd15": "denoiser from Stable Diffusion 1.5, 0.86 B; --image, --rendering-loss",
    "pixart-sigma": "denoiser from PixArt-Sigma, 0.61 B; --image, --rendering-loss",
    "sd35m": "denoiser from Stable Diffusion 3.5 medium, 2.24 B; --image, --rendering-loss",
}


def _diffusion(backbone: BackboneName, batch_size: int, accumulation: int) -> NetworkRecipe:
    return NetworkRecipe(
        f"diffusion-{backbone}",
        _SUMMARIES[backbone],
        GradientTraining(
            DiffusionConfig(
                BackboneDenoiserConfig(backbone), rendering=_RENDERING, sample_guidance=(1.0, 3.0, 7.5)
            ),
            replace(_VIEWS, batch_size=batch_size),
            replace(_TRAINER, accumulation=accumulation),
        ),
    )


def _controlnet(kind: ControlKind) -> NetworkRecipe:
    return NetworkRecipe(
        f"controlnet-{kind}",
        f"ControlNet for {kind} maps on the frozen denoiser from Stable Diffusion 1.5, 361 M",
        GradientTraining(
            DiffusionConfig(BackboneDenoiserConfig("sd15"), control=kind, sample_guidance=(1.0, 3.0, 7.5)),
            _VIEWS,
            replace(_TRAINER, ema=EmaConfig(decay=0.0)),
        ),
    )


DIFFUSION_RECIPES: tuple[NetworkRecipe, ...] = (
    _diffusion("sd15", batch_size=8, accumulation=2),
    _diffusion("pixart-sigma", batch_size=8, accumulation=2),
    _diffusion("sd35m", batch_size=2, accumulation=8),
    *(_controlnet(kind) for kind in get_args(ControlKind)),
)
"""Denoisers and ControlNets."""
