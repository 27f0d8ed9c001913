"""Framing of splats by where most of them are, so that the default cameras show them."""

import torch

from diffsplat.core import Splats

_FAINT = 0.1
"""Share of the greatest opacity below which a Gaussian does not count."""
_MOST, _FAR = 0.85, 3.0
"""Beyond this many times the distance within which most Gaussians are, they do not count."""
_EDGE = 0.005
"""Share of the Gaussians that may lie beyond either end of the box."""
_RADIUS = 0.45
"""Of the sphere that the default cameras show whole."""
_REACH, _LEAST_SIDE = 0.6, 0.4
"""Greatest coordinate and shortest longest side of an object that the default cameras show well."""
_LOST = 1000.0
"""Radii beyond which a Gaussian cannot be seen."""


def framed(splats: Splats) -> Splats:
    """Splats moved and scaled into the view of the default cameras, which look at the origin from 1.4 units.

    Those that are there already stay as they are. Outliers do not count, and those that are lost in the
    distance are left out.

    Args:
        splats: ``[N]``, at least one.
    """
    means = splats.means.double()
    solid = means[splats.opacities >= _FAINT * splats.opacities.max()]
    distances = (solid - solid.median(dim=0).values).norm(dim=1)
    most = torch.quantile(_sampled(distances), _MOST)
    kept = solid[distances <= _FAR * most]
    ends = torch.quantile(_sampled(kept), torch.tensor([_EDGE, 1 - _EDGE]).double(), dim=0)
    if float(ends.abs().max()) <= _REACH and float((ends[1] - ends[0]).max()) >= _LEAST_SIDE:
        return splats
    center = ends.mean(dim=0)
    reach = torch.quantile(_sampled((kept - center).norm(dim=1)), 1 - _EDGE)
    radius = torch.maximum(reach, splats.scales.double().amax(dim=1).median())
    near = (means - center).norm(dim=1) <= _LOST * radius
    scale = _RADIUS / radius
    return Splats(
        means=((means[near] - center) * scale).to(splats.means.dtype),
        scales=(splats.scales[near].double() * scale).clamp(1e-30, 1e30).to(splats.scales.dtype),
        quats=splats.quats[near],
        opacities=splats.opacities[near],
        colors=splats.colors[near],
    )


def _sampled(values: torch.Tensor) -> torch.Tensor:
    """Values evenly taken out of ``[N, ...]``, few enough for :func:`torch.quantile`."""
    return values[:: len(values) // 1_000_000 + 1]
