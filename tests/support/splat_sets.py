"""Splats for tests of file formats, and what it means that two sets are the same Gaussians."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from diffsplat.core import Splats

C0 = 0.5 / np.sqrt(np.pi)


@dataclass(frozen=True)
class Precision:
    """How far apart a format may bring what it stores.

    Args:
        mean: world units, for positions between -1 and 1.
        log_sigma: of the natural logarithm.
        angle: degrees of a rotation.
        opacity: of 0..1.
        color: of 0..1.
    """

    mean: float
    log_sigma: float
    angle: float
    opacity: float
    color: float


def lattice_splats(count: int, seed: int = 0) -> Splats:
    """Gaussians whose positions, at least 0.02 apart, tell them from each other; all kinds of the rest."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(40**3, generator=generator)[:count]
    corners = torch.stack([cells // 1600, cells // 40 % 40, cells % 40], dim=-1)
    shift = torch.rand(count, 3, generator=generator) * 0.6
    quats = torch.randn(count, 4, generator=generator)
    opacities = torch.rand(count, generator=generator)
    opacities[:2] = torch.tensor([0.0, 1.0])[:count]
    colors = (torch.rand(count, 3, generator=generator) * 1.2 - 0.1).clamp(0, 1)
    return Splats(
        means=(corners + shift) / 20 - 1,
        scales=0.0005 * 40 ** torch.rand(count, 3, generator=generator),
        quats=quats / quats.norm(dim=-1, keepdim=True),
        opacities=opacities,
        colors=colors,
    )


def rotations(splats: Splats) -> NDArray[np.float64]:
    """``[N, 3, 3]`` matrices, written out from the definition of a quaternion's action."""
    w, x, y, z = splats.quats.double().numpy().T
    rows = [
        [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def assert_same(found: Splats, expected: Splats, precision: Precision) -> None:
    """Whether two sets hold the same Gaussians in any order, each within the precision.

    A Gaussian is the same when its axes are turned about themselves by half a circle: mirrored local axes are
    how programs carry rotations from one handedness of viewers to another.
    """
    assert found.count == expected.count
    apart = torch.cdist(
        expected.means.double(), found.means.double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    nearest = apart.argmin(dim=1)
    assert len(nearest.unique()) == expected.count
    matched = found.take(nearest)
    assert (matched.means - expected.means).abs().max() <= precision.mean
    assert (matched.scales.log() - expected.scales.log()).abs().max() <= precision.log_sigma
    assert (matched.opacities - expected.opacities).abs().max() <= precision.opacity
    assert (matched.colors - expected.colors).abs().max() <= precision.color
    cosines = np.abs(np.einsum("nij,nij->nj", rotations(matched), rotations(expected)))
    assert np.degrees(np.arccos(np.clip(cosines, 0, 1))).max() <= precision.angle


FLOAT = 3e-7
HALF_BYTE = 0.5 / 255
PRECISIONS: dict[str, Precision] = {
    ".ply": Precision(0, 3e-6, 0.1, 1e-6, 1e-6),
    # Chunks as large as the whole set: 2 / 1023 between neighbours in y.
    ".compressed.ply": Precision(1.001 / 1023, 0.5 * 3.7 / 1023, 0.25, HALF_BYTE + FLOAT, HALF_BYTE + FLOAT),
    ".splat": Precision(0, 0, 1.1, HALF_BYTE + FLOAT, HALF_BYTE + FLOAT),
    ".spz": Precision(2.0**-17, 1 / 32 + 1e-5, 0.25, HALF_BYTE + FLOAT, 0.5 / 255 / 0.15 * C0 + FLOAT),
    ".sog": Precision(3e-5, 3.7 / 510 + 1e-5, 1.1, HALF_BYTE + FLOAT, HALF_BYTE + FLOAT),
    ".glb": Precision(0, 0, 0.1, 0, FLOAT),
    ".gltf": Precision(0, 0, 0.1, 0, FLOAT),
}
"""For positions of -1..1 and sigmas of 0.0005..0.02, from each format's numbers of bits."""
