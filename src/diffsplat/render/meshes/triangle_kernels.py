"""Compiled loops of the mesh renderer: triangles to layered samples, samples to pixels."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

OPAQUE = 0.999
WRAPS = ("repeat", "clamp", "mirror")
NO_CUTOFF = -1.0
_REPEAT, _CLAMP = 0, 1
_NEAR = 0.01
# Light fixed in the world: above right in front, and a weak one from behind left.
_KEY = np.array([0.50, 0.70, 0.51], dtype=np.float32) / np.float32(math.sqrt(0.50**2 + 0.70**2 + 0.51**2))
_FILL = np.array([-0.72, 0.28, -0.63], dtype=np.float32) / np.float32(math.sqrt(0.72**2 + 0.28**2 + 0.63**2))
# 0.55 ambient, 0.35 key, 0.15 fill, times an exposure of 1.15 so that white things read as white.
_AMBIENT, _KEY_POWER, _FILL_POWER, _SKY = 0.63, 0.40, 0.17, 0.06


class Surface(NamedTuple):
    """Per-face arrays of a mesh as one camera sees it.

    Args:
        screen: ``[F, 3, 3]`` sample x, sample y, 1/z of the corners.
        corners, normals: ``[F, 3, 3]``. uv: ``[F, 3, 2]``. colors: ``[F, 3, 4]``.
        texture: ``[F]`` index or -1. level: ``[F]`` mip level.
    """

    screen: NDArray[np.float64]
    corners: NDArray[np.float32]
    normals: NDArray[np.float32]
    uv: NDArray[np.float32]
    colors: NDArray[np.float32]
    texture: NDArray[np.int32]
    level: NDArray[np.int32]


class TextureArray(NamedTuple):
    """All textures.

    Args:
        table: ``[T, L, 3]`` start, width, height of each level in ``pixels``.
        sampling: ``[T, 4]`` place in ``WRAPS`` along u and v, 1 for the nearest texel, cutoff or ``NO_CUTOFF``.
        pixels: ``[P, 4]`` 0..255.
    """

    table: NDArray[np.int64]
    sampling: NDArray[np.float64]
    pixels: NDArray[np.float32]


class Shaded(NamedTuple):
    """Results: ``albedo [H, W, 4]`` sRGB and opacity, ``light [H, W]``, ``normal [H, W, 3]``."""

    albedo: NDArray[np.float32]
    light: NDArray[np.float32]
    normal: NDArray[np.float32]


@njit(cache=True)
def project(corners, world_to_camera, intrinsics, out):
    """Sample coordinates and inverse depth of every corner into ``out [F, 3, 3]``; False behind the camera.

    ``intrinsics [4]`` are fx, fy, cx, cy in samples.
    """
    for f in range(corners.shape[0]):
        for k in range(3):
            x, y, z = corners[f, k, 0], corners[f, k, 1], corners[f, k, 2]
            px = world_to_camera[0, 0] * x + world_to_camera[0, 1] * y + world_to_camera[0, 2] * z
            py = world_to_camera[1, 0] * x + world_to_camera[1, 1] * y + world_to_camera[1, 2] * z
            pz = world_to_camera[2, 0] * x + world_to_camera[2, 1] * y + world_to_camera[2, 2] * z
            px += world_to_camera[0, 3]
            py += world_to_camera[1, 3]
            pz += world_to_camera[2, 3]
            if pz <= _NEAR:
                return False
            out[f, k, 0] = intrinsics[0] * px / pz + intrinsics[2]
            out[f, k, 1] = intrinsics[1] * py / pz + intrinsics[3]
            out[f, k, 2] = 1.0 / pz
    return True


@njit(cache=True)
def rasterize(screen, chosen, floor, ceiling, face, inverse_depth):
    """Nearest triangle per sample among ``chosen`` faces, between two layers of inverse depth.

    Args:
        screen: ``[F, 3, 3]`` sample x, sample y, 1/z.
        chosen: ``[K]`` indices of the faces to draw.
        floor: ``[H, W]`` only fragments nearer than this (larger 1/z).
        ceiling: ``[H, W]`` only fragments farther than this (smaller 1/z).
        face, inverse_depth: ``[H, W]`` results; face -1 where nothing is.

    Returns:
        The number of samples hit.
    """
    height, width = face.shape
    face[:] = -1
    inverse_depth[:] = 0.0
    hits = 0
    for index in chosen:
        x0, y0, w0 = screen[index, 0, 0], screen[index, 0, 1], screen[index, 0, 2]
        x1, y1, w1 = screen[index, 1, 0], screen[index, 1, 1], screen[index, 1, 2]
        x2, y2, w2 = screen[index, 2, 0], screen[index, 2, 1], screen[index, 2, 2]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-12:
            continue
        left = max(0, math.ceil(min(x0, x1, x2) - 0.5))
        right = min(width - 1, math.floor(max(x0, x1, x2) - 0.5))
        top = max(0, math.ceil(min(y0, y1, y2) - 0.5))
        bottom = min(height - 1, math.floor(max(y0, y1, y2) - 0.5))
        scale = 1.0 / area
        for row in range(top, bottom + 1):
            py = row + 0.5
            for column in range(left, right + 1):
                px = column + 0.5
                b1 = ((px - x0) * (y2 - y0) - (x2 - x0) * (py - y0)) * scale
                b2 = ((x1 - x0) * (py - y0) - (px - x0) * (y1 - y0)) * scale
                b0 = 1.0 - b1 - b2
                if b0 < -1e-7 or b1 < -1e-7 or b2 < -1e-7:
                    continue
                w = b0 * w0 + b1 * w1 + b2 * w2
                if w <= inverse_depth[row, column] or w <= floor[row, column] or w >= ceiling[row, column]:
                    continue
                if face[row, column] < 0:
                    hits += 1
                face[row, column] = index
                inverse_depth[row, column] = w
    return hits


@njit(cache=True)
def _within(t, wrap):
    """A texture coordinate brought to 0..1."""
    if wrap == _REPEAT:
        return t - math.floor(t)
    if wrap == _CLAMP:
        return min(max(t, 0.0), 1.0)
    t -= 2.0 * math.floor(t / 2.0)
    return min(t, 2.0 - t)


@njit(cache=True)
def _texel_number(i, size, wrap):
    return i % size if wrap == _REPEAT else min(max(i, 0), size - 1)


@njit(cache=True)
def _texel(textures, texture, level, u, v, out):
    """Colour at a place of a texture; rows of the picture run downwards, v upwards."""
    start, width, height = textures.table[texture, level]
    across, down, nearest = textures.sampling[texture, :3]
    x = _within(u, across) * width - 0.5
    y = (1.0 - _within(v, down)) * height - 0.5
    if nearest:
        x, y = math.floor(x + 0.5), math.floor(y + 0.5)
    x0, y0 = math.floor(x), math.floor(y)
    fx, fy = x - x0, y - y0
    xa, xb = _texel_number(int(x0), width, across), _texel_number(int(x0) + 1, width, across)
    ya = start + _texel_number(int(y0), height, down) * width
    yb = start + _texel_number(int(y0) + 1, height, down) * width
    pixels = textures.pixels
    for c in range(4):
        upper = pixels[ya + xa, c] * (1 - fx) + pixels[ya + xb, c] * fx
        lower = pixels[yb + xa, c] * (1 - fx) + pixels[yb + xb, c] * fx
        out[c] = (upper * (1 - fy) + lower * fy) / 255.0


@njit(cache=True)
def face_levels(screen, uv, texture, table, levels, out):
    """Mip level per face: half the log2 of texels per sample."""
    for f in range(screen.shape[0]):
        out[f] = 0
        if texture[f] < 0:
            continue
        width, height = table[texture[f], 0, 1], table[texture[f], 0, 2]
        a = (
            abs(
                (uv[f, 1, 0] - uv[f, 0, 0]) * (uv[f, 2, 1] - uv[f, 0, 1])
                - (uv[f, 2, 0] - uv[f, 0, 0]) * (uv[f, 1, 1] - uv[f, 0, 1])
            )
            * width
            * height
        )
        b = abs(
            (screen[f, 1, 0] - screen[f, 0, 0]) * (screen[f, 2, 1] - screen[f, 0, 1])
            - (screen[f, 2, 0] - screen[f, 0, 0]) * (screen[f, 1, 1] - screen[f, 0, 1])
        )
        if a > b > 1e-9:
            out[f] = min(levels - 1, round(0.5 * math.log2(a / b)))


@njit(cache=True)
def shade(face, inverse_depth, surface, textures, eye, out):
    """Surface attributes of every sample hit.

    Args:
        face, inverse_depth: ``[H, W]`` from :func:`rasterize`.
        surface: :class:`Surface`.
        textures: :class:`TextureArray`.
        eye: ``[3]`` camera centre.
        out: :class:`Shaded`; where nothing was hit only the opacity is written, 0.
    """
    height, width = face.shape
    paint = np.empty(4, dtype=np.float64)
    weight = np.empty(3, dtype=np.float64)
    n = np.empty(3, dtype=np.float64)
    for row in range(height):
        for column in range(width):
            f = face[row, column]
            if f < 0:
                out.albedo[row, column, 3] = 0.0
                continue
            _weights(surface.screen[f], column + 0.5, row + 0.5, inverse_depth[row, column], weight)
            paint[:] = 1.0
            if surface.texture[f] >= 0:
                uv = surface.uv[f]
                u = weight[0] * uv[0, 0] + weight[1] * uv[1, 0] + weight[2] * uv[2, 0]
                v = weight[0] * uv[0, 1] + weight[1] * uv[1, 1] + weight[2] * uv[2, 1]
                _texel(textures, surface.texture[f], surface.level[f], u, v, paint)
            tint = surface.colors[f]
            for c in range(4):
                mixed = weight[0] * tint[0, c] + weight[1] * tint[1, c] + weight[2] * tint[2, c]
                out.albedo[row, column, c] = paint[c] * mixed
            if surface.texture[f] >= 0:
                cutoff = textures.sampling[surface.texture[f], 3]
                if cutoff >= 0.0:
                    out.albedo[row, column, 3] = 1.0 if out.albedo[row, column, 3] >= cutoff else 0.0
            _facing_normal(surface.corners[f], surface.normals[f], weight, eye, n)
            for c in range(3):
                out.normal[row, column, c] = n[c]
            out.light[row, column] = _light(n)


@njit(cache=True)
def _light(n):
    key = n[0] * _KEY[0] + n[1] * _KEY[1] + n[2] * _KEY[2]
    fill = n[0] * _FILL[0] + n[1] * _FILL[1] + n[2] * _FILL[2]
    return _AMBIENT + _SKY * n[1] + _KEY_POWER * max(0.0, key) + _FILL_POWER * max(0.0, fill)


@njit(cache=True)
def _weights(screen, px, py, w, out):
    """Perspective-correct barycentric weights of a sample."""
    x0, y0, x1, y1, x2, y2 = (
        screen[0, 0],
        screen[0, 1],
        screen[1, 0],
        screen[1, 1],
        screen[2, 0],
        screen[2, 1],
    )
    scale = 1.0 / ((x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0))
    b1 = ((px - x0) * (y2 - y0) - (x2 - x0) * (py - y0)) * scale
    b2 = ((x1 - x0) * (py - y0) - (px - x0) * (y1 - y0)) * scale
    out[1] = b1 * screen[1, 2] / w
    out[2] = b2 * screen[2, 2] / w
    out[0] = 1.0 - out[1] - out[2]


@njit(cache=True)
def _facing_normal(corners, normals, weight, eye, out):
    """Shading normal turned to the side of the triangle that the camera sees."""
    e = np.empty(6, dtype=np.float64)
    toward = np.empty(3, dtype=np.float64)
    for c in range(3):
        e[c] = corners[1, c] - corners[0, c]
        e[3 + c] = corners[2, c] - corners[0, c]
        toward[c] = eye[c] - corners[0, c]
    gx = e[1] * e[5] - e[2] * e[4]
    gy = e[2] * e[3] - e[0] * e[5]
    gz = e[0] * e[4] - e[1] * e[3]
    if gx * toward[0] + gy * toward[1] + gz * toward[2] < 0:
        gx, gy, gz = -gx, -gy, -gz
    for c in range(3):
        out[c] = weight[0] * normals[0, c] + weight[1] * normals[1, c] + weight[2] * normals[2, c]
    length = math.sqrt(out[0] ** 2 + out[1] ** 2 + out[2] ** 2)
    if length < 1e-6:
        out[0], out[1], out[2] = gx, gy, gz
        length = math.sqrt(gx * gx + gy * gy + gz * gz)
    side = 1.0 if out[0] * gx + out[1] * gy + out[2] * gz >= 0 else -1.0
    for c in range(3):
        out[c] *= side / max(length, 1e-30)


@njit(cache=True)
def _looked_up(table, size, r, g, b, out):
    """Trilinear look-up of an sRGB colour in a cube ``table [size, size, size, 3]``."""
    x = min(max(r, 0.0), 1.0) * (size - 1)
    y = min(max(g, 0.0), 1.0) * (size - 1)
    z = min(max(b, 0.0), 1.0) * (size - 1)
    i, j, k = min(int(x), size - 2), min(int(y), size - 2), min(int(z), size - 2)
    fx, fy, fz = x - i, y - j, z - k
    for c in range(3):
        total = 0.0
        for di in range(2):
            for dj in range(2):
                for dk in range(2):
                    share = (fx if di else 1 - fx) * (fy if dj else 1 - fy) * (fz if dk else 1 - fz)
                    total += share * table[i + di, j + dj, k + dk, c]
        out[c] = total


@njit(cache=True)
def resolve_color(albedo, light, factor, table, out):
    """Layers to pixels: shade, composite front to back, average ``factor x factor`` samples.

    Args:
        albedo: ``[L, H, W, 4]`` nearest layer first.
        light: ``[L, H, W]``.
        factor: samples per pixel and side.
        table: ``[S, S, S, 3]`` colour cube applied to the albedo, or ``[0, 0, 0, 3]`` for none.
        out: ``[H / factor, W / factor, 4]`` uint8, straight alpha.
    """
    layers = albedo.shape[0]
    size = table.shape[0]
    tint = np.empty(3, dtype=np.float64)
    total = np.empty(4, dtype=np.float64)
    samples = factor * factor
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            total[:] = 0.0
            for sample in range(samples):
                y, x = row * factor + sample // factor, column * factor + sample % factor
                passing = 1.0
                for layer in range(layers):
                    alpha = min(max(albedo[layer, y, x, 3], 0.0), 1.0)
                    if alpha <= 0.0:
                        continue
                    for c in range(3):
                        tint[c] = albedo[layer, y, x, c]
                    if size > 0:
                        _looked_up(table, size, tint[0], tint[1], tint[2], tint)
                    for c in range(3):
                        total[c] += passing * alpha * min(tint[c] * light[layer, y, x], 1.0)
                    total[3] += passing * alpha
                    passing *= 1.0 - alpha
            if total[3] <= 1e-6:
                out[row, column] = 0
                continue
            for c in range(3):
                out[row, column, c] = np.uint8(min(max(total[c] / total[3], 0.0), 1.0) * 255.0 + 0.5)
            out[row, column, 3] = np.uint8(min(total[3] / samples, 1.0) * 255.0 + 0.5)


@njit(cache=True)
def resolve_surface(inverse_depth, normal, factor, thickness, out_depth, out_normal):
    """Depth and normal of the nearest surface of each pixel; 0 where no sample was hit.

    Samples farther than ``thickness`` behind the nearest one belong to another surface and are left out.
    """
    for row in range(out_depth.shape[0]):
        for column in range(out_depth.shape[1]):
            nearest = 0.0
            for sample in range(factor * factor):
                y, x = row * factor + sample // factor, column * factor + sample % factor
                nearest = max(nearest, inverse_depth[y, x])
            out_depth[row, column] = 0.0
            out_normal[row, column] = 0.0
            if nearest <= 0.0:
                continue
            limit = 1.0 / (1.0 / nearest + thickness)
            count, depth, nx, ny, nz = 0, 0.0, 0.0, 0.0, 0.0
            for sample in range(factor * factor):
                y, x = row * factor + sample // factor, column * factor + sample % factor
                if inverse_depth[y, x] >= limit:
                    count += 1
                    depth += 1.0 / inverse_depth[y, x]
                    nx += normal[y, x, 0]
                    ny += normal[y, x, 1]
                    nz += normal[y, x, 2]
            out_depth[row, column] = depth / count
            length = math.sqrt(nx * nx + ny * ny + nz * nz)
            if length > 1e-6:
                out_normal[row, column, 0] = nx / length
                out_normal[row, column, 1] = ny / length
                out_normal[row, column, 2] = nz / length
