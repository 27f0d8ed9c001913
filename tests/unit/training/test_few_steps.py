"""Few-step solvers of a teacher that is sure of one object, whose steps have closed forms."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from diffsplat.data.mesh_ingestion import RenderOptions, ingest
from diffsplat.data.mesh_sources import folder_objects
from diffsplat.data.training_vocabulary import TrainingVocabulary
from diffsplat.models import ComponentAutoencoder
from diffsplat.models.few_step_solver import FewStepScheduler, FewStepSolver
from diffsplat.models.multiview_pixart import MultiViewPixArt, make_denoiser
from diffsplat.models.text.quantized_sentence_encoder import TextEncoder
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pipelines.denoising_loop import denoise
from diffsplat.pipelines.generation_options import ResolvedGeneration
from diffsplat.pipelines.unfamiliar_prompts import KnownWords
from diffsplat.pretrained.model_folders import SamplingDefaults, find_model
from diffsplat.pretrained.schedulers import FlowEulerScheduler, make_scheduler
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.stages.few_step_stage import FewStepConfig, FewStepStage
from diffsplat.training.stages.stage_recipe import GradientTraining, train_stage
from diffsplat.training.teacher_samples import (
    SampleBatch,
    SampleSource,
    SampleSourceConfig,
    prompts_as_read,
    sample_noise,
    sampled_latents,
)
from diffsplat.training.trainer_config import EmaConfig, OptimConfig
from diffsplat.training.view_batches import every_caption
from support.short_training import SHORT_TRAINER

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


CONFIG = SampleSourceConfig(teacher_steps=8, objects=6, evaluation_objects=2, batch_size=4)
LEVELS, SCALES = (1.0, 0.9, 0.5), (3.0, 3.0, 2.0)


def of_noise(latents: Tensor, timestep: Tensor) -> Tensor:
    """Two predictions that depend on where the sampler is: without a text, and with it."""
    level = timestep.reshape(-1, *[1] * (latents.ndim - 1)) / 1000
    return torch.stack([latents.sin() * level, latents.cos() + level])


def test_an_untrained_solver_takes_guided_euler_steps():
    noise = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    solver = FewStepSolver(LEVELS, SCALES).double()
    found = denoise(of_noise, noise, FewStepScheduler(solver), 3)
    latents = noise
    for level, end, scale in zip(LEVELS, (*LEVELS[1:], 0.0), SCALES, strict=True):
        without, with_text = of_noise(latents, torch.full((2,), 1000 * level, dtype=torch.float64))
        guided = without + scale * (with_text - without)
        latents = latents + (end - level) * (latents - guided) / level
    torch.testing.assert_close(found, latents, atol=1e-6, rtol=0)


def test_a_step_heads_for_a_mixture_of_all_predictions_each_guided_anew():
    solver = FewStepSolver((1.0, 0.5), (1.0, 1.0)).double()
    with torch.no_grad():
        solver.mixture.copy_(torch.tensor([[0.5, 99.0], [0.25, 2.0]]))  # what comes later cannot count
        solver.guidance.copy_(torch.tensor([[3.0, 99.0], [4.0, 5.0]]))
        solver.keep.copy_(torch.tensor([0.8, 99.0]))  # nothing is left of the latents at the end
    noise = torch.randn(1, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def guided(pair: Tensor, scale: float) -> Tensor:
        return (1 - scale) * pair[0] + scale * pair[1]

    with torch.no_grad():
        found = denoise(of_noise, noise, FewStepScheduler(solver), 2)
    first = of_noise(noise, torch.tensor([1000.0], dtype=torch.float64))
    middle = 0.8 * 0.5 * noise + 0.5 * 0.5 * guided(first, 3)
    second = of_noise(middle, torch.tensor([500.0], dtype=torch.float64))
    expected = 0.25 * guided(first, 4) + 2 * guided(second, 5)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("levels", "scales", "message"),
    [
        ((0.9, 0.5), (1.0, 1.0), r"levels is \(0\.9, 0\.5\), expected levels falling from 1"),
        ((1.0, 0.5, 0.5), (1.0,) * 3, "expected levels falling from 1"),
        ((1.0, 0.0), (1.0, 1.0), "expected levels falling from 1"),
        ((1.0, 0.5), (1.0,), r"guidance is \(1\.0,\), expected 2 scales"),
    ],
)
def test_levels_that_do_not_fall_and_missing_scales_are_refused(levels, scales, message):
    with pytest.raises(ValueError, match=message):
        FewStepSolver(levels, scales)


def test_a_sure_teacher_arrives_at_what_its_refiner_is_sure_of(folders: StageFolders):
    first, again = (SampleSource(CONFIG, folders) for _ in range(2))
    batch = first.batch(3)
    assert torch.equal(batch.latents, again.batch(3).latents)
    torch.testing.assert_close(batch.latents, torch.full_like(batch.latents, REFINED), atol=2e-3, rtol=0)
    assert {len(batch.latents) for batch in first.evaluation()} == {2}

    def starts(batches: list[SampleBatch]) -> set[float]:
        return {float(value) for batch in batches for value in batch.noise[:, 0, 0, 0, 0]}

    seen, held_out = starts([first.batch(step) for step in range(3)]), starts(first.evaluation())
    assert seen == {float(sample_noise(batch.noise.shape[1:], [place])[0, 0, 0, 0, 0]) for place in range(6)}
    assert not seen & held_out


def test_batches_have_their_captions_and_the_empty_one(folders: StageFolders):
    conditions = SampleSource(CONFIG, folders).batch(0).conditions
    encoder = TextEncoder.from_pretrained(find_model("mini") / "text_encoder")
    encoded, text = encoder(every_caption(folders)), conditions.text
    assert text.mask is not None
    for tokens, mask in zip(text.tokens, text.mask, strict=True):
        distances = (encoded.tokens[:, : int(mask.sum())] - tokens[mask]).abs().amax(dim=(1, 2))
        assert float(distances.min()) < 0.01
    assert conditions.negative is not None
    mask = conditions.negative.mask
    assert mask is not None
    expected = encoder([""]).tokens[0, : int(mask[0].sum())]
    for tokens, used in zip(conditions.negative.tokens, mask, strict=True):
        torch.testing.assert_close(tokens[used], expected, atol=0.01, rtol=0)


def test_the_error_is_the_squared_distance_over_that_from_the_noise(folders: StageFolders):
    batch = SampleSource(CONFIG, folders).batch(0)
    noisy = replace(batch, latents=batch.latents + 0.5 * batch.noise)
    stage = FewStepConfig(LEVELS, SCALES).build(folders)
    assert isinstance(stage, FewStepStage)
    # The last of Euler's steps is the refiner's, which ends at the constant whatever came before.
    missed, way = 0.5 * batch.noise, 0.5 * batch.noise - REFINED
    expected = float(missed.square().mean() / way.square().mean())
    assert stage.evaluate(noisy).scalars["error"] == pytest.approx(expected, rel=0.01)
    assert stage(noisy, 1).total.item() == pytest.approx(expected, rel=0.01)


def test_a_solver_is_trained_and_the_networks_stay(folders: StageFolders, tmp_path: Path):
    optim = OptimConfig(lr=0.05, weight_decay=0.0, warmup_steps=1)
    trainer = replace(SHORT_TRAINER, steps=20, ema=EmaConfig(decay=0.0), optim=optim)
    # One step at level 1 ends at what the denoiser is sure of; scaled by -3/7 that is the teacher's end.
    recipe = GradientTraining(FewStepConfig((1.0,), (1.0,)), CONFIG, trainer)
    before = load_file(Path(folders.teacher) / "denoiser" / "diffusion_pytorch_model.safetensors")
    stage = recipe.stage.build(folders)
    start = stage.evaluate(SampleSource(CONFIG, folders).evaluation()[0]).scalars["error"]
    figures = train_stage(recipe, replace(folders, out=tmp_path)).figures
    assert figures["error"] < 0.5 * start
    after = load_file(Path(folders.teacher) / "denoiser" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(after[name], before[name]) for name in before)
    trained = FewStepSolver.from_pretrained(tmp_path / "weights")
    assert float(trained.mixture.detach()) < 0.9


def test_a_teacher_without_guidance_is_refused(folders: StageFolders, teacher: Path, tmp_path: Path):
    pipe = DiffSplatPipeline.from_pretrained(teacher)
    pipe.defaults = replace(pipe.defaults, guidance=1.0)
    pipe.save_pretrained(tmp_path / "unguided")
    with pytest.raises(ValueError, match=r"guidance scale of the teacher is 1\.0, expected one above 1"):
        FewStepConfig().build(replace(folders, teacher=str(tmp_path / "unguided")))


def test_the_teacher_is_the_denoiser_of_everything(teacher: Path, tmp_path: Path):
    pipe = DiffSplatPipeline.from_pretrained(teacher, refiner=None)
    assert isinstance(pipe.text_encoder, TextEncoder)
    words = TrainingVocabulary({"crate": 1}, {})
    pipe.known_words, pipe.text_denoiser = KnownWords(words, pipe.text_encoder, words), sure_denoiser(REFINED)
    made = sampled_latents(pipe, ["a crate"], 2, tmp_path).float()
    torch.testing.assert_close(made, torch.full_like(made, CONSTANT), atol=2e-3, rtol=0)


def test_long_captions_are_those_that_the_teacher_reads(teacher: Path):
    pipe = DiffSplatPipeline.from_pretrained(teacher)
    captions = ["a red crate for the cellar of my house", "a red crate", "blue crate"]
    assert prompts_as_read(pipe, captions) == sorted(captions)
    assert isinstance(pipe.text_encoder, TextEncoder)
    pipe.known_words = KnownWords(TrainingVocabulary({"crate": 1}, {}), pipe.text_encoder)
    assert prompts_as_read(pipe, captions) == ["a red crate", "blue crate"]


@pytest.mark.parametrize(
    ("options", "few"),
    [
        ({"steps": 2}, True),
        ({"steps": 2, "guidance": 3.0}, True),
        ({"steps": 3}, False),
        ({}, False),
        ({"steps": 2, "guidance": 1.0}, False),
        ({"steps": 2, "guidance": 5.0}, False),
        ({"steps": 2, "negative_prompt": "a box"}, False),
        ({"steps": 2, "sampler": "euler"}, False),
        ({"sigmas": (1.0, 0.1)}, False),
    ],
)
def test_the_solver_takes_its_number_of_steps_of_the_models_guidance(
    teacher: Path, tmp_path: Path, options, few
):
    pipe = DiffSplatPipeline.from_pretrained(teacher)
    pipe.few_step_solver = FewStepSolver((1.0, 0.5), (3.0, 2.0))
    torch.nn.init.constant_(pipe.few_step_solver.mixture, 0.5)  # half of what each network is sure of
    pipe.save_pretrained(tmp_path / "few")
    made = DiffSplatPipeline.from_pretrained(tmp_path / "few")("a crate", **options)
    expected = (CONSTANT + REFINED) / 2 if few else REFINED
    assert made.latents is not None
    torch.testing.assert_close(made.latents, torch.full_like(made.latents, expected), atol=2e-3, rtol=0)


@pytest.mark.parametrize(("sampler", "expected"), [("euler", (CONSTANT + REFINED) / 2), ("unipc", CONSTANT)])
def test_a_refiner_without_guidance_and_another_scheduler(teacher: Path, sampler, expected):
    """The solver guides the refiner as it was fitted; UniPC, in the scheduler's place, takes both steps above 0.8."""
    pipe = DiffSplatPipeline.from_pretrained(teacher)
    pipe.defaults = replace(pipe.defaults, refiner_guidance=1.0)
    pipe.scheduler = make_scheduler(sampler, {"shift": 6.0}, "latents")
    pipe.few_step_solver = FewStepSolver((1.0, 0.5), (3.0, 2.0))
    torch.nn.init.constant_(pipe.few_step_solver.mixture, 0.5)
    made = pipe("a crate", steps=2)
    assert made.latents is not None
    torch.testing.assert_close(made.latents, torch.full_like(made.latents, expected), atol=2e-2, rtol=0)


