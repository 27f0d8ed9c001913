"""Splat grids on disk."""

from pathlib import Path

import pytest
import torch

import diffsplat.training.grid_cache as grids_module
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.models import GSRecon
from diffsplat.training.grid_cache import grid_table


@pytest.fixture(scope="module")
def reconstructor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = GSRecon(dim=48, blocks=1, heads=4)
    folder = tmp_path_factory.mktemp("reconstructor")
    network.save_pretrained(folder)
    return folder


def test_table_holds_what_the_reconstructor_makes_of_the_front_ring(
    data: Path, reconstructor: Path, tmp_path: Path
) -> None:
    dataset = ObjectDataset(data)
    table = grid_table(reconstructor, dataset, tmp_path)
    network = GSRecon.from_pretrained(reconstructor)
    assert len(table) == len(dataset) == 3
    for index, row in enumerate(dataset.rows):
        with torch.no_grad():
            expected = network(dataset.load_views(index, row.ring_views(0))).values
        torch.testing.assert_close(table.read([index]).values, expected, atol=1e-3, rtol=0)
    whole = table.read(range(3)).values
    assert torch.equal(torch.cat([batch.values for batch in table.batches(2)]), whole)
    assert torch.equal(torch.cat([batch.values for batch in table.spread(2)]), whole[[0, 2]])
    assert torch.equal(torch.cat([batch.values for batch in table.spread(9)]), whole)


def test_interrupted_table_is_continued(
    data: Path, reconstructor: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grids_module, "_SHARD_GRIDS", 2)
    dataset = ObjectDataset(data)
    whole = grid_table(reconstructor, dataset, tmp_path).read(range(3)).values
    first, second = sorted(tmp_path.glob("*/*.npy"))
    second.unlink()
    before = first.stat().st_mtime_ns
    assert torch.equal(grid_table(reconstructor, dataset, tmp_path).read(range(3)).values, whole)
    assert first.stat().st_mtime_ns == before


def test_other_weights_or_images_have_other_grids(data: Path, reconstructor: Path, tmp_path: Path) -> None:
    """Whatever the objects are called: a second folder of meshes may have the same names."""
    dataset = ObjectDataset(data)
    other = tmp_path / "other"
    GSRecon(dim=48, blocks=1, heads=4).save_pretrained(other)
    known = grid_table(reconstructor, dataset, tmp_path / "grids").read([0]).values
    changed = grid_table(other, dataset, tmp_path / "grids").read([0]).values
    assert not torch.equal(known, changed)
    assert len(list((tmp_path / "grids").iterdir())) == 2
    repainted = ObjectDataset(data)
    repainted.pixels_key = lambda index: f"other images/{index}"  # pyright: ignore[reportAttributeAccessIssue]
    grid_table(reconstructor, repainted, tmp_path / "grids")
    assert len(list((tmp_path / "grids").iterdir())) == 3
