"""Files built byte by byte with struct, zlib and json from the descriptions of the formats."""

import base64
import gzip
import io
import json
import math
import struct
import zipfile

import zstandard
from PIL import Image

IDENTITY = (1.0, 0.0, 0.0, 0.0)


def splat_row(mean, scale, rgba, quat) -> bytes:
    """One Gaussian of a ``.splat`` file; colours and quaternion as the bytes they are."""
    return struct.pack("<6f4B4B", *mean, *scale, *rgba, *quat)


def spz_fixed(value: float, bits: int) -> bytes:
    return (round(value * 2**bits) & 0xFFFFFF).to_bytes(3, "little")


def spz_version_2() -> bytes:
    """Two Gaussians: the second a quarter turn about x, with all of ``x y z`` in bytes."""
    header = struct.pack("<IIIBBBB", 0x5053474E, 2, 2, 0, 12, 0, 0)
    positions = b"".join(spz_fixed(v, 12) for v in (0.5, -0.25, 1.0, -1.0, 2.0, 0.0))
    quarter = round(math.sqrt(0.5) * 127.5 + 127.5)
    parts = [positions, bytes([255, 51]), bytes([128] * 6), bytes([96, 80, 64] * 2)]
    return gzip.compress(header + b"".join(parts) + bytes([128, 128, 128, quarter, 128, 128]))


def spz_version_1() -> bytes:
    """The same with positions in half floats, one of them beyond 24 bits of fixed point."""
    header = struct.pack("<IIIBBBB", 0x5053474E, 1, 2, 0, 0, 0, 0)
    positions = struct.pack("<6e", 0.5, -0.25, 1.0, -1.0, 1000.0, 0.0)
    quarter = round(math.sqrt(0.5) * 127.5 + 127.5)
    parts = [positions, bytes([255, 51]), bytes([128] * 6), bytes([96, 80, 64] * 2)]
    return gzip.compress(header + b"".join(parts) + bytes([128, 128, 128, quarter, 128, 128]))


def spz_version_4() -> bytes:
    """The same in version 4, with a rotation whose largest component is w, and one whose is y."""
    words = [3 << 30, (1 << 30) | (1 << 29) | (511 << 20)]
    parts = [
        b"".join(spz_fixed(v, 12) for v in (0.5, -0.25, 1.0, -1.0, 2.0, 0.0)),
        bytes([255, 51]),
        bytes([128] * 6),
        bytes([96, 80, 64] * 2),
        struct.pack("<2I", *words),
    ]
    packed = [zstandard.ZstdCompressor().compress(part) for part in parts]
    header = struct.pack("<IIIBBBBI12x", 0x5053474E, 4, 2, 0, 12, 0, len(parts), 32)
    table = b"".join(
        struct.pack("<QQ", len(small), len(part)) for small, part in zip(packed, parts, strict=True)
    )
    return header + table + b"".join(packed)


def webp(pixels: list[tuple[int, int, int, int]]) -> bytes:
    """A lossless picture one pixel high."""
    image = Image.new("RGBA", (len(pixels), 1))
    image.putdata(pixels)
    target = io.BytesIO()
    image.save(target, format="WEBP", lossless=True, exact=True)
    return target.getvalue()


