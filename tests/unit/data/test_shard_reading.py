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
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.errors import DiffSplatError, InvalidInputError
from support.damaged_files import damaged
from support.object_shards import object_cells


def write(folder: Path, values: dict[str, Any], schema: pa.Schema | None = None) -> Path:
    path = folder / "objects-0.parquet"
    table = pa.Table.from_pylist([values], schema=schema or shard_schema.table_schema())
    parquet.write_table(table, path, compression="none")
    return path


def read(folder: Path) -> int:
    dataset = ObjectDataset(folder, split="all")
    for index in range(len(dataset)):
        dataset.canonical(index)
    return len(dataset)


def of_type(name: str, kind: pa.DataType) -> pa.Schema:
    schema = shard_schema.table_schema()
    return schema.set(schema.get_field_index(name), pa.field(name, kind))


def test_a_whole_shard_is_read(tmp_path: Path):
    write(tmp_path, object_cells())
    assert read(tmp_path) == 1


def test_a_shard_without_a_column_of_later_versions_is_read(tmp_path: Path):
    schema = shard_schema.table_schema()
    write(tmp_path, object_cells(), schema.remove(schema.get_field_index("license_basis")))
    assert read(tmp_path) == 1


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
    "wrong kind of image": ({"depth": object_cells()["rgba"]}, "its depth has 8 x 8 pixels RGBA"),
    "no image": ({"normal": [b"no image"] * 4}, "cannot identify image file"),
    "few images": ({"rgba": []}, "is not a readable shard"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_rows_get_one_sentence(tmp_path: Path, name: str):
    changes, words = DAMAGES[name]
    path = write(tmp_path, object_cells() | changes)
    with pytest.raises(InvalidInputError, match=words) as caught:
        read(tmp_path)
    assert str(path) in str(caught.value)


def test_columns_of_other_types_get_one_sentence(tmp_path: Path):
    write(tmp_path, object_cells() | {"captions": 3.5}, of_type("captions", pa.float32()))
    with pytest.raises(InvalidInputError, match="is not a readable shard"):
        read(tmp_path)


def test_a_shard_names_no_place_outside_its_folder(tmp_path: Path):
    path = write(tmp_path, object_cells())
    table = parquet.read_table(path).replace_schema_metadata({b"pixels": b"../../elsewhere"})
    parquet.write_table(table, path, compression="none")
    read(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        ".rows.arrow.lock",
        "objects-0.parquet",
        "rows.arrow",
    ]


@pytest.mark.parametrize("rounds", [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_shards_damaged_at_random_are_read_or_refused(tmp_path: Path, rounds: int):
    path = write(tmp_path, object_cells())
    whole, source = path.read_bytes(), random.Random(rounds)
    good = refused = 0
    for _ in range(rounds):
        path.write_bytes(damaged(whole, source))
        try:
            good += read(tmp_path)
        except DiffSplatError:
            refused += 1
    assert good
    assert refused
