"""STL in text and binary."""

import struct

import numpy as np
import pytest

from diffsplat.render.meshes.mesh_files import load_mesh

TRIANGLE = (0, 0, 0, 1, 0, 0, 0, 1, 0)


def load(tmp_path, data):
    (tmp_path / "a.stl").write_bytes(data)
    return load_mesh(tmp_path / "a.stl")


def binary(*, head=b"", color=0, count=1, promised=None, more=b""):
    facet = struct.pack("<3f9fH", 0, 0, 1, *TRIANGLE, color)
    return (
        head.ljust(80, b"\0")
        + struct.pack("<I", count if promised is None else promised)
        + facet * count
        + more
    )


@pytest.mark.parametrize(
    "data",
    [
        binary(), binary(head=b"solid made by a program"), binary(more=b"tail"), binary(promised=0),
        binary(head=b"solid, each facet by a program", more=b"\r\n"),
    ],
)  # fmt: skip
def test_binary(tmp_path, data):
    assert load(tmp_path, data).corners.ravel().tolist() == list(TRIANGLE)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b"  \n"])
@pytest.mark.parametrize("name", [b"a b c", b"vertex group", b"x" * 3000])
def test_text(tmp_path, ending, mark, name):
    loop = b"outer loop\nvertex 0 0 0\nVERTEX 1 0 0\nvertex 0 1e0 0\nendloop\n"
    text = b"solid %b\nfacet normal 0 0 1\n" % name + loop + b"endfacet\nendsolid %b\n" % name
    mesh = load(tmp_path, mark + (text * 2).replace(b"\n", ending))
    assert mesh.face_count == 2
    assert mesh.corners[1].ravel().tolist() == list(TRIANGLE)


@pytest.mark.parametrize(
    ("head", "color", "expected"),
    [
        (b"", 0, [0.7, 0.7, 0.7]),
        (b"", 1 << 15 | 31 << 10, [1, 0, 0]),
        (b"x COLOR=\xff\x00\x33\xff", 31 << 10, [0, 0, 1]),
        (b"x COLOR=\xff\x00\x33\xff", 1 << 15, [1, 0, 0.2]),
    ],
)
def test_colours(tmp_path, head, color, expected):
    np.testing.assert_allclose(
        load(tmp_path, binary(head=head, color=color)).colors[0, 0, :3], expected, atol=1e-6
    )


def test_a_cut_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="promises 9 triangles and holds 1"):
        load(tmp_path, binary(promised=9))


FACET = b"facet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\n"


@pytest.mark.parametrize("head", [b"", b"; a comment\n", b"SOLID\n"])
def test_text_that_begins_otherwise(tmp_path, head):
    assert load(tmp_path, head + FACET + b"endsolid\n").losses == ()


def test_text_without_its_end_is_noted(tmp_path):
    mesh = load(tmp_path, b"solid a\n" + FACET + FACET[:30])
    assert mesh.face_count == 1
    assert [loss.text for loss in mesh.losses] == ["it is cut, or lacks its last line (endsolid)"]
