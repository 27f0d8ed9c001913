"""The ``cpu`` backend: the compiled stages behind one differentiable torch function.

Computes in float32 whatever the input's type. Gradients reach means, scales, quats, opacities and colours, not the
cameras. The same input on the same number of threads gives the same bits.
"""

import math
import os
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from diffsplat.core import Cameras, Rendering, Splats
from diffsplat.render.kernels.binning import bin_parallel, bin_worker
from diffsplat.render.kernels.blending import blend_parallel, blend_worker
from diffsplat.render.kernels.blending_gradient import unblend_parallel, unblend_worker
from diffsplat.render.kernels.compilation import announced_compilation
from diffsplat.render.kernels.layout import (
    BLOCKS,
    CHUNK,
    FEATURES,
    FEATURES_WITH_NORMALS,
    GRADIENT_ROW,
    HEAD,
    TILE,
    VIEW_SIZE,
    Bins,
    Canvas,
    Cloud,
    Frame,
    Gradients,
    Images,
    Projection,
    Scene,
    Trail,
)
from diffsplat.render.kernels.projection import find_opaque, project_parallel, project_worker
from diffsplat.render.kernels.projection_gradient import unproject_parallel, unproject_worker
from diffsplat.render.kernels.simd import LANES
from diffsplat.render.semantics import FRUSTUM_MARGIN

_MAX_SIZE = 32_000  # tile numbers are kept in 16 bits
_VIEWS_AT_ONCE = 4  # bounds the memory when no gradient is wanted
_SMALL = 2048  # with fewer Gaussians a second thread costs more than it saves

_launching = threading.Lock()
_process = os.getpid()


class _Setting(NamedTuple):
    width: int
    height: int
    background: np.ndarray
    normals: bool


def _threads(count: int) -> int:
    if count < _SMALL or os.getpid() != _process:
        return 1  # OpenMP does not survive a fork
    return min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)


def _run(worker: Any, parallel: Any, threads: int, *arguments: Any) -> None:
    """Run a worker on one thread, or on several that share one queue of tasks."""
    queue = np.zeros(1, np.int64)
    if threads == 1:
        worker(queue, *arguments)
        return
    with _launching:  # numba's thread pool may not be entered twice at the same time
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        try:
            parallel(threads, queue, *arguments)
        finally:
            numba.set_num_threads(before)


def _view_rows(cameras: Cameras) -> Tensor:
    """``[V, VIEW_SIZE]`` camera parameters in the layout of the kernels, from cameras ``[V]``."""
    world_to_camera = cameras.world_to_camera.double()
    fx, fy, cx, cy = cameras.pixel_intrinsics.double().unbind(-1)
    margin_x, margin_y = FRUSTUM_MARGIN * cameras.width, FRUSTUM_MARGIN * cameras.height
    limits = [
        (cameras.width - cx + margin_x) / fx,
        -(cx + margin_x) / fx,
        (cameras.height - cy + margin_y) / fy,
        -(cy + margin_y) / fy,
    ]
    columns = [
        world_to_camera[:, :3, :3].flatten(1),
        world_to_camera[:, :3, 3],
        torch.stack([fx, fy, cx, cy, *limits], dim=1),
        cameras.centers.double(),
    ]
    rows = torch.cat(columns, dim=1).float()
    if rows.shape[1] != VIEW_SIZE:
        raise RuntimeError(f"a view has {rows.shape[1]} parameters, expected {VIEW_SIZE}")
    return rows


def _project(scene: Scene) -> Projection:
    count, views = scene.live.size, scene.views.shape[0]
    size = math.ceil((HEAD + len(scene.channels)) / 4) * 4
    projection = Projection(
        records=np.empty((views, count, size), np.float32),
        boxes=np.empty((views, count, 4), np.int16),
        keys=np.empty((views, count), np.uint64),
        counts=np.empty((views, math.ceil(count / CHUNK), 4), np.int64),
    )
    _run(project_worker, project_parallel, _threads(count), scene, projection)
    return projection


def _bin(scene: Scene, projection: Projection) -> Bins:
    views, count = projection.keys.shape
    view_starts = np.zeros(views + 1, np.int64)
    np.cumsum(projection.counts[:, :, 1].sum(axis=1), out=view_starts[1:])
    bins = Bins(
        entries=np.empty(int(view_starts[-1]), np.int32),
        view_starts=view_starts,
        tile_starts=np.empty((views, scene.canvas.tiles_x * scene.canvas.tiles_y + 1), np.int64),
    )
    swap = np.empty_like(projection.keys)
    _run(bin_worker, bin_parallel, min(_threads(count), views), scene, projection, swap, bins)
    return bins


def _forward(scene: Scene, images: Images, trace: bool) -> Frame:
    """Render one object into ``images``."""
    projection = _project(scene)
    bins = _bin(scene, projection)
    tiles = scene.canvas.tiles_x * scene.canvas.tiles_y
    shape = (scene.views.shape[0], tiles, BLOCKS, LANES) if trace else (0, 0, 0, 0)
    frame = Frame(projection, bins, Trail(np.empty(shape, np.float32), np.empty(shape, np.float32)))
    _run(blend_worker, blend_parallel, _threads(scene.live.size), scene, frame, images)
    return frame


