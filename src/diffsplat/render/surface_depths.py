"""Depth images of the first opaque surface of splats, on the CPU."""

import numpy as np
import torch
from torch import Tensor

from diffsplat.core import Cameras, Splats
from diffsplat.core.without_autocast import without_autocast
from diffsplat.errors import require
from diffsplat.render.backend_input import RenderTask
from diffsplat.render.cpu_backend import (
    ImageOptions,
    KernelThreads,
    bin_splats,
    project_splats,
    scene_of,
    view_rows,
)
from diffsplat.render.cpu_kernels.array_layout import BlendState, ForwardState
from diffsplat.render.cpu_kernels.compilation_cache import announced_compilation
from diffsplat.render.cpu_kernels.surface_finding import Surfaces, find_planes, find_surfaces

_VIEWS_AT_ONCE = 4  # bounds the memory


@without_autocast
@torch.no_grad()
def surface_depths(splats: Splats, cameras: Cameras, band: float, lift: float = 0.0) -> Tensor:
    """Where half of the light of every pixel is gone, averaged over the Gaussians in front and shortly behind.

    Args:
        splats: ``[N]`` on the CPU.
        cameras: ``[V]``.
        band: how far behind that point a Gaussian still belongs to the same surface, world units.
        lift: how far before its densest point a Gaussian counts, in standard deviations along the ray.

    Returns:
        ``[V, H, W]`` camera z in world units, float32; 0 where less than half of the light is stopped.

    Raises:
        ValueError: for a band that is not positive.
    """
    require(band > 0, "the band of the surface", band, "a positive distance")
    task = RenderTask.of(splats, cameras, torch.zeros(3), normals=False)
    options = ImageOptions(task.width, task.height, np.zeros(3, np.float32), normals=False)
    views = view_rows(task)[0]
    fields = [
        field.float().contiguous()
        for field in (task.means, task.scales, task.quats, task.opacities, task.colors)
    ]
    depth = torch.empty(len(views), task.height, task.width)
    with announced_compilation(), KernelThreads(splats.count) as threads:
        for start in range(0, len(views), _VIEWS_AT_ONCE):
            some = slice(start, start + _VIEWS_AT_ONCE)
            scene = scene_of([field[0] for field in fields], views[some], options)
            projection = project_splats(threads, scene)
            bins = bin_splats(threads, scene.grid, projection)
            empty = np.empty((0, 0, 0, 0), np.float32)
            state = ForwardState(projection, bins, BlendState(empty, empty))
            planes = np.empty((len(scene.views), scene.candidates.size, 3), np.float32)
            threads.run(find_planes, scene, planes)
            surfaces = Surfaces(planes, np.float32(lift), np.float32(band), depth[some].numpy())
            threads.run(find_surfaces, scene, state, surfaces)
    return depth
