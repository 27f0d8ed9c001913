"""Splats in glTF 2.0 with the extension ``KHR_gaussian_splatting``: ``.glb``, and ``.gltf`` with embedded buffers.

Means, linear sigmas, linear opacities, quaternions ``x y z w`` and spherical-harmonic coefficients are
attributes of a point cloud, float32 as written here; +Y is up as everywhere in glTF. The extension is
https://github.com/KhronosGroup/glTF/tree/main/extensions/2.0/Khronos/KHR_gaussian_splatting. Splats that an
extension keeps as a ``.spz`` file in a buffer view are read too.
"""

import base64
import json
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffsplat.core.srgb import linear_to_srgb
from diffsplat.errors import InvalidInputError, require
from diffsplat.geometry.rotations import matrix_to_quaternion, multiply_quaternions
from diffsplat.io.gaussian_arrays import SH_DEGREE_0, GaussianArrays
from diffsplat.io.gltf_document import BINARY_CHUNK, JSON_CHUNK, MAGIC, Document
from diffsplat.io.parsing_limits import mapping
from diffsplat.io.splat_quantization import to_unorm
from diffsplat.io.spz import decode_spz

EXTENSION = "KHR_gaussian_splatting"
_SPZ_EXTENSIONS = (
    "KHR_gaussian_splatting_compression_spz_2",
    "KHR_gaussian_splatting_compression_spz",
    "KHR_spz_gaussian_splats_compression",
)
_SRGB, _LINEAR = "srgb_rec709_display", "lin_rec709_display"
_POINTS, _FLOAT, _UNSIGNED_BYTE, _VERTEX_BUFFER = 0, 5126, 5121, 34962
_TYPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}


def encode_glb(gaussians: GaussianArrays) -> bytes:
    """The bytes of a ``.glb`` file.

    Raises:
        ValueError: for values beyond float32.
    """
    document, binary = _document(gaussians)
    text = _padded(json.dumps(document).encode(), b" ")
    size = 12 + 8 + len(text) + 8 + len(binary)
    head = MAGIC + struct.pack("<II", 2, size) + struct.pack("<II", len(text), JSON_CHUNK)
    return head + text + struct.pack("<II", len(binary), BINARY_CHUNK) + binary


def encode_gltf(gaussians: GaussianArrays) -> bytes:
    """The bytes of a ``.gltf`` file, its numbers inside in base64.

    Raises:
        ValueError: for values beyond float32.
    """
    document, binary = _document(gaussians)
    packed = base64.b64encode(binary).decode("ascii")
    document["buffers"][0]["uri"] = f"data:application/octet-stream;base64,{packed}"
    return json.dumps(document).encode()


def decode_gltf(data: bytes) -> GaussianArrays:
    """The Gaussians of a ``.glb`` or ``.gltf`` file, in its scene's axes.

    Raises:
        ValueError: when it is broken, holds no splats, keeps its buffers in other files, or its nodes stretch
            or mirror splats.
    """
    document = Document.parse(data)
    parts = [
        _placed(_primitive(document, primitive), matrix)
        for mesh, matrix in document.placed_meshes(is_splats)
        if matrix[:3, :3].any()  # of scale 0, nothing is seen
        for primitive in mesh
    ]
    if not parts:
        raise InvalidInputError(
            f"it is a mesh or a point cloud, not splats: it has no primitive with the extension {EXTENSION}"
        )
    return GaussianArrays.concatenate(parts)


def is_splats(primitive: dict[str, Any]) -> bool:
    """Whether a glTF primitive holds splats."""
    extensions = primitive.get("extensions")
    names = (EXTENSION, *_SPZ_EXTENSIONS)
    return isinstance(extensions, dict) and any(isinstance(extensions.get(name), dict) for name in names)


def _attributes(gaussians: GaussianArrays) -> dict[str, NDArray[Any]]:
    with np.errstate(over="ignore"):
        attributes: dict[str, NDArray[Any]] = {
            "POSITION": gaussians.means.astype("<f4"),
            f"{EXTENSION}:ROTATION": np.roll(gaussians.quats, -1, axis=1).astype("<f4"),
            f"{EXTENSION}:SCALE": gaussians.scales.astype("<f4"),
            f"{EXTENSION}:OPACITY": gaussians.opacities.astype("<f4")[:, None],
            f"{EXTENSION}:SH_DEGREE_0_COEF_0": ((gaussians.colors - 0.5) / SH_DEGREE_0).astype("<f4"),
        }
    if not all(np.isfinite(values).all() for values in attributes.values()):
        raise InvalidInputError("the splats have values beyond float32, which glTF cannot hold")
    # For programs that do not know the extension.
    rgba = np.column_stack([gaussians.colors, gaussians.opacities])
    attributes["COLOR_0"] = to_unorm(rgba, 8).astype(np.uint8)
    return attributes


def _document(gaussians: GaussianArrays) -> tuple[dict[str, Any], bytes]:
    """The JSON of a file and its binary buffer."""
    attributes = _attributes(gaussians)
    binary = b"".join(values.tobytes() for values in attributes.values())
    views, accessors = _views_and_accessors(list(attributes.values()))
    means = attributes["POSITION"].astype(float)
    accessors[0] |= {"min": means.min(axis=0).tolist(), "max": means.max(axis=0).tolist()}
    accessors[-1]["normalized"] = True
    settings = {
        "kernel": "ellipse",
        "colorSpace": _SRGB,
        "projection": "perspective",
        "sortingMethod": "cameraDistance",
    }
    primitive = {
        "attributes": {name: index for index, name in enumerate(attributes)},
        "mode": _POINTS,
        "extensions": {EXTENSION: settings},
    }
    document = {
        "asset": {"version": "2.0", "generator": "diffsplat"},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "buffers": [{"byteLength": len(binary)}],
        "bufferViews": views,
        "accessors": accessors,
    }
    return document, binary