def _backward(scene: Scene, frame: Frame, images: Images, upstream: Images, gradients: Gradients) -> None:
    """Write the gradients of one object; they must hold zeros before."""
    count, views = scene.live.size, scene.views.shape[0]
    threads = _threads(count)
    bands = min(math.ceil(threads / views), scene.canvas.tiles_y)
    rows = np.empty((views, bands, count, GRADIENT_ROW), np.float32)
    _run(unblend_worker, unblend_parallel, threads, scene, frame, images, upstream, rows)
    _run(unproject_worker, unproject_parallel, threads, scene, frame.projection, rows, gradients)


def _scene(fields: Sequence[Tensor], views: Tensor, setting: _Setting) -> Scene:
    cloud = Cloud(*(field.numpy() for field in fields))
    live = np.empty(cloud.opacities.size + 1, np.int32)
    live = live[: find_opaque(cloud.opacities, live)]
    tiles_x, tiles_y = math.ceil(setting.width / TILE), math.ceil(setting.height / TILE)
    canvas = Canvas(setting.width, setting.height, tiles_x, tiles_y)
    channels = FEATURES_WITH_NORMALS if setting.normals else FEATURES
    return Scene(cloud, live, views.numpy(), canvas, setting.background, channels)


def _images(tensors: Sequence[Tensor], index: int | tuple[int, slice]) -> Images:
    return Images(*(tensor[index].numpy() for tensor in tensors))


class _Rasterize(torch.autograd.Function):
    """Objects ``[B, N, ...]`` seen by ``views [B, V, VIEW_SIZE]``; returns rgb, alpha, depth, normal."""

    @staticmethod
    def forward(ctx: Any, views: Tensor, setting: _Setting, *fields: Tensor) -> Any:
        fields = tuple(field.detach().float().contiguous() for field in fields)
        batch, count = views.shape[:2]
        channels = (3, 1, 1, 3 if setting.normals else 0)
        outputs = tuple(
            torch.empty(batch, count, channel, setting.height, setting.width) for channel in channels
        )
        traced = []
        with announced_compilation():
            for b in range(batch):
                scene = _scene([field[b] for field in fields], views[b], setting)
                if any(ctx.needs_input_grad):
                    traced.append((scene, _forward(scene, _images(outputs, b), trace=True)))
                    continue
                for start in range(0, count, _VIEWS_AT_ONCE):
                    some = slice(start, start + _VIEWS_AT_ONCE)
                    _forward(scene._replace(views=scene.views[some]), _images(outputs, (b, some)), trace=False)
        # Saving the fields makes autograd notice if they are changed in place before the backward pass.
        ctx.save_for_backward(*fields, *outputs)
        ctx.traced = traced
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        fields, outputs = ctx.saved_tensors[:5], ctx.saved_tensors[5:]
        upstream = tuple(tensor.float().contiguous() for tensor in upstream)
        totals = tuple(torch.zeros_like(field) for field in fields)
        with announced_compilation():
            for b, (scene, frame) in enumerate(ctx.traced):
                gradients = Gradients(*(total[b].numpy() for total in totals))
                _backward(scene, frame, _images(outputs, b), _images(upstream, b), gradients)
        return (None, None, *totals)


def rasterize(splats: Splats, cameras: Cameras, background: Tensor, normals: bool) -> Rendering:
    """Render on the processor.

    Args:
        splats: batch ``[B]``.
        cameras: batch ``[B, V]``.
        background: ``[3]`` sRGB.
        normals: also blend the splats' normals.

    Raises:
        ValueError: for splats on another device than the processor, or an image side above 32,000 pixels.
    """
    if splats.device.type != "cpu":
        raise ValueError(f"backend 'cpu' got splats on {splats.device}, expected them on the cpu")
    if max(cameras.width, cameras.height) > _MAX_SIZE:
        raise ValueError(
            f"image size is {cameras.width} x {cameras.height}, expected at most {_MAX_SIZE} pixels a side"
        )
    views = _view_rows(cameras.map(lambda t: t.flatten(0, 1))).reshape(*cameras.batch_shape, VIEW_SIZE)
    setting = _Setting(cameras.width, cameras.height, background.float().numpy(), normals)
    rgb, alpha, depth, normal = _Rasterize.apply(
        views, setting, splats.means, splats.scales, splats.quats, splats.opacities, splats.colors
    )
    return Rendering(rgb=rgb, alpha=alpha, depth=depth, normal=normal if normals else None)


def compile_all() -> None:
    """Compile every kernel for one thread and, where torch may use more, for several."""
    generator = torch.Generator().manual_seed(0)
    for count in (1, _SMALL):
        fields = {
            "means": torch.rand(1, count, 3, generator=generator) - 0.5,
            "scales": torch.full((1, count, 3), 0.1),
            "quats": torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(1, count, 4),
            "opacities": torch.full((1, count), 0.5),
            "colors": torch.rand(1, count, 3, generator=generator).requires_grad_(),
        }
        pose = torch.eye(4)
        pose[2, 3] = -2.0
        cameras = Cameras(pose.expand(1, 2, 4, 4), torch.tensor([1.0, 1.0, 0.5, 0.5]).expand(1, 2, 4), 8, 8)
        for normals in (False, True):
            with torch.enable_grad():
                image = rasterize(Splats(**fields), cameras, torch.ones(3), normals)
                image.rgb.sum().backward()
