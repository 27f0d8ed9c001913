"""Colours of a mesh from images of the splats: a texture, or one colour a vertex."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffsplat.errors import InvalidInputError, optional_package
from diffsplat.meshing.depth_fusion import DepthViews, in_slices
from diffsplat.meshing.grid_filters import nearest_in
from diffsplat.meshing.surface_extraction import Surface

Float32 = NDArray[np.float32]

_PADDING = 2  # texels between charts
_TOLERANCE = 2.0  # voxels between a point and the surface that a camera sees there
_SHARPNESS = 3.0  # exponent of the squared cosine: how much the most frontal camera prevails
_SEEN_ENOUGH = 50_000  # points with a colour that those without one look for theirs among


class Unwrapped(NamedTuple):
    """A mesh cut into charts of a texture."""

    sources: NDArray[np.int64]  # [M] vertices of the closed mesh
    faces: NDArray[np.int32]  # [F, 3] into sources, in the order of the closed mesh
    uv: Float32  # [M, 2] 0..1, v downwards


def unwrap(surface: Surface, size: int) -> Unwrapped:
    """Lay a mesh out on a square texture of ``size`` pixels a side."""
    with optional_package("the texture of a mesh", "xatlas", "mesh"):
        import xatlas
    charts, packing = xatlas.ChartOptions(), xatlas.PackOptions()
    charts.max_iterations = 1
    packing.resolution, packing.padding, packing.bilinear = size, _PADDING, True
    atlas = xatlas.Atlas()
    atlas.add_mesh(surface.positions.astype(np.float32), surface.faces.astype(np.uint32))
    atlas.generate(charts, packing)
    sources, faces, uv = atlas[0]
    return Unwrapped(sources.astype(np.int64), faces.astype(np.int32), uv.astype(np.float32))


def bake_texture(
    surface: Surface, charts: Unwrapped, size: int, images: Float32, views: DepthViews, voxel: float
) -> NDArray[np.uint8]:
    """``[size, size, 3]`` sRGB texture, rows from the top.

    Args:
        surface: in the world of the views.
        charts: its layout.
        size: pixels a side.
        images: ``[V, H, W, 4]`` sRGB multiplied by alpha, and alpha.
        views: depth and cameras of the images.
        voxel: edge of a voxel, world units.
    """
    places = np.zeros((size, size, 6), np.float32)
    covered = np.zeros((size, size), np.bool_)
    corners = np.concatenate([surface.positions, surface.normals], axis=1)[charts.sources]
    _rasterize(charts.uv * np.float32(size), charts.faces, corners.astype(np.float32), places, covered)
    texture = np.zeros((size, size, 3), np.uint8)
    texture[covered] = surface_colors(places[covered], images, views, voxel)
    return texture[nearest_in(covered)]


def surface_colors(places: Float32, images: Float32, views: DepthViews, voxel: float) -> NDArray[np.uint8]:
    """``[N, 3]`` sRGB of surface points with normals, ``places [N, 6]``.

    The mean over the cameras that see a point, most of it from those that look straight at it. A point that none
    sees gets the colour of about the nearest one that some camera does see.

    Raises:
        ValueError: when no camera sees any of the points.
    """
    from scipy.spatial import KDTree

    sums = np.zeros((len(places), 4), np.float32)
    in_slices(_gather, len(places), np.ascontiguousarray(places), images, views, voxel * _TOLERANCE, sums)
    seen = sums[:, 3] > 1e-6
    if not seen.any():
        raise InvalidInputError("no camera sees a surface, expected an object seen from outside")
    colors = sums[:, :3] / np.maximum(sums[:, 3:], 1e-6)
    if not seen.all():
        near = np.flatnonzero(seen)[:: 1 + int(seen.sum()) // _SEEN_ENOUGH]
        _, nearest = KDTree(places[near, :3]).query(places[~seen, :3], eps=0.5, workers=-1)
        colors[~seen] = colors[near][nearest]
    return np.rint(np.clip(colors, 0, 1) * 255).astype(np.uint8)


@njit(cache=True, nogil=True)
def _rasterize(uv, faces, corners, places, covered):
    """Interpolate ``corners [M, C]`` over the texels whose centres lie in a triangle, or within half a texel of it."""
    size = covered.shape[0]
    inside = np.zeros((size, size), np.bool_)
    for f in range(len(faces)):
        a, b, c = faces[f]
        ax, ay = uv[a]
        bx, by = uv[b]
        cx, cy = uv[c]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if abs(area) < 1e-12:
            continue
        longest = max(np.hypot(bx - ax, by - ay), np.hypot(cx - bx, cy - by), np.hypot(ax - cx, ay - cy))
        slack = min(0.7 * longest / abs(area), 1.0)
        for row in range(max(0, int(min(ay, by, cy) - 1)), min(size, int(max(ay, by, cy) + 2))):
            for column in range(max(0, int(min(ax, bx, cx) - 1)), min(size, int(max(ax, bx, cx) + 2))):
                x, y = column + 0.5, row + 0.5
                second = ((x - ax) * (cy - ay) - (cx - ax) * (y - ay)) / area
                third = ((bx - ax) * (y - ay) - (x - ax) * (by - ay)) / area
                first = 1 - second - third
                least = min(first, second, third)
                if least >= 0 or (least > -slack and not inside[row, column]):
                    covered[row, column] = True
                    inside[row, column] = least >= 0
                    for k in range(corners.shape[1]):
                        places[row, column, k] = (
                            first * corners[a, k] + second * corners[b, k] + third * corners[c, k]
                        )


@njit(cache=True, nogil=True)
def _in_camera(matrix, point):
    """Camera coordinates of a world point, by ``matrix [3, 4]``."""
    x = matrix[0, 0] * point[0] + matrix[0, 1] * point[1] + matrix[0, 2] * point[2] + matrix[0, 3]
    y = matrix[1, 0] * point[0] + matrix[1, 1] * point[1] + matrix[1, 2] * point[2] + matrix[1, 3]
    z = matrix[2, 0] * point[0] + matrix[2, 1] * point[1] + matrix[2, 2] * point[2] + matrix[2, 3]
    return x, y, z


@njit(cache=True, nogil=True)
def _interpolated(image, row, column):
    """Bilinear sample of ``image [H, W, 4]``."""
    i, j = int(row), int(column)
    down, right = row - i, column - j
    parts = ((1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right)
    red = green = blue = alpha = 0.0
    for corner in range(4):
        color = image[i + corner // 2, j + corner % 2]
        red, green = red + parts[corner] * color[0], green + parts[corner] * color[1]
        blue, alpha = blue + parts[corner] * color[2], alpha + parts[corner] * color[3]
    return red, green, blue, alpha


@njit(cache=True, nogil=True)
def _gather(first, end, places, images, views, tolerance, sums):
    """Add up the colours of the surface points of a range, and their weights."""
    height, width = views.depth.shape[1:]
    for n in range(first, end):
        for v in range(views.depth.shape[0]):
            center = views.centers[v]
            cosine, distance = 0.0, 0.0
            for k in range(3):
                toward = center[k] - places[n, k]
                cosine += toward * places[n, 3 + k]
                distance += toward * toward
            if cosine <= 0:
                continue
            x, y, z = _in_camera(views.world_to_camera[v], places[n])
            fx, fy, cx, cy = views.intrinsics[v]
            column, row = fx * x / z + cx - 0.5, fy * y / z + cy - 0.5
            if row < 0 or column < 0 or int(row) >= height - 1 or int(column) >= width - 1:
                continue
            near_i, near_j = int(row + 0.5), int(column + 0.5)
            surface, across = views.depth[v, near_i, near_j], views.facing[v, near_i, near_j]
            if surface <= 0 or abs(surface - z) * across > tolerance:
                continue
            # Where the depth is steep, at the rim of something, the image mixes colours.
            square = cosine * cosine / distance * min(across * across + 1e-3, 1.0)
            weight = square**_SHARPNESS
            red, green, blue, alpha = _interpolated(images[v], row, column)
            if alpha > 0.5:
                sums[n, 0] += weight * red / alpha
                sums[n, 1] += weight * green / alpha
                sums[n, 2] += weight * blue / alpha
                sums[n, 3] += weight
