"""Scenes for the rasterizer's tests, and a rasterizer in NumPy that shares no code with the package."""

import math

import numpy as np
import torch

from diffsplat.core import Cameras, Splats
from diffsplat.geometry import orbit_cameras

FIELDS = ("means", "scales", "quats", "opacities", "colors")
FOCAL = 1.4


def shell(count: int, seed: int = 0, size: float = 0.03) -> Splats:
    """Gaussians near a sphere of radius 0.5: some near-transparent, some opaque, some needles, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    directions = torch.nn.functional.normalize(normal(count, 3), dim=-1)
    opacities = torch.sigmoid(3 * normal(count))
    opacities[::7] = 0.002
    opacities[::11] = 1.0
    return Splats(
        means=directions * (0.5 + 0.05 * normal(count, 1)),
        scales=size * torch.exp(0.6 * normal(count, 3)),
        quats=torch.nn.functional.normalize(normal(count, 4), dim=-1),
        opacities=opacities,
        colors=torch.rand(count, 3, generator=generator, dtype=torch.float64),
    )


def ring(views: int, width: int, height: int, dtype: torch.dtype = torch.float64) -> Cameras:
    """Cameras around the shell, none of them on an axis."""
    azimuths = [10.0 + 360 * i / views for i in range(views)]
    elevations = [15.0 - 20 * i / views for i in range(views)]
    cameras = orbit_cameras(azimuths, elevations, radius=1.4, width=width, height=height, focal=FOCAL)
    return cameras.to(dtype=dtype)


def in_front(distance: float, width: int, height: int, dtype: torch.dtype = torch.float64) -> Cameras:
    """One camera on the +Z axis that looks at the origin, image x to the right, y down."""
    pose = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=dtype))
    pose[2, 3] = distance
    focal = torch.tensor([FOCAL, FOCAL, 0.5, 0.5], dtype=dtype)
    return Cameras(pose[None], focal[None], width, height)


def single(**changes: object) -> Splats:
    """One grey Gaussian at the origin, float64; ``changes`` replaces fields."""
    fields = {
        "means": [[0.0, 0.0, 0.0]],
        "scales": [[0.1, 0.1, 0.1]],
        "quats": [[1.0, 0.0, 0.0, 0.0]],
        "opacities": [0.8],
        "colors": [[0.25, 0.5, 0.75]],
    } | changes
    return Splats(**{name: torch.tensor(value, dtype=torch.float64) for name, value in fields.items()})


def leaves(splats: Splats) -> Splats:
    """The same values as leaves that gather gradients."""
    return splats.map(lambda field: field.detach().clone().requires_grad_())


def gradients(splats: Splats) -> dict[str, torch.Tensor]:
    """The gradients of every field, zeros where there are none."""
    fields = {name: getattr(splats, name) for name in FIELDS}
    return {
        name: torch.zeros_like(field) if field.grad is None else field.grad for name, field in fields.items()
    }


def _rotation(quat: np.ndarray) -> np.ndarray:
    """Columns are the images of the axes under q v q*."""
    w, axis = quat[0], quat[1:]
    turned = [e + 2 * w * np.cross(axis, e) + 2 * np.cross(axis, np.cross(axis, e)) for e in np.eye(3)]
    return np.stack(turned, axis=1)


def paint(splats: Splats, cameras: Cameras, view: int, background: np.ndarray) -> dict[str, np.ndarray]:
    """One view, splat after splat over the whole image, float64: the textbook loop."""
    means, scales, quats, opacities, colors = (getattr(splats, name).numpy() for name in FIELDS)
    pose = cameras.camera_to_world[view].numpy()
    fx, fy, cx, cy = cameras.intrinsics[view].numpy()
    fx, fy, cx, cy = fx * cameras.width, fy * cameras.height, cx * cameras.width, cy * cameras.height
    x, y = np.meshgrid(np.arange(cameras.width) + 0.5, np.arange(cameras.height) + 0.5)
    local = (means - pose[:3, 3]) @ pose[:3, :3]
    shape = (cameras.height, cameras.width)
    left, finished = np.ones(shape), np.zeros(shape, bool)
    rgb, depth, normal = np.zeros((*shape, 3)), np.zeros(shape), np.zeros((*shape, 3))
    for i in np.argsort(local[:, 2], kind="stable"):
        px, py, pz = local[i]
        if not 0.01 < pz <= 100:
            continue
        tan_x = np.clip(px / pz, -(cx + 0.15 * cameras.width) / fx, (1.15 * cameras.width - cx) / fx)
        tan_y = np.clip(py / pz, -(cy + 0.15 * cameras.height) / fy, (1.15 * cameras.height - cy) / fy)
        jacobian = np.array([[fx / pz, 0, -fx * tan_x / pz], [0, fy / pz, -fy * tan_y / pz]])
        rotation = _rotation(quats[i])
        spread = jacobian @ pose[:3, :3].T @ rotation @ np.diag(scales[i])
        inverse = np.linalg.inv(spread @ spread.T)
        offset = np.stack([x - (fx * px / pz + cx), y - (fy * py / pz + cy)], axis=-1)
        alpha = opacities[i] * np.exp(-0.5 * np.einsum("hwi,ij,hwj->hw", offset, inverse, offset))
        drawn = (alpha >= 1 / 255) & ~finished
        alpha = np.minimum(alpha, 0.99)
        finished |= drawn & (left * (1 - alpha) <= 1e-4)
        weight = np.where(drawn & ~finished, alpha * left, 0)
        axis = rotation[:, np.argmin(scales[i])]
        axis = -axis if axis @ (means[i] - pose[:3, 3]) > 0 else axis
        rgb += weight[..., None] * colors[i]
        depth += weight * pz
        normal += weight[..., None] * axis
        left -= weight
    alpha = 1 - left
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.where(alpha > 0, depth / alpha, 0)
    return {
        "rgb": (rgb + left[..., None] * background).transpose(2, 0, 1),
        "alpha": alpha[None],
        "depth": expected[None],
        "normal": normal.transpose(2, 0, 1),
    }


def footprint_alpha(opacity: float, pixels: float, offset: float) -> float:
    """Alpha of an isotropic splat of standard deviation ``pixels``, ``offset`` pixels from its centre."""
    return opacity * math.exp(-0.5 * (offset / pixels) ** 2)
