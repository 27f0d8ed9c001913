"""GSRecon: four posed views in, a splat grid out, in one pass (DiffSplat, ICLR 2025, section 3.1)."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffsplat.core import Cameras, PixelGrid, SplatGrid, Views
from diffsplat.core.splat_grid import encode_scale
from diffsplat.core.without_autocast import without_autocast
from diffsplat.geometry import plucker_rays
from diffsplat.geometry.rotations import matrix_to_quaternion, multiply_quaternions, rotation_onto
from diffsplat.models.network_base_class import BaseNetwork, keep_arguments
from diffsplat.models.transformer_blocks import Transformer, patchify, unpatchify, zero_

Parametrization = Literal["absolute", "residual"]

INPUT_CHANNELS = 15
"""Image 3, normal 3, coordinates 3, Pluecker rays 6."""

_OPACITY_SHIFT = -2.0
"""Added to the opacity before its sigmoid, so that an untrained network starts nearly transparent."""
_SOLID, _EMPTY = 7.0, -2.0
"""Opacity before the shift on and off the silhouette."""
_FOOTPRINT_SIGMA = 0.5
"""Standard deviation of a splat that fills its pixel, in pixels."""
_FLATTENING = 0.1
"""Sigma along the normal over sigma along the surface."""
_LEAST_COVERAGE = 0.2
"""Share of a pixel that an object must cover for its colour there to be told apart from the background."""
_MOST_EXTREME = 0.995
"""Largest magnitude of a known value before it is taken to the logit scale."""


class _Raw(NamedTuple):
    """Per-pixel values ``[B, V, C, H, W]`` before their activations."""

    rgb: Tensor
    scale: Tensor
    rotation: Tensor
    opacity: Tensor
    depth: Tensor


class GSRecon(BaseNetwork):
    """Feed-forward reconstructor.

    Args:
        dim: width of the tokens.
        blocks: number of transformer blocks.
        heads: attention heads.
        patch: edge of a token's patch in pixels.
        parametrization: ``absolute`` predicts every channel, as the released weights do. ``residual`` starts from
            the known geometry (colour of the pixel, depth of its coordinate, opacity of the silhouette, a disk
            along the surface that fills the pixel) and predicts what to add before the activations.
        pixel_grid: pixel grid of rays and unprojection; the released weights need ``legacy``.
        image_size: pixels per side of the images that it was trained with; None where that is not known.
    """

    @keep_arguments
    def __init__(
        self,
        dim: int = 512,
        blocks: int = 12,
        heads: int = 8,
        patch: int = 8,
        parametrization: Parametrization = "absolute",
        pixel_grid: PixelGrid = "legacy",
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.patch = patch
        self.parametrization: Parametrization = parametrization
        self.pixel_grid: PixelGrid = pixel_grid
        pixels = patch * patch
        self.x_embedder = nn.Linear(INPUT_CHANNELS * pixels, dim)
        self.transformer = Transformer(dim, heads, blocks)
        self.ln_out = nn.LayerNorm(dim)
        self.out_rgb = nn.Linear(dim, 3 * pixels, bias=False)
        self.out_scale = nn.Linear(dim, 3 * pixels, bias=False)
        self.out_rotation = nn.Linear(dim, 4 * pixels, bias=False)
        self.out_opacity = nn.Linear(dim, pixels, bias=False)
        self.out_depth = nn.Linear(dim, pixels, bias=False)
        if parametrization == "residual":
            for head in self._heads():
                zero_(head)

    def _heads(self) -> list[nn.Linear]:
        """Output layers in the order of the grid's channels."""
        return [self.out_rgb, self.out_scale, self.out_rotation, self.out_opacity, self.out_depth]

    def forward(self, views: Views) -> SplatGrid:
        """Splat grid of ``[B, V]`` views, of which image, normal, coordinates and cameras are read."""
        rays = plucker_rays(views.cameras, self.pixel_grid)
        inputs = torch.cat([views.image * 2 - 1, views.normal * 2 - 1, views.coord * 2 - 1, rays], dim=2)
        tokens = self.transformer(self.x_embedder(patchify(inputs, self.patch)))
        tokens = self.ln_out(tokens)
        size = (views.cameras.height, views.cameras.width)
        raw = _Raw(
            *(unpatchify(head(tokens).float(), views.count, size, self.patch) for head in self._heads())
        )
        if self.parametrization == "residual":
            known = known_geometry(views)
            raw = _Raw(*(residual + start for residual, start in zip(raw, known, strict=True)))
        return SplatGrid(_activate(raw))