def test_no_solver_takes_steps_whose_guidance_is_rescaled():
    plain = ResolvedGeneration(prompts=("a crate",))
    assert plain.sampled_by_default
    assert not replace(plain, guidance_rescale=0.5).sampled_by_default


@pytest.mark.parametrize("name", ["denoiser", "refiner", "scheduler", "text_encoder", "text_denoiser"])
def test_a_solver_is_read_with_the_components_it_was_fitted_to(teacher: Path, tmp_path: Path, name: str):
    """Not with another denoiser, refiner or scheduler in their place; what encodes text does not matter to it, nor does
    the denoiser of text alone, which it was not fitted to."""
    pipe = DiffSplatPipeline.from_pretrained(teacher)
    pipe.few_step_solver = FewStepSolver((1.0, 0.5), (3.0, 2.0))
    pipe.save_pretrained(tmp_path / "model")
    opened = DiffSplatPipeline.from_pretrained(tmp_path / "model")
    assert opened.few_step_solver is not None
    brought = {name: getattr(opened, name)}
    kept = DiffSplatPipeline.from_pretrained(tmp_path / "model", **brought).few_step_solver
    assert (kept is not None) == (name in ("text_encoder", "text_denoiser"))
    brought["few_step_solver"] = opened.few_step_solver
    again = DiffSplatPipeline.from_pretrained(tmp_path / "model", **brought)
    assert again.few_step_solver is opened.few_step_solver
