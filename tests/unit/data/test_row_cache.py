"""A bounded cache of rows from an address: what is read again, and how much lies on disk."""

from pathlib import Path

import fsspec
import pytest

pytest.importorskip("pyarrow")

from diffsplat.data import object_dataset
from diffsplat.data.object_dataset import ObjectDataset
from support.object_shards import write_shards


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_as_many_shards_as_fit_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_shards(tmp_path / "shards", 3, 4)
    fsspec.filesystem("memory").put(str(folder) + "/", f"memory:/{tmp_path}/", recursive=True)
    size = max(path.stat().st_size for path in folder.glob("*.parquet"))
    far = ObjectDataset(f"memory:/{tmp_path}", split="all", cache_gb=(kept + 0.5) * size / 1e9)
    near = ObjectDataset(folder, split="all")
    read: list[str] = []
    read_images = object_dataset.read_images

    def counted(shard, place):
        read.append(shard.name)
        return read_images(shard, place)

    monkeypatch.setattr(object_dataset, "read_images", counted)
    first = [far.canonical(index).image for index in range(12)]
    assert len(read) == 12
    read.clear()
    again = [far.canonical(index).image for index in range(12)]
    assert len(read) == 12 - 4 * kept
    assert len(set(read)) == 3 - kept, "whole shards are kept"
    for index, images in enumerate(zip(first, again, strict=True)):
        assert all(bool((image == near.canonical(index).image).all()) for image in images)
    on_disk = sum(path.stat().st_size for path in (tmp_path / "cache" / "diffsplat").rglob("rows/*/*"))
    assert on_disk <= kept * size
    assert (on_disk > 0) == (kept > 0)


def test_rows_on_disk_are_not_kept_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ObjectDataset(write_shards(tmp_path / "shards", 1, 2), split="all", cache_gb=1).canonical(0)
    assert not (tmp_path / "cache").exists()


def test_damaged_rows_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_shards(tmp_path / "shards", 1, 2)
    fsspec.filesystem("memory").put(str(folder) + "/", f"memory:/{tmp_path}/", recursive=True)
    far = ObjectDataset(f"memory:/{tmp_path}", split="all", cache_gb=1)
    whole = far.canonical(0).image
    (row,) = (tmp_path / "cache").rglob("rows/*/0.arrow")
    row.write_bytes(row.read_bytes()[:50])
    assert bool((far.canonical(0).image == whole).all())
