"""Outlines from edges that are drawn."""

import torch

from diffsplat.images.edge_outline import edge_outline

SIZE = 48


def square(*, gap: int = 0) -> torch.Tensor:
    """``[1, H, W]`` the lines of a square from 10 to 37, with a gap in its upper one."""
    edges = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    edges[0, [10, 37], 10:38] = True
    edges[0, 10:38, [10, 37]] = True
    edges[0, 10, 20 : 20 + gap] = False
    return edges


def filled_square() -> torch.Tensor:
    inside = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    inside[0, 10:38, 10:38] = True
    return inside


def test_what_lines_enclose_is_the_object_and_so_are_the_lines() -> None:
    found = edge_outline(square())
    assert found is not None
    assert torch.equal(found, filled_square())


def test_a_gap_of_two_pixels_is_closed() -> None:
    found = edge_outline(square(gap=2))
    assert found is not None
    assert int((found ^ filled_square()).sum()) <= 4


def test_a_wider_gap_leaves_no_outline() -> None:
    assert edge_outline(square(gap=4)) is None


def test_lines_alone_are_no_outline() -> None:
    line = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    line[0, torch.arange(8, 40), torch.arange(8, 40)] = True
    assert edge_outline(line) is None
    assert edge_outline(torch.zeros_like(line)) is None


def test_edges_within_the_object_change_nothing() -> None:
    edges = square()
    edges[0, 20, 15:30] = True
    edges[0, 15:30, 25] = True
    found = edge_outline(edges)
    assert found is not None
    assert torch.equal(found, filled_square())


def test_a_hole_counts_as_the_object() -> None:
    edges = square()
    edges[0, [18, 29], 18:30] = True
    edges[0, 18:30, [18, 29]] = True
    found = edge_outline(edges)
    assert found is not None
    assert torch.equal(found, filled_square())


def test_an_object_that_the_image_cuts_off_has_no_outline() -> None:
    """Edges that end at the border enclose nothing: what lies between them may be either side."""
    edges = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    edges[0, 20:, [15, 30]] = True
    edges[0, 20, 15:31] = True
    assert edge_outline(edges) is None


def test_edges_all_over_an_image_are_of_no_object() -> None:
    assert edge_outline((torch.arange(SIZE) % 3 == 0).expand(1, SIZE, SIZE)) is None


def test_a_frame_around_a_drawing_is_no_object() -> None:
    edges = square()
    edges[0, [2, SIZE - 3], 2 : SIZE - 2] = True
    edges[0, 2 : SIZE - 2, [2, SIZE - 3]] = True
    assert edge_outline(edges) is None
    assert edge_outline(~square()) is None


def test_an_object_may_stand_on_the_border() -> None:
    edges = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    edges[0, [20, SIZE - 1], 4:44] = True
    edges[0, 20:, [4, 43]] = True
    found = edge_outline(edges)
    assert found is not None
    assert bool(found[0, -1, 4:44].all())


def test_a_mostly_open_drawing_with_one_closed_part_has_no_outline() -> None:
    edges = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    edges[0, [4, 12], 4:13] = True
    edges[0, 4:13, [4, 12]] = True
    edges[0, 24:44, 30] = True
    edges[0, 40, 20:44] = True
    assert edge_outline(edges) is None
