"""Meshopt compression: written by the library's encoder, filters by their closed forms."""

import numpy as np
import pytest

from diffsplat.render.meshes.mesh_files import load_mesh
from support.gltf_files import SQUARE, SQUARE_INDICES, GltfBuilder

meshoptimizer = pytest.importorskip("meshoptimizer")


def compressed_view(builder, data, count, stride, mode, **more):
    """A buffer view without bytes of its own, as files have it that need the extension."""
    extension = {
        "buffer": 0, "byteOffset": len(builder.binary), "byteLength": len(data), "count": count,
        "byteStride": stride, "mode": mode, **more,
    }  # fmt: skip
    builder.binary += data + b"\0" * (-len(data) % 4)
    entry = {"buffer": 0, "byteLength": count * stride, "extensions": {"EXT_meshopt_compression": extension}}
    builder.root["bufferViews"].append(entry)
    return len(builder.root["bufferViews"]) - 1


def square(tmp_path, rows, *, component=5126, **more):
    """A mesh of one square whose attribute rows are compressed."""
    builder = GltfBuilder()
    stride = rows.dtype.itemsize * rows.shape[1]
    packed = bytes(meshoptimizer.encode_vertex_buffer(rows, len(rows), stride))
    view = compressed_view(builder, packed, len(rows), stride, "ATTRIBUTES", **more)
    indices = np.asarray(SQUARE_INDICES, dtype=np.uint32)
    packed = bytes(meshoptimizer.encode_index_buffer(indices, len(indices), 4))
    index_view = compressed_view(builder, packed, len(indices), 2, "TRIANGLES")
    builder.root["bufferViews"][view]["byteStride"] = stride
    builder.root["accessors"] += [
        {
            "bufferView": view,
            "componentType": component,
            "count": 4,
            "type": "VEC3",
            "normalized": component != 5126,
        },
        {"bufferView": index_view, "componentType": 5123, "count": 6, "type": "SCALAR"},
    ]
    return builder


def load(tmp_path, builder):
    (tmp_path / "a.glb").write_bytes(builder.glb())
    return load_mesh(tmp_path / "a.glb")


def test_positions_and_indices(tmp_path):
    builder = square(tmp_path, SQUARE)
    builder.mesh(positions=0, indices=None)
    builder.root["meshes"][0]["primitives"][0]["indices"] = 1
    mesh = load(tmp_path, builder)
    areas = np.cross(mesh.corners[:, 1] - mesh.corners[:, 0], mesh.corners[:, 2] - mesh.corners[:, 0]) / 2
    np.testing.assert_allclose(areas.sum(axis=0), [0, 0, 1], atol=1e-7)


def test_the_exponential_filter(tmp_path):
    """A number is its low 24 bits times two to the power of its high 8."""
    mantissas = np.rint(SQUARE * 2**10).astype(np.int64)
    rows = ((mantissas & 0xFFFFFF) | ((-10 & 0xFF) << 24)).astype("u4").view("f4")
    builder = square(tmp_path, rows, filter="EXPONENTIAL")
    builder.mesh(positions=0)
    low, high = load(tmp_path, builder).bounds()
    np.testing.assert_allclose([low, high], [[-0.5, -0.5, 0], [0.5, 0.5, 0]])


def test_the_octahedral_filter(tmp_path):
    normals = np.array([[0.48, 0.6, 0.64], [-0.6, 0.0, -0.8], [0, 0, 1], [0.36, -0.48, -0.8]])
    folded = normals / np.abs(normals).sum(axis=1, keepdims=True)
    below = folded[:, 2:] < 0
    flipped = (1 - np.abs(folded[:, [1, 0]])) * np.where(folded[:, :2] < 0, -1, 1)
    octahedral = np.where(below, flipped, folded[:, :2])
    rows = np.concatenate([np.rint(octahedral * 127), np.full((4, 1), 127), np.zeros((4, 1))], axis=1)
    builder = square(tmp_path, rows.astype("i1"), component=5120, filter="OCTAHEDRAL")
    builder.mesh(attributes={"NORMAL": 0})
    mesh = load(tmp_path, builder)
    np.testing.assert_allclose(mesh.normals[0], normals[:3], atol=0.02)
    np.testing.assert_allclose(mesh.normals[1, 2], normals[3], atol=0.02)


def test_the_quaternion_filter(tmp_path):
    """A quarter turn about z as an instance's rotation: the largest component is left out."""
    quaternion = np.array([0, 0, np.sin(np.pi / 4 - 0.01), np.cos(np.pi / 4 - 0.01)])
    rest = quaternion[[0, 1, 2]] * np.sqrt(2)
    row = np.append(np.rint(rest * 32767), (32767 & ~3) | 3)
    builder = square(tmp_path, np.tile(row, (4, 1)).astype("i2"), component=5122, filter="QUATERNION")
    builder.root["accessors"][0]["type"] = "VEC4"
    builder.mesh(positions=SQUARE * np.array([2, 1, 1], dtype="f4"))
    instancing = {"EXT_mesh_gpu_instancing": {"attributes": {"ROTATION": 0}}}
    builder.root["nodes"][0]["extensions"] = instancing
    low, high = load(tmp_path, builder).bounds()
    turn = np.pi / 2 - 0.02
    expected = [2 * np.cos(turn) + np.sin(turn), 2 * np.sin(turn) + np.cos(turn), 0]
    np.testing.assert_allclose(high - low, expected, atol=1e-3)


def test_broken_data_is_one_sentence(tmp_path):
    builder = square(tmp_path, SQUARE)
    builder.mesh(positions=0)
    builder.binary = b"\0" * len(builder.binary)
    with pytest.raises(ValueError, match="EXT_meshopt_compression is broken"):
        load(tmp_path, builder)


def test_a_missing_decoder_is_one_sentence(tmp_path, monkeypatch):
    builder = square(tmp_path, SQUARE)
    builder.mesh(positions=0)
    monkeypatch.setitem(__import__("sys").modules, "meshoptimizer", None)
    with pytest.raises(
        ValueError, match=r"EXT_meshopt_compression needs meshoptimizer.*diffsplat\[meshopt\]"
    ):
        load(tmp_path, builder)