def _views_and_accessors(arrays: list[NDArray[Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One buffer view and one accessor for each of the arrays, which follow each other in the buffer."""
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []
    offset = 0
    for index, values in enumerate(arrays):
        view = {"buffer": 0, "byteOffset": offset, "byteLength": values.nbytes, "target": _VERTEX_BUFFER}
        kind = _UNSIGNED_BYTE if values.dtype == np.uint8 else _FLOAT
        shape = {"count": len(values), "type": _TYPES[values.shape[1]]}
        views.append(view)
        accessors.append({"bufferView": index, "componentType": kind, **shape})
        offset += values.nbytes
    return views, accessors


def _padded(data: bytes, filler: bytes) -> bytes:
    return data + filler * (-len(data) % 4)


def _primitive(document: Document, primitive: dict[str, Any]) -> GaussianArrays:
    extensions = primitive["extensions"]
    settings = extensions.get(EXTENSION)
    settings = settings if isinstance(settings, dict) else {}
    nested = settings.get("extensions")
    for holder in (extensions, nested if isinstance(nested, dict) else {}):
        for name in _SPZ_EXTENSIONS:
            if isinstance(holder.get(name), dict):
                return _from_spz(document, primitive, holder[name])
    if isinstance(nested, dict) and nested:
        raise InvalidInputError(f"its splats use {', '.join(nested)[:200]}, which is not read here")
    return _from_attributes(document, primitive, settings)


def _from_spz(document: Document, primitive: dict[str, Any], compression: dict[str, Any]) -> GaussianArrays:
    """Gaussians of a primitive whose attributes are a ``.spz`` file in a buffer view."""
    gaussians = decode_spz(document.view(compression.get("bufferView")))
    count, promised = len(gaussians.means), document.count(primitive)
    if count != promised:
        raise InvalidInputError(f"its SPZ data holds {count} Gaussians, its attributes promise {promised}")
    return gaussians


def _from_attributes(
    document: Document, primitive: dict[str, Any], settings: dict[str, Any]
) -> GaussianArrays:
    _refuse_drafts(primitive)
    kernel, space = settings.get("kernel", "ellipse"), settings.get("colorSpace", _SRGB)
    require(kernel == "ellipse", "the kernel of its splats", repr(kernel), "'ellipse'")
    known = (_SRGB, _LINEAR)
    require(space in known, "the colour space of its splats", repr(space), f"{_SRGB!r} or {_LINEAR!r}")
    names = {
        "POSITION": 3,
        f"{EXTENSION}:ROTATION": 4,
        f"{EXTENSION}:SCALE": 3,
        f"{EXTENSION}:OPACITY": 1,
        f"{EXTENSION}:SH_DEGREE_0_COEF_0": 3,
    }
    means, quats, scales, opacities, harmonics = (
        document.attribute(primitive, name, width) for name, width in names.items()
    )
    if len({len(means), len(quats), len(scales), len(opacities), len(harmonics)}) != 1:
        raise InvalidInputError("its attributes of splats have different lengths")
    with np.errstate(over="ignore", invalid="ignore"):
        colors = np.clip(harmonics * np.float32(SH_DEGREE_0) + np.float32(0.5), 0, 1)
    if space == _LINEAR:
        colors = linear_to_srgb(colors)
    return GaussianArrays(means, scales, np.roll(quats, 1, axis=1), opacities[:, 0], colors)


def _refuse_drafts(primitive: dict[str, Any]) -> None:
    """Name a draft of the extension whose attributes had other names and no settled meaning."""
    attributes = mapping(primitive, "attributes")
    drafted = [name for name in ("_ROTATION", "_SCALE") if name in attributes]
    if drafted and f"{EXTENSION}:{drafted[0][1:]}" not in attributes:
        raise InvalidInputError(
            f"its splats have the attributes {' and '.join(drafted)} of an older draft of {EXTENSION}, "
            "expected a file of the released extension"
        )


def _placed(gaussians: GaussianArrays, matrix: NDArray[np.float64]) -> GaussianArrays:
    """Gaussians moved by a node's matrix: a rotation, one scale for all axes, and a shift."""
    if np.array_equal(matrix, np.eye(4)):
        return gaussians
    linear = matrix[:3, :3]
    with np.errstate(over="ignore", invalid="ignore"):
        gram = linear @ linear.T
        size = float(np.trace(gram)) / 3
        similar = np.allclose(gram, size * np.eye(3), rtol=1e-4, atol=1e-4 * size)
        if not (np.isfinite(matrix).all() and size > 0 and similar and np.linalg.det(linear) > 0):
            raise InvalidInputError("a node stretches or mirrors splats, expected rotation, scale and shift")
        rotation = matrix_to_quaternion(torch.from_numpy(linear / size**0.5)).float()
        means = gaussians.means @ linear.T.astype(np.float32) + matrix[:3, 3].astype(np.float32)
        scales = gaussians.scales * np.float32(size**0.5)
    quats = multiply_quaternions(rotation, torch.from_numpy(gaussians.quats)).numpy()
    return replace(gaussians, means=means, scales=scales, quats=quats)
