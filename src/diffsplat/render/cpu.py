"""The ``cpu`` backend: the compiled stages behind one differentiable torch function.

Computes in float32 whatever the input's type. Gradients reach means, scales, quats, opacities and colours, not the
cameras. The same input on the same number of threads gives the same bits.
"""

import math
import os
import threading
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
    Gradients,
    Images,
    Projection,
    Trail,
)
from diffsplat.render.kernels.projection import find_opaque, project_parallel, project_worker
from diffsplat.render.kernels.projection_gradient import unproject_parallel, unproject_worker
from diffsplat.render.kernels.simd import LANES
from diffsplat.render.semantics import FRUSTUM_MARGIN

_MAX_SIZE = 32_000  # tile numbers are kept in 16 bits
_SMALL = 2048  # with fewer Gaussians a second thread costs more than it saves

_launching = threading.Lock()
_process = os.getpid()


class _Frame(NamedTuple):
    """What one forward pass over some views of one object leaves for the backward pass."""

    live: Any
    views: Any
    canvas: Canvas
    projection: Projection
    bins: Bins
    trail: Trail


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


def _view_rows(cameras: Cameras) -> np.ndarray:
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
    return rows.contiguous().numpy()


def _project(cloud: Cloud, live: Any, views: Any, canvas: Canvas, channels: Any) -> Projection:
    count, seen_from = live.size, views.shape[0]
    stride = math.ceil((HEAD + len(channels)) / 4) * 4
    chunks = math.ceil(count / CHUNK)
    projection = Projection(
        records=np.empty((seen_from, count, stride), np.float32),
        boxes=np.empty((seen_from, count, 4), np.int16),
        keys=np.empty((seen_from, count), np.uint64),
        counts=np.empty((seen_from, chunks, 4), np.int64),
    )
    _run(
        project_worker, project_parallel, _threads(count), cloud, live, views, canvas, channels, projection
    )
    return projection


def _bin(projection: Projection, canvas: Canvas) -> Bins:
    views, count = projection.keys.shape
    view_starts = np.zeros(views + 1, np.int64)
    np.cumsum(projection.counts[:, :, 1].sum(axis=1), out=view_starts[1:])
    bins = Bins(
        entries=np.empty(int(view_starts[-1]), np.int32),
        view_starts=view_starts,
        tile_starts=np.empty((views, canvas.tiles_x * canvas.tiles_y + 1), np.int64),
    )
    swap = np.empty_like(projection.keys)
    _run(bin_worker, bin_parallel, min(_threads(count), views), projection, swap, canvas, bins)
    return bins


def _forward(cloud: Cloud, views: Any, images: Images, background: Any, trace: bool) -> _Frame:
    """Render one object into ``images``."""
    height, width = images.alpha.shape[2:]
    canvas = Canvas(width, height, math.ceil(width / TILE), math.ceil(height / TILE))
    channels = FEATURES_WITH_NORMALS if images.normal.size else FEATURES
    live = np.empty(cloud.opacities.size + 1, np.int32)
    live = live[: find_opaque(cloud.opacities, live)]
    projection = _project(cloud, live, views, canvas, channels)
    bins = _bin(projection, canvas)
    shape = (views.shape[0], canvas.tiles_x * canvas.tiles_y, BLOCKS, LANES) if trace else (0, 0, 0, 0)
    trail = Trail(np.empty(shape, np.float32), np.empty(shape, np.float32))
    threads = _threads(live.size)
    _run(
        blend_worker,
        blend_parallel,
        threads,
        projection,
        bins,
        canvas,
        background,
        channels,
        images,
        trail,
    )
    return _Frame(live, views, canvas, projection, bins, trail)


def _backward(cloud: Cloud, frame: _Frame, images: Images, upstream: Images, background: Any) -> Gradients:
    """Gradients of one object."""
    gradients = Gradients(*(np.zeros_like(field) for field in cloud))
    threads = _threads(frame.live.size)
    views = frame.views.shape[0]
    bands = min(math.ceil(threads / views), frame.canvas.tiles_y)
    channels = FEATURES_WITH_NORMALS if images.normal.size else FEATURES
    rows = np.empty((views, bands, frame.live.size, GRADIENT_ROW), np.float32)
    _run(
        unblend_worker,
        unblend_parallel,
        threads,
        frame.projection,
        frame.bins,
        frame.canvas,
        background,
        channels,
        images,
        upstream,
        frame.trail,
        rows,
    )
    _run(
        unproject_worker,
        unproject_parallel,
        threads,
        cloud,
        frame.live,
        frame.views,
        channels,
        frame.projection,
        rows,
        gradients,
    )
    return gradients


def _cloud(fields: tuple[Tensor, ...], index: int) -> Cloud:
    return Cloud(*(field[index].numpy() for field in fields))


def _images(tensors: tuple[Tensor, ...], index: int) -> Images:
    return Images(*(tensor[index].numpy() for tensor in tensors))


class _Rasterize(torch.autograd.Function):
    """Objects ``[B, N, ...]`` seen by ``views [B, V, VIEW_SIZE]``; returns rgb, alpha, depth, normal."""

    @staticmethod
    def forward(ctx: Any, views: Any, size: Any, background: Any, normals: bool, *fields: Tensor) -> Any:
        fields = tuple(field.detach().float().contiguous() for field in fields)
        batch, count = views.shape[:2]
        channels = (3, 1, 1, 3 if normals else 0)
        outputs = tuple(torch.empty(batch, count, channel, *size) for channel in channels)
        trace = any(ctx.needs_input_grad)
        frames = []
        with announced_compilation():
            for b in range(batch):
                frame = _forward(_cloud(fields, b), views[b], _images(outputs, b), background, trace)
                if trace:
                    frames.append(frame)
        ctx.save_for_backward(*fields, *outputs)
        ctx.frames, ctx.background = frames, background
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        fields, outputs = ctx.saved_tensors[:5], ctx.saved_tensors[5:]
        upstream = tuple(tensor.float().contiguous() for tensor in upstream)
        totals = tuple(torch.empty_like(field) for field in fields)
        with announced_compilation():
            for b, frame in enumerate(ctx.frames):
                gradients = _backward(
                    _cloud(fields, b), frame, _images(outputs, b), _images(upstream, b), ctx.background
                )
                for total, gradient in zip(totals, gradients, strict=True):
                    total[b] = torch.from_numpy(gradient)
        return (None, None, None, None, *totals)


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
    rgb, alpha, depth, normal = _Rasterize.apply(
        views,
        (cameras.height, cameras.width),
        background.float().numpy(),
        normals,
        splats.means,
        splats.scales,
        splats.quats,
        splats.opacities,
        splats.colors,
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
