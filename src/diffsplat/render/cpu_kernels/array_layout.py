"""Layout of the arrays that the kernels exchange, and the constants of the image model in float32."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffsplat.render.cpu_kernels.simd import LANES, constant_lanes
from diffsplat.render.rasterization_constants import ALPHA_MAX, ALPHA_MIN, FAR, NEAR, TRANSMITTANCE_STOP

Float32 = NDArray[np.float32]

# --- image: tiles of 16 x 16 pixels, each of sixteen blocks of 8 x 2 pixels, one pixel per lane -----------------
TILE = 16
BLOCK_WIDTH = 8
BLOCK_HEIGHT = 2
BLOCKS = TILE * TILE // LANES
BLOCKS_PER_COLUMN = TILE // BLOCK_HEIGHT

pixel_x = constant_lanes([lane % BLOCK_WIDTH + 0.5 for lane in range(LANES)])
"""x of the pixel centres of a block, from its left edge."""
pixel_y = constant_lanes([lane // BLOCK_WIDTH + 0.5 for lane in range(LANES)])
"""y of the pixel centres of a block, from its upper edge."""
block_x = constant_lanes([block // BLOCKS_PER_COLUMN * BLOCK_WIDTH + 0.5 for block in range(BLOCKS)])
"""x of the first pixel centre of each of the sixteen blocks, from the tile's left edge."""
block_y = constant_lanes([block % BLOCKS_PER_COLUMN * BLOCK_HEIGHT + 0.5 for block in range(BLOCKS)])
"""y of the first pixel centre of each of the sixteen blocks, from the tile's upper edge."""

CHUNK = 256
"""Gaussians that are projected together."""

# --- splat record: float32[HEAD + features], padded --------------------------------------------------------------
# 0 u, 1 v              centre, pixels
# 2 l0, 3 l1, 4 l2      whitening: log2 of the falloff at (dx, dy) is -(l0 dx + l1 dy)^2 - (l2 dy)^2
# 5                     log2 of the opacity
# 6 dy/dx, 7 dx/dy      of the most opaque point on a vertical line, on a horizontal line
# 8...                  features: red, green, blue, camera z, and with normals their world x, y, z
L0, L1, L2 = 2, 3, 4
LOG_OPACITY = 5
SLOPE_Y, SLOPE_X = 6, 7
HEAD = 8
FEATURES = (0, 1, 2, 3)
FEATURES_WITH_NORMALS = (0, 1, 2, 3, 4, 5, 6)
DEPTH_FEATURE = 3
NORMAL_FEATURE = 4

GRADIENT_ROW = 16
"""Sums of one (view, Gaussian) in the backward pass: six moments, then the feature gradients; one cache line."""
MOMENTS = 6

# --- view: float32[VIEW_SIZE] ------------------------------------------------------------------------------------
# 0-8 world-to-camera rotation by rows, 9-11 translation, 12 fx, 13 fy, 14 cx, 15 cy (pixels),
# 16 x/z upper limit, 17 x/z lower limit, 18 y/z upper limit, 19 y/z lower limit (of the projection's derivative),
# 20-22 camera centre in the world
VIEW_SIZE = 23

NEAR_PLANE = np.float32(NEAR)
FAR_PLANE = np.float32(FAR)
ALPHA_LIMIT = np.float32(ALPHA_MAX)
OPACITY_FLOOR = np.float32(ALPHA_MIN)
LOG2_ALPHA_MIN = np.float32(math.log2(ALPHA_MIN))
STOP = np.float32(TRANSMITTANCE_STOP)
LOG2_E = np.float32(math.log2(math.e))
WHITENING = np.float32(math.sqrt(math.log2(math.e) / 2))
# Rounding slack of the test whether a splat touches a block, in units of log2 alpha.
TOUCH_SLACK = np.float32(1e-4)
ZERO = np.float32(0)
HALF = np.float32(0.5)
ONE = np.float32(1)
TWO = np.float32(2)


class Gaussians(NamedTuple):
    """The Gaussians of one object, float32, as in :class:`diffsplat.core.Splats`."""

    means: Float32  # [N, 3]
    scales: Float32  # [N, 3]
    quats: Float32  # [N, 4]
    opacities: Float32  # [N]
    colors: Float32  # [N, 3]


class TileGrid(NamedTuple):
    """Size of the image in pixels and in tiles."""

    width: int
    height: int
    tiles_x: int
    tiles_y: int


class Scene(NamedTuple):
    """Input of the kernels: one object, its cameras, the image's size and background."""

    gaussians: Gaussians
    candidates: NDArray[np.int32]  # [M] indices of the Gaussians that are opaque enough to be seen
    views: Float32  # [V, VIEW_SIZE]
    grid: TileGrid
    background: Float32  # [3]
    channels: tuple[int, ...]  # FEATURES or FEATURES_WITH_NORMALS; kernels compile for its length


class Projection(NamedTuple):
    """``M`` Gaussians projected into ``V`` views, in ``C`` chunks of at most ``CHUNK`` of them."""

    records: Float32  # [V, M, HEAD + features (+ padding)]
    # [V, M, 4] tiles touched: first and end column, first and end row; zeros if culled
    boxes: NDArray[np.int16]
    # [V, M] depth bits << 32 | index; each chunk's visible ones at the chunk's start
    keys: NDArray[np.uint64]
    counts: NDArray[np.int64]  # [V, C, 4] visible Gaussians, tile entries, least and greatest depth bits


class Bins(NamedTuple):
    """For every tile the Gaussians that may touch it, front to back."""

    entries: NDArray[np.int32]  # [E] indices into the records, view by view, tile by tile
    view_starts: NDArray[np.int64]  # [V + 1] into entries
    tile_starts: NDArray[np.int64]  # [V, tiles + 1] from the start of the view


class Images(NamedTuple):
    """The finished images; ``normal`` has no elements when normals are not wanted."""

    rgb: Float32  # [V, 3, H, W]
    alpha: Float32  # [V, 1, H, W]
    depth: Float32  # [V, 1, H, W]
    normal: Float32  # [V, 3, H, W]


class BlendState(NamedTuple):
    """How the blending of every pixel ended, for the backward pass; no elements when no gradient is wanted."""

    transmittance: Float32  # [V, tiles, BLOCKS, LANES] behind the last blended splat
    last: Float32  # [V, tiles, BLOCKS, LANES] one past the last blended entry of the tile, a whole number


class ForwardState(NamedTuple):
    """Results of the stages of one forward pass, for its backward pass."""

    projection: Projection
    bins: Bins
    blend_state: BlendState


class Gradients(NamedTuple):
    """Gradients of the fields of :class:`Gaussians`."""

    means: Float32
    scales: Float32
    quats: Float32
    opacities: Float32
    colors: Float32
