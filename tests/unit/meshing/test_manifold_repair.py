"""Closed meshes whose edges have more than two triangles, cut apart."""

import numpy as np
import pytest

from diffsplat.meshing.manifold_repair import split_edges

CORNERS = np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0], [0.5, 0.5, 0.5], [-1, 0, 0], [-0.5, -0.5, 0.5]], float)


def tetrahedron(a: int, b: int, c: int, d: int) -> list[tuple[int, ...]]:
    faces = [(a, b, c), (a, d, b), (b, d, c), (a, c, d)]
    inwards = np.linalg.det(CORNERS[[b, c, d]] - CORNERS[a]) > 0
    return [face[::-1] for face in faces] if inwards else faces


def require_closed(positions: np.ndarray, faces: np.ndarray) -> None:
    """Every edge has one triangle in each direction, also once vertices at one place in a file are joined."""
    _, joined = np.unique(positions.astype(np.float32), axis=0, return_inverse=True)
    for corners in (faces, joined.ravel()[faces]):
        edges = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
        assert np.unique(edges, axis=0, return_counts=True)[1].max() == 1
        assert (np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)[1] == 2).all()


def volume(positions: np.ndarray, faces: np.ndarray) -> float:
    return float(np.linalg.det(positions[faces]).sum() / 6)


@pytest.mark.parametrize("second", [(0, 1, 4, 5), (0, 2, 4, 5), (0, 4, 5, 4)])
def test_tetrahedra_that_touch_are_parted(second: tuple[int, int, int, int]) -> None:
    """At an edge and at no more than a vertex; the last one has no volume and is left out."""
    faces = np.array(tetrahedron(0, 1, 2, 3) + tetrahedron(*second))
    positions, parted = split_edges(CORNERS, faces)
    require_closed(positions, parted)
    assert volume(positions, parted) == pytest.approx(volume(CORNERS, faces), rel=0.01)


def test_vertices_at_one_place_move_apart() -> None:
    """Two tetrahedra share no vertex, but three of their places: a file would make one of each two."""
    corners = np.concatenate([CORNERS, CORNERS[[0, 1, 2]]])
    places = np.array([6, 7, 8, 3, 4, 5])
    faces = np.array(
        [*tetrahedron(0, 1, 2, 3), *(tuple(places[list(face)]) for face in tetrahedron(0, 1, 2, 5))]
    )
    positions, parted = split_edges(corners, faces)
    require_closed(positions, parted)
    assert len(parted) == 8


def test_triangles_back_to_back_are_left_out() -> None:
    faces = np.array([*tetrahedron(0, 1, 2, 3), (0, 1, 4), (1, 0, 4)])
    positions, left = split_edges(CORNERS, faces)
    require_closed(positions, left)
    assert len(left) == 4


def test_collapsed_noise_is_closed() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    measure, simplification = (
        pytest.importorskip("skimage.measure"),
        pytest.importorskip("fast_simplification"),
    )
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(40, 40, 40)), 1)
    found, triangles, _, _ = measure.marching_cubes(
        np.pad(noise, 1, constant_values=1).astype(np.float32), 0.0
    )
    positions, faces = simplification.simplify(
        found.astype(np.float32), triangles.astype(np.int32), target_count=len(triangles) // 8
    )
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    assert np.unique(edges, axis=0, return_counts=True)[1].max() > 2  # else nothing would be tested
    closed, parted = split_edges(positions, faces)
    require_closed(closed, parted)
    assert volume(closed, parted) == pytest.approx(volume(positions.astype(float), faces), rel=0.01)
