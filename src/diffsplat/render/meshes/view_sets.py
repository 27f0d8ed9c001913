"""Named sets of views around an object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from diffsplat.core import Cameras
from diffsplat.errors import InvalidInputError
from diffsplat.geometry import orbit_cameras

ViewSetName = Literal["mini", "gobjaverse", "orbits", "variant"]
FREE_VIEW = -1


@dataclass(frozen=True)
class ViewSet:
    """Views in degrees; ``ring`` numbers the groups of four even azimuths at one elevation, -1 for none."""

    azimuths: tuple[float, ...]
    elevations: tuple[float, ...]
    ring: tuple[int, ...]

    def cameras(self) -> Cameras:
        """``[V]`` cameras on the default orbit, of one pixel."""
        return orbit_cameras(self.azimuths, self.elevations, width=1, height=1)

    def subset(self, indices: list[int]) -> ViewSet:
        """The views at ``indices``."""
        return ViewSet(
            tuple(self.azimuths[i] for i in indices),
            tuple(self.elevations[i] for i in indices),
            tuple(self.ring[i] for i in indices),
        )


def view_set(name: ViewSetName, seed: int) -> ViewSet:
    """A named set; what is random in it follows ``seed``.

    ``mini``: five rings (the first exactly at azimuths 0, 90, 180, 270 and elevation 10) and four free views.
    ``variant``: the first two rings and two free views of ``mini``.
    ``gobjaverse``: 24 views every 15 degrees at one elevation in 5..30, 12 every 30 degrees at one in -5..5,
    top, bottom (Qiu et al., RichDreamer, 2024, section on G-Objaverse; its two repeated views are left out).
    ``orbits``: eight rings at -10..60 degrees and eight free views.

    Raises:
        ValueError: for another name.
    """
    random = np.random.default_rng(seed)
    if name == "mini":
        return _rings([10, 10, 20, 0, 30], random, free=4)
    if name == "variant":
        full = _rings([10, 10, 20, 0, 30], random, free=4)
        return full.subset([*range(8), 20, 21])
    if name == "orbits":
        return _rings([10, *random.uniform(-10, 60, 7).tolist()], random, free=8)
    if name == "gobjaverse":
        return _gobjaverse(random)
    raise InvalidInputError(f"unknown view set {name!r}, expected mini, gobjaverse, orbits or variant")


def _rings(elevations: list[float], random: np.random.Generator, *, free: int) -> ViewSet:
    azimuths, heights, ring = [], [], []
    for index, elevation in enumerate(elevations):
        start = 0.0 if index == 0 else float(random.uniform(0, 360))
        for quarter in range(4):
            azimuths.append((start + 90.0 * quarter) % 360.0)
            heights.append(float(elevation))
            ring.append(index)
    for _ in range(free):
        azimuths.append(float(random.uniform(0, 360)))
        heights.append(float(random.uniform(-20, 60)))
        ring.append(FREE_VIEW)
    return ViewSet(tuple(azimuths), tuple(heights), tuple(ring))


def _gobjaverse(random: np.random.Generator) -> ViewSet:
    upper, level = float(random.uniform(5, 30)), float(random.uniform(-5, 5))
    azimuths = [15.0 * i for i in range(24)] + [30.0 * i for i in range(12)] + [0.0, 0.0]
    elevations = [upper] * 24 + [level] * 12 + [90.0, -90.0]
    ring = [i % 6 for i in range(24)] + [6 + i % 3 for i in range(12)] + [FREE_VIEW, FREE_VIEW]
    return ViewSet(tuple(azimuths), tuple(elevations), tuple(ring))