def sog(meta: dict, textures: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("meta.json", json.dumps(meta))
        for name, data in textures.items():
            bundle.writestr(name, data)
    return archive.getvalue()


def sog_version_1() -> bytes:
    """Two Gaussians, at ``e - 1`` and ``1 - e`` on every axis, all numbers between bounds."""
    meta = {
        "means": {"shape": [2, 3], "mins": [-1, -1, -1], "maxs": [1, 1, 1], "files": ["l.webp", "u.webp"]},
        "scales": {"mins": [-8, -8, -8], "maxs": [0, 0, 0], "files": ["s.webp"]},
        "quats": {"files": ["q.webp"]},
        "sh0": {"mins": [-2, -2, -2, -4], "maxs": [2, 2, 2, 4], "files": ["c.webp"]},
    }
    textures = {
        "l.webp": webp([(255, 255, 255, 255), (0, 0, 0, 255)]),
        "u.webp": webp([(255, 255, 255, 255), (0, 0, 0, 255)]),
        "s.webp": webp([(255, 0, 51, 255), (102, 153, 204, 255)]),
        "q.webp": webp([(255, 128, 128, 252), (128, 255, 128, 254)]),
        "c.webp": webp([(0, 255, 51, 255), (255, 255, 255, 0)]),
    }
    return sog(meta, textures)


def ksplat(level: int) -> bytes:
    """Three Gaussians in one section: two in a full bucket around (1, 2, 3), one in another at the origin."""
    header = bytearray(4096)
    struct.pack_into("<BBxxIIIIH", header, 0, 0, 1, 1, 1, 3, 3, level)
    section = bytearray(1024)
    block, code_range = 5.0, 32767
    struct.pack_into("<IIIIfHxxI4xIIH", section, 0, 3, 3, 2, 2, block, 12, code_range, 1, 1, 0)
    if level == 0:
        buckets = b""
        struct.pack_into("<I", section, 12, 0)
        struct.pack_into("<II", section, 32, 0, 0)
    else:
        buckets = struct.pack("<I", 1) + struct.pack("<6f", 1, 2, 3, 0, 0, 0)
    rows = []
    for mean, center in (((1, 2, 3), (1, 2, 3)), ((3.5, 2, 0.5), (1, 2, 3)), ((0, 2.5, 0), (0, 0, 0))):
        scale, quat, rgba = (0.25, 0.5, 0.125), (0.0, 1.0, 0.0, 0.0), (255, 0, 51, 204)
        if level == 0:
            rows.append(struct.pack("<3f3f4f4B", *mean, *scale, *quat, *rgba))
        else:
            codes = [
                round((m - c) / (block / 2) * code_range) + code_range
                for m, c in zip(mean, center, strict=True)
            ]
            rows.append(struct.pack("<3H3e4e4B", *codes, *scale, *quat, *rgba))
    return bytes(header + section) + buckets + b"".join(rows)


def gltf(
    nodes: list[dict], scene: list[int], *, color_space: str = "srgb_rec709_display", **changes
) -> bytes:
    """One Gaussian in a ``.gltf`` file: quantised rotation and opacity, interleaved positions and sigmas."""
    floats = struct.pack("<3f3f", 1, 0, 0, 0.5, 0.25, 0.125)
    rest = struct.pack("<4b", 0, 0, 0, 127) + struct.pack("<B3x", 51) + struct.pack("<3f", 0, 1, -1)
    data = floats + rest
    prefix = "KHR_gaussian_splatting"
    accessors = [
        {"bufferView": 0, "componentType": 5126, "count": 1, "type": "VEC3"},
        {"bufferView": 0, "byteOffset": 12, "componentType": 5126, "count": 1, "type": "VEC3"},
        {"bufferView": 1, "componentType": 5120, "normalized": True, "count": 1, "type": "VEC4"},
        {
            "bufferView": 1,
            "byteOffset": 4,
            "componentType": 5121,
            "normalized": True,
            "count": 1,
            "type": "SCALAR",
        },
        {"bufferView": 1, "byteOffset": 8, "componentType": 5126, "count": 1, "type": "VEC3"},
    ]
    names = ["POSITION", *(f"{prefix}:{n}" for n in ("SCALE", "ROTATION", "OPACITY", "SH_DEGREE_0_COEF_0"))]
    settings = {"kernel": "ellipse", "colorSpace": color_space}
    primitive = {
        "mode": 0,
        "attributes": {name: index for index, name in enumerate(names)},
        "extensions": {prefix: settings},
    }
    document = {
        "asset": {"version": "2.0"},
        "extensionsUsed": [prefix],
        "scenes": [{"nodes": scene}],
        "nodes": nodes,
        "meshes": [{"primitives": [primitive]}],
        "buffers": [
            {
                "byteLength": len(data),
                "uri": "data:application/octet-stream;base64," + base64.b64encode(data).decode(),
            }
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": 24, "byteStride": 24},
            {"buffer": 0, "byteOffset": 24, "byteLength": len(rest)},
        ],
        "accessors": accessors,
    }
    return json.dumps(document | changes).encode()


def gltf_with_nodes() -> bytes:
    """A quarter turn about z and a doubling, inside a shift."""
    half = math.sqrt(0.5)
    nodes = [
        {"children": [1], "translation": [10, 20, 30]},
        {"mesh": 0, "rotation": [0, 0, half, half], "scale": [2, 2, 2]},
    ]
    return gltf(nodes, [0])
