"""The denoising loop, and the noise that it starts from."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffsplat.errors import InvalidInputError, explained_errors
from diffsplat.pipelines.pipeline_interfaces import Scheduler

Field = Callable[[Tensor, Tensor], Tensor]
"""``(latents [B, V, C, h, w], timestep [B]) -> [B, V, C, h, w]``: the prediction that a scheduler expects."""

StepHook = Callable[[int, Tensor, Tensor], Tensor]
"""``(steps done before, timestep, latents after the step) -> latents`` to go on with; may raise to stop."""


@dataclass(frozen=True)
class NoiseLevels:
    """Where a scheduler takes its steps.

    Args:
        steps: how many.
        timesteps: of each step, instead of the scheduler's own.
        sigmas: noise level of each step, likewise.
    """

    steps: int
    timesteps: tuple[float, ...] = ()
    sigmas: tuple[float, ...] = ()

    def place(self, scheduler: Scheduler, device: torch.device | None = None) -> int:
        """Set the scheduler's timesteps; returns how many evaluations of the network they need.

        Raises:
            ValueError: for a scheduler that cannot take such steps, or that goes from clean latents to noise.
        """
        given: dict[str, Any] = {"num_inference_steps": self.steps}
        for name in ("timesteps", "sigmas"):
            if values := getattr(self, name):
                if name not in inspect.signature(scheduler.set_timesteps).parameters:
                    raise InvalidInputError(
                        f"the scheduler {_name(scheduler)} takes no {name}, expected another such as "
                        "EulerDiscreteScheduler"
                    )
                given = {name: list(values)}
        failure = f"the scheduler {_name(scheduler)} cannot take these {self.steps} steps"
        with explained_errors(failure, ValueError, IndexError):
            if list(given) == ["num_inference_steps"]:  # some call it otherwise
                scheduler.set_timesteps(self.steps, device=device)
            else:
                scheduler.set_timesteps(**given, device=device)
        if scheduler.timesteps[0] < scheduler.timesteps[-1]:
            raise InvalidInputError(
                f"the scheduler {_name(scheduler)} goes from clean latents to noise, expected one that denoises"
            )
        return len(scheduler.timesteps)


def denoise(
    field: Field,
    noise: Tensor,
    scheduler: Scheduler,
    steps: int | NoiseLevels,
    *,
    generators: Sequence[torch.Generator] | None = None,
    eta: float | None = None,
    on_step: StepHook | None = None,
) -> Tensor:
    """Clean latents from noise, of the same shape.

    Args:
        field: the network's prediction, guidance included.
        noise: ``[B, ...]`` standard normal float32.
        scheduler: from :func:`make_scheduler`, or one of diffusers.
        steps: number of steps, or where they are.
        generators: one for each object, for samplers that add noise on the way.
        eta: how much of it, for samplers whose steps have an ``eta``; their own default otherwise.
        on_step: called after every step.

    Raises:
        ValueError: when the scheduler cannot take these steps, or has no ``eta``.
    """
    levels = steps if isinstance(steps, NoiseLevels) else NoiseLevels(steps)
    levels.place(scheduler, noise.device)
    options = step_options(scheduler, generators, eta)
    latents = noise * float(getattr(scheduler, "init_noise_sigma", 1.0))
    scale = getattr(scheduler, "scale_model_input", None)
    with _seeded(noise.device, None if "generator" in options else generators):
        for done, timestep in enumerate(scheduler.timesteps):
            inputs = latents if scale is None else scale(latents, timestep)
            prediction = field(inputs, timestep.expand(noise.shape[0]))
            latents = scheduler.step(prediction, timestep, latents, **options, return_dict=False)[0]
            if on_step is not None:
                latents = on_step(done, timestep, latents)
    return latents


def step_options(
    scheduler: Scheduler, generators: Sequence[torch.Generator] | None, eta: float | None
) -> dict[str, Any]:
    """What a scheduler's ``step`` takes of generators and ``eta``, by its signature.

    Raises:
        ValueError: for an ``eta`` that it does not take, or a ``step`` that needs more.
    """
    accepted = inspect.signature(scheduler.step).parameters
    needed = [
        name
        for name, each in accepted.items()
        if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD
    ]
    if len(needed) > 3:
        raise InvalidInputError(
            f"a step of the scheduler {_name(scheduler)} needs {', '.join(needed)}, expected three values as in "
            "DPMSolverMultistepScheduler"
        )
    if eta is not None and "eta" not in accepted:
        raise InvalidInputError(
            f"eta is {eta:g} and the scheduler {_name(scheduler)} takes none, expected the sampler ddim or tcd"
        )
    options: dict[str, Any] = {} if eta is None else {"eta": eta}
    if generators is not None and "generator" in accepted:
        options["generator"] = list(generators)
    return options


@contextmanager
def _seeded(device: torch.device, generators: Sequence[torch.Generator] | None) -> Iterator[None]:
    """Seed the global generator inside the block, for schedulers that draw from it; not without generators."""
    if generators is None:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(generators[0].initial_seed())
        yield


def object_generators(seeds: tuple[int, ...], device: torch.device | str = "cpu") -> list[torch.Generator]:
    """A generator for each object; on the CPU, an object is the same on every device and in every batch."""
    return [torch.Generator(device).manual_seed(seed) for seed in seeds]


def object_noise(shape: tuple[int, ...], generators: Sequence[torch.Generator]) -> Tensor:
    """``[B, *shape]`` standard normal noise of the objects' generators, on their device."""
    return torch.stack(
        [torch.randn(shape, generator=generator, device=generator.device) for generator in generators]
    )


def _name(scheduler: Scheduler) -> str:
    return type(scheduler).__name__
