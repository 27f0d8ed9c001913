"""One rendered object as a row of a shard, without its images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from diffsplat.core import Cameras
from diffsplat.data.shard_folders import Shard
from diffsplat.data.shard_schema import ObjectInfo, Split


@dataclass(frozen=True, kw_only=True)
class ObjectRow(ObjectInfo):
    """One object in one colour, without its pixels.

    Args:
        split: as in the shards.
        azimuths, elevations: ``[V]`` degrees.
        ring: ``[V]`` number of the ring of four that a view belongs to, -1 for none.
        cameras: ``[V]``, in the world of the mesh.
        shard, place: where the pixels are.
        pixels: fingerprint of the images of the shard.
    """

    split: Split
    azimuths: tuple[float, ...]
    elevations: tuple[float, ...]
    ring: tuple[int, ...]
    cameras: Cameras
    shard: Shard
    place: int
    pixels: str

    @classmethod
    def of_cells(cls, cells: Mapping[str, Any], shard: Shard) -> ObjectRow:
        """A row of an object table.

        Raises:
            ValueError: a cell is missing or has another length than the views ask for.
        """
        cameras = check_row(cells)
        fields: dict[str, Any] = {
            name: tuple(cell) if isinstance(cell, list) else cell for name, cell in cells.items()
        }
        for name in ("size", "camera_to_world", "intrinsics", "geometry", "shard"):
            fields.pop(name)
        return cls(**fields, cameras=cameras, shard=shard)

    def ring_views(self, ring: int) -> list[int]:
        """Indices of the views of a ring, in the order of their azimuths around the object."""
        views = [index for index, number in enumerate(self.ring) if number == ring]
        first = self.azimuths[views[0]] if views else 0.0
        return sorted(views, key=lambda index: round((self.azimuths[index] - first) % 360.0, 3))

    def turned_ring(self, random: np.random.Generator) -> list[int]:
        """Indices of the views of a random ring of four, in the order of their azimuths, from a random one on."""
        ring = self.ring_views(int(random.choice(self.rings)))
        start = int(random.integers(4))
        return ring[start:] + ring[:start]

    @property
    def rings(self) -> list[int]:
        """Numbers of the rings of exactly four views, ascending."""
        counts = Counter(number for number in self.ring if number >= 0)
        return sorted(number for number, count in counts.items() if count == 4)


def check_row(cells: Mapping[str, Any]) -> Cameras:
    """Refuse a row with missing values, lists of different lengths, no caption, or poses that are none.

    Returns:
        The cameras ``[V]``.

    Raises:
        ValueError: names the column.
    """
    for name, cell in cells.items():
        if cell is None or (isinstance(cell, list) and None in cell):
            raise ValueError(f"its {name} has a missing value")
    views = len(cells["ring"])
    counts = {"azimuths": views, "elevations": views, "camera_to_world": 16 * views, "intrinsics": 4 * views}
    for name, count in counts.items():
        if len(cells[name]) != count:
            raise ValueError(f"its {name} has {len(cells[name])} numbers, expected {count} of {views} views")
    if not cells["captions"]:
        raise ValueError("it has no caption")
    return Cameras(
        camera_to_world=torch.tensor(cells["camera_to_world"]).reshape(-1, 4, 4),
        intrinsics=torch.tensor(cells["intrinsics"]).reshape(-1, 4),
        width=cells["size"],
        height=cells["size"],
    )
