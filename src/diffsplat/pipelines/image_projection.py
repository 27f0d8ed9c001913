"""Projection of a condition image, and of its outline, onto what was generated from it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffsplat.core import Cameras, SplatGrid, Splats
from diffsplat.core.splat_grid import DEPTH, OPACITY, RGB
from diffsplat.images.gaussian_blur import gaussian_blur
from diffsplat.models.mini_denoiser import SMALLEST_LEVEL, TIMESTEPS
from diffsplat.models.principal_component_autoencoder import ComponentAutoencoder
from diffsplat.pipelines.denoising_loop import Field
from diffsplat.pipelines.image_and_control_conditions import ConditionImages

_REACH = 6.0
"""Deviation in pixels of the Gaussian that brings depths to where the network left a hole."""
_LEAST_WEIGHT = 1e-7


@dataclass(frozen=True)
class KnownView:
    """What is known of the first view. Its Gaussians lie on the rays of its pixels, so that they can take it over.

    Args:
        outline: ``[1, H, W]`` True where the object is.
        image: ``[3, H, W]`` sRGB 0..1 of the object; None where only its outline is known.
    """

    outline: Tensor
    image: Tensor | None = None

    @classmethod
    def of(cls, images: ConditionImages, device: torch.device) -> "KnownView | None":
        """What condition images tell of the first view; None for nothing."""
        if images.outline is None:
            return None
        image = None if images.image is None else images.image.to(device)
        return cls(images.outline.to(device), image)

    def filled(self, grid: SplatGrid) -> SplatGrid:
        """The grid with the outline as the opacity of the first view, and depths of their surroundings in its holes.

        Args:
            grid: ``[B, V, 12, H, W]``.
        """
        first = grid.values[:, :1]
        depth, visible = first[:, :, DEPTH], (first[:, :, OPACITY] > 0) & self.outline
        weight = visible.to(depth)
        around = gaussian_blur(weight, _REACH)
        spread = gaussian_blur(depth * weight, _REACH) / around.clamp_min(_LEAST_WEIGHT)
        pixels = (-3, -2, -1)
        mean = (depth * weight).sum(pixels, keepdim=True) / weight.sum(pixels, keepdim=True).clamp_min(1)
        filling = torch.where(around > _LEAST_WEIGHT, spread, mean).clamp(-1, 1)
        opacity = self.outline.to(depth).expand_as(depth) * 2 - 1
        rest = first[:, :, : OPACITY.start]
        return _with_first(grid, torch.cat([rest, opacity, torch.where(visible, depth, filling)], dim=2))

    def painted(self, grid: SplatGrid) -> SplatGrid:
        """The grid with the image's colours in the first view, and nothing outside of the outline."""
        first = grid.values[:, :1].clone()
        if self.image is not None:
            first[:, :, RGB] = torch.where(self.outline, self.image * 2 - 1, first[:, :, RGB])
        first[:, :, OPACITY] = first[:, :, OPACITY].masked_fill(~self.outline, -1)
        return _with_first(grid, first)

    def carved(self, splats: Splats, camera: Cameras) -> Splats:
        """The splats without those that the first view would show outside of the outline (its visual hull).

        Args:
            splats: ``[B, N]``.
            camera: of the first view.
        """
        height, width = self.outline.shape[-2:]
        camera = camera.resized(width, height)
        pose = camera.world_to_camera
        x, y, z = (splats.means @ pose[:3, :3].mT + pose[:3, 3]).unbind(-1)
        fx, fy, cx, cy = camera.pixel_intrinsics
        column, row = (x / z * fx + cx).floor().long(), (y / z * fy + cy).floor().long()
        framed = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        inside = framed & self.outline[0, row.clamp(0, height - 1), column.clamp(0, width - 1)]
        return replace(splats, opacities=splats.opacities * inside)


class ProjectedFlow:
    """A flow to latents whose first view is what is known of it; the other views come to agree with it.

    noisy latents -- flow --> clean latents -- decoded, first view filled and painted, encoded --> flow to these

    As holes of images are filled by diffusion (Lugmayr et al. 2022, "RePaint"), but in the prediction instead of the
    noisy latents. The encoder is linear, so that it costs little.

    Args:
        flow: ``(noise - latents)`` of noisy latents ``[B, V, C, h, w]`` at timesteps ``[B]``.
        known: of the first view.
        autoencoder: of the latents, which may be its first channels alone.
    """

    def __init__(self, flow: Field, known: KnownView, autoencoder: ComponentAutoencoder) -> None:
        self.flow = flow
        self.known = known
        self.autoencoder = autoencoder

    def __call__(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """The flow of ``latents`` at ``timestep``."""
        level = (timestep / TIMESTEPS).clamp_min(SMALLEST_LEVEL)[:, None, None, None, None]
        clean = latents - level * self.flow(latents, timestep)
        grid = self.known.painted(self.known.filled(self.autoencoder.decode(clean.float())))
        first = self.autoencoder.encode(grid)[:, :1, : latents.shape[2]]
        return (latents - torch.cat([first.to(clean), clean[:, 1:]], dim=1)) / level


def _with_first(grid: SplatGrid, first: Tensor) -> SplatGrid:
    return SplatGrid(torch.cat([first, grid.values[:, 1:]], dim=1))
