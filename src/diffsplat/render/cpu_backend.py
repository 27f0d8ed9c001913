"""The ``cpu`` backend: compiled rasterization kernels behind one differentiable torch function.

Computes in float32 whatever the input's type. Gradients reach means, scales, quats, opacities and colours, not the
cameras. The same input on the same number of threads (torch's, ``torch.set_num_threads``) gives the same bits.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from diffsplat.core import Rendering
from diffsplat.errors import InvalidInputError, require
from diffsplat.render.backend_input import RenderTask
from diffsplat.render.cpu_kernels.array_layout import (
    BLOCKS,
    CHUNK,
    FEATURES,
    FEATURES_WITH_NORMALS,
    GRADIENT_ROW,
    HEAD,
    TILE,
    Bins,
    BlendState,
    Float32,
    ForwardState,
    Gaussians,
    Gradients,
    Images,
    Projection,
    Scene,
    TileGrid,
)
from diffsplat.render.cpu_kernels.blending import blend_forward
from diffsplat.render.cpu_kernels.blending_backward import blend_backward
from diffsplat.render.cpu_kernels.compilation_cache import announced_compilation
from diffsplat.render.cpu_kernels.projection import find_opaque, project_forward
from diffsplat.render.cpu_kernels.projection_backward import project_backward
from diffsplat.render.cpu_kernels.simd import LANES
from diffsplat.render.cpu_kernels.tile_binning import bin_tiles
from diffsplat.render.rasterization_constants import FRUSTUM_MARGIN

_MAX_SIZE = 32_000  # tile numbers are kept in 16 bits
_VIEWS_AT_ONCE = 4  # bounds the memory when no gradient is wanted
_SMALL = 2048  # with fewer Gaussians a second thread costs more than it saves


class ImageOptions(NamedTuple):
    """Size, background and contents of the images."""

    width: int
    height: int
    background: np.ndarray  # [3]
    normals: bool


class KernelThreads:
    """Threads that run one kernel together on one queue of tasks; the calling thread is one of them."""

    def __init__(self, gaussians: int) -> None:
        self.count = torch.get_num_threads() if gaussians >= _SMALL else 1
        self._pool = ThreadPoolExecutor(self.count - 1) if self.count > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def run(self, kernel: Any, *arguments: Any) -> None:
        """Let every thread run a kernel that takes tasks from the queue until there are none."""
        queue = np.zeros(1, np.int64)
        pending = []
        if self._pool is not None:
            pending = [self._pool.submit(kernel, queue, *arguments) for _ in range(self.count - 1)]
        kernel(queue, *arguments)
        for future in pending:
            future.result()


def view_rows(task: RenderTask) -> Tensor:
    """``[B, V, VIEW_SIZE]`` camera parameters in the layout of the kernels."""
    matrices = task.world_to_camera.double()
    fx, fy, cx, cy = task.intrinsics.double().unbind(-1)
    margin_x, margin_y = FRUSTUM_MARGIN * task.width, FRUSTUM_MARGIN * task.height
    limits = [
        (task.width - cx + margin_x) / fx,
        -(cx + margin_x) / fx,
        (task.height - cy + margin_y) / fy,
        -(cy + margin_y) / fy,
    ]
    columns = [
        matrices[..., :3, :3].flatten(-2),
        matrices[..., :3, 3],
        torch.stack([fx, fy, cx, cy, *limits], dim=-1),
        task.camera_centers.double(),
    ]
    return torch.cat(columns, dim=-1).float().contiguous()


def project_splats(threads: KernelThreads, scene: Scene) -> Projection:
    """Project the Gaussians of a scene into its views."""
    count, views = scene.candidates.size, scene.views.shape[0]
    size = math.ceil((HEAD + len(scene.channels)) / 4) * 4
    projection = Projection(
        records=np.empty((views, count, size), np.float32),
        boxes=np.empty((views, count, 4), np.int16),
        keys=np.empty((views, count), np.uint64),
        counts=np.empty((views, math.ceil(count / CHUNK), 4), np.int64),
    )
    threads.run(project_forward, scene, projection)
    return projection


def bin_splats(threads: KernelThreads, grid: TileGrid, projection: Projection) -> Bins:
    """Sort projected Gaussians into tiles, front to back."""
    views = projection.keys.shape[0]
    view_starts = np.zeros(views + 1, np.int64)
    np.cumsum(projection.counts[:, :, 1].sum(axis=1), out=view_starts[1:])
    bins = Bins(
        entries=np.empty(int(view_starts[-1]), np.int32),
        view_starts=view_starts,
        tile_starts=np.empty((views, grid.tiles_x * grid.tiles_y + 1), np.int64),
    )
    threads.run(bin_tiles, grid, projection, np.empty_like(projection.keys), bins)
    return bins


def _forward(threads: KernelThreads, scene: Scene, images: Images, save_state: bool) -> ForwardState:
    """Render one object into ``images``."""
    projection = project_splats(threads, scene)
    bins = bin_splats(threads, scene.grid, projection)
    tiles = scene.grid.tiles_x * scene.grid.tiles_y
    shape = (scene.views.shape[0], tiles, BLOCKS, LANES) if save_state else (0, 0, 0, 0)
    blend_state = BlendState(np.empty(shape, np.float32), np.empty(shape, np.float32))
    state = ForwardState(projection, bins, blend_state)
    threads.run(blend_forward, scene, state, images)
    return state


def _backward(
    threads: KernelThreads,
    scene: Scene,
    state: ForwardState,
    depth: Float32,
    upstream: Images,
    gradients: Gradients,
) -> None:
    """Write the gradients of one object; they must hold zeros before."""
    views, tiles_y = scene.views.shape[0], scene.grid.tiles_y
    bands = min(math.ceil(threads.count / max(views, 1)), tiles_y)
    rows = np.empty((views, bands, scene.candidates.size, GRADIENT_ROW), np.float32)
    threads.run(blend_backward, scene, state, depth, upstream, rows)
    threads.run(project_backward, scene, state.projection, rows, gradients)


def scene_of(fields: Sequence[Tensor], views: Tensor, options: ImageOptions) -> Scene:
    """The kernels\' input: fields ``[N, ...]`` of one object, and views of it ``[V, VIEW_SIZE]``."""
    gaussians = Gaussians(*(field.numpy() for field in fields))
    candidates = np.empty(gaussians.opacities.size + 1, np.int32)
    candidates = candidates[: find_opaque(gaussians.opacities, candidates)]
    tiles_x, tiles_y = math.ceil(options.width / TILE), math.ceil(options.height / TILE)
    grid = TileGrid(options.width, options.height, tiles_x, tiles_y)
    channels = FEATURES_WITH_NORMALS if options.normals else FEATURES
    return Scene(gaussians, candidates, views.numpy(), grid, options.background, channels)


