"""Latents that are made once: the same as those of every step, and made anew for other networks and images."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffsplat.core import Views
from diffsplat.data.mesh_ingestion import RenderOptions, ingest
from diffsplat.data.mesh_sources import folder_objects
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.models.splat_vae import SplatVAE
from diffsplat.training.cached_view_batches import DenoisedViewSourceConfig
from diffsplat.training.latent_batches import LatentBatch
from diffsplat.training.rendered_view_loss import RenderingLossOptions
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.stages.denoiser_configs import SmallUNetConfig
from diffsplat.training.stages.diffusion_stage import DiffusionConfig
from diffsplat.training.view_encoder import ViewEncoder
from support.release_folders import LATENT_SPACES, VAE

trimesh = pytest.importorskip("trimesh")

SIZE = 32
HALF = 2.0**-10
"""Latents are kept in half precision."""
CONFIG = DenoisedViewSourceConfig(batch_size=2, novel_views=1, evaluation_objects=2, cached_rings=2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three boxes, each with rings at several elevations."""
    root = tmp_path_factory.mktemp("objects")
    (root / "meshes").mkdir()
    for number, name in enumerate(("crate", "box", "chest")):
        box = trimesh.creation.box(extents=(1.0, 0.5 + 0.2 * number, 0.7))
        box.visual.face_colors = [80 * number, 90, 200, 255]
        box.export(root / "meshes" / f"{name}.ply")
    options = RenderOptions(size=2 * SIZE, supersampling=1, processes=1, recolor=False, views="orbits")
    ingest(folder_objects(root / "meshes"), root / "shards", options)
    return root / "shards"


@pytest.fixture
def folders(shards: Path, tmp_path: Path) -> StageFolders:
    save_networks(tmp_path, 0)
    names = ("reconstructor", "autoencoder")
    return StageFolders((shards,), tmp_path / "run", **{name: tmp_path / name for name in names})


def save_networks(root: Path, seed: int) -> None:
    torch.manual_seed(seed)
    GSRecon(dim=32, blocks=1, heads=1, patch=16).save_pretrained(root / "reconstructor")
    SplatVAE({**VAE, **LATENT_SPACES["sd15"]}, (), (), 2 * SIZE).save_pretrained(root / "autoencoder")


def cached(config: DenoisedViewSourceConfig, folders: StageFolders, step: int = 0) -> LatentBatch:
    batch = config.build(folders).batch(step)
    assert isinstance(batch, LatentBatch)
    return batch


def views_of(batch: LatentBatch) -> Views:
    assert batch.views is not None
    return batch.views


def test_cached_latents_are_those_of_their_views(folders: StageFolders) -> None:
    """The online way makes the same of them; objects come from as many rings as are kept, with other views."""
    encoder, source = ViewEncoder.open(folders), CONFIG.build(folders)
    seen: set[bytes] = set()
    for step in range(30):
        batch = source.batch(step)
        assert isinstance(batch, LatentBatch)
        views = views_of(batch)
        assert views.image.shape[1] == 5
        torch.testing.assert_close(batch.latents, encoder(views), rtol=HALF, atol=HALF)
        seen |= {latents.numpy().tobytes() for latents in batch.latents}
    assert len(seen) == 3 * 2
    for batch in source.evaluation():
        assert isinstance(batch, LatentBatch)
        torch.testing.assert_close(batch.latents, encoder(views_of(batch)), rtol=HALF, atol=HALF)


@pytest.mark.parametrize("variant", ["text", "image", "rendering"])
def test_losses_and_figures_are_those_of_the_views(
    folders: StageFolders, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    # Otherwise noise is drawn in the order of the memory, which is that of the autoencoder's convolutions.
    monkeypatch.setattr(torch, "randn_like", lambda tensor: torch.randn(tensor.shape))
    config = DiffusionConfig(
        SmallUNetConfig(widths=(16, 16)),
        image=variant == "image",
        rendering_loss=variant == "rendering",
        rendering=RenderingLossOptions(),
        sample_steps=2,
        sampled_objects=1,
    )
    if variant == "image":
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        image_autoencoder = folders.out.parent / "image-autoencoder"
        AutoencoderKL(**{**VAE, **LATENT_SPACES["sd15"]}).save_pretrained(image_autoencoder)
        folders = replace(folders, image_autoencoder=image_autoencoder)
    torch.manual_seed(0)
    stage, batch = config.build(folders).eval(), cached(CONFIG, folders)
    results: list[dict[str, float]] = []
    for given in (batch, views_of(batch)):
        torch.manual_seed(1)
        losses = stage(given, 1)
        figures = stage.evaluate(given).scalars
        results.append({"total": losses.total.item(), **figures})
    assert results[0] == pytest.approx(results[1], rel=0.02)


def test_a_cache_is_made_anew_when_what_it_depends_on_changes(
    folders: StageFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    encode = ViewEncoder.forward

    def counted(self: ViewEncoder, views: Views) -> torch.Tensor:
        made.append(views.batch_size)
        return encode(self, views)

    monkeypatch.setattr(ViewEncoder, "forward", counted)

    def encoded(config: DenoisedViewSourceConfig, folders: StageFolders) -> tuple[int, torch.Tensor]:
        made.clear()
        latents = cached(config, folders).latents
        return sum(made), latents

    count, first = encoded(CONFIG, folders)
    assert count > 0
    again = encoded(CONFIG, folders)
    assert again[0] == 0
    assert torch.equal(again[1], first)
    other = tmp_path / "other"
    save_networks(other, 1)
    for changed in (
        replace(folders, reconstructor=other / "reconstructor"),
        replace(folders, autoencoder=other / "autoencoder"),
    ):
        number, latents = encoded(CONFIG, changed)
        assert number == count
        assert not torch.allclose(latents, first, atol=0.01)
    assert encoded(replace(CONFIG, image_size=SIZE), folders)[0] == count
    assert encoded(replace(CONFIG, composition="released"), folders)[0] == count
    assert encoded(replace(CONFIG, cached_rings=1), folders)[0] > 0
    assert encoded(CONFIG, folders)[0] == 0
