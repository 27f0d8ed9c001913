"""The recipe ``small``: the architectures of the full-size networks at sizes that two CPU cores train."""

from dataclasses import replace
from typing import cast, get_args

from diffsplat.pretrained.model_folders import SamplingDefaults, controlnet_folder
from diffsplat.pretrained.release_catalogue import ControlKind
from diffsplat.training.cached_view_batches import DenoisedViewSourceConfig
from diffsplat.training.recipes.embedded_mini_recipe import MINI
from diffsplat.training.recipes.model_recipe import Recipe, SamplingRecipe
from diffsplat.training.stages.autoencoder_stage import SmallAutoencoderConfig
from diffsplat.training.stages.denoiser_configs import SmallUNetConfig
from diffsplat.training.stages.diffusion_stage import DiffusionConfig
from diffsplat.training.stages.image_autoencoder_stage import ImageAutoencoderConfig
from diffsplat.training.stages.reconstruction_stage import SMALL_LOSS
from diffsplat.training.stages.stage_recipe import GradientTraining
from diffsplat.training.trainer_config import EmaConfig, OptimConfig, TrainerConfig
from diffsplat.training.view_batches import ViewSourceConfig

_TRAINER = TrainerConfig(
    steps=2_600,
    optim=OptimConfig(lr=1.5e-3, betas=(0.9, 0.95), weight_decay=0.01, warmup_steps=50),
    ema=EmaConfig(decay=0.995),
    evaluate_every=500,
)

SMALL_IMAGE_AUTOENCODER = GradientTraining(
    ImageAutoencoderConfig(), ViewSourceConfig(batch_size=1, novel_views=0, evaluation_objects=16), _TRAINER
)

SMALL_AUTOENCODER = GradientTraining(
    SmallAutoencoderConfig(
        image_size=128,
        grid_error="visible",
        kl_weight=1e-6,
        rendering_weight=0.2,
        rendering_from=4_400,
        crop=64,
        rendering=SMALL_LOSS,
    ),
    ViewSourceConfig(batch_size=2, novel_views=2, evaluation_objects=12),
    replace(_TRAINER, steps=5_000, optim=replace(_TRAINER.optim, name="muon", lr=2e-3), evaluate_every=1_000),
)

SMALL_RECONSTRUCTION = replace(
    cast(GradientTraining, MINI.stages["reconstruction"]), source=ViewSourceConfig(batch_size=2)
)
"""That of the embedded model with smaller batches, which 5,000 steps take half an hour with."""

_DENOISING = TrainerConfig(
    steps=3_000,
    optim=OptimConfig(lr=1e-3, betas=(0.9, 0.99), warmup_steps=100),
    ema=EmaConfig(decay=0.998),
    evaluate_every=500,
)
_DENOISED_VIEWS = DenoisedViewSourceConfig(batch_size=4, evaluation_objects=16)

SMALL_DIFFUSION = GradientTraining(
    DiffusionConfig(SmallUNetConfig(), sample_guidance=(1.0, 3.0)),
    _DENOISED_VIEWS,
    replace(_DENOISING, optim=replace(_DENOISING.optim, name="muon")),
)

SMALL_IMAGE_DIFFUSION = replace(
    SMALL_DIFFUSION,
    stage=DiffusionConfig(SmallUNetConfig(), image=True, sample_guidance=(1.0, 2.0)),
    source=replace(_DENOISED_VIEWS, seed=1),
    trainer=replace(_DENOISING, steps=1_500, optim=replace(_DENOISING.optim, lr=5e-4), seed=1),
)
"""Starts from the denoiser of text, whose batches and noise would come again with the same seeds."""


def _controlnet(kind: ControlKind) -> GradientTraining:
    """A ControlNet on the frozen denoiser of text."""
    stage = DiffusionConfig(SmallUNetConfig(), control=kind, sample_guidance=(1.0, 3.0))
    return GradientTraining(stage, _DENOISED_VIEWS, replace(_DENOISING, ema=EmaConfig(decay=0.0)))


SMALL = Recipe(
    name="small",
    summary="the paper's architectures at 128 px for two CPU cores: text to four splat grids; --image, --controls",
    stages={
        "reconstruction": SMALL_RECONSTRUCTION,
        "image-autoencoder": SMALL_IMAGE_AUTOENCODER,
        "autoencoder": SMALL_AUTOENCODER,
        "diffusion": SMALL_DIFFUSION,
        "image-diffusion": SMALL_IMAGE_DIFFUSION,
        "elevation": MINI.stages["elevation"],
        **{controlnet_folder(kind): _controlnet(kind) for kind in get_args(ControlKind)},
    },
    sampling=SamplingRecipe(SamplingDefaults(guidance=3.0, prediction="v_prediction"), sampler="dpm++"),
)
