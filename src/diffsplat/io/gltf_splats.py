"""Splats in glTF 2.0 with the extension ``KHR_gaussian_splatting``: ``.glb``, and ``.gltf`` with its buffers.

Means, linear sigmas, linear opacities, quaternions ``x y z w`` and spherical-harmonic coefficients are
attributes of a point cloud, float32 as written here; +Y is up as everywhere in glTF. The extension is
https://github.com/KhronosGroup/glTF/tree/main/extensions/2.0/Khronos/KHR_gaussian_splatting.
"""

import base64
import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffsplat.errors import InvalidInputError
from diffsplat.io.gaussian_arrays import SH_DEGREE_0, StoredSplats
from diffsplat.io.gltf_document import BINARY_CHUNK, JSON_CHUNK, MAGIC, Document
from diffsplat.io.splat_quantization import to_unorm

EXTENSION = "KHR_gaussian_splatting"
_SRGB, _LINEAR = "srgb_rec709_display", "lin_rec709_display"
_POINTS, _FLOAT, _UNSIGNED_BYTE, _VERTEX_BUFFER = 0, 5126, 5121, 34962
_TYPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}


def encode_glb(stored: StoredSplats) -> bytes:
    """The bytes of a ``.glb`` file.

    Raises:
        ValueError: for values beyond float32.
    """
    document, binary = _document(stored)
    text = _padded(json.dumps(document).encode(), b" ")
    size = 12 + 8 + len(text) + 8 + len(binary)
    head = MAGIC + struct.pack("<II", 2, size) + struct.pack("<II", len(text), JSON_CHUNK)
    return head + text + struct.pack("<II", len(binary), BINARY_CHUNK) + binary


def encode_gltf(stored: StoredSplats) -> bytes:
    """The bytes of a ``.gltf`` file, its numbers inside in base64.

    Raises:
        ValueError: for values beyond float32.
    """
    document, binary = _document(stored)
    packed = base64.b64encode(binary).decode("ascii")
    document["buffers"][0]["uri"] = f"data:application/octet-stream;base64,{packed}"
    return json.dumps(document).encode()


def decode_gltf(data: bytes) -> StoredSplats:
    """The Gaussians of a ``.glb`` or ``.gltf`` file, in its scene's axes.

    Raises:
        ValueError: when it is broken, holds no splats, keeps its buffers in other files, or its nodes stretch
            or mirror splats.
    """
    document = Document.parse(data)
    parts = [
        _placed(_primitive(document, primitive), matrix)
        for mesh, matrix in document.placed_meshes(is_splats)
        for primitive in mesh
    ]
    if not parts:
        raise InvalidInputError(f"it has no primitive with the extension {EXTENSION}")
    return StoredSplats.joined(parts)


def is_splats(primitive: dict[str, Any]) -> bool:
    """Whether a glTF primitive holds splats."""
    extensions = primitive.get("extensions")
    return isinstance(extensions, dict) and isinstance(extensions.get(EXTENSION), dict)


def _document(stored: StoredSplats) -> tuple[dict[str, Any], bytes]:
    with np.errstate(over="ignore"):
        attributes: dict[str, NDArray[Any]] = {
            "POSITION": stored.means.astype("<f4"),
            f"{EXTENSION}:ROTATION": np.roll(stored.quats, -1, axis=1).astype("<f4"),
            f"{EXTENSION}:SCALE": stored.scales.astype("<f4"),
            f"{EXTENSION}:OPACITY": stored.opacities.astype("<f4")[:, None],
            f"{EXTENSION}:SH_DEGREE_0_COEF_0": ((stored.colors - 0.5) / SH_DEGREE_0).astype("<f4"),
        }
    if not all(np.isfinite(values).all() for values in attributes.values()):
        raise InvalidInputError("the splats have values beyond the range of float32, which glTF cannot hold")
    # What programs show that do not know the extension.
    rgba = np.column_stack([stored.colors, stored.opacities])
    attributes["COLOR_0"] = to_unorm(rgba, 8).astype(np.uint8)
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []
    offset = 0
    for index, values in enumerate(attributes.values()):
        views.append(
            {"buffer": 0, "byteOffset": offset, "byteLength": values.nbytes, "target": _VERTEX_BUFFER}
        )
        kind = _UNSIGNED_BYTE if values.dtype == np.uint8 else _FLOAT
        accessors.append(
            {
                "bufferView": index,
                "componentType": kind,
                "count": len(values),
                "type": _TYPES[values.shape[1]],
            }
        )
        offset += values.nbytes
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
        "buffers": [{"byteLength": offset}],
        "bufferViews": views,
        "accessors": accessors,
    }
    return document, b"".join(values.tobytes() for values in attributes.values())


