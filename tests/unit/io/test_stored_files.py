"""Files built by hand from the descriptions of their formats mean what those say."""

import base64
import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest

from diffsplat.core import Splats
from diffsplat.errors import InvalidInputError
from diffsplat.io.splat_formats import holds_splats, read_splats, write_splats
from support import stored_files
from support.splat_sets import C0, rotations


def read(tmp_path: Path, suffix: str, data: bytes) -> Splats:
    """As stored: no axis is turned."""
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    return read_splats(path, up="y")


def test_splat(tmp_path: Path):
    rows = stored_files.splat_row((1, 2, 3), (0.25, 0.5, 0.125), (255, 0, 51, 204), (128, 255, 128, 128))
    rows += stored_files.splat_row((-1, 0, 0.5), (0.0, 1, 1), (0, 0, 0, 255), (0, 128, 128, 128))
    found = read(tmp_path, ".splat", rows)
    assert found.means.tolist() == [[1, 2, 3], [-1, 0, 0.5]]
    assert found.scales[0].tolist() == [0.25, 0.5, 0.125]
    assert 0 < float(found.scales[1, 0]) < 1e-6
    np.testing.assert_allclose(found.colors, [[1, 0, 0.2], [0, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(found.opacities, [0.8, 1], atol=1e-6)
    np.testing.assert_allclose(found.quats, [[0, 1, 0, 0], [-1, 0, 0, 0]], atol=1e-6)


@pytest.mark.parametrize("version", [2, 4])
def test_spz(tmp_path: Path, version: int):
    data = stored_files.spz_version_2() if version == 2 else stored_files.spz_version_4()
    found = read(tmp_path, ".spz", data)
    assert found.means.tolist() == [[0.5, -0.25, 1], [-1, 2, 0]]
    np.testing.assert_allclose(found.scales, [[math.exp(v) for v in (-4, -5, -6)]] * 2, rtol=1e-6)
    np.testing.assert_allclose(found.opacities, [1, 0.2], atol=1e-6)
    np.testing.assert_allclose(found.colors, 0.5 + (128 / 255 - 0.5) / 0.15 * C0, atol=1e-6)
    # A quarter turn about +x, and in the other file one about -x which has y as the largest of two equals.
    matrices = rotations(found)
    np.testing.assert_allclose(np.abs(matrices[0]), np.eye(3), atol=0.02)
    quarter = [[1, 0, 0], [0, 0, -1], [0, 1, 0]] if version == 2 else [[0, -1, 0], [-1, 0, 0], [0, 0, -1]]
    np.testing.assert_allclose(matrices[1], quarter, atol=0.02)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_ksplat(tmp_path: Path, level: int):
    found = read(tmp_path, ".ksplat", stored_files.ksplat(level))
    np.testing.assert_allclose(found.means, [[1, 2, 3], [3.5, 2, 0.5], [0, 2.5, 0]], atol=1e-4)
    assert found.scales.tolist() == [[0.25, 0.5, 0.125]] * 3
    assert found.quats.tolist() == [[0, 1, 0, 0]] * 3
    np.testing.assert_allclose(found.colors, [[1, 0, 0.2]] * 3, atol=1e-6)
    np.testing.assert_allclose(found.opacities, 0.8, atol=1e-6)


def test_sog_version_1(tmp_path: Path):
    found = read(tmp_path, ".sog", stored_files.sog_version_1())
    np.testing.assert_allclose(found.means, [[math.e - 1] * 3, [1 - math.e] * 3], rtol=1e-5)
    logs = [[0, -8, -6.4], [-4.8, -3.2, -1.6]]
    np.testing.assert_allclose(found.scales.log(), logs, atol=1e-5)
    np.testing.assert_allclose(found.opacities, [1 / (1 + math.exp(-4)), 1 / (1 + math.exp(4))], rtol=1e-5)
    low, high = max(0.5 - 2 * C0, 0), min(0.5 + 2 * C0, 1)
    np.testing.assert_allclose(found.colors, [[low, high, max(0.5 - 1.2 * C0, 0)], [high] * 3], atol=1e-6)
    # Left out: w in the first, y in the second, whose x is sqrt(0.5).
    half = math.sqrt(0.5)
    np.testing.assert_allclose(found.quats, [[half, half, 0, 0], [0, half, half, 0]], atol=0.01)


def test_gltf_nodes_and_normalised_numbers(tmp_path: Path):
    found = read(tmp_path, ".gltf", stored_files.gltf_with_nodes())
    np.testing.assert_allclose(found.means, [[10, 22, 30]], atol=1e-5)
    np.testing.assert_allclose(found.scales, [[1, 0.5, 0.25]], atol=1e-6)
    np.testing.assert_allclose(found.opacities, [0.2], atol=1e-6)
    np.testing.assert_allclose(found.colors, [[0.5, 0.5 + C0, 0.5 - C0]], atol=1e-6)
    np.testing.assert_allclose(rotations(found)[0], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-6)


def test_gltf_linear_colours(tmp_path: Path):
    found = read(tmp_path, ".gltf", stored_files.gltf([{"mesh": 0}], [0], color_space="lin_rec709_display"))
    np.testing.assert_allclose(found.colors[0, 0], 1.055 * 0.5 ** (1 / 2.4) - 0.055, atol=1e-6)


GLTF_REFUSALS = {
    "stretched": ({"nodes": [{"mesh": 0, "scale": [1, 2, 1]}]}, "stretches or mirrors"),
    "mirrored": ({"nodes": [{"mesh": 0, "scale": [-1, 1, 1]}]}, "stretches or mirrors"),
    "a circle of nodes": ({"nodes": [{"mesh": 0, "children": [0]}]}, "are no tree"),
    "another file": ({"buffers": [{"byteLength": 4, "uri": "../secret.bin"}]}, "in another file"),
    "a file by address": ({"buffers": [{"byteLength": 4, "uri": "file:///etc/passwd"}]}, "in another file"),
    "no splats": ({"meshes": [{"primitives": [{"attributes": {}}]}]}, "no primitive with the extension"),
    "a missing mesh": ({"nodes": [{"mesh": 7}]}, "refers to the mesh 7"),
    "a missing node": ({"scenes": [{"nodes": [5]}]}, "refers to the node 5"),
    "broken base64": ({"buffers": [{"uri": "data:;base64,???"}]}, "broken base64"),
    "no nodes but numbers": ({"nodes": [3]}, "a node that is not an object"),
}


@pytest.mark.parametrize("name", GLTF_REFUSALS)
def test_gltf_refusals(tmp_path: Path, name: str):
    changes, words = GLTF_REFUSALS[name]
    nodes = changes.get("nodes", [{"mesh": 0}])
    data = stored_files.gltf(nodes, [0], **{key: value for key, value in changes.items() if key != "nodes"})
    with pytest.raises(InvalidInputError, match=words):
        read(tmp_path, ".gltf", data)


def test_gltf_parts_used_often_cannot_multiply(tmp_path: Path):
    """A thousand nodes with a mesh of 100 Gaussians, which would be 5 MB out of 60 kB."""
    document = json.loads(stored_files.gltf([{"mesh": 0}] * 1000, list(range(1000))))
    data = bytes(100 * 60)
    document["buffers"] = [{"uri": "data:;base64," + base64.b64encode(data).decode()}]
    document["bufferViews"] = [{"buffer": 0, "byteLength": len(data)}] * 2
    document["accessors"] = [entry | {"count": 100, "byteOffset": 0} for entry in document["accessors"]]
    with pytest.raises(InvalidInputError, match="repeat more Gaussians"):
        read(tmp_path, ".gltf", json.dumps(document).encode() + b" " * 20_000)


def test_gltf_has_a_bounded_number_of_parts(tmp_path: Path):
    document = json.loads(stored_files.gltf([{"mesh": 0}] * 500, list(range(500))))
    document["meshes"][0]["primitives"] *= 10
    with pytest.raises(InvalidInputError, match="more than 4096 pieces"):
        read(tmp_path, ".gltf", json.dumps(document).encode())


def test_a_mesh_is_told_from_splats(tmp_path: Path):
    mesh = {"asset": {"version": "2.0"}, "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}]}
    for suffix in (".gltf", ".glb"):
        text = json.dumps(mesh).encode()
        text += b" " * (-len(text) % 4)
        chunk = struct.pack("<II", len(text), 0x4E4F534A) + text
        data = text if suffix == ".gltf" else b"glTF" + struct.pack("<II", 2, 12 + len(chunk)) + chunk
        (tmp_path / f"mesh{suffix}").write_bytes(data)
        assert not holds_splats(tmp_path / f"mesh{suffix}")
        row = stored_files.splat_row((1, 2, 3), (1, 1, 1), (9, 9, 9, 9), (255, 128, 128, 128))
        write_splats(read(tmp_path, ".splat", row), tmp_path / f"splats{suffix}")
        assert holds_splats(tmp_path / f"splats{suffix}")


def test_glb_written_is_what_the_extension_asks_for(tmp_path: Path):
    row = stored_files.splat_row((1, 2, 3), (0.25, 0.5, 0.125), (255, 0, 51, 204), (128, 255, 128, 128))
    write_splats(read(tmp_path, ".splat", row), tmp_path / "b.glb")
    data = (tmp_path / "b.glb").read_bytes()
    magic, version, size, length, kind = struct.unpack_from("<4sIII4s", data)
    assert (magic, version, size, kind) == (b"glTF", 2, len(data), b"JSON")
    assert length % 4 == 0
    document = json.loads(data[20 : 20 + length])
    binary_size, binary_kind = struct.unpack_from("<I4s", data, 20 + length)
    assert binary_kind == b"BIN\0"
    assert binary_size == document["buffers"][0]["byteLength"] == len(data) - 28 - length
    assert document["extensionsUsed"] == ["KHR_gaussian_splatting"]
    (primitive,) = document["meshes"][0]["primitives"]
    assert primitive["mode"] == 0
    assert primitive["extensions"]["KHR_gaussian_splatting"]["colorSpace"] == "srgb_rec709_display"
    values = {}
    for name, index in primitive["attributes"].items():
        accessor = document["accessors"][index]
        view = document["bufferViews"][accessor["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        code = {5126: "<f4", 5121: "u1"}[accessor["componentType"]]
        start = 28 + length + view["byteOffset"]
        values[name] = np.frombuffer(data[start : start + view["byteLength"]], code).tolist()
    prefix = "KHR_gaussian_splatting:"
    assert values["POSITION"] == [1, 2, 3]
    assert values[prefix + "SCALE"] == [0.25, 0.5, 0.125]
    assert values[prefix + "ROTATION"] == pytest.approx([1, 0, 0, 0], abs=1e-6)
    assert values[prefix + "OPACITY"] == pytest.approx([0.8])
    assert values[prefix + "SH_DEGREE_0_COEF_0"] == pytest.approx([0.5 / C0, -0.5 / C0, -0.3 / C0], rel=1e-5)
    assert values["COLOR_0"] == [255, 0, 51, 204]
