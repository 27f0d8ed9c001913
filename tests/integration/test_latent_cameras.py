"""Latents of objects that were seen from other elevations than the text model's."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffsplat.core import DEFAULT_RADIUS
from diffsplat.data.mesh_ingestion import RenderOptions, ingest
from diffsplat.data.mesh_sources import folder_objects
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.geometry import ring_cameras
from diffsplat.models import ComponentAutoencoder, GSRecon
from diffsplat.training.latent_batches import LatentSourceConfig
from diffsplat.training.latent_cache import latent_table
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.view_batches import ViewSourceConfig
from diffsplat.training.view_encoder import ViewEncoder

trimesh = pytest.importorskip("trimesh")
SIZE = 32


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> StageFolders:
    """Objects in the views of G-Objaverse, each ring at an elevation of its own, and untrained networks."""
    root = tmp_path_factory.mktemp("elevations")
    (root / "meshes").mkdir()
    for name in ("crate", "box", "chest"):
        trimesh.creation.box(extents=(1.0, 0.6, 0.7)).export(root / "meshes" / f"{name}.ply")
    options = RenderOptions(size=SIZE, supersampling=1, processes=1, views="gobjaverse")
    ingest(folder_objects(root / "meshes"), root / "data", options)
    torch.manual_seed(0)
    # Of random weights only the known geometry is left, which "residual" starts from.
    reconstructor = GSRecon(
        dim=32, blocks=1, heads=1, patch=8, parametrization="residual", pixel_grid="center"
    )
    reconstructor.save_pretrained(root / "reconstructor")
    autoencoder = ComponentAutoencoder(image_size=SIZE, patch=8, latent_channels=16)
    autoencoder.save_pretrained(root / "autoencoder")
    data = (root / "data",)
    return StageFolders(
        data, root / "run", reconstructor=root / "reconstructor", autoencoder=root / "autoencoder"
    )


def test_cached_latents_have_the_cameras_of_their_views(folders: StageFolders) -> None:
    dataset = ObjectDataset(folders.data, split="train")
    cameras = latent_table(folders, dataset).cameras
    for number, row in enumerate(dataset.rows):
        elevation = torch.tensor(row.elevations[row.ring_views(0)[0]])
        expected = DEFAULT_RADIUS * torch.sin(torch.deg2rad(elevation))
        torch.testing.assert_close(cameras[number].centers[:, 1], expected.expand(4), atol=1e-4, rtol=0)
    level = ring_cameras(10.0, size=SIZE).centers[0, 1]
    assert float((cameras.centers[..., 1] - level).abs().max()) > 0.05


def test_online_latents_are_those_of_the_same_views_in_the_cache(folders: StageFolders) -> None:
    encoder, dataset = ViewEncoder.open(folders), ObjectDataset(folders.data, split="train")
    table = latent_table(folders, dataset)
    for number in range(len(dataset)):
        views = dataset.canonical(number)
        torch.testing.assert_close(encoder(views)[0], table.latents[number].float(), atol=5e-3, rtol=1e-2)
        found, expected = views.cameras.camera_to_world[0], table.cameras.camera_to_world[number]
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_a_batch_of_latents_comes_with_the_cameras_of_its_objects(folders: StageFolders) -> None:
    dataset = ObjectDataset(folders.data, split="train")
    table = latent_table(folders, dataset)
    batch = LatentSourceConfig(batch_size=len(dataset)).build(folders).batch(0)
    for latents, pose in zip(batch.latents, batch.cameras.camera_to_world, strict=True):
        same = [torch.equal(latents, other.float()) for other in table.latents]
        assert any(
            equal and torch.equal(pose, other)
            for equal, other in zip(same, table.cameras.camera_to_world, strict=True)
        )


def test_a_new_ring_is_drawn_every_epoch(folders: StageFolders) -> None:
    source = ViewSourceConfig(batch_size=2, novel_views=0).build(folders)
    seen = {round(float(source.batch(step).cameras.centers[0, 0, 1]), 3) for step in range(20)}
    assert len(seen) >= 3


def test_networks_of_other_pixel_grids_are_refused(folders: StageFolders, tmp_path: Path) -> None:
    GSRecon(dim=32, blocks=1, heads=1, patch=8, pixel_grid="legacy").save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="pixel grid is 'center', expected the 'legacy' of the reconstructor"
    ):
        ViewEncoder.open(replace(folders, reconstructor=tmp_path))
