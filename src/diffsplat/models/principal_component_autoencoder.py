"""The splat autoencoder of the embedded model: four 12-channel grids to 1,024 latent vectors and back.

It is linear: a latent vector holds the principal components of a grid patch. Nothing is trained; the components are
fitted to the patches of many grids.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from diffsplat.core import GRID_CHANNELS, PixelGrid, SplatGrid
from diffsplat.core.splat_grid import DEPTH, OPACITY, RGB, ROTATION, SCALE, unit_range
from diffsplat.core.without_autocast import without_autocast
from diffsplat.errors import InvalidInputError, require
from diffsplat.models.network_base_class import BaseNetwork, keep_arguments
from diffsplat.models.principal_components import PrincipalComponents
from diffsplat.models.transformer_blocks import patchify, unpatchify

CHANNEL_WEIGHTS = ((RGB, 1.0), (SCALE, 0.3), (ROTATION, 0.2), (OPACITY, 1.0), (DEPTH, 50.0))
"""Weight of a squared error of each kind of grid channel.

A depth that is wrong by 0.005 moves a splat by about a pixel of a 128-pixel view from the side, which costs as
much as a colour that is wrong by 0.05.
"""

_LEAST_OPACITY = 0.01
"""Mean opacity of a patch from which on its transparent Gaussians are filled."""


class ComponentAutoencoder(BaseNetwork):
    """Autoencoder of splat grids over the patches of all views at once.

    Args:
        image_size: edge of the grids in pixels.
        views: number of views.
        patch: edge of a patch in pixels; a patch is one latent vector.
        latent_channels: length of a latent vector, the number of principal components.
        latent_deviation: root mean square of the latents over the training set. Latents of many channels repeat
            what they say about an object, so that it outlasts more noise; a smaller deviation makes up for it.

    Raises:
        ValueError: for a size that the patches do not divide, or a deviation that is not positive.
    """

    center: Tensor
    components: Tensor
    latent_scale: Tensor

    @keep_arguments
    def __init__(
        self,
        image_size: int = 128,
        views: int = 4,
        patch: int = 8,
        latent_channels: int = 192,
        latent_deviation: float = 1.0,
    ) -> None:
        super().__init__()
        if image_size % patch:
            raise InvalidInputError(f"grids of {image_size} pixels cannot be cut into patches of {patch}")
        require(latent_deviation > 0, "latent_deviation", latent_deviation, "a positive number")
        self.image_size, self.views, self.patch = image_size, views, patch
        self.latent_size = image_size // patch
        self.latent_channels = latent_channels
        self.latent_deviation = latent_deviation
        values = GRID_CHANNELS * patch * patch
        self.register_buffer("center", torch.zeros(values))
        self.register_buffer("components", torch.eye(latent_channels, values))
        self.register_buffer("latent_scale", torch.ones(latent_channels))

    @property
    def pixel_grid(self) -> PixelGrid:
        """Pixel grid that decoded depths are unprojected with."""
        return "center"

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Shape ``(V, C, h, w)`` of one object's latents."""
        return (self.views, self.latent_channels, self.latent_size, self.latent_size)

    def encode(self, grid: SplatGrid) -> Tensor:
        """``[B, V, C, h, w]`` latents of grids ``[B, V, 12, H, W]``."""
        self._require_grid(grid)
        return self.encode_views(grid)

    @without_autocast
    def encode_views(self, grid: SplatGrid) -> Tensor:
        """``[B, N, C, h, w]`` latents of some of an object's views ``[B, N, 12, H, W]``: none depends on another."""
        tokens = self._patches(grid) - self.center
        latents = functional.linear(tokens, self.components) / self.latent_scale
        return unpatchify(latents, grid.views, (self.latent_size, self.latent_size), 1)

    def decode(self, latents: Tensor) -> SplatGrid:
        """Grids ``[B, V, 12, H, W]`` of latents ``[B, V, C, h, w]``, or of their first channels, the principal ones.

        The others then have their mean, zero.

        Raises:
            ValueError: for latents of another shape.
        """
        views, channels, height, width = self.latent_shape
        absent = channels - latents.shape[2] if latents.ndim == 5 else -1
        if absent < 0 or (latents.shape[1], *latents.shape[3:]) != (views, height, width):
            raise InvalidInputError(
                f"latents have shape {tuple(latents.shape)}, expected [B, {self.latent_shape}] or fewer channels"
            )
        return self.decode_views(latents)

    @without_autocast
    def decode_views(self, latents: Tensor) -> SplatGrid:
        """Grids ``[B, N, 12, H, W]`` of latents ``[B, N, C, h, w]`` of some of an object's views."""
        given = latents.shape[2]
        patches = (patchify(latents, 1) * self.latent_scale[:given]) @ self.components[:given] + self.center
        images = unpatchify(patches, latents.shape[1], (self.image_size, self.image_size), self.patch)
        return SplatGrid((images / channel_gains(images)).float().clamp_(-1, 1))

    def patches(self, grid: SplatGrid) -> Tensor:
        """``[B, N, 12 * patch * patch]`` weighted patches, transparent parts filled: what is encoded."""
        self._require_grid(grid)
        return self._patches(grid)

    def _patches(self, grid: SplatGrid) -> Tensor:
        filled = fill_transparent(grid.values, self.patch)
        return patchify(filled * channel_gains(filled), self.patch)

    def _require_grid(self, grid: SplatGrid) -> None:
        expected = (self.views, GRID_CHANNELS, self.image_size, self.image_size)
        if tuple(grid.values.shape[1:]) != expected:
            raise InvalidInputError(f"the grid is {tuple(grid.values.shape)}, expected [B, {expected}]")

    @torch.no_grad()
    def fit_components(self, grids: Iterable[SplatGrid]) -> None:
        """Set the encoder to the principal components of the patches of many grids.

        Latents are divided by the square root of their deviation, half way to equal deviations: the components
        that matter more stay larger, which a denoiser recovers first from noise.
        """
        found = PrincipalComponents.fit(self.patches(grid).flatten(0, 1) for grid in grids)
        deviations = found.deviations[: self.latent_channels]
        scale = deviations.sqrt()
        self.center.copy_(found.center)
        self.components.copy_(found.vectors[: self.latent_channels])
        unit = (deviations / scale).square().mean().sqrt()
        self.latent_scale.copy_(scale * unit / self.latent_deviation)


