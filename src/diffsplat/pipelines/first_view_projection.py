"""Projection of a condition image, and of its outline, onto what was generated from it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from diffsplat.core import Cameras, PixelGrid, SplatGrid, Splats
from diffsplat.core.splat_grid import DEPTH, OPACITY, RGB
from diffsplat.geometry.normal_integration import DepthSteps
from diffsplat.images.gaussian_blur import gaussian_blur
from diffsplat.images.mask_dilation import dilated
from diffsplat.models.principal_component_autoencoder import ComponentAutoencoder
from diffsplat.models.rays_and_noise_levels import noise_levels
from diffsplat.pipelines.denoising_loop import Field
from diffsplat.pipelines.image_and_control_conditions import ConditionImages
from diffsplat.pipelines.surface_smoothing import lay_gaussians
from diffsplat.pretrained.release_catalogue import ControlKind

_REACH = 6.0
"""Deviation in pixels of the Gaussian that brings depths and colours to where the network left a hole."""
_LEAST_WEIGHT = 1e-7
_TOLERANCE = 0.05
"""World units that a Gaussian may lie in front of the surface of the first view, as it was generated."""
_SHAPED_TOLERANCE = 0.02
"""The same where depths or normals of that surface are known."""


@dataclass(frozen=True)
class KnownView:
    """What is known of the first view. Its Gaussians lie on the rays of its pixels, so that they can take it over.

    Args:
        camera: of the view.
        outline: ``[1, H, W]`` True where the object is.
        image: ``[3, H, W]`` sRGB 0..1 of the object; None where that is unknown.
        depth: ``[1, H, W]`` depths of the object in an unknown unit; None where these are unknown.
        depth_steps: as they follow from normals; None where these are unknown.
    """

    camera: Cameras
    outline: Tensor
    image: Tensor | None = None
    depth: Tensor | None = None
    depth_steps: DepthSteps | None = None

    @classmethod
    def of(cls, images: ConditionImages, kind: ControlKind | None, camera: Cameras) -> "KnownView | None":
        """What condition images, with a control map of a kind, tell of the view of a camera; None for nothing."""
        if images.outline is None or not images.outline.any():
            return None
        device = camera.device
        outline = images.outline.to(device)
        if images.image is not None:
            return cls(camera, outline, images.image.to(device))
        if images.control is None or not _eroded(outline).any():
            return cls(camera, outline)
        control = images.control.to(device)
        match kind:
            case "depth":
                return cls(camera, outline, depth=1 - control.mean(dim=0, keepdim=True))
            case "normal":
                return cls(camera, outline, depth_steps=_depth_steps(control * 2 - 1, outline, camera))
            case _:
                return cls(camera, outline)

    def filled(self, grid: SplatGrid) -> SplatGrid:
        """The grid ``[B, V, 12, H, W]`` with the outline as the opacity of the first view, and with its depths.

        Where depths and colours are unknown, those of the surroundings go into its holes; then depths are bent to
        known normals.
        """
        first = grid.values[:, :1]
        visible = (first[:, :, OPACITY] > 0) & self.outline
        color = first[:, :, RGB] if self.image is not None else _without_holes(first[:, :, RGB], visible)
        depth = _without_holes(*self._surface(first[:, :, DEPTH], visible))
        if self.depth_steps is not None:
            depth = self.depth_steps.applied(depth + self._distance) - self._distance
        opacity = self.outline.to(depth).expand_as(depth) * 2 - 1
        rest = first[:, :, RGB.stop : OPACITY.start]
        return _with_first(grid, torch.cat([color, rest, opacity, depth.clamp(-1, 1)], dim=2))

    @property
    def _shaped(self) -> bool:
        """Whether the shape of the surface is known."""
        return self.depth is not None or self.depth_steps is not None

    @property
    def _distance(self) -> Tensor:
        """Of the camera from the origin, where a grid's depths are zero."""
        return torch.linalg.vector_norm(self.camera.centers)

    def _surface(self, generated: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Depths ``[B, 1, 1, H, W]`` as of a grid, and where they hold: those generated where visible, or known ones.

        Known ones take the unit in which they come closest to those, and do not hold on the rim, where control maps
        mix them with the background.
        """
        if self.depth is None:
            return generated, visible
        inner, distance = _eroded(self.outline), self._distance
        weight = (visible & inner).to(generated) + _LEAST_WEIGHT * inner
        known = _mean(self.depth.expand_as(generated), weight).clamp_min(_LEAST_WEIGHT)
        unit = _mean(generated + distance, weight) / known
        return self.depth * unit - distance, inner.expand_as(visible)

    def restored(
        self, smooth: SplatGrid, grid: SplatGrid, cameras: Cameras, pixel_grid: PixelGrid
    ) -> SplatGrid:
        """A smoothed grid ``[B, V]`` of these cameras with the first view's surface of before, where that is known.

        The Gaussians are laid on it.
        """
        if not self._shaped:
            return smooth
        shape = grid.values[:, :1, OPACITY.start :]
        first = SplatGrid(torch.cat([smooth.values[:, :1, : OPACITY.start], shape], dim=2))
        return _with_first(smooth, lay_gaussians(first, cameras[:, :1], pixel_grid).values)

    def painted(self, grid: SplatGrid) -> SplatGrid:
        """The grid with the image's colours in the first view, and nothing outside of the outline."""
        first = grid.values[:, :1].clone()
        if self.image is not None:
            first[:, :, RGB] = torch.where(self.outline, self.image * 2 - 1, first[:, :, RGB])
        first[:, :, OPACITY] = first[:, :, OPACITY].masked_fill(~self.outline, -1)
        return _with_first(grid, first)

    def carved(self, splats: Splats, grid: SplatGrid) -> Splats:
        """Splats ``[B, N]`` of a grid ``[B, V, 12, H, W]`` without what contradicts the first view.

        That is what lies outside its outline, or in front of its surface.
        """
        height, width = self.outline.shape[-2:]
        camera = self.camera.resized(width, height)
        pose = camera.world_to_camera
        x, y, z = (splats.means @ pose[:3, :3].mT + pose[:3, 3]).unbind(-1)
        fx, fy, cx, cy = camera.pixel_intrinsics
        column, row = (x / z * fx + cx).floor().long(), (y / z * fy + cy).floor().long()
        framed = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        pixel = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
        inside = self.outline.flatten()[pixel]
        surface = grid.values[:, 0, DEPTH].flatten(1).gather(1, pixel) + self._distance
        tolerance = _SHAPED_TOLERANCE if self._shaped else _TOLERANCE
        kept = framed & inside & (z > surface - tolerance)
        return replace(splats, opacities=splats.opacities * kept)


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
        level = noise_levels(timestep)
        clean = latents - level * self.flow(latents, timestep)
        grid = self.autoencoder.decode_views(clean[:, :1].float())
        known = self.known.painted(self.known.filled(grid))
        first = self.autoencoder.encode_views(known)[:, :, : latents.shape[2]]
        return (latents - torch.cat([first.to(clean), clean[:, 1:]], dim=1)) / level


def _without_holes(values: Tensor, visible: Tensor) -> Tensor:
    """``[B, 1, C, H, W]`` values, where ``[B, 1, 1, H, W]`` are not visible those of what is visible around them.

    Far from all of that it is their mean.
    """
    weight = visible.to(values)
    around = gaussian_blur(weight, _REACH)
    spread = gaussian_blur(values * weight, _REACH) / around.clamp_min(_LEAST_WEIGHT)
    return torch.where(visible, values, torch.where(around > _LEAST_WEIGHT, spread, _mean(values, weight)))


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """``[B, 1, C, 1, 1]`` weighted means over the pixels of ``[B, 1, C, H, W]``; zero where nothing counts."""
    pixels = (-2, -1)
    return (values * weight).sum(pixels, keepdim=True) / weight.sum(pixels, keepdim=True).clamp_min(
        _LEAST_WEIGHT
    )


def _depth_steps(normals: Tensor, outline: Tensor, camera: Cameras) -> DepthSteps:
    """Those of normals ``[3, H, W]``; on the rim of the outline these are the mean of the inner ones next to it."""
    inner = _eroded(outline)
    near, count = (functional.avg_pool2d(each, 3, 1, 1) for each in (normals * inner, inner.to(normals)))
    known = outline & (count > 0)
    whole = torch.where(inner, normals, near)  # their lengths do not matter
    return DepthSteps.of_normals(whole, known, camera.resized(outline.shape[-1], outline.shape[-2]))


def _eroded(outline: Tensor) -> Tensor:
    """``[1, H, W]`` True where the object is and its neighbours are too: maps mix the rim with the background."""
    return ~dilated(~outline, 1)


def _with_first(grid: SplatGrid, first: Tensor) -> SplatGrid:
    return SplatGrid(torch.cat([first, grid.values[:, 1:]], dim=1))
