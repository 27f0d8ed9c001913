"""Finding and reading mesh files, whole and damaged: a mesh or one sentence, whatever the bytes are."""

import contextlib
import os
import random
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from diffsplat.errors import InvalidInputError
from diffsplat.render.meshes.mesh_files import MESH_SUFFIXES, find_meshes, load_mesh
from diffsplat.render.meshes.mesh_renderer import MeshRenderer
from diffsplat.render.meshes.texture_images import MAX_PIXELS
from diffsplat.render.meshes.view_sets import FREE_VIEW, ViewSet
from support.damaged_files import damaged
from support.gltf_files import SQUARE_UV, GltfBuilder

SECONDS = 3.0
OVERHEAD = 8 << 20
"""Bytes that reading may take whatever the size of the file."""

CUBE = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
QUADS = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
PIXELS = np.array([[(220, 20, 20, 255), (20, 20, 220, 90)] * 4] * 8, dtype=np.uint8)


def rich_gltf():
    """A skinned, morphed, instanced and textured square with a sampler and an emissive texture."""
    builder = GltfBuilder()
    builder.root["samplers"] = [{"wrapS": 33071, "magFilter": 9728}]
    builder.root["materials"] = [
        {
            "pbrMetallicRoughness": {
                "baseColorTexture": {
                    "index": builder.texture(PIXELS, sampler=0),
                    "extensions": {"KHR_texture_transform": {"offset": [0.5, 0], "rotation": 1}},
                }
            },
            "alphaMode": "MASK",
            "emissiveFactor": [0.1, 0.2, 0.3],
        }
    ]
    target = builder.accessor(np.ones((4, 3), dtype="f4"))
    builder.mesh(
        attributes={
            "TEXCOORD_0": SQUARE_UV,
            "COLOR_0": builder.accessor(np.full((4, 4), 200, dtype="u1"), normalized=True),
            "JOINTS_0": np.zeros((4, 4), dtype="u1"),
            "WEIGHTS_0": np.tile(np.array([1, 0, 0, 0], dtype="f4"), (4, 1)),
        },
        targets=[{"POSITION": target}],
        material=0,
    )
    builder.root["meshes"][0]["weights"] = [0.5]
    places = builder.accessor(np.array([[0, 0, 0], [2, 0, 0]], dtype="f4"))
    instancing = {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": places}}}
    builder.root["nodes"] = [
        {"mesh": 0, "extensions": instancing, "children": [1]},
        {"mesh": 0, "skin": 0, "translation": [0, 3, 0]},
    ]
    builder.root["skins"] = [{"joints": [1]}]
    return builder


def good_files():
    """By suffix, whole files with all that the readers know."""
    vertices = "".join(f"v {x} {y} {z}\n" for x, y, z in CUBE)
    faces = "".join("f " + " ".join(f"{i + 1}/1" for i in quad) + "\n" for quad in QUADS)
    header = (
        "ply\nformat {} 1.0\nelement vertex 8\nproperty float x\nproperty float y\nproperty float z\n"
        "element face 6\nproperty list uchar int vertex_indices\nproperty uchar red\nproperty uchar green\n"
        "property uchar blue\nend_header\n"
    )
    rows = ["{} {} {}\n".format(*corner) for corner in CUBE]
    text = "".join([*rows, *("4 {} {} {} {} 200 10 10\n".format(*quad) for quad in QUADS)])
    binary = np.array(CUBE, "<f4").tobytes() + b"".join(
        bytes([4]) + np.array(quad, "<i4").tobytes() + bytes([200, 10, 10]) for quad in QUADS
    )
    facets = b"".join(
        np.zeros(3, "<f4").tobytes() + np.array([CUBE[i] for i in q[:3]], "<f4").tobytes() + b"\0\0"
        for q in QUADS
    )
    off = "OFF\n8 6 0\n" + "".join(
        [*rows, *("4 {} {} {} {} 200 10 10 # side\n".format(*quad) for quad in QUADS)]
    )
    return {
        ".glb": [rich_gltf().glb()],
        ".gltf": [rich_gltf().gltf()],
        ".obj": [("mtllib a.mtl\nvt 0.5 0.5\n" + vertices + "usemtl m\n" + faces).encode()],
        ".ply": [(header.format("ascii") + text).encode(), header.format("binary_little_endian").encode() + binary],
        ".stl": [bytes(80) + (6).to_bytes(4, "little") + facets],
        ".off": [off.encode()],
    }  # fmt: skip


VIEW = ViewSet((30.0,), (20.0,), (FREE_VIEW,)).cameras()
MATERIALS = b"newmtl m\nKd 0.5 0.5 0.5\nd 0.5\nmap_Kd -s 1 1 t.png\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.mtl").write_bytes(MATERIALS)
    Image.fromarray(PIXELS).save(tmp_path / "t.png")
    return tmp_path


