"""The denoising loop, and the noise that it starts from."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffsplat.pipelines.pipeline_protocols import Scheduler

Field = Callable[[Tensor, Tensor], Tensor]
"""``(latents [B, V, C, h, w], timestep [B]) -> [B, V, C, h, w]``: the prediction that a scheduler expects."""


def denoise(
    field: Field,
    noise: Tensor,
    scheduler: Scheduler,
    steps: int,
    *,
    generators: list[torch.Generator] | None = None,
    on_step: Callable[[], None] | None = None,
) -> Tensor:
    """From noise to clean latents.

    Args:
        field: the network's prediction, guidance included.
        noise: ``[B, ...]`` standard normal float32.
        scheduler: from :func:`make_scheduler`.
        steps: number of steps.
        generators: one for each object, for samplers that add noise on the way.
        on_step: called after every step; may raise to stop.

    Returns:
        Latents like ``noise``.
    """
    scheduler.set_timesteps(steps, device=noise.device)
    extra: dict[str, Any] = {"generator": generators} if _takes_noise(scheduler) else {}
    latents = noise * float(getattr(scheduler, "init_noise_sigma", 1.0))
    for timestep in scheduler.timesteps:
        scale = getattr(scheduler, "scale_model_input", None)
        inputs = latents if scale is None else scale(latents, timestep)
        prediction = field(inputs, timestep.expand(noise.shape[0]))
        latents = scheduler.step(prediction, timestep, latents, **extra, return_dict=False)[0]
        if on_step is not None:
            on_step()
    return latents


def _takes_noise(scheduler: Scheduler) -> bool:
    return str(getattr(scheduler.config, "algorithm_type", "")).startswith("sde")


def object_generators(seeds: tuple[int, ...]) -> list[torch.Generator]:
    """A generator on the CPU for each object, so that an object is the same on every device and in every batch."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def object_noise(shape: tuple[int, ...], generators: list[torch.Generator]) -> Tensor:
    """``[B, *shape]`` standard normal noise of the objects' generators, on the CPU."""
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])