def _padded(data: bytes, filler: bytes) -> bytes:
    return data + filler * (-len(data) % 4)


def _primitive(document: Document, primitive: dict[str, Any]) -> StoredSplats:
    settings = primitive["extensions"][EXTENSION]
    kernel, space = settings.get("kernel", "ellipse"), settings.get("colorSpace", _SRGB)
    if kernel != "ellipse":
        raise InvalidInputError(f"its splats have the kernel {kernel!r}, expected 'ellipse'")
    if space not in (_SRGB, _LINEAR):
        raise InvalidInputError(
            f"its splats have the colour space {space!r}, expected {_SRGB!r} or {_LINEAR!r}"
        )
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
    colors = np.clip(harmonics * np.float32(SH_DEGREE_0) + np.float32(0.5), 0, 1)
    if space == _LINEAR:
        colors = _to_srgb(colors)
    return StoredSplats(means, scales, np.roll(quats, 1, axis=1), opacities[:, 0], colors)


def _to_srgb(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """The transfer function of IEC 61966-2-1."""
    bright = np.float32(1.055) * np.maximum(linear, np.float32(0.0031308)) ** np.float32(1 / 2.4)
    return np.where(linear <= 0.0031308, linear * np.float32(12.92), bright - np.float32(0.055))


def _placed(stored: StoredSplats, matrix: NDArray[np.float64]) -> StoredSplats:
    """Gaussians moved by a node's matrix: a rotation, one scale for all axes, and a shift."""
    if np.array_equal(matrix, np.eye(4)):
        return stored
    linear = matrix[:3, :3]
    with np.errstate(over="ignore", invalid="ignore"):
        gram = linear @ linear.T
        size = float(np.trace(gram)) / 3
        similar = np.allclose(gram, size * np.eye(3), rtol=1e-4, atol=1e-4 * size)
        if not (np.isfinite(matrix).all() and size > 0 and similar and np.linalg.det(linear) > 0):
            raise InvalidInputError(
                "a node of it stretches or mirrors splats, expected a rotation, a scale and a shift"
            )
        turn = _quaternion(linear / size**0.5)
        means = stored.means @ linear.T.astype(np.float32) + matrix[:3, 3].astype(np.float32)
        scales = stored.scales * np.float32(size**0.5)
    return StoredSplats(means, scales, _product(turn, stored.quats), stored.opacities, stored.colors)


def _quaternion(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """``w x y z`` of a rotation: the eigenvector of the largest eigenvalue (Bar-Itzhack 2000, version 2)."""
    (a, b, c), (d, e, f), (g, h, i) = matrix
    profile = np.array(
        [
            [a + e + i, h - f, c - g, d - b],
            [h - f, a - e - i, b + d, c + g],
            [c - g, b + d, e - a - i, f + h],
            [d - b, c + g, f + h, i - a - e],
        ]
    )
    return np.linalg.eigh(profile)[1][:, -1]


def _product(left: NDArray[np.float64], right: NDArray[np.floating]) -> NDArray[np.floating]:
    """Hamilton product of one quaternion and ``[N, 4]``."""
    w, x, y, z = left
    table = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
    return right @ table.T.astype(right.dtype)
