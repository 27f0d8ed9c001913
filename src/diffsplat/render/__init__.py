"""The only door to a rasterizer: :func:`render`."""

from collections.abc import Sequence
from typing import Literal

import torch

from diffsplat.core import Cameras, Rendering, Splats

Backend = Literal["auto", "cpu", "gsplat", "reference"]

__all__ = ["Backend", "render"]


def render(
    splats: Splats,
    cameras: Cameras,
    *,
    background: Sequence[float] = (1.0, 1.0, 1.0),
    backend: Backend = "auto",
    normals: bool = True,
) -> Rendering:
    """Render sets of splats ``[*B]``, each from its own ``V`` cameras ``[*B, V]``."""
    from diffsplat.render.cpu import rasterize

    batch = splats.batch_shape
    flat = splats.map(lambda t: t.reshape(-1, *t.shape[len(batch) :]))
    views = cameras.map(lambda t: t.reshape(-1, *t.shape[len(batch) :]))
    out = rasterize(flat, views, torch.tensor(background), normals)
    shape = cameras.batch_shape
    return Rendering(
        rgb=out.rgb.reshape(*shape, *out.rgb.shape[2:]),
        alpha=out.alpha.reshape(*shape, *out.alpha.shape[2:]),
        depth=out.depth.reshape(*shape, *out.depth.shape[2:]),
        normal=None if out.normal is None else out.normal.reshape(*shape, *out.normal.shape[2:]),
    )
