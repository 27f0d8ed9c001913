"""OBJ and MTL as programs of all kinds write them."""

import codecs

import numpy as np
import pytest
from PIL import Image

from diffsplat.render.meshes.mesh_files import load_mesh

SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
FACE = "usemtl m\nf 1/1 2/2 3/3 4/4\n"


def load(tmp_path, text, *, mtl=None, encoding="utf-8"):
    data = text if isinstance(text, bytes) else text.encode(encoding)
    (tmp_path / "a.obj").write_bytes(data)
    if mtl is not None:
        (tmp_path / "a.mtl").write_bytes(mtl if isinstance(mtl, bytes) else mtl.encode(encoding))
    return load_mesh(tmp_path / "a.obj")


def material(tmp_path, mtl, **more):
    return load(tmp_path, "mtllib a.mtl\n" + SQUARE + FACE, mtl="newmtl m\n" + mtl, **more)


def texture(path, color=(200, 10, 10), size=(4, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def area(mesh):
    edges = mesh.corners[:, 1:] - mesh.corners[:, :1]
    return float(np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]).sum(axis=0)) / 2)


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_line_ends_of_all_systems(tmp_path, ending):
    assert area(load(tmp_path, (SQUARE + FACE).replace("\n", ending))) == pytest.approx(1)


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")],
)
def test_byte_order_marks(tmp_path, mark, encoding):
    mtl = mark + "newmtl m\nKd 0.8 0 0\n".encode(encoding)
    mesh = load(tmp_path, mark + ("mtllib a.mtl\n" + SQUARE + FACE).encode(encoding), mtl=mtl)
    np.testing.assert_allclose(mesh.colors[0, 0], [1, 0, 0, 1])


@pytest.mark.parametrize("separate", ["1/1 2/2 3/3 4/4", "1 2 3 4", "1// 2// 3// 4//", "1/1/ 2/2 3 4/4"])
def test_corners_in_any_form(tmp_path, separate):
    assert area(load(tmp_path, SQUARE + f"f {separate} # a face\n")) == pytest.approx(1)


def test_numbers_from_the_end_count_from_where_they_stand(tmp_path):
    lower = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf -4 -3 -2 -1\n"
    upper = "v 0 0 5\nv 2 0 5\nv 2 2 5\nv 0 2 5\nf -4 -3 -2 -1\n"
    mesh = load(tmp_path, lower + upper)
    assert mesh.corners[:2, :, 2].max() == 0
    assert mesh.corners[2:, :, 2].min() == 5
    assert mesh.bounds()[1].tolist() == [2, 2, 5]


def test_lines_may_be_continued_and_keywords_capital(tmp_path):
    assert area(load(tmp_path, SQUARE + "F 1 2 \\\n 3 4\n")) == pytest.approx(1)


def test_concave_polygons_keep_their_shape(tmp_path):
    """An L of area 3 whose fan from the first corner would cover 4."""
    corners = [(2, 2), (1, 2), (1, 1), (0, 1), (0, 0), (2, 0)]
    ring = [corners[(i + 3) % 6] for i in range(6)]
    text = "".join(f"v {x} {y} 0\n" for x, y in ring) + "f 1 2 3 4 5 6\n"
    mesh = load(tmp_path, text)
    edges = mesh.corners[:, 1:] - mesh.corners[:, :1]
    assert np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1).sum() / 2 == pytest.approx(3)


def test_a_star_of_many_corners_keeps_its_shape(tmp_path):
    """Its area is half the sum over neighbours of the product of their radii and the sine between them."""
    count = 600
    angles, radii = np.arange(count) * 2 * np.pi / count, np.where(np.arange(count) % 2, 1, 0.3)
    text = "".join(
        f"v {x:.9f} {y:.9f} 0\n" for x, y in zip(radii * np.cos(angles), radii * np.sin(angles), strict=True)
    )
    mesh = load(tmp_path, text + "f " + " ".join(str(i + 1) for i in range(count)))
    edges = mesh.corners[:, 1:] - mesh.corners[:, :1]
    covered = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1).sum() / 2
    assert covered == pytest.approx(count * 0.3 * np.sin(2 * np.pi / count) / 2, rel=1e-5)