def _activate(raw: _Raw) -> Tensor:
    """Activate raw channels into a ``[B, V, 12, H, W]`` grid in [-1, 1]."""
    return torch.cat(
        [
            torch.sigmoid(raw.rgb) * 2 - 1,
            torch.sigmoid(raw.scale) * 2 - 1,
            functional.normalize(raw.rotation, dim=2),
            torch.sigmoid(raw.opacity + _OPACITY_SHIFT) * 2 - 1,
            torch.sigmoid(raw.depth) * 2 - 1,
        ],
        dim=2,
    )


def silhouette(views: Views) -> Tensor:
    """``[B, V, 1, H, W]`` 1 where normal or coordinate is not the white background, else 0."""
    off_white = (views.normal < 0.999).any(dim=2, keepdim=True) | (views.coord < 0.999).any(
        dim=2, keepdim=True
    )
    return off_white.to(views.image.dtype)


@without_autocast
@torch.no_grad()
def known_geometry(views: Views) -> _Raw:
    """What the inputs already tell of every pixel's Gaussian, before the activations."""
    cameras = views.cameras
    inside = silhouette(views)
    distance = torch.linalg.vector_norm(cameras.centers, dim=-1)[..., None, None, None]
    depth = _camera_depth(views.coord * 2 - 1, cameras)
    normal = functional.normalize(views.normal * 2 - 1, dim=2)
    facing = torch.einsum("bvij,bvjhw->bvihw", cameras.world_to_camera[..., :3, :3], normal)
    pixel = depth.clamp_min(0.1) / (cameras.intrinsics[..., 0, None, None, None] * cameras.width)
    sigma = pixel * _FOOTPRINT_SIGMA
    sigmas = torch.cat([sigma, sigma, sigma * _FLATTENING], dim=2)
    return _Raw(
        rgb=_logit(_surface_color(views) * 2 - 1),
        scale=_logit(encode_scale(sigmas)),
        rotation=_surface_rotation(facing, inside, cameras),
        opacity=inside * views.mask * (_SOLID - _EMPTY) + _EMPTY,
        depth=_logit(torch.where(inside > 0, depth - distance, torch.zeros_like(depth))),
    )


def _surface_color(views: Views) -> Tensor:
    """``[B, V, 3, H, W]`` colours without the white that the edge pixels of the object are mixed with.

    A splat keeps its colour when it is seen from the side, where that white would be a bright seam.
    """
    coverage = views.mask.clamp_min(_LEAST_COVERAGE)
    return ((views.image - (1 - coverage)) / coverage).clamp(0, 1)


def _logit(values: Tensor) -> Tensor:
    """Invert ``sigmoid(x) * 2 - 1``."""
    return torch.logit((values.clamp(-_MOST_EXTREME, _MOST_EXTREME) + 1) / 2)


def _camera_depth(points: Tensor, cameras: Cameras) -> Tensor:
    """``[B, V, 1, H, W]`` camera z of ``[B, V, 3, H, W]`` world points."""
    pose = cameras.world_to_camera
    axis, offset = pose[..., 2, :3], pose[..., 2, 3]
    return torch.einsum("bvj,bvjhw->bvhw", axis, points).unsqueeze(2) + offset[..., None, None, None]


def _surface_rotation(facing: Tensor, inside: Tensor, cameras: Cameras) -> Tensor:
    """``[B, V, 4, H, W]`` rotations whose local z is the normal, ``facing [B, V, 3, H, W]`` in camera axes.

    They are composed as camera pose after the shortest turn from the viewing axis, which changes smoothly over
    an image because visible normals face the camera.
    """
    toward = torch.where(facing[:, :, 2:] > 0, -facing, facing)
    onto = torch.where(inside > 0, toward, torch.tensor([0.0, 0.0, -1.0])[:, None, None].to(facing))
    # Turning -Z (towards the camera) onto the normal is turning +Z onto its opposite.
    local = rotation_onto(-onto.movedim(2, -1))
    pose = matrix_to_quaternion(cameras.camera_to_world[..., :3, :3])
    return multiply_quaternions(pose[:, :, None, None].expand_as(local), local).movedim(-1, 2)