def _images(tensors: Sequence[Tensor], index: int | tuple[int, slice]) -> Images:
    return Images(*(tensor[index].numpy() for tensor in tensors))


class _Rasterize(torch.autograd.Function):
    """Objects ``[B, N, ...]`` seen by ``views [B, V, VIEW_SIZE]``; returns rgb, alpha, depth, normal."""

    @staticmethod
    def forward(ctx: Any, views: Tensor, options: ImageOptions, *fields: Tensor) -> Any:
        fields = tuple(field.detach().float().contiguous() for field in fields)
        batch, count = views.shape[:2]
        channels = (3, 1, 1, 3 if options.normals else 0)
        outputs = tuple(
            torch.empty(batch, count, channel, options.height, options.width) for channel in channels
        )
        traced = []
        with announced_compilation(), KernelThreads(fields[0].shape[1]) as threads:
            for b in range(batch):
                scene = scene_of([field[b] for field in fields], views[b], options)
                if any(ctx.needs_input_grad):
                    traced.append((scene, _forward(threads, scene, _images(outputs, b), save_state=True)))
                    continue
                for start in range(0, count, _VIEWS_AT_ONCE):
                    some = slice(start, start + _VIEWS_AT_ONCE)
                    part = scene._replace(views=scene.views[some])
                    _forward(threads, part, _images(outputs, (b, some)), save_state=False)
        # Saving the fields makes autograd notice if they are changed in place before the backward pass.
        ctx.save_for_backward(*fields, outputs[2])
        ctx.traced = traced
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        *fields, depth = ctx.saved_tensors
        upstream = tuple(tensor.float().contiguous() for tensor in upstream)
        totals = tuple(torch.zeros_like(field) for field in fields)
        with announced_compilation(), KernelThreads(fields[0].shape[1]) as threads:
            for b, (scene, state) in enumerate(ctx.traced):
                gradients = Gradients(*(total[b].numpy() for total in totals))
                _backward(threads, scene, state, depth[b].numpy(), _images(upstream, b), gradients)
        return (None, None, *totals)


def rasterize(task: RenderTask) -> Rendering:
    """Render on the processor.

    Raises:
        ValueError: for splats on another device, or an image side above 32,000 pixels.
    """
    if task.means.device.type != "cpu":
        raise InvalidInputError(f"backend 'cpu' got splats on {task.means.device}, expected them on the cpu")
    size = f"{task.width} x {task.height}"
    require(
        max(task.width, task.height) <= _MAX_SIZE, "image size", size, f"at most {_MAX_SIZE} pixels a side"
    )
    options = ImageOptions(task.width, task.height, task.background.float().numpy(), task.normals)
    rgb, alpha, depth, normal = _Rasterize.apply(
        view_rows(task), options, task.means, task.scales, task.quats, task.opacities, task.colors
    )
    return Rendering(rgb=rgb, alpha=alpha, depth=depth, normal=normal if task.normals else None)


def compile_all() -> None:
    """Compile every kernel and keep it on disk."""
    for normals in (False, True):
        pose = torch.eye(4).expand(1, 1, 4, 4)
        task = RenderTask(
            means=torch.tensor([[[0.0, 0.0, 1.0]]]),
            scales=torch.full((1, 1, 3), 0.1),
            quats=torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]),
            opacities=torch.full((1, 1), 0.5),
            colors=torch.zeros(1, 1, 3, requires_grad=True),
            world_to_camera=pose,
            camera_centers=torch.zeros(1, 1, 3),
            intrinsics=torch.full((1, 1, 4), 4.0),
            width=8,
            height=8,
            background=torch.ones(3),
            normals=normals,
        )
        with torch.enable_grad():
            rasterize(task).rgb.sum().backward()
