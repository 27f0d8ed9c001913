"""Trajectories of a teacher that is sure of one object: straight lines, whose distillation has closed forms."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffsplat.data.mesh_ingestion import RenderOptions, ingest
from diffsplat.data.mesh_sources import folder_objects
from diffsplat.data.training_vocabulary import TrainingVocabulary
from diffsplat.models import ComponentAutoencoder
from diffsplat.models.multiview_pixart import MultiViewPixArt, make_denoiser
from diffsplat.models.text.quantized_sentence_encoder import TextEncoder
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pipelines.denoising_loop import object_generators, object_noise
from diffsplat.pipelines.generation_options import Generation
from diffsplat.pipelines.unfamiliar_prompts import KnownWords
from diffsplat.pretrained.model_folders import SamplingDefaults, find_model
from diffsplat.pretrained.schedulers import FlowEulerScheduler
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.stages.distillation_stage import DistillationConfig, DistillationStage
from diffsplat.training.stages.stage_recipe import GradientTraining, train_stage
from diffsplat.training.teacher_trajectories import (
    WindowBatch,
    WindowSource,
    WindowSourceConfig,
    distilled_prompts,
    trajectories,
    window_levels,
)
from diffsplat.training.trainer_config import OptimConfig, TrainerConfig
from diffsplat.training.view_batches import every_caption

CONSTANT, REFINED, FEW = 0.7, -0.3, 0.2
"""What denoiser, refiner and denoiser of few steps take everything for."""


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
        TextEncoder.from_pretrained(find_model("mini") / "text_encoder"),
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
    ingest(folder_objects(root / "meshes"), root / "data", options)
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
    assert {len(batch.latents) for batch in first.evaluation()} == {2}

    def starts(batches: list[WindowBatch]) -> set[float]:
        return {float(value) for batch in batches for value in batch.latents[:, 0, 0, 0, 0, 0]}

    seen, held_out = starts([first.batch(step) for step in range(3)]), starts(first.evaluation())
    assert len(seen) == 6
    assert not seen & held_out
    text = first.batch(0).conditions.text
    encoded = TextEncoder.from_pretrained(find_model("mini") / "text_encoder")(every_caption(folders))
    assert text.mask is not None
    for tokens, mask in zip(text.tokens, text.mask, strict=True):
        distances = (encoded.tokens[:, : int(mask.sum())] - tokens[mask]).abs().amax(dim=(1, 2))
        assert float(distances.min()) < 0.01


def test_a_student_that_is_as_sure_has_no_error_and_another_its_distance(folders: StageFolders):
    stage, batch = DistillationConfig().build(folders), WindowSource(CONFIG, folders).batch(0)
    assert isinstance(stage, DistillationStage)
    found = stage.evaluate(batch).scalars
    # The teacher's denoiser works in the first two windows; its refiner is sure of something else.
    assert max(found["window_0"], found["window_1"]) < 1e-3
    assert found["window_3"] > 0.1
    torch.nn.init.constant_(stage.network.proj_out.bias, REFINED)
    found = stage.evaluate(batch).scalars
    assert max(found["window_2"], found["window_3"]) < 1e-3
    # One step from level 1 misses by the share of the way times the distance, of a way as long as that share.
    distance = (batch.latents[:, 0] - CONSTANT).square().mean()
    expected = (CONSTANT - REFINED) ** 2 / float(distance)
    assert found["window_0"] == pytest.approx(expected, rel=0.02)


def test_the_loss_is_the_squared_distance_over_the_squared_level(folders: StageFolders):
    batch = WindowSource(CONFIG, folders).batch(0)
    first = replace(batch, latents=batch.latents[:, :2], levels=batch.levels[:, :2])
    stage = DistillationConfig().build(folders)
    assert stage(first, 1).total.item() < 1e-4
    torch.nn.init.constant_(stage.network.proj_out.bias, CONSTANT + 0.5)
    assert 0.25 < stage(first, 1).total.item() < 0.25 / 0.92**2


def test_a_student_is_trained_and_saved(folders: StageFolders, tmp_path: Path):
    trainer = TrainerConfig(
        steps=3,
        log_every=1,
        precision="fp32",
        device="cpu",
        tracker="none",
        optim=OptimConfig(warmup_steps=1),
    )
    recipe = GradientTraining(DistillationConfig(), CONFIG, trainer)
    figures = train_stage(recipe, replace(folders, out=tmp_path)).figures
    assert {"error", *(f"window_{number}" for number in range(4))} == set(figures)
    assert "proj_out.bias" in load_file(tmp_path / "weights" / "diffusion_pytorch_model.safetensors")


def test_long_captions_are_distilled_as_the_teacher_reads_them(teacher: Path):
    pipe = DiffSplatPipeline.from_pretrained(teacher)
    captions = ["a red crate for the cellar of my house", "a red crate", "blue crate"]
    assert distilled_prompts(pipe, captions) == sorted(captions)
    assert isinstance(pipe.text_encoder, TextEncoder)
    pipe.known_words = KnownWords(TrainingVocabulary({"crate": 1}, {}), pipe.text_encoder)
    assert distilled_prompts(pipe, captions) == ["a red crate", "blue crate"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, FEW),
        ({"steps": 2}, FEW),
        ({"steps": 3}, REFINED),
        ({"guidance": 1.0}, REFINED),
        ({"negative_prompt": "a box"}, REFINED),
    ],
)
def test_the_few_step_denoiser_takes_few_unguided_steps(teacher: Path, tmp_path: Path, options, expected):
    pipe = DiffSplatPipeline.from_pretrained(teacher)
    pipe.few_step_denoiser = sure_denoiser(FEW)
    pipe.defaults = replace(pipe.defaults, few_steps=2)
    pipe.save_pretrained(tmp_path / "few")
    made = DiffSplatPipeline.from_pretrained(tmp_path / "few")("a crate", **options)
    assert made.latents is not None
    torch.testing.assert_close(made.latents, torch.full_like(made.latents, expected), atol=2e-3, rtol=0)
    assert made.generation.steps == options.get("steps", 2 if expected == FEW else 20)


def test_without_a_few_step_denoiser_the_defaults_are_those_of_the_denoiser(teacher: Path):
    pipe = DiffSplatPipeline.from_pretrained(teacher)
    pipe.defaults = replace(pipe.defaults, few_steps=2)
    assert pipe.resolve(Generation(prompts=("a crate",))).steps == 20
