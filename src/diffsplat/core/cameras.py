"""Pinhole cameras in the OpenCV convention."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor

from diffsplat.core import tensor_checks
from diffsplat.core.without_autocast import without_autocast

PixelGrid = Literal["center", "legacy"]
"""Image coordinates of a pixel: its centre, or the convention that the released DiffSplat weights learned."""

DEFAULT_FOCAL = 1422.222 / 1024
"""Focal length of the G-Objaverse cameras, in image sizes."""

DEFAULT_RADIUS = 1.4
"""Distance of the first camera from the origin after normalisation, world units."""


@dataclass(frozen=True)
class Cameras:
    """A batch of pinhole cameras that share one image size.

    Args:
        camera_to_world: ``[*B, 4, 4]`` rigid poses, OpenCV axes (x right, y down, z forward), world units.
        intrinsics: ``[*B, 4]`` fx, fy, cx, cy, each divided by the image's width or height.
        width: image width in pixels.
        height: image height in pixels.

    Raises:
        ValueError: for a wrong shape, NaN, a pose that is not rigid, a focal length or size below or at zero.
    """

    camera_to_world: Tensor
    intrinsics: Tensor
    width: int
    height: int

    def __post_init__(self) -> None:
        tensor_checks.require_field("Cameras", "camera_to_world", self.camera_to_world, (4, 4))
        tensor_checks.require_field("Cameras", "intrinsics", self.intrinsics, (4,), self.batch_shape)
        tensor_checks.require_positive("Cameras", "intrinsics", self.intrinsics[..., :2])
        self._check_rigid()
        for name in ("width", "height"):
            size = getattr(self, name)
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"Cameras.{name} is {size!r}, expected a positive whole number of pixels")

    @without_autocast
    def _check_rigid(self) -> None:
        rotation = self.camera_to_world.detach()[..., :3, :3].double()
        identity = torch.eye(3, dtype=torch.float64, device=rotation.device)
        error = (rotation @ rotation.mT - identity).abs()
        if error.numel() and float(error.max()) > 1e-3:
            raise ValueError(
                f"Cameras.camera_to_world has a rotation that is {float(error.max()):.3g} off orthonormal, "
                "expected a rigid pose"
            )
        if rotation.numel() and float(torch.linalg.det(rotation).min()) < 0:
            raise ValueError("Cameras.camera_to_world has a mirrored rotation, expected determinant +1")
        bottom = self.camera_to_world.detach()[..., 3, :].double()
        if bottom.numel() and float((bottom - bottom.new_tensor([0, 0, 0, 1])).abs().max()) > 1e-6:
            raise ValueError(
                "Cameras.camera_to_world has a last row other than 0 0 0 1, expected a rigid pose"
            )

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions ``*B``."""
        return self.camera_to_world.shape[:-2]

    @property
    def device(self) -> torch.device:
        """Device of the poses."""
        return self.camera_to_world.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the poses."""
        return self.camera_to_world.dtype

    @property
    def centers(self) -> Tensor:
        """``[*B, 3]`` camera centres, world units."""
        return self.camera_to_world[..., :3, 3]

    @property
    @without_autocast
    def world_to_camera(self) -> Tensor:
        """``[*B, 4, 4]`` inverse poses."""
        rotation = self.camera_to_world[..., :3, :3].mT
        translation = -rotation @ self.camera_to_world[..., :3, 3:]
        bottom = self.camera_to_world[..., 3:, :]
        return torch.cat([torch.cat([rotation, translation], dim=-1), bottom], dim=-2)

    @property
    def pixel_intrinsics(self) -> Tensor:
        """``[*B, 4]`` fx, fy, cx, cy in pixels."""
        size = torch.tensor([self.width, self.height] * 2, dtype=self.dtype, device=self.device)
        return self.intrinsics * size

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply ``function`` to poses and intrinsics."""
        return replace(
            self, camera_to_world=function(self.camera_to_world), intrinsics=function(self.intrinsics)
        )

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or cast, with the arguments of :meth:`torch.Tensor.to`."""
        return self.map(lambda tensor: tensor.to(*args, **kwargs))

    def __getitem__(self, index: Any) -> Self:
        """Pick along the batch dimensions, with any index a tensor takes there."""
        if not self.batch_shape:
            raise ValueError("Cameras without a batch dimension cannot be indexed")
        return self.map(lambda tensor: tensor[index])

    def for_objects(self, count: int) -> Self:
        """Cameras ``[V]`` for each of ``count`` objects: ``[count, V]``, without a copy.

        Raises:
            ValueError: the cameras are not ``[V]``.
        """
        if len(self.batch_shape) != 1:
            raise ValueError(
                f"Cameras.for_objects needs cameras [V], got the batch {tuple(self.batch_shape)}"
            )
        return self.map(lambda tensor: tensor.expand(count, *tensor.shape))

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Join along the first dimension cameras of the same number of pixels.

        Raises:
            ValueError: the cameras have different numbers of pixels, or there are none.
        """
        sizes = {(part.width, part.height) for part in parts}
        if len(sizes) != 1:
            raise ValueError(f"cameras of the sizes {sorted(sizes)} cannot be joined")
        return replace(
            parts[0],
            camera_to_world=torch.cat([part.camera_to_world for part in parts]),
            intrinsics=torch.cat([part.intrinsics for part in parts]),
        )

    def resized(self, width: int, height: int) -> Self:
        """The same cameras with another number of pixels."""
        return replace(self, width=width, height=height)

    @without_autocast
    def relative_to_first(self, radius: float | None = None) -> Self:
        """Turn the world about its vertical axis until the first view is at azimuth 0, on the +Z side.

        Args:
            radius: scale the world so that the first camera is this far from the origin; None keeps the scale.

        The last batch dimension is that of the views. A first camera right above or below the origin has no
        azimuth; there the direction of its image's upper edge is turned to -Z instead.

        Raises:
            ValueError: there is no dimension of views.
        """
        if not self.batch_shape:
            raise ValueError("Cameras.relative_to_first needs a dimension of views, got a single camera")
        turn = self.first_view_rotation()
        factor = torch.ones_like(self.centers[..., :1, :1])
        if radius is not None:
            factor = radius / torch.linalg.vector_norm(self.centers[..., :1, :], dim=-1, keepdim=True)
        rotation = turn.unsqueeze(-3) @ self.camera_to_world[..., :3, :3]
        centers = (turn.unsqueeze(-3) @ self.centers.unsqueeze(-1)).squeeze(-1) * factor
        upper = torch.cat([rotation, centers.unsqueeze(-1)], dim=-1)
        return replace(self, camera_to_world=torch.cat([upper, self.camera_to_world[..., 3:, :]], dim=-2))

    def first_view_rotation(self) -> Tensor:
        """``[*B', 3, 3]`` rotation about +Y that brings the first of the last dimension's views to azimuth 0."""
        first = self.camera_to_world[..., 0, :3, :]
        center = first[..., :, 3]
        flat = torch.hypot(center[..., 0], center[..., 2])
        overhead = flat < 1e-4 * torch.linalg.vector_norm(center, dim=-1)
        # The image's upper edge points along -y of the camera; seen from above it plays the part of -Z.
        toward_x = torch.where(overhead, first[..., 0, 1], center[..., 0])
        toward_z = torch.where(overhead, first[..., 2, 1], center[..., 2])
        azimuth = torch.atan2(toward_x, toward_z)
        sine, cosine = torch.sin(azimuth), torch.cos(azimuth)
        zero, one = torch.zeros_like(sine), torch.ones_like(sine)
        rows = [cosine, zero, -sine, zero, one, zero, sine, zero, cosine]
        return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))

    def pixel_coordinates(self, grid: PixelGrid = "center") -> Tensor:
        """``[H, W, 2]`` x, y of every pixel in image sizes, for unprojection.

        ``center`` gives pixel centres ``(i + 0.5) / W``; ``legacy`` puts the corner pixels on the image border,
        ``i / (W - 1)``, as the released weights expect.
        """
        axes = [
            _pixel_axis(size, grid, dtype=self.dtype, device=self.device)
            for size in (self.width, self.height)
        ]
        x, y = torch.meshgrid(axes[0], axes[1], indexing="xy")
        return torch.stack([x, y], dim=-1)

    @without_autocast
    def unproject(self, depth: Tensor, grid: PixelGrid = "center") -> Tensor:
        """World points of a depth map.

        Args:
            depth: ``[*B, 1, H, W]`` camera z, world units.
            grid: see :meth:`pixel_coordinates`.

        Returns:
            ``[*B, 3, H, W]`` points, world units.
        """
        tensor_checks.require_shape("Cameras.unproject", "depth", depth, (1, self.height, self.width))
        tensor_checks.require_batch("Cameras.unproject", "depth", depth.shape[:-3], self.batch_shape)
        directions = self.camera_directions(self.pixel_coordinates(grid))
        points = directions * depth.squeeze(-3).unsqueeze(-1)
        rotation = self.camera_to_world[..., None, :3, :3]
        world = points @ rotation.mT + self.centers[..., None, None, :]
        return world.movedim(-1, -3)

    def camera_directions(self, coordinates: Tensor) -> Tensor:
        """``[*B, H, W, 3]`` directions with z = 1, camera axes, through ``[H, W, 2]`` image coordinates."""
        focal = self.intrinsics[..., None, None, :2]
        center = self.intrinsics[..., None, None, 2:]
        xy = (coordinates - center) / focal
        return torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1)


def _pixel_axis(size: int, grid: PixelGrid, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    index = torch.arange(size, dtype=dtype, device=device)
    match grid:
        case "center":
            return (index + 0.5) / size
        case "legacy":
            return index / max(size - 1, 1)
