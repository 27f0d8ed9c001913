"""From noise to latents along the velocity that a network predicts."""

from collections.abc import Callable
from typing import Any, cast

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""``(latents [B, V, C, h, w], level [B]) -> [B, V, C, h, w]``: noise minus clean latents."""


def integrate(
    velocity: Velocity,
    noise: Tensor,
    scheduler: FlowMatchEulerDiscreteScheduler,
    steps: int,
    on_step: Callable[[], None] | None = None,
) -> Tensor:
    """Follow the flow from pure noise at level 1 to clean latents at level 0 (Lipman et al. 2023).

    Args:
        velocity: the field ``d latents / d level``.
        noise: ``[B, ...]`` float32, where the path begins.
        scheduler: places the levels, evenly but for its shift, and takes the steps.
        steps: number of steps.
        on_step: called after every step; may raise to stop.

    Returns:
        Latents like ``noise``.
    """
    evenly = [1 - step / steps for step in range(steps)]
    # Annotated by diffusers with tensor types that no tensor has.
    stepper = cast(Any, scheduler)
    stepper.set_timesteps(sigmas=evenly, device=noise.device)
    latents = noise
    for timestep in stepper.timesteps:
        level = (timestep / stepper.config["num_train_timesteps"]).float().expand(noise.shape[0])
        change = velocity(latents, level)
        latents = stepper.step(change, timestep, latents, return_dict=False)[0]
        if on_step is not None:
            on_step()
    return latents


def guided(velocity: Velocity, guidance: float) -> Velocity:
    """Classifier-free guidance (Ho and Salimans 2022) over a field that takes a doubled batch.

    Args:
        velocity: field whose batch is the unconditional half, then the conditional half.
        guidance: ``w`` in ``v(none) + w * (v(text) - v(none))``.
    """

    def field(latents: Tensor, level: Tensor) -> Tensor:
        without, with_text = velocity(torch.cat([latents, latents]), torch.cat([level, level])).chunk(2)
        return without + guidance * (with_text - without)

    return field


def object_noise(shape: tuple[int, ...], seeds: tuple[int, ...]) -> Tensor:
    """``[B, *shape]`` standard normal noise, drawn on the CPU with one generator an object."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
