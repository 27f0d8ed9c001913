"""Splat grids on disk."""

import itertools
from pathlib import Path

import pytest
import torch

import diffsplat.training.grid_cache as grids_module
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.models import GSRecon
from diffsplat.training.grid_cache import (
    GridSource,
    GridSourceConfig,
    Pick,
    canonical_picks,
    grid_table,
    turned_picks,
)

SIZE = 32


@pytest.fixture(scope="module")
def reconstructor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = GSRecon(dim=48, blocks=1, heads=4)
    folder = tmp_path_factory.mktemp("reconstructor")
    network.save_pretrained(folder)
    return folder


def test_table_holds_what_the_reconstructor_says(data: Path, reconstructor: Path, tmp_path: Path) -> None:
    dataset = ObjectDataset(data)
    picks = [*canonical_picks(dataset), *turned_picks(dataset, seed=3)]
    table = grid_table(reconstructor, dataset, picks, tmp_path)
    network = GSRecon.from_pretrained(reconstructor)
    assert len(table) == len(picks) == 6
    for place, pick in enumerate(picks):
        with torch.no_grad():
            expected = network(dataset.load_views(pick.row, pick.views)).values
        torch.testing.assert_close(table.read([place]).values, expected, atol=1e-3, rtol=0)
    together = torch.cat([part.values for part in table.batches(4)])
    assert torch.equal(together, table.read(range(6)).values)


def test_interrupted_table_is_continued(
    data: Path, reconstructor: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grids_module, "_SHARD_GRIDS", 2)
    dataset = ObjectDataset(data)
    picks = canonical_picks(dataset)
    whole = grid_table(reconstructor, dataset, picks, tmp_path).read(range(3)).values
    first, second = sorted(tmp_path.glob("*/*.npy"))
    second.unlink()
    before = first.stat().st_mtime_ns
    assert torch.equal(grid_table(reconstructor, dataset, picks, tmp_path).read(range(3)).values, whole)
    assert first.stat().st_mtime_ns == before


def test_other_weights_or_pictures_have_other_grids(data: Path, reconstructor: Path, tmp_path: Path) -> None:
    """Whatever the objects are called: a second folder of meshes may have the same names."""
    dataset = ObjectDataset(data)
    picks = [Pick(0, tuple(dataset.rows[0].ring_views(0)))]
    other = tmp_path / "other"
    GSRecon(dim=48, blocks=1, heads=4).save_pretrained(other)
    known = grid_table(reconstructor, dataset, picks, tmp_path / "grids").read([0]).values
    changed = grid_table(other, dataset, picks, tmp_path / "grids").read([0]).values
    assert not torch.equal(known, changed)
    assert len(list((tmp_path / "grids").iterdir())) == 2
    repainted = ObjectDataset(data)
    repainted.pixels_key = lambda index: f"other pictures/{index}"  # pyright: ignore[reportAttributeAccessIssue]
    grid_table(reconstructor, repainted, picks, tmp_path / "grids")
    assert len(list((tmp_path / "grids").iterdir())) == 3


def test_turned_picks_are_whole_rings_of_originals(data: Path) -> None:
    dataset = ObjectDataset(data)
    picks = turned_picks(dataset, seed=0)
    assert [pick.row for pick in picks] == [i for i, row in enumerate(dataset.rows) if not row.variant]
    for pick in picks:
        row = dataset.rows[pick.row]
        turns = [row.azimuths[view] for view in pick.views]
        steps = {round((b - a) % 360.0) for a, b in itertools.pairwise([*turns, turns[0]])}
        assert steps == {90}
        assert len({row.elevations[view] for view in pick.views}) == 1


def test_batches_are_a_function_of_their_number(data: Path, reconstructor: Path, tmp_path: Path) -> None:
    config = GridSourceConfig(
        (data,), reconstructor, tmp_path, batch_size=4, novel_views=2, rendered_objects=2
    )
    source = GridSource(config)
    batch, again = source.batch(5), GridSource(config).batch(5)
    assert torch.equal(batch.grids.values, again.grids.values)
    assert batch.views is not None
    assert again.views is not None
    assert batch.views.image.shape == (2, 6, 3, SIZE, SIZE)
    assert torch.equal(batch.views.image, again.views.image)
    network = GSRecon.from_pretrained(reconstructor)
    with torch.no_grad():
        expected = network(batch.views.take(slice(0, 4))).values
    torch.testing.assert_close(batch.grids.values[:2], expected, atol=1e-3, rtol=0)
