"""OFF with the prefixes, comments and colours of Geomview."""

import numpy as np
import pytest

from diffsplat.render.meshes.mesh_files import load_mesh

SQUARE = ["0 0 0", "1 0 0", "1 1 0", "0 1 0"]


def load(tmp_path, text):
    (tmp_path / "a.off").write_text(text)
    return load_mesh(tmp_path / "a.off")


def file(first="OFF\n4 1 0", more="", face="4 0 1 2 3"):
    return "\n".join([first, *(f"{line} {more}" for line in SQUARE), face, ""])


def area(mesh):
    edges = mesh.corners[:, 1:] - mesh.corners[:, :1]
    return float(np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]).sum(axis=0)) / 2)


@pytest.mark.parametrize(
    "text",
    [
        file(), file("OFF 4 1 0"), file("4 1 0"), file("4 1"), file("# head\n\nOFF # kind\n\n4 1 0\n"),
        file(more="# a vertex"), file().replace("\n", "\r\n"), file().replace("\n", "\r"),
        "\ufeff" + file(), file("off\n4 1 4"), file("OFF4 1 0"), file("Off\n4 1 0"),
    ],
)  # fmt: skip
def test_headers_and_comments(tmp_path, text):
    assert area(load(tmp_path, text)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("first", "more", "expected"),
    [
        ("COFF", "220 30 30 255", [220 / 255, 30 / 255, 30 / 255, 1]),
        ("COFF", "1.0 0.5 0.0 0.25", [1, 0.5, 0, 0.25]),
        ("COFF", "0.0 0.5 1.0", [0, 0.5, 1, 1]),
        ("COFF", "1 0 1 1", [1, 0, 1, 1]),
        ("coff", "1 0 255 255", [1 / 255, 0, 1, 1]),
        ("OFF", "220 30 30", [220 / 255, 30 / 255, 30 / 255, 1]),
        ("NCOFF", "0 0 -1 255 0 0 255", [1, 0, 0, 1]),
        ("CNOFF", "0 0 -1 255 0 0 255", [1, 0, 0, 1]),
        ("STCOFF", "0 255 0 255 0.5 0.5", [0, 1, 0, 1]),
        ("STOFF", "0.5 0.5", [0.7, 0.7, 0.7, 1]),
    ],
)
def test_colours_of_vertices(tmp_path, first, more, expected):
    mesh = load(tmp_path, file(f"{first}\n4 1 0", more))
    np.testing.assert_allclose(mesh.colors, np.broadcast_to(expected, (2, 3, 4)), atol=1e-6)
    assert mesh.normals[0, 0, 2] == (-1 if "N" in first else 1)


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        ("220 30 30", [220 / 255, 30 / 255, 30 / 255, 1]), ("0.2 0.4 0.6 0.5", [0.2, 0.4, 0.6, 0.5]),
        ("255 0 0 51", [1, 0, 0, 0.2]), ("1 0 0", [1, 0, 0, 1]),
        ("0 1 1 1", [0, 1, 1, 1]), ("3", [0.7, 0.7, 0.7, 1]), ("# 1 2 3", [0.7, 0.7, 0.7, 1]),
    ],
)  # fmt: skip
def test_colours_of_faces(tmp_path, behind, expected):
    mesh = load(tmp_path, file(face=f"4 0 1 2 3 {behind}"))
    np.testing.assert_allclose(mesh.colors, np.broadcast_to(expected, (2, 3, 4)), atol=1e-6)


def test_faces_without_a_colour_beside_painted_ones(tmp_path):
    mesh = load(tmp_path, file("OFF\n4 2 0", face="3 0 1 2 255 0 0\n3 0 2 3"))
    np.testing.assert_allclose(mesh.colors[:, 0, :3], [[1, 0, 0], [0.7, 0.7, 0.7]], atol=1e-6)


def test_an_appearance_before_the_header_is_skipped_and_reported(tmp_path):
    appearance = "appearance {\n  +texturing\n  texture { file grid.pgm }\n}\n"
    mesh = load(tmp_path, appearance + file("STOFF\n4 1 0", "0.5 0.5"))
    assert area(mesh) == pytest.approx(1)
    assert [loss.text for loss in mesh.losses] == ["the appearance before its OFF header is not read"]
    assert not mesh.has_true_colors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (file("OFF BINARY\n4 1 0"), "binary"), (file("nOFF 4\n4 1 0"), "many-dimensional"),
        (file("OFF\n400 1 0"), "promises 400 vertices"), ("OFF\n", "no OFF header"),
        (file(face="4 0 1 2"), "fewer corners"), ("", "is empty"),
    ],
)  # fmt: skip
def test_refusals(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, text)


def test_colours_of_a_colour_map_are_noted(tmp_path):
    (loss,) = load(tmp_path, file(face="4 0 1 2 3 7")).losses
    assert loss.of_color
    assert "colour map" in loss.text
