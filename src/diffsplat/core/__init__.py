"""Data types of the package: splats, splat grids, cameras, posed views, renderings."""

from diffsplat.core.cameras import DEFAULT_FOCAL, DEFAULT_RADIUS, Cameras, PixelGrid
from diffsplat.core.posed_views import Views
from diffsplat.core.rendered_images import Rendering
from diffsplat.core.splat_grid import GRID_CHANNELS, SplatGrid
from diffsplat.core.splats import SPLAT_FIELDS, Splats

__all__ = [
    "DEFAULT_FOCAL",
    "DEFAULT_RADIUS",
    "GRID_CHANNELS",
    "SPLAT_FIELDS",
    "Cameras",
    "PixelGrid",
    "Rendering",
    "SplatGrid",
    "Splats",
    "Views",
]
