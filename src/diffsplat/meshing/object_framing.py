"""Where the object in a set of Gaussians is, and cameras all around it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsplat.core import DEFAULT_FOCAL, Cameras, Splats
from diffsplat.errors import InvalidInputError
from diffsplat.geometry import orbit_cameras

FRAME_RADIUS = 0.45
"""Radius of the ball around the object in the frame, world units."""
_LEAST_OPACITY = 0.1
_TAIL = 0.005  # share of the Gaussians at either end of an axis that may be strays
_MARGIN = 0.25  # of the extent without them, in which a Gaussian still belongs to the object
_SPREAD_LIMIT = 6.0
_LOWEST_ELEVATION = -30.0  # degrees
_GOLDEN_ANGLE = 180 * (3 - math.sqrt(5))


@dataclass(frozen=True)
class ObjectFrame:
    """The object moved into a ball of ``FRAME_RADIUS`` about the origin.

    Args:
        splats: ``[N]`` the Gaussians that belong to the object, moved.
        center: ``[3]`` float64, the origin in the world of the given splats.
        scale: by how much the world was multiplied.
        low: ``[3]`` least coordinates of the moved object.
        high: ``[3]`` greatest ones.
    """

    splats: Splats
    center: Tensor
    scale: float
    low: Tensor
    high: Tensor


def frame_object(splats: Splats) -> ObjectFrame:
    """Find the object by where most of the Gaussians are; strays are left out.

    Args:
        splats: ``[N]``.

    Raises:
        ValueError: when hardly any Gaussian can be seen, or they spread as those of a scene without bounds do.
    """
    seen = splats.detach().to("cpu", torch.float32).visible(_LEAST_OPACITY)
    if seen.count < 4:
        raise InvalidInputError(
            f"only {seen.count} of {splats.count} Gaussians have an opacity of at least {_LEAST_OPACITY}, "
            "expected an object"
        )
    means = seen.means.double()
    _require_bounded(means)
    ends = torch.tensor([_TAIL, 1 - _TAIL], dtype=torch.float64)
    low, high = (_quantile(means, float(end)) for end in ends)
    slack = _MARGIN * (high - low) + 3 * seen.scales.double().amax(dim=-1).median()
    inside = ((means >= low - slack) & (means <= high + slack)).all(dim=-1)
    seen, means = seen.take(inside), means[inside]
    reach = 2 * seen.scales.double().amax(dim=-1, keepdim=True).clamp_max(float(slack.max()))
    low, high = (means - reach).amin(dim=0), (means + reach).amax(dim=0)
    center, radius = (low + high) / 2, float((high - low).norm()) / 2
    scale = FRAME_RADIUS / radius
    moved = Splats(
        ((means - center) * scale).float(), seen.scales * scale, seen.quats, seen.opacities, seen.colors
    )
    return ObjectFrame(moved, center, scale, (low - center) * scale, (high - center) * scale)


def surrounding_cameras(
    count: int, size: int, *, radius: float = FRAME_RADIUS, lowest_deg: float = _LOWEST_ELEVATION
) -> Cameras:
    """``[count]`` cameras spread evenly over a sphere but its lowest part (a Fibonacci lattice).

    Many objects have no Gaussians below, and nothing must look into them from there.

    Args:
        count: how many.
        size: pixels a side of their images.
        radius: of the ball about the origin that each sees whole, by default the frame's.
        lowest_deg: lowest elevation; -90 for cameras all around.
    """
    index = torch.arange(count, dtype=torch.float64)
    lowest = math.sin(math.radians(lowest_deg))
    elevations = torch.rad2deg(torch.asin(1 - (1 - lowest) * (index + 0.5) / count))
    azimuths = index * _GOLDEN_ANGLE % 360
    # The ball touches the sides of the image.
    distance = radius * math.sqrt(1 + (2 * DEFAULT_FOCAL) ** 2)
    return orbit_cameras(azimuths, elevations, radius=distance, width=size, height=size)


def _require_bounded(means: Tensor) -> None:
    distances = (means - means.median(dim=0).values).norm(dim=-1)
    middle, far = (float(_quantile(distances[:, None], share)) for share in (0.5, 0.98))
    if far > _SPREAD_LIMIT * middle:
        raise InvalidInputError(
            f"the Gaussians spread over {far / max(middle, 1e-12):.0f} times the radius that holds half of them, "
            "which is a scene without bounds, expected one object: 'diffsplat convert --crop' cuts it out"
        )


def _quantile(values: Tensor, share: float) -> Tensor:
    """``[C]`` quantile of ``[N, C]`` of any length, which torch.quantile limits."""
    rank = min(len(values) - 1, max(0, round(share * (len(values) - 1))))
    return values.sort(dim=0).values[rank]