def tried(path):
    """What is said against a file, or None when its mesh is fine."""
    try:
        mesh = load_mesh(path)
    except InvalidInputError as error:
        message = str(error)
    else:
        return check_mesh(mesh)
    assert message.startswith(f"{str(path)!r}: ")
    assert "\n" not in message
    return message


def check_mesh(mesh):
    assert mesh.face_count >= 1
    for values in (mesh.corners, mesh.normals, mesh.uv, mesh.colors):
        assert len(values) == mesh.face_count
        assert np.isfinite(values).all()
    assert mesh.texture.max() < len(mesh.textures)
    with contextlib.suppress(InvalidInputError):  # of a size that is no number
        for _ in MeshRenderer(mesh.normalized(), size=16).render(VIEW):
            pass


def check(suffix, folder, rounds, seed):
    source = random.Random(f"{suffix} {seed}")
    files = good_files()[suffix]
    messages = []
    for number in range(rounds):
        path = folder / f"a{suffix}"
        path.write_bytes(damaged(files[number % len(files)], source))
        start = time.process_time()
        messages.append(tried(path))
        assert time.process_time() - start < SECONDS
    assert None in messages
    assert any(messages)


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
def test_whole_files(folder, suffix):
    for data in good_files()[suffix]:
        (folder / f"a{suffix}").write_bytes(data)
        mesh = load_mesh(folder / f"a{suffix}")
        assert mesh.losses == ()
        assert mesh.face_count == (6 if suffix in (".stl", ".glb", ".gltf") else 12)


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
def test_damaged_files(folder, suffix):
    check(suffix, folder, rounds=200, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
def test_many_damaged_files(folder, suffix):
    check(suffix, folder, rounds=10_000, seed=1)


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
def test_damaged_files_do_not_flood_the_memory(folder, suffix):
    source = random.Random(f"{suffix} memory")
    files = good_files()[suffix]
    for number in range(60):
        data = damaged(files[number % len(files)], source)
        (folder / f"a{suffix}").write_bytes(data)
        tracemalloc.start()
        tried(folder / f"a{suffix}")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < OVERHEAD + 10 * len(data) < 8 * MAX_PIXELS


@pytest.mark.parametrize("damage", ["a.mtl", "t.png"])
def test_damaged_files_beside_the_mesh_are_noted(folder, damage):
    source = random.Random(damage)
    (folder / "a.obj").write_bytes(good_files()[".obj"][0])
    whole = (folder / damage).read_bytes()
    for _ in range(200):
        (folder / damage).write_bytes(damaged(whole, source))
        assert tried(folder / "a.obj") is None


def test_finding(tmp_path):
    for name in ("b/Chair.GLB", "a.obj", "a.mtl", "._a.obj", "b/.hidden.stl", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.ply").mkdir()
    assert [path.relative_to(tmp_path).as_posix() for path in find_meshes(tmp_path)] == [
        "a.obj",
        "b/Chair.GLB",
    ]


def test_pipes_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.obj")
    with pytest.raises(ValueError, match="device or pipe"):
        load_mesh(tmp_path / "a.obj")
    assert list(find_meshes(tmp_path)) == [tmp_path / "a.obj"]


def test_pipes_beside_the_mesh_are_noted(folder):
    (folder / "a.obj").write_bytes(good_files()[".obj"][0])
    (folder / "t.png").unlink()
    os.mkfifo(folder / "t.png")
    (loss,) = load_mesh(folder / "a.obj").losses
    assert "device or pipe" in loss.text


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
def test_a_wrong_suffix_of_a_format_with_a_mark_does_not_matter(tmp_path, suffix):
    builder = GltfBuilder()
    builder.mesh()
    (tmp_path / f"a{suffix}").write_bytes(builder.glb())
    assert load_mesh(tmp_path / f"a{suffix}").face_count == 2
    lines = ["ply", "format ascii 1.0", "element vertex 3", *(f"property float {axis}" for axis in "xyz")]
    lines += ["element face 1", "property list uchar int vertex_indices", "end_header"]
    text = "\n".join([*lines, "0 0 0", "1 0 0", "0 1 0", "3 0 1 2", ""])
    (tmp_path / f"b{suffix}").write_text(text)
    assert load_mesh(tmp_path / f"b{suffix}").face_count == 1


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "a.obj").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="it is empty"):
        load_mesh(tmp_path / "a.obj")
