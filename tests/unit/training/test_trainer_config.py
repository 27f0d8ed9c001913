"""Impossible options of a training are refused."""

import math

import pytest

from diffsplat.training.trainer_config import EmaConfig, OptimConfig, TrainerConfig


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
        (lambda: TrainerConfig(max_minutes=0.0), r"max_minutes is 0\.0"),
    ],
)
def test_configuration_refuses_nonsense(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