def channel_gains(like: Tensor) -> Tensor:
    """``[12, 1, 1]`` square roots of :data:`CHANNEL_WEIGHTS`, in the type and on the device of a tensor."""
    gains = torch.empty(GRID_CHANNELS, 1, 1)
    for channels, weight in CHANNEL_WEIGHTS:
        gains[channels] = weight**0.5
    return gains.to(like)


def fill_transparent(values: Tensor, patch: int) -> Tensor:
    """Replace what transparent Gaussians of ``[B, V, 12, H, W]`` look like by the mean of their patch's opaque ones.

    Nothing of it can be seen, but a silhouette that only the opacity has to describe is cheaper to encode. In a
    patch without opaque Gaussians it is zero.
    """
    opacity = unit_range(values[:, :, OPACITY])
    flat = functional.avg_pool2d((values * opacity).flatten(0, 1), patch)
    share = functional.avg_pool2d(opacity.flatten(0, 1), patch)
    mean = torch.where(share > _LEAST_OPACITY, flat / share.clamp_min(_LEAST_OPACITY), torch.zeros_like(flat))
    spread = functional.interpolate(mean, scale_factor=patch).unflatten(0, values.shape[:2])
    filled = values * opacity + spread * (1 - opacity)
    return torch.cat([filled[:, :, : OPACITY.start], values[:, :, OPACITY], filled[:, :, DEPTH]], dim=2)
