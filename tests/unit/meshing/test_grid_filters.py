"""What can be seen of a voxel grid from outside."""

import numpy as np

from diffsplat.meshing.grid_filters import seen_from_outside


def test_a_hollow_behind_a_bent_tunnel_cannot_be_seen():
    free = np.ones((24, 24, 24), bool)
    free[4:20, 4:20, 4:20] = False
    hollow = np.zeros_like(free)
    hollow[8:15, 8:15, 8:15] = True
    free |= hollow
    free[15:18, 11, 11] = free[17, 11:20, 11] = True
    outside = np.ones_like(free)
    outside[4:20, 4:20, 4:20] = False
    seen = seen_from_outside(free)
    assert not seen[hollow].any()
    assert seen[outside].all()
    assert not seen[~free].any()


def test_a_straight_hole_shows_what_lies_behind_it():
    free = np.ones((12, 12, 12), bool)
    free[3:9, 3:9, 3:9] = False
    free[4:8, 4:8, 4:8] = True
    free[5, 6, 8] = True
    seen = seen_from_outside(free)
    expected = np.zeros_like(free)
    expected[5, 6, 4:8] = True  # along the axis
    for step in range(3):  # along the diagonals, as far as the hollow reaches
        for x, y in ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)):
            place = 5 + x * (step + 1), 6 + y * (step + 1), 7 - step
            if min(place) >= 4 and max(place) < 8:
                expected[place] = True
    np.testing.assert_array_equal(seen[4:8, 4:8, 4:8], expected[4:8, 4:8, 4:8])
