"""Damaged shards give one sentence: wrong types and lengths, broken images, and bytes changed at random."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
from pyarrow import parquet

from diffsplat.data import shard_schema
from diffsplat.data.object_dataset import ObjectDataset, Storage
from diffsplat.errors import DiffSplatError, InvalidInputError
from diffsplat.geometry import ring_cameras
from support.damaged_files import damaged

SIZE = 8


def row() -> dict[str, Any]:
    """An object seen in one ring of four."""
    cameras = ring_cameras(size=SIZE)
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 4), dtype=np.uint8)
    info = shard_schema.ObjectInfo(
        object_id="a/b",
        name="b",
        noun="chair",
        captions=("a chair",),
        source="a",
        license="CC0",
        creator="me",
    )
    return {
        **info.columns(),
        "size": SIZE,
        "azimuths": [0.0, 90.0, 180.0, 270.0],
        "elevations": [10.0] * 4,
        "ring": [0] * 4,
        "camera_to_world": cameras.camera_to_world.flatten().tolist(),
        "intrinsics": cameras.intrinsics.flatten().tolist(),
        "rgba": [shard_schema.encode_image(noise)] * 4,
        "normal": [shard_schema.encode_image(noise[..., :3].copy())] * 4,
        "depth": [shard_schema.encode_depth(np.full((SIZE, SIZE), 1.4))] * 4,
    }


def write(folder: Path, values: dict[str, Any], schema: pa.Schema | None = None) -> Path:
    path = folder / "objects-0.parquet"
    table = pa.Table.from_pylist([values], schema=schema or shard_schema.table_schema())
    parquet.write_table(table, path, compression="none")
    return path


def read(folder: Path, storage: Storage) -> int:
    dataset = ObjectDataset(folder, split="all", storage=storage)
    for index in range(len(dataset)):
        dataset.canonical(index)
    return len(dataset)


def of_type(name: str, kind: pa.DataType) -> pa.Schema:
    schema = shard_schema.table_schema()
    return schema.set(schema.get_field_index(name), pa.field(name, kind))


@pytest.mark.parametrize("storage", ["encoded", "decoded"])
def test_a_whole_shard_is_read(tmp_path: Path, storage: Storage):
    write(tmp_path, row())
    assert read(tmp_path, storage) == 1


def test_a_shard_without_a_column_of_later_versions_is_read(tmp_path: Path):
    schema = shard_schema.table_schema()
    write(tmp_path, row(), schema.remove(schema.get_field_index("license_basis")))
    assert read(tmp_path, "encoded") == 1


SMALL = shard_schema.encode_image(np.zeros((4, 4, 4), np.uint8))
DAMAGES: dict[str, tuple[dict[str, Any], str]] = {
    "few azimuths": ({"azimuths": [0.0]}, "its azimuths has 1 numbers, expected 4 of 4 views"),
    "few poses": ({"camera_to_world": [0.0] * 5}, "camera_to_world has 5 numbers, expected 64"),
    "no pose": ({"camera_to_world": [0.0] * 64}, "row 0, is not a readable shard"),
    "null": ({"noun": None}, "its noun has a missing value"),
    "null in a list": ({"elevations": [10.0, None, 10.0, 10.0]}, "its elevations has a missing value"),
    "no caption": ({"captions": []}, "no caption"),
    "no size": ({"size": 0}, "is not a readable shard"),
    "small image": ({"rgba": [SMALL] * 4}, "its rgba has 4 x 4 pixels RGBA, expected 8 x 8"),
    "wrong kind of image": ({"depth": row()["rgba"]}, "its depth has 8 x 8 pixels RGBA"),
    "no image": ({"normal": [b"no image"] * 4}, "cannot identify image file"),
    "few images": ({"rgba": []}, "is not a readable shard"),
}


@pytest.mark.parametrize("storage", ["encoded", "decoded"])
@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_rows_get_one_sentence(tmp_path: Path, name: str, storage: Storage):
    changes, words = DAMAGES[name]
    path = write(tmp_path, row() | changes)
    with pytest.raises(InvalidInputError, match=words) as caught:
        read(tmp_path, storage)
    assert str(path) in str(caught.value)


def test_columns_of_other_types_get_one_sentence(tmp_path: Path):
    write(tmp_path, row() | {"captions": 3.5}, of_type("captions", pa.float32()))
    with pytest.raises(InvalidInputError, match="is not a readable shard"):
        read(tmp_path, "encoded")


def test_the_folder_of_decoded_pixels_stays_below_the_shard(tmp_path: Path):
    path = write(tmp_path, row())
    table = parquet.read_table(path).replace_schema_metadata({b"pixels": b"../../elsewhere"})
    parquet.write_table(table, path, compression="none")
    read(tmp_path, "decoded")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["decoded", "objects-0.parquet"]


@pytest.mark.parametrize("rounds", [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_shards_damaged_at_random_are_read_or_refused(tmp_path: Path, rounds: int):
    path = write(tmp_path, row())
    whole, source = path.read_bytes(), random.Random(rounds)
    good = refused = 0
    for _ in range(rounds):
        path.write_bytes(damaged(whole, source))
        try:
            good += read(tmp_path, "encoded")
        except DiffSplatError:
            refused += 1
    assert good
    assert refused
