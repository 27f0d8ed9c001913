"""Impossible options of a training are refused."""

import math

import pytest

from diffsplat.training.cached_view_batches import DenoisedViewSourceConfig
from diffsplat.training.elevation_batches import ElevationSourceConfig
from diffsplat.training.latent_batches import LatentSourceConfig
from diffsplat.training.rendered_view_loss import RenderedViewWeights
from diffsplat.training.stages.autoencoder_stage import SmallAutoencoderConfig
from diffsplat.training.stages.denoiser_configs import SmallUNetConfig
from diffsplat.training.stages.diffusion_stage import DiffusionConfig
from diffsplat.training.stages.elevation_stage import ElevationStageConfig, MiniElevationStageConfig
from diffsplat.training.stages.image_autoencoder_stage import ImageAutoencoderConfig
from diffsplat.training.stages.principal_component_fit import ComponentFit, ConditionFit
from diffsplat.training.stages.reconstruction_stage import ReconstructionConfig
from diffsplat.training.teacher_samples import SampleSourceConfig
from diffsplat.training.trainer_config import EmaConfig, OptimConfig, TrainerConfig
from diffsplat.training.view_batches import ViewSourceConfig


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptimConfig(lr=-1.0), r"optim\.lr is -1\.0, expected a number above 0"),
        (lambda: OptimConfig(lr=math.nan), r"optim\.lr is nan"),
        (lambda: OptimConfig(betas=(0.9, 1.0)), r"optim\.betas"),
        (lambda: OptimConfig(clip_norm=0.0), r"optim\.clip_norm"),
        (lambda: EmaConfig(decay=1.0), r"ema\.decay is 1\.0"),
        (lambda: TrainerConfig(steps=0), "steps is 0, expected at least 1"),
        (lambda: TrainerConfig(seed=-1), "seed is -1"),
        (lambda: TrainerConfig(seed=2**63), "seed is 9223372036854775808, expected a number of 63 bits"),
        (
            lambda: TrainerConfig(checkpoint_minutes=math.nan),
            "checkpoint_minutes is nan, expected at least 0",
        ),
        (lambda: TrainerConfig(max_minutes=0.0), r"max_minutes is 0\.0"),
        (lambda: ViewSourceConfig(batch_size=0), "batch_size is 0, expected at least 1"),
        (lambda: ViewSourceConfig(novel_views=-1), "novel_views is -1, expected at least 0"),
        (lambda: ViewSourceConfig(image_size=-64), "image_size is -64, expected at least 1"),
        (lambda: LatentSourceConfig(batch_size=0), "batch_size is 0"),
        (lambda: ElevationSourceConfig(views=0), "views is 0, expected at least 1"),
        (lambda: MiniElevationStageConfig(recoloring=-0.1), r"recoloring is -0\.1, expected at least 0"),
        (lambda: MiniElevationStageConfig(linear_above=math.nan), "linear_above is nan"),
        (lambda: MiniElevationStageConfig(stages=0), "stages is 0, expected at least 1"),
        (lambda: MiniElevationStageConfig(dropout=1.0), r"dropout is 1\.0"),
        (lambda: ElevationStageConfig(offset_weight=-1.0), r"offset_weight is -1\.0"),
        (lambda: ReconstructionConfig(heads=0), "heads is 0, expected at least 1"),
        (lambda: SmallAutoencoderConfig(crop=-4), "crop is -4, expected at least 0"),
        (lambda: SmallAutoencoderConfig(kl_weight=math.nan), "kl_weight is nan"),
        (lambda: ImageAutoencoderConfig(crop=2), "crop is 2, expected at least 4"),
        (lambda: ConditionFit(evaluation_views=0), "evaluation_views is 0, expected at least 1"),
        (lambda: ComponentFit(latent_deviation=0.0), r"latent_deviation is 0\.0"),
        (lambda: DenoisedViewSourceConfig(cached_rings=0), "cached_rings is 0, expected at least 1"),
        (lambda: SampleSourceConfig(seed=-1), "seed is -1"),
        (lambda: DiffusionConfig(sample_steps=0), "sample_steps is 0, expected at least 1"),
        (lambda: SmallUNetConfig(widths=(32, 33)), r"widths is \(32, 33\), expected multiples of 16"),
        (lambda: SmallAutoencoderConfig(norm_groups=5), "expected multiples of norm_groups, 5"),
        (lambda: ImageAutoencoderConfig(widths=(8, 12)), r"widths is \(8, 12\)"),
        (lambda: RenderedViewWeights(rgb=math.nan), "rgb is nan, expected at least 0"),
        (lambda: RenderedViewWeights(normal=-0.5), r"normal is -0\.5"),
    ],
)
def test_configuration_refuses_nonsense(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
