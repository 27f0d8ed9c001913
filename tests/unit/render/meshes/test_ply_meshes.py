"""PLY in text and binary, with what programs put into it."""

import struct

import numpy as np
import pytest
from PIL import Image

from diffsplat.render.meshes.mesh_files import load_mesh

CORNERS = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]


def load(tmp_path, data):
    (tmp_path / "a.ply").write_bytes(data if isinstance(data, bytes) else data.encode())
    return load_mesh(tmp_path / "a.ply")


def header(order, *lines):
    return "\n".join(["ply", f"format {order} 1.0", *lines, "end_header", ""])


XYZ = ("property {0} x", "property {0} y", "property {0} z")


def area(mesh):
    edges = mesh.corners[:, 1:] - mesh.corners[:, :1]
    return float(np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]).sum(axis=0)) / 2)


@pytest.mark.parametrize(("order", "mark"), [("binary_little_endian", "<"), ("binary_big_endian", ">")])
@pytest.mark.parametrize("polygons", [[(0, 1, 2, 3)], [(0, 1, 2), (0, 2, 3)], [(0, 1, 2), (0, 1, 2, 3)]])
@pytest.mark.parametrize(("kind", "code"), [("float", "f"), ("double", "d")])
def test_binary(tmp_path, order, mark, polygons, kind, code):
    lines = [f"element vertex {len(CORNERS)}", *(line.format(kind) for line in XYZ)]
    lines += [
        f"element face {len(polygons)}",
        "property list uchar int vertex_indices",
        "property uchar flags",
    ]
    body = b"".join(struct.pack(f"{mark}3{code}", *corner) for corner in CORNERS)
    for polygon in polygons:
        body += struct.pack(f"{mark}B{len(polygon)}iB", len(polygon), *polygon, 7)
    mesh = load(tmp_path, header(order, *lines).encode() + body)
    assert mesh.face_count == sum(len(polygon) - 2 for polygon in polygons)
    assert area(mesh) == pytest.approx(1.5 if len(polygons[-1]) > 3 and len(polygons) > 1 else 1)


def text(rows, faces, *, properties=(), face_properties=(), comments=()):
    lines = [*comments, f"element vertex {len(rows)}", *(line.format("float") for line in XYZ), *properties]
    lines += [f"element face {len(faces)}", "property list uchar int vertex_index", *face_properties]
    body = [" ".join(map(str, row)) for row in (*rows, *faces)]
    return header("ascii", *lines) + "\n".join(body) + "\n"


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_text_with_line_ends_of_all_systems(tmp_path, ending):
    assert area(load(tmp_path, text(CORNERS, [(4, 0, 1, 2, 3)]).replace("\n", ending))) == pytest.approx(1)


def test_strips(tmp_path):
    lines = ["element vertex 4", *(line.format("float") for line in XYZ)]
    lines += ["element tristrips 1", "property list int int vertex_indices"]
    body = "".join(f"{x} {y} {z}\n" for x, y, z in CORNERS) + "8 0 1 3 2 -1 0 1 2\n"
    mesh = load(tmp_path, header("ascii", *lines) + body)
    assert mesh.face_count == 3
    assert area(mesh) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("kind", "names", "color"),
    [
        ("uchar", ("red", "green", "blue", "alpha"), (255, 0, 51, 102)),
        ("ushort", ("red", "green", "blue", "alpha"), (65535, 0, 13107, 26214)),
        ("int", ("red", "green", "blue", "alpha"), (255, 0, 51, 102)),
        ("float", ("r", "g", "b", "a"), (1, 0, 0.2, 0.4)),
        ("uchar", ("diffuse_red", "diffuse_green", "diffuse_blue", "diffuse_alpha"), (255, 0, 51, 102)),
    ],
)
@pytest.mark.parametrize("holder", ["vertex", "face"])
def test_colours(tmp_path, kind, names, color, holder):
    properties = [f"property {kind} {name}" for name in names]
    if holder == "vertex":
        data = text([(*corner, *color) for corner in CORNERS], [(4, 0, 1, 2, 3)], properties=properties)
    else:
        data = text(CORNERS, [(4, 0, 1, 2, 3, *color)], face_properties=properties)
    colors = load(tmp_path, data).colors
    np.testing.assert_allclose(colors, np.broadcast_to([1, 0, 0.2, 0.4], colors.shape), atol=1e-6)


def checker(tmp_path):
    Image.fromarray(np.full((2, 2, 3), (10, 200, 30), dtype=np.uint8)).save(tmp_path / "t.png")


def test_an_alpha_of_zero_all_over_is_none(tmp_path):
    properties = [f"property uchar {name}" for name in ("red", "green", "blue", "alpha")]
    rows = [(*corner, 255, 0, 51, 0) for corner in CORNERS]
    assert (load(tmp_path, text(rows, [(4, 0, 1, 2, 3)], properties=properties)).colors[..., 3] == 1).all()


