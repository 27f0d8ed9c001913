"""Splat grids on disk, and the decoder that is trained on them."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import diffsplat.training.grid_cache as grids_module
import diffsplat.training.stages.decoder_stage as decoder_module
from diffsplat.core import SplatGrid
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.geometry import ring_cameras
from diffsplat.models import GSAutoencoder, GSRecon
from diffsplat.models.mini_denoiser import make_denoiser
from diffsplat.models.text.text_condition import TextCondition
from diffsplat.training.grid_cache import (
    GridSource,
    GridSourceConfig,
    Pick,
    canonical_picks,
    grid_table,
    turned_picks,
)
from diffsplat.training.latent_cache import LatentBatch
from diffsplat.training.stages.decoder_stage import DecoderConfig, DecoderStage

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


def decoder_stage(tmp_path: Path) -> DecoderStage:
    torch.manual_seed(0)
    autoencoder = GSAutoencoder(image_size=SIZE, latent_channels=4, dim=64, decoder_blocks=1)
    autoencoder.save_pretrained(tmp_path / "autoencoder")
    denoiser = make_denoiser(
        latent_channels=4, latent_size=4, views=4, width=64, layers=1, text_channels=8, patch=1
    )
    denoiser.save_pretrained(tmp_path / "denoiser")
    return DecoderStage(DecoderConfig(tmp_path / "autoencoder", tmp_path / "denoiser"))


def latent_batch(stage: DecoderStage) -> LatentBatch:
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(2, 4, 12, SIZE, SIZE, generator=generator) * 2 - 1
    grids = SplatGrid(values)
    return LatentBatch(
        latents=stage.autoencoder.encode(grids),
        tokens=torch.randn(2, 3, 8, generator=generator),
        mask=torch.ones(2, 3, dtype=torch.bool),
        unconditional_tokens=torch.zeros(3, 8),
        unconditional_mask=torch.ones(3, dtype=torch.bool),
        cameras=ring_cameras(size=SIZE),
        grids=grids,
    )


def test_decoder_sees_the_latents_themselves_through_a_perfect_denoiser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = decoder_stage(tmp_path)
    batch = latent_batch(stage)
    monkeypatch.setattr(decoder_module, "predict_latents", lambda *_: batch.latents)
    figures = stage.evaluate(batch).scalars
    assert figures["psnr_denoised"] == pytest.approx(figures["psnr_latents"], abs=1e-3)
    monkeypatch.setattr(decoder_module, "predict_latents", lambda *_: torch.zeros_like(batch.latents))
    blank = stage.evaluate(batch).scalars
    assert blank["psnr_latents"] == pytest.approx(figures["psnr_latents"], abs=1e-6)
    assert abs(blank["psnr_denoised"] - figures["psnr_denoised"]) > 1e-3


def test_below_its_level_the_refiner_guesses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = decoder_stage(tmp_path)
    batch = latent_batch(plain)
    stage = DecoderStage(replace(plain.config, refiner=tmp_path / "denoiser", refined_below=0.5))
    levels = torch.tensor([0.6, 0.4])

    def guesses(network: object, state: torch.Tensor, *_: object) -> torch.Tensor:
        return torch.full_like(state, 2.0 if network is stage.refiner else 1.0)

    monkeypatch.setattr(decoder_module, "predict_latents", guesses)
    text, rays = TextCondition(batch.tokens, batch.mask), batch.rays(4, 2)
    guess = stage._guess(batch.latents, levels, text, rays)
    assert guess.mean(dim=(1, 2, 3, 4)).tolist() == [1.0, 2.0]
    assert plain._guess(batch.latents, levels, text, rays).unique().tolist() == [1.0]


def test_objects_are_denoised_along_a_straight_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step's input lies between the latents and one noise, at the level that the network is told."""
    stage = decoder_stage(tmp_path)
    batch = latent_batch(stage)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def perfect(_network: object, state: torch.Tensor, level: torch.Tensor, *_: object) -> torch.Tensor:
        seen.append((state, level))
        return batch.latents[: len(state)]

    monkeypatch.setattr(decoder_module, "predict_latents", perfect)
    stage(batch)
    assert [len(state) for state, _ in seen] == [1, 1, 1]
    first = float(seen[0][1])
    assert 0.6 <= first <= 0.97
    assert [float(level) for _, level in seen] == pytest.approx([first, first * 2 / 3, first / 3])
    noises = [(state - (1 - level) * batch.latents[:1]) / level for state, level in seen]
    for noise in noises[1:]:
        torch.testing.assert_close(noise, noises[0], rtol=1e-3, atol=1e-4)
    assert float(noises[0].std()) == pytest.approx(1.0, abs=0.1)


def test_decoder_learns_without_changing_the_latents(tmp_path: Path) -> None:
    stage = decoder_stage(tmp_path)
    batch = latent_batch(stage)
    network = stage.trainable()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    totals = []
    for _ in range(12):
        torch.manual_seed(0)
        losses = stage(batch)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        totals.append(float(losses.total.detach()))
    assert totals[-1] < 0.9 * totals[0]
    assert batch.grids is not None
    assert torch.equal(network.encode(batch.grids), batch.latents)
    assert not any(parameter.requires_grad for parameter in stage.denoiser.parameters())


def test_decoder_refuses_impossible_settings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"levels 0.9 to 0.2"):
        DecoderConfig(tmp_path, tmp_path, least_level=0.9, greatest_level=0.2)
    with pytest.raises(ValueError, match="denoised_share is 0"):
        DecoderConfig(tmp_path, tmp_path, denoised_share=0)
