"""Interfaces that a pipeline's components have, so that others can take their place."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from diffsplat.core import PixelGrid, SplatGrid
from diffsplat.models.text.text_condition import PromptEncoder


class Movable(Protocol):
    """Something with weights."""

    def to(self, device: Any, /) -> Any:
        """Move to a device, in place."""
        ...


class TextEncoder(PromptEncoder, Movable, Protocol):
    """Turns prompts into text conditions."""


class Network(Movable, Protocol):
    """A network that is used, not trained."""

    def eval(self) -> Self:
        """Switch dropout off."""
        ...


class Denoiser(Network, Protocol):
    """Over the latents of all views; called by :func:`~diffsplat.models.denoiser_forward_pass.network_output`."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Arguments that it was made with."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of its weights."""
        ...


class Autoencoder(Network, Protocol):
    """Decodes latents into splat grids."""

    image_size: int
    views: int
    latent_size: int
    latent_channels: int

    @property
    def pixel_grid(self) -> PixelGrid:
        """Pixel grid that decoded depths are unprojected with."""
        ...

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Shape ``(V, C, h, w)`` of one object's latents."""
        ...

    def decode(self, latents: Tensor) -> SplatGrid:
        """Grids ``[B, V, 12, H, W]`` of latents ``[B, V, C, h, w]``."""
        ...


class Scheduler(Protocol):
    """A scheduler like those of diffusers; some also have ``init_noise_sigma`` and ``scale_model_input``."""

    @property
    def config(self) -> Any:
        """Arguments that it was made with."""
        ...

    @property
    def timesteps(self) -> Any:
        """``[steps]`` of the noise levels."""
        ...

    @property
    def set_timesteps(self) -> Callable[..., None]:
        """``(steps, device=...)`` places the noise levels."""
        ...

    @property
    def step(self) -> Callable[..., Any]:
        """``(prediction, timestep, latents)`` to the latents at the next level."""
        ...
