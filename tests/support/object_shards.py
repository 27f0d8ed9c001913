"""Small shards of made-up objects, for tests of reading."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from diffsplat.data import shard_schema
from diffsplat.geometry import ring_cameras

SIZE = 8
_CAMERAS = ring_cameras(size=SIZE)
_NOISE = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 4), dtype=np.uint8)


def object_cells(**changes: Any) -> dict[str, Any]:
    """An object seen in one ring of four, with other cells where that is wanted."""
    info = shard_schema.ObjectInfo(
        object_id="a/b",
        name="b",
        noun="chair",
        captions=("a chair",),
        source="a",
        license="CC0",
        creator="me",
    )
    cells = {
        **info.columns(),
        "size": SIZE,
        "azimuths": [0.0, 90.0, 180.0, 270.0],
        "elevations": [10.0] * 4,
        "ring": [0] * 4,
        "camera_to_world": _CAMERAS.camera_to_world.flatten().tolist(),
        "intrinsics": _CAMERAS.intrinsics.flatten().tolist(),
        "rgba": [shard_schema.encode_image(_NOISE)] * 4,
        "normal": [shard_schema.encode_image(_NOISE[..., :3].copy())] * 4,
        "depth": [shard_schema.encode_depth(np.full((SIZE, SIZE), 1.4))] * 4,
    }
    return cells | changes


def numbered_cells(number: int, **changes: Any) -> dict[str, Any]:
    """An object whose identity, caption and image tell its number; one in ten is held out."""
    image = _NOISE.copy()
    image[0, 0] = (*number.to_bytes(3, "big"), 255)
    own = {
        "object_id": f"gobjaverse/0/{number}",
        "name": f"object {number}",
        "noun": ("chair", "frog", "table")[number % 3],
        "captions": [f"object number {number}"],
        "split": "test" if number % 10 == 9 else "train",
        "rgba": [shard_schema.encode_image(image)] * 4,
    }
    return object_cells(**own) | changes


def write_shards(folder: Path, shards: int, rows: int) -> Path:
    """A folder of shards of numbered objects."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        cells = [numbered_cells(shard * rows + place) for place in range(rows)]
        write_rows(folder, shard, cells)
    return folder


def write_rows(folder: Path, shard: int, cells: list[dict[str, Any]]) -> Path:
    """One shard of objects."""
    path = folder / f"objects-{shard:05d}.parquet"
    table = pa.Table.from_pylist(cells, schema=shard_schema.table_schema())
    shard_schema.write_shard(table, path, force=True)
    return path
