"""The learning rate as a function of the step."""

from math import cos, pi

from diffsplat.training.trainer_config import OptimConfig


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Learning rate of step ``step`` (from 0) of ``steps``: linear warm-up, then cosine or constant."""
    if step < config.warmup_steps:
        return config.lr * (step if config.warmup_from_zero else step + 1) / config.warmup_steps
    match config.schedule:
        case "constant":
            return config.lr
        case "cosine":
            done = min(1.0, (step - config.warmup_steps) / max(1, steps - config.warmup_steps))
            return config.lr * (config.final_lr + (1 - config.final_lr) * 0.5 * (1 + cos(pi * done)))


def learning_rate_factor(config: OptimConfig, name: str) -> float:
    """Factor of the learning rate of a parameter."""
    return next((factor for part, factor in config.lr_factors if part in name), 1.0)