def test_far_from_the_origin_nothing_is_rounded(tmp_path):
    place = np.array([431256.5, 120.75, 5412345.75])
    ring = [(0.025 * np.cos(a), 0.025 * np.sin(a), 0) for a in np.linspace(0, 2 * np.pi, 100, endpoint=False)]
    lines = [f"v {x:.9f} {y:.9f} {z:.9f}" for x, y, z in place + np.array(ring)]
    text = "\n".join([*lines, "f " + " ".join(str(i + 1) for i in range(100))])
    fitted = load(tmp_path, text).normalized()
    radii = np.linalg.norm(fitted.corners.reshape(-1, 3), axis=1)
    np.testing.assert_allclose(radii, 0.46, atol=1e-5)
    assert fitted.corners.dtype == np.float32


@pytest.mark.parametrize("top", [1, 255])
def test_colours_of_vertices(tmp_path, top):
    text = "".join(f"v {x} {y} 0 {top} 0 {top / 2}\n" for x, y in ((0, 0), (1, 0), (1, 1)))
    np.testing.assert_allclose(load(tmp_path, text + "f 1 2 3\n").colors[0, 0], [1, 0, 0.5, 1])


@pytest.mark.parametrize(
    ("statements", "opacity"),
    [
        ("d 0.25", 0.25), ("Tr 0.25", 0.75), ("Tr 1.000000", 1.0), ("d 1\nTr 1", 1.0), ("d 0\nTr 0", 1.0),
        ("d 0.3\nTr 0.7", 0.3), ("d -halo 0.5", 0.5), ("", 1.0),
    ],
)  # fmt: skip
def test_opacity(tmp_path, statements, opacity):
    np.testing.assert_allclose(material(tmp_path, statements + "\n").colors[..., 3], opacity)


def test_a_transparency_of_0_is_solid_beside_one_of_1(tmp_path):
    np.testing.assert_allclose(material(tmp_path, "Tr 0\nnewmtl wood\nTr 1\n").colors[..., 3], 1)


def test_where_a_transparency_of_1_is_solid_others_are_opacities_too(tmp_path):
    glass = "Tr 0.25\nnewmtl wood\nTr 1\n"
    np.testing.assert_allclose(material(tmp_path, glass).colors[..., 3], 0.25)


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("t.png", "t.png"), ("textures\\t.png", "textures/t.png"), ("Tex.PNG", "tex.png"),
        ("my wood.png", "my wood.png"), ("my%20wood.png", "my wood.png"), ("C:\\Users\\me\\t.png", "t.png"),
        ("/home/me/t.png", "maps/t.png"), ("./t.png", "t.png"), ('"t.png"', "t.png"),
        ("-s 1 1 1 -o 0 0 0 t.png", "t.png"), ("-blendu off -mm 0 1 -bm 0.5 -clamp on my t.png", "my t.png"),
        ("-s 2 t.png", "t.png"), ("-s\t1 1 1\tt.png", "t.png"),
        ("-type sphere t.png", "t.png"), ("Holz\u00e4hnlich.png", "Holza\u0308hnlich.png"),
    ],
)  # fmt: skip
def test_names_of_textures(tmp_path, written, stored):
    texture(tmp_path / stored)
    mesh = material(tmp_path, f"map_Kd {written}\n")
    assert mesh.losses == ()
    assert mesh.textures[0].pixels[0, 0].tolist() == [200, 10, 10, 255]


def test_options_place_the_texture(tmp_path):
    texture(tmp_path / "t.png")
    mesh = material(tmp_path, "map_Kd -s 2 3 1 -o 0.5 0.25 -clamp on t.png\n")
    low, high = mesh.uv.reshape(-1, 2).min(axis=0), mesh.uv.reshape(-1, 2).max(axis=0)
    np.testing.assert_allclose([low, high], [[0.5, 0.25], [2.5, 3.25]])
    assert mesh.textures[0].wrap == ("clamp", "clamp")


def test_an_image_may_hold_the_opacity(tmp_path):
    texture(tmp_path / "t.png")
    texture(tmp_path / "alpha.png", (64, 64, 64), size=(2, 2))
    mesh = material(tmp_path, "map_Kd t.png\nmap_d alpha.png\n")
    assert (mesh.textures[0].pixels == [200, 10, 10, 64]).all()


def test_emission_shows_where_nothing_is_reflected(tmp_path):
    np.testing.assert_allclose(material(tmp_path, "Kd 0 0 0\nKe 0 1 0\n").colors[0, 0, :3], [0, 1, 0])


def test_a_texture_may_glow_on_black(tmp_path):
    texture(tmp_path / "t.png")
    assert material(tmp_path, "Kd 0 0 0\nKe 1 1 1\nmap_Ke t.png\n").textures[0].pixels[0, 0, 0] == 200