@pytest.mark.parametrize("comment", ["TextureFile", "texturefile", "TextureFile:"])
def test_a_texture_hides_the_colours_of_vertices(tmp_path, comment):
    checker(tmp_path)
    properties = [
        *(f"property float {name}" for name in "st"),
        *(f"property uchar {name}" for name in ("red", "green", "blue")),
    ]
    rows = [(*corner, *corner[:2], 9, 9, 9) for corner in CORNERS]
    mesh = load(
        tmp_path, text(rows, [(4, 0, 1, 2, 3)], properties=properties, comments=[f"comment {comment} t.png"])
    )
    assert mesh.textures[0].pixels[0, 0].tolist() == [10, 200, 30, 255]
    np.testing.assert_array_equal(mesh.colors, 1)


@pytest.mark.parametrize("names", [("s", "t"), ("u", "v"), ("texture_u", "texture_v")])
def test_textures_by_vertex(tmp_path, names):
    checker(tmp_path)
    rows = [(*corner, *corner[:2]) for corner in CORNERS]
    properties = [f"property float {name}" for name in names]
    mesh = load(
        tmp_path, text(rows, [(4, 0, 1, 2, 3)], properties=properties, comments=["comment TextureFile t.png"])
    )
    np.testing.assert_allclose(mesh.uv, mesh.corners[..., :2])
    assert mesh.textures[0].pixels[0, 0].tolist() == [10, 200, 30, 255]
    np.testing.assert_array_equal(mesh.colors, 1)


def test_textures_by_corner(tmp_path):
    checker(tmp_path)
    faces = [(3, 0, 1, 2, 6, 0, 0, 1, 0, 1, 1, 1), (3, 0, 2, 3, 6, 0, 0, 1, 1, 0, 1, 0)]
    mesh = load(
        tmp_path,
        text(
            CORNERS,
            faces,
            face_properties=["property list uchar float texcoord", "property int texnumber"],
            comments=["comment TextureFile gone.png", "comment TextureFile t.png"],
        ),
    )
    np.testing.assert_allclose(mesh.uv, mesh.corners[..., :2])
    assert sorted(mesh.texture) == [-1, 0]
    assert [loss.text for loss in mesh.losses] == ["its texture 'gone.png' is missing"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (text(CORNERS, []), "point cloud"),
        (
            text([(*corner, 1) for corner in CORNERS], [], properties=["property float f_dc_0"]),
            "Gaussian splats",
        ),
        (text(CORNERS, [(4, 0, 1, 2, 3)])[:-4], "more than it holds"),
        (text(CORNERS, []).replace("vertex 4", "vertex 4000"), "more than it holds"),
        (text(CORNERS, []).replace("vertex 4", "vertex 5"), "promises 5 vertex rows, more than it holds"),
        (text(CORNERS, []).replace("ascii", "odd"), "'format odd 1.0'"),
        ("ply\nend", "PLY header has no end"),
    ],
)
def test_refusals(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, data)


def test_text_keeps_its_digits_though_declared_single(tmp_path):
    rows = [(431256.5 + x / 100, 5412345.75 + y / 100, z) for x, y, z in CORNERS]
    low, high = load(tmp_path, text(rows, [(4, 0, 1, 2, 3)])).bounds()
    np.testing.assert_allclose(high - low, [0.01, 0.01, 0], atol=1e-8)


@pytest.mark.parametrize("word", ["-1.#IND", "-nan(ind)", "nan"])
def test_a_number_that_is_none_costs_its_triangles_only(tmp_path, word):
    rows = [*CORNERS, (word, 0, 0)]
    mesh = load(tmp_path, text(rows, [(4, 0, 1, 2, 3), ("3.0", 0, 1, 4)]))
    assert area(mesh) == pytest.approx(1)
    assert [loss.text for loss in mesh.losses] == ["1 of its triangles have corners that are not finite"]


def test_some_faces_may_have_no_texture_coordinates(tmp_path):
    checker(tmp_path)
    faces = [(3, 0, 1, 2, 6, 0, 0, 1, 0, 1, 1), (3, 0, 2, 3, 0)]
    properties = ["property list uchar float texcoord"]
    mesh = load(
        tmp_path, text(CORNERS, faces, face_properties=properties, comments=["comment TextureFile t.png"])
    )
    np.testing.assert_allclose(mesh.uv[0], mesh.corners[0, :, :2])
    assert mesh.losses == ()


def test_a_texture_without_coordinates_is_noted(tmp_path):
    checker(tmp_path)
    mesh = load(tmp_path, text(CORNERS, [(4, 0, 1, 2, 3)], comments=["comment TextureFile t.png"]))
    assert [loss.text for loss in mesh.losses] == ["one of its textures has no coordinates"]
    np.testing.assert_allclose(mesh.colors[..., :3], 0.7, atol=1e-6)


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_cut_binary_files_are_named(tmp_path, cut):
    lines = [f"element vertex {len(CORNERS)}", *(line.format("float") for line in XYZ)]
    lines += ["element face 1", "property list uchar int vertex_indices"]
    body = np.array(CORNERS, dtype="<f4").tobytes() + struct.pack("<B4i", 4, 0, 1, 2, 3)
    with pytest.raises(ValueError, match="more than it holds"):
        load(tmp_path, (header("binary_little_endian", *lines).encode() + body)[:-cut])


def test_a_comment_in_the_header_may_lack_its_keyword(tmp_path):
    data = text(CORNERS, [(4, 0, 1, 2, 3)], comments=["Created by Blender3D 247", "obj_info x"])
    assert area(load(tmp_path, data)) == pytest.approx(1)
