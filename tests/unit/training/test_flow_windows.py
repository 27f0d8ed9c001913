"""Trajectories of a teacher that is sure of one object: straight lines, whose distillation has closed forms."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffsplat.data.mesh_ingestion import RenderOptions, ingest
from diffsplat.data.mesh_sources import folder_objects
from diffsplat.models import ComponentAutoencoder
from diffsplat.models.mini_denoiser import make_denoiser
from diffsplat.models.multiview_pixart import MultiViewPixArt
from diffsplat.models.text.quantized_sentence_encoder import TextEncoder
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pipelines.denoising_loop import object_generators, object_noise
from diffsplat.pretrained.model_folders import SamplingDefaults
from diffsplat.pretrained.schedulers import FlowEulerScheduler
from diffsplat.training.flow_windows import (
    WindowBatch,
    WindowSource,
    WindowSourceConfig,
    trajectories,
    window_levels,
)
from diffsplat.training.run_folders import StageFolders, embedded_text_encoder
from diffsplat.training.stages.distillation_stage import DistillationConfig, DistillationStage
from diffsplat.training.stages.stage_recipe import GradientTraining, train_stage
from diffsplat.training.trainer_config import OptimConfig, TrainerConfig

CONSTANT, REFINED = 0.7, -0.3
"""What denoiser and refiner take everything for."""


def sure_denoiser(value: float) -> MultiViewPixArt:
    network = make_denoiser(latent_channels=3, latent_size=4, width=64, layers=1, text_channels=384, patch=2)
    torch.nn.init.zeros_(network.proj_out.weight)
    torch.nn.init.constant_(network.proj_out.bias, value)
    return network


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pipe = DiffSplatPipeline(
        sure_denoiser(CONSTANT),
        ComponentAutoencoder(image_size=16, patch=4, latent_channels=6),
        TextEncoder.from_pretrained(embedded_text_encoder()),
        FlowEulerScheduler(6.0),
        SamplingDefaults(guidance=3.0, refined_below=0.8, refiner_guidance=2.0),
        refiner=sure_denoiser(REFINED),
    )
    folder = tmp_path_factory.mktemp("teachers") / "sure"
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> StageFolders:
    trimesh = pytest.importorskip("trimesh")
    root = tmp_path_factory.mktemp("captions")
    (root / "meshes").mkdir()
    trimesh.creation.box().export(root / "meshes" / "crate.ply")
    options = RenderOptions(size=16, supersampling=1, processes=1, recolor=False)
    ingest(folder_objects(root / "meshes"), root / "data", options, progress=False)
    return StageFolders((root / "data",), root / "run", teacher=str(teacher))


CONFIG = WindowSourceConfig(windows=4, substeps=3, objects=6, evaluation_objects=2, batch_size=4)


def test_levels_are_those_of_as_many_steps(teacher: Path):
    levels = window_levels(DiffSplatPipeline.from_pretrained(teacher), 4)
    spaced = torch.linspace(1, 6e-3 / (1 + 5e-3), 4, dtype=torch.float64)
    expected = [*(6 * spaced / (1 + 5 * spaced)).tolist(), 0.0]
    assert levels == pytest.approx(expected, abs=1e-6)


def test_a_sure_teacher_goes_straight_to_what_it_is_sure_of(teacher: Path):
    pipe = DiffSplatPipeline.from_pretrained(teacher)
    levels = window_levels(pipe, 4)
    found = trajectories(pipe, ["a crate"] * 9, [5, 8], levels, 3)
    noise = object_noise(pipe.latent_shape, object_generators((5, 8)))
    assert torch.equal(found[:, 0], noise)
    # 1, 0.923 and 0.751 are the denoiser's; the refiner takes over at 0.751, below 0.8.
    for number, level in enumerate(levels[:3]):
        torch.testing.assert_close(found[:, number], CONSTANT + level * (noise - CONSTANT), atol=1e-3, rtol=0)
    start = found[:, 2]
    for number, level in enumerate(levels[3:], 3):
        share = level / levels[2]
        torch.testing.assert_close(found[:, number], REFINED + share * (start - REFINED), atol=1e-3, rtol=0)


def test_batches_are_cached_trajectories_with_their_captions(folders: StageFolders):
    first, again = (WindowSource(CONFIG, folders) for _ in range(2))
    assert torch.equal(first.batch(3).latents, again.batch(3).latents)
    assert {len(batch.prompt) for batch in first.evaluation()} == {2}

    def starts(batches: list[WindowBatch]) -> set[float]:
        return {float(value) for batch in batches for value in batch.latents[:, 0, 0, 0, 0, 0]}

    seen, held_out = starts([first.batch(step) for step in range(3)]), starts(first.evaluation())
    assert len(seen) == 6
    assert not seen & held_out
    assert all("crate" in prompt for prompt in first.batch(0).prompt)


@pytest.mark.parametrize(("part", "own"), [("denoiser", [0, 1]), ("refiner", [2, 3])])
def test_each_network_learns_the_windows_that_begin_at_its_levels(folders: StageFolders, part, own):
    stage = DistillationConfig(part).build(folders)
    batch = WindowSource(CONFIG, folders).batch(0)
    assert stage.windows(batch.levels[0]) == own


def test_a_student_that_is_as_sure_has_no_error_and_another_its_distance(folders: StageFolders):
    stage, batch = DistillationConfig("denoiser").build(folders), WindowSource(CONFIG, folders).batch(0)
    assert isinstance(stage, DistillationStage)
    assert stage(batch, 1).total.item() < 1e-4
    assert all(value < 1e-4 for value in stage.evaluate(batch).scalars.values())
    torch.nn.init.constant_(stage.network.proj_out.bias, CONSTANT + 0.5)
    # The squared distance over the squared level, which lies between 0.751 and 1.
    assert 0.25 < stage(batch, 1).total.item() < 0.25 / 0.751**2
    distance = (batch.latents[:, 0] - CONSTANT).square().mean()
    # One step from level 1 misses by the share of the way times the distance, of a way as long as that share.
    expected = 0.25 / float(distance)
    assert stage.evaluate(batch).scalars["window_0"] == pytest.approx(expected, rel=0.02)


def test_a_student_is_trained_and_saved(folders: StageFolders, tmp_path: Path):
    trainer = TrainerConfig(
        steps=3,
        log_every=1,
        precision="fp32",
        device="cpu",
        tracker="none",
        optim=OptimConfig(warmup_steps=1),
    )
    recipe = GradientTraining(DistillationConfig("refiner"), CONFIG, trainer)
    figures = train_stage(recipe, replace(folders, out=tmp_path)).figures
    assert {"error", "window_2", "window_3"} == set(figures)
    assert "proj_out.bias" in load_file(tmp_path / "weights" / "diffusion_pytorch_model.safetensors")


def test_a_teacher_without_a_refiner_distils_none(folders: StageFolders, teacher: Path, tmp_path: Path):
    pipe = DiffSplatPipeline.from_pretrained(teacher)
    pipe.refiner = None
    pipe.defaults = replace(pipe.defaults, refined_below=0.0)
    pipe.save_pretrained(tmp_path / "plain")
    plain = replace(folders, teacher=str(tmp_path / "plain"))
    with pytest.raises(ValueError, match="has no refiner that predicts latents"):
        DistillationConfig("refiner").build(plain)
    levels = torch.tensor(window_levels(pipe, 4))
    assert DistillationConfig("denoiser").build(plain).windows(levels) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="expected more windows"):
        DistillationConfig("refiner").build(folders).windows(torch.tensor([1.0, 0.9]))