def test_textures_may_lie_beside_the_material_file(tmp_path):
    (tmp_path / "looks" / "maps").mkdir(parents=True)
    texture(tmp_path / "looks" / "maps" / "t.png")
    (tmp_path / "looks" / "a.mtl").write_text("newmtl m\nmap_Kd maps/t.png\n")
    mesh = load(tmp_path, "mtllib looks\\a.mtl\n" + SQUARE + FACE)
    assert mesh.losses == ()
    assert mesh.textures[0].pixels[0, 0].tolist() == [200, 10, 10, 255]


def test_comments_behind_the_name_of_a_material(tmp_path):
    (tmp_path / "a.mtl").write_text("newmtl m\nKd 0.8 0 0\n")
    mesh = load(tmp_path, "mtllib a.mtl\n" + SQUARE + FACE.replace("usemtl m", "usemtl m # the only one"))
    np.testing.assert_allclose(mesh.colors[0, 0, :3], [1, 0, 0])


@pytest.mark.parametrize("colour", ["spectral red.rfl 1", "xyz 0.4 0.2 0.1", "0,8 0,0 0,0"])
def test_colours_of_other_kinds_are_noted(tmp_path, colour):
    (loss,) = material(tmp_path, f"Kd {colour}\n").losses
    assert loss.of_color
    assert "red, green and blue" in loss.text


def test_what_is_lost_is_noted_once(tmp_path):
    mesh = material(tmp_path, "Kd 0.4 0.4 0.4\nmap_Kd gone.png\nnewmtl unused\nmap_Kd never.png\n")
    assert [loss.text for loss in mesh.losses] == ["its texture 'gone.png' is missing"]
    assert not mesh.has_true_colors
    np.testing.assert_allclose(mesh.colors[0, 0, :3], 0.5)


def test_missing_material_files_and_materials_are_noted(tmp_path):
    mesh = load(tmp_path, "mtllib my materials.mtl\n" + SQUARE + FACE)
    assert {loss.text for loss in mesh.losses} == {
        "its material file 'my' is missing",
        "its material file 'materials.mtl' is missing",
        "its material 'm' is missing",
    }


def test_broken_numbers_cost_their_triangles_only(tmp_path):
    mesh = load(tmp_path, SQUARE + "v -1.#IND 0 0\nf 1 2 3\nf 1 2 5\nf 1 2 99\nf 0 1 2\n")
    assert mesh.face_count == 1
    assert [loss.text for loss in mesh.losses] == [
        "2 of its triangles refer to vertices that it lacks",
        "1 of its triangles have corners that are not finite",
    ]


def test_free_form_surfaces_are_noted(tmp_path):
    mesh = load(tmp_path, SQUARE + FACE.replace("usemtl m\n", "") + "surf 0 1 0 1 1 2 3 4\n")
    assert [loss.text for loss in mesh.losses] == ["1 free-form curves and surfaces are not read"]


def test_a_comment_that_ends_like_a_continued_line_is_not_continued(tmp_path):
    assert area(load(tmp_path, "# made in C:\\models\\\n" + SQUARE + "f 1 2 3 4\n")) == pytest.approx(1)


@pytest.mark.parametrize("top", [1, 255])
def test_vertices_without_a_colour_are_white(tmp_path, top):
    mesh = load(tmp_path, f"v 0 0 0\nv 1 0 0 {top} 0 0\nv 1 1 0 {top} 0 0\nf 1 2 3\n")
    np.testing.assert_allclose(mesh.colors[0, :, :3], [[1, 1, 1], [1, 0, 0], [1, 0, 0]])


def test_a_weight_behind_the_position_is_no_colour(tmp_path):
    mesh = load(tmp_path, "v 0 0 0 1.0\nv 1 0 0 1.0\nv 1 1 0 1.0\nf 1 2 3\n")
    np.testing.assert_allclose(mesh.colors[..., :3], 0.7, atol=1e-6)


@pytest.mark.parametrize("word", ["a", "1.5", "99999999999999999999", "-"])
def test_a_corner_that_is_no_number_costs_its_triangle_only(tmp_path, word):
    mesh = load(tmp_path, SQUARE + f"f 1 2 3\nf 1 {word} 3\n")
    assert mesh.face_count == 1
    assert [loss.text for loss in mesh.losses] == ["1 of its triangles refer to vertices that it lacks"]
