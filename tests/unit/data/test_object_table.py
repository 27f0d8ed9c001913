"""Tables of objects: what is read when, which rows are selected, and files that are out of date."""

import os
import pickle
import tracemalloc
from collections import Counter
from pathlib import Path

import fsspec
import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa

from diffsplat.data import object_table, shard_index
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.data.object_table import ObjectTable
from diffsplat.data.shard_folders import ShardFolder
from diffsplat.errors import DiffSplatError, InvalidInputError, MissingFileError
from support.object_shards import numbered_cells, write_rows, write_shards


class Counts(Counter[str]):
    """How many shards are opened and rows are made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        opened, of_cells = ShardFolder.open, object_table.ObjectRow.of_cells

        def counted_open(folder: ShardFolder, name: str):
            self["shards"] += 1
            return opened(folder, name)

        def counted_row(cells, shard):
            self["rows"] += 1
            return of_cells(cells, shard)

        monkeypatch.setattr(ShardFolder, "open", counted_open)
        monkeypatch.setattr(object_table.ObjectRow, "of_cells", counted_row)


@pytest.mark.parametrize("shards", [2, 30])
def test_a_start_reads_no_row_and_an_object_one_row_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: int
):
    folder = write_shards(tmp_path, shards, 10)
    counts = Counts(monkeypatch)
    ObjectTable([folder])
    assert counts == {"shards": shards}, "the first start opens every shard once and makes no row"
    counts.clear()
    dataset = ObjectDataset(folder, split="train", variants=False, ids=[f"0/{n}" for n in range(20)])
    dataset.rows.require_geometry()
    assert dataset.noun_counts() == {"chair": 6, "frog": 6, "table": 6}
    assert len(dataset) == 18
    assert counts == {}, "later starts open none"
    dataset.sample(3, seed=0)
    assert counts == {"shards": 1, "rows": 1}


def test_the_memory_of_a_start_does_not_grow_with_the_rows(tmp_path: Path):
    """Arrow allocates nothing for rows that are mapped; Python no more than the numbers of the selected rows."""

    def cost(rows: int) -> tuple[int, int]:
        folder = write_shards(tmp_path / str(rows), 1, rows)
        ObjectTable([folder])
        before = pa.total_allocated_bytes()
        tracemalloc.start()
        table = ObjectTable([folder])
        held = pa.total_allocated_bytes() - before
        python, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(table) == rows
        return held, python

    few, many = cost(20), cost(400)
    assert many[0] - few[0] < 400, "bytes of Arrow"
    assert many[1] - few[1] < 20_000, "bytes of Python; the rows themselves would be 400 x 3 kB"


def test_rows_and_columns_of_selections(tmp_path: Path):
    folders = [write_shards(tmp_path / name, 3, 10) for name in ("one", "two")]
    table = ObjectTable(folders)
    numbers = [int(row.object_id.split("/")[-1]) for row in table]
    assert numbers == [*range(30), *range(30)]
    assert [row.shard.folder.address for row in (table[29], table[30])] == [str(f) for f in folders]
    held_out = table.select(table.where("split", "test"))
    assert [row.object_id for row in held_out] == [f"gobjaverse/0/{n}" for n in (9, 19, 29)] * 2
    assert held_out.column("object_id").to_pylist() == [row.object_id for row in held_out]
    assert [row.place for row in held_out[1:3]] == [9, 9]
    assert held_out[-1] is not held_out[5]
    assert held_out[-1].object_id == "gobjaverse/0/29"
    with pytest.raises(IndexError):
        held_out[6]
    with pytest.raises(ValueError, match="ascending"):
        table[::-1]


def test_another_process_opens_the_files_again(tmp_path: Path):
    table = ObjectTable([write_shards(tmp_path, 2, 5)])[3:9]
    data = pickle.dumps(table)
    assert len(data) < 1000
    assert [row.object_id for row in pickle.loads(data)] == [row.object_id for row in table]


def test_views_between_elevations(tmp_path: Path):
    cells = [numbered_cells(n, elevations=[10.0 * n, -5.0, 10.0 * n, 85.0]) for n in range(5)]
    write_rows(tmp_path, 0, cells)
    table = ObjectTable([tmp_path])
    assert table.seen_between(10, 30).tolist() == [False, False, True, True, False]
    assert table[2:].seen_between(10, 30).tolist() == [True, True, False]


def test_changed_shards_are_read_again(tmp_path: Path):
    write_shards(tmp_path, 2, 3)
    assert len(ObjectTable([tmp_path])) == 6
    write_rows(tmp_path, 2, [numbered_cells(6)])
    assert len(ObjectTable([tmp_path])) == 7
    write_rows(tmp_path, 2, [numbered_cells(6, noun="stool")])  # as many bytes
    assert ObjectTable([tmp_path])[6].noun == "stool"
    (tmp_path / "objects-00000.parquet").unlink()
    assert ObjectTable([tmp_path])[0].object_id == "gobjaverse/0/3"


@pytest.mark.parametrize("damage", [b"", b"ARROW1\0\0 but no more", None])
def test_a_damaged_table_is_made_again(tmp_path: Path, damage: bytes | None):
    write_shards(tmp_path, 1, 3)
    ObjectTable([tmp_path])
    path = tmp_path / shard_index.TABLE_FILE
    path.write_bytes(path.read_bytes()[:-200] if damage is None else damage)
    assert len(ObjectTable([tmp_path])) == 3


def test_a_table_that_names_other_files_is_not_believed(tmp_path: Path):
    """A table of unknown origin: the numbers of its shards are checked like the rest of a row."""
    write_shards(tmp_path, 1, 3)
    ObjectTable([tmp_path])
    path = tmp_path / shard_index.TABLE_FILE
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    names = table.schema.names
    forged = table.set_column(
        names.index("shard"), table.schema.field("shard"), pa.array([0, 7, 0], pa.int32())
    )
    forged = forged.set_column(
        names.index("place"), table.schema.field("place"), pa.array([0, 1, 9], pa.int32())
    )
    path.unlink()
    with pa.ipc.new_file(str(path), forged.schema) as file:
        file.write_table(forged)
    dataset = ObjectDataset(tmp_path, split="all")
    assert dataset.sample(0, 0).prompt == ("object number 0",)
    for index in (1, 2):
        with pytest.raises(InvalidInputError, match="row"):
            dataset.sample(index, 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"noun": None}, "its noun has a missing value"),
        ({"captions": []}, "it has no caption"),
        ({"intrinsics": [1.0] * 3}, "its intrinsics has 3 numbers, expected 16 of 4 views"),
        ({"camera_to_world": [0.0] * 64}, "off orthonormal"),
        ({"size": -3}, "expected a positive whole number"),
    ],
)
def test_wrong_cells_are_one_sentence_with_file_and_row_at_the_first_start(
    tmp_path: Path, changes: dict, words: str
):
    write_shards(tmp_path, 2, 6)
    path = write_rows(tmp_path, 2, [numbered_cells(0), numbered_cells(1) | changes, numbered_cells(2)])
    with pytest.raises(InvalidInputError, match=words) as caught:
        ObjectTable([tmp_path])
    assert f"{str(path)!r}, row 1," in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_that_cannot_be_written_to_have_their_table_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = write_shards(tmp_path / "shards", 2, 3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder)
    counts = Counts(monkeypatch)
    assert len(ObjectTable([folder])) == len(ObjectTable([folder])) == 6
    assert counts == {"shards": 2}
    assert not (folder / shard_index.TABLE_FILE).exists()


def test_shards_at_an_address_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The same objects as from disk; the table that lies next to the shards saves reading them all."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_shards(tmp_path / "shards", 3, 4)
    memory = fsspec.filesystem("memory")
    memory.put(str(folder) + "/", f"memory:/{tmp_path}/plain/", recursive=True)
    local, remote = ObjectDataset(folder), ObjectDataset(f"memory:/{tmp_path}/plain")
    for index in range(len(local)):
        one, other = local.sample(index, 1), remote.sample(index, 1)
        assert one.prompt == other.prompt
        assert bool((one.image == other.image).all())
    ObjectTable([folder])
    memory.put(str(folder) + "/", f"memory:/{tmp_path}/with/", recursive=True)
    counts = Counts(monkeypatch)
    assert len(ObjectDataset(f"memory:/{tmp_path}/with")) == len(local)
    assert counts == {}


def test_addresses_that_cannot_be_opened_get_one_sentence(tmp_path: Path):
    for address, words in (
        (f"memory:/{tmp_path}/nothing", "expected the output of diffsplat data"),
        ("nowhere://bucket/objects", "cannot open 'nowhere://bucket/objects'"),
    ):
        with pytest.raises(DiffSplatError, match=words):
            ObjectTable([address])
    with pytest.raises(MissingFileError):
        ObjectTable([tmp_path])
