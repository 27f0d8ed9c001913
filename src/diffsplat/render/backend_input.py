"""The input of every rendering backend."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from diffsplat.core import Cameras, Splats


class RenderTask(NamedTuple):
    """``B`` sets of ``N`` Gaussians, each seen by ``V`` cameras, already checked."""

    means: Tensor  # [B, N, 3] world units
    scales: Tensor  # [B, N, 3] world units
    quats: Tensor  # [B, N, 4]
    opacities: Tensor  # [B, N]
    colors: Tensor  # [B, N, 3]
    world_to_camera: Tensor  # [B, V, 4, 4]
    camera_centers: Tensor  # [B, V, 3] world units
    intrinsics: Tensor  # [B, V, 4] fx, fy, cx, cy in pixels
    width: int
    height: int
    background: Tensor  # [3] float64 on the cpu
    normals: bool

    def to(self, dtype: torch.dtype) -> Self:
        """Everything but the background in another floating-point type."""
        tensors = {name: value for name, value in self._asdict().items() if isinstance(value, Tensor)}
        del tensors["background"]
        return self._replace(**{name: tensor.to(dtype) for name, tensor in tensors.items()})

    @classmethod
    def of(cls, splats: Splats, cameras: Cameras, background: Tensor, normals: bool) -> Self:
        """Flatten splats ``[*B]`` and cameras ``[*B, V]``; the camera poses carry no gradient."""
        batch = splats.batch_shape
        objects, views = batch.numel(), cameras.batch_shape[-1]

        def flat(field: Tensor) -> Tensor:
            return field if len(batch) == 1 else field.reshape(objects, *field.shape[len(batch) :])

        def per_view(field: Tensor) -> Tensor:
            return field.detach().reshape(objects, views, *field.shape[len(batch) + 1 :])

        return cls(
            means=flat(splats.means),
            scales=flat(splats.scales),
            quats=flat(splats.quats),
            opacities=flat(splats.opacities),
            colors=flat(splats.colors),
            world_to_camera=per_view(cameras.world_to_camera),
            camera_centers=per_view(cameras.centers),
            intrinsics=per_view(cameras.pixel_intrinsics),
            width=cameras.width,
            height=cameras.height,
            background=background,
            normals=normals,
        )
