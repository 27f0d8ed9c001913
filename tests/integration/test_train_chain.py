"""Meshes to a model folder: every stage for a few steps, through the command line."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from diffsplat.cli.main import main
from diffsplat.errors import InvalidInputError
from diffsplat.models.few_step_solver import FewStepSolver
from diffsplat.models.multiview_pixart import make_denoiser
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.training.elevation_batches import ElevationSourceConfig
from diffsplat.training.latent_batches import LatentSourceConfig
from diffsplat.training.model_export import export_model
from diffsplat.training.recipes import RECIPES
from diffsplat.training.recipes.embedded_mini_recipe import MINI
from diffsplat.training.recipes.model_recipe import Recipe
from diffsplat.training.run_folders import RunFolders, StageFolders
from diffsplat.training.run_outcome import Outcome, Status
from diffsplat.training.stage_chain import train_recipe
from diffsplat.training.stages.denoiser_configs import MiniDenoiserConfig
from diffsplat.training.stages.diffusion_stage import DiffusionConfig, DiffusionStage
from diffsplat.training.stages.elevation_stage import MiniElevationStageConfig
from diffsplat.training.stages.principal_component_fit import ComponentFit
from diffsplat.training.stages.reconstruction_stage import ReconstructionConfig
from diffsplat.training.stages.stage_interface import OverfitGoal
from diffsplat.training.stages.stage_recipe import GradientTraining, StageRecipe, train_stage
from diffsplat.training.trainer import DivergedError
from diffsplat.training.trainer_config import OptimConfig, TrainerConfig
from diffsplat.training.view_batches import ViewSourceConfig, training_objects
from support.short_training import SHORT_TRAINER

pytest.importorskip("trimesh")

VIEWS = ViewSourceConfig(batch_size=2, novel_views=2, evaluation_objects=1)
LATENTS = LatentSourceConfig(batch_size=2, evaluation_objects=1)
RECONSTRUCTION = GradientTraining(ReconstructionConfig(dim=48, blocks=1), VIEWS, SHORT_TRAINER)
AUTOENCODER = ComponentFit(latent_channels=8, evaluation_objects=1)
REFINER = GradientTraining(
    DiffusionConfig(
        MiniDenoiserConfig(width=64, layers=1, patch=1, channels=6, greatest_level=0.9),
        sample_guidance=(),
    ),
    LATENTS,
    SHORT_TRAINER,
)


def small_recipe() -> Recipe:
    """The recipe of the embedded model with small networks and few steps."""
    network = MiniDenoiserConfig(width=64, layers=1, patch=1, channels=6)
    denoiser = DiffusionConfig(network, sampled_objects=1, sample_steps=2)
    stages = {
        "reconstruction": RECONSTRUCTION,
        "autoencoder": AUTOENCODER,
        "diffusion": GradientTraining(denoiser, LATENTS, SHORT_TRAINER),
        "refiner": REFINER,
    }
    return replace(MINI, stages=stages)


def losses(out: Path) -> list[float]:
    entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [entry["loss"] for entry in entries if entry["kind"] == "train"]


@pytest.fixture(scope="module")
def chain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a chain that was stopped once in its first stage."""
    out = tmp_path_factory.mktemp("chain")
    recipe, folders = small_recipe(), RunFolders((data,), out)
    hurried = replace(RECONSTRUCTION, trainer=replace(SHORT_TRAINER, max_minutes=1e-9))
    first = replace(recipe, stages={**recipe.stages, "reconstruction": hurried})
    assert train_recipe(first, folders) == "out_of_time"
    assert not (out / "autoencoder").exists()
    assert train_recipe(recipe, folders) == "finished"
    return out


def test_chain_writes_a_model_that_the_pipeline_loads(chain: Path) -> None:
    pipe = DiffSplatPipeline.from_pretrained(chain / "model")
    splats = pipe("a box", seed=0, steps=2).splats
    assert splats.batch_shape == (1,)
    assert splats.count == 4 * 32 * 32
    names = {path.name for path in (chain / "model").iterdir()}
    networks = {"reconstructor", "autoencoder", "denoiser", "refiner", "text_encoder", "scheduler"}
    assert names == networks | {"model_index.json", "README.md", "CREDITS.md", "words.json"}
    card = (chain / "model" / "README.md").read_text()
    for start, figure in (
        ("| reconstructor | 3 | 6 |", "psnr_novel"),
        ("| autoencoder |  |  |", "autoencoder_novel_psnr"),
        ("| denoiser | 3 | 6 |", "loss_0.9"),
        ("| refiner | 3 | 6 |", "loss_0.9"),
    ):
        (row,) = [line for line in card.splitlines() if line.startswith(start)]
        assert figure in row


def test_the_refiner_is_trained_below_its_level_and_sampled_there(chain: Path, data: Path) -> None:
    assert DiffSplatPipeline.from_pretrained(chain / "model").defaults.refined_below == 0.82
    stage, source = REFINER.build(RunFolders((data,), chain).of_stage("refiner"))
    assert isinstance(stage, DiffusionStage)
    assert stage.channels == 6
    timesteps = []

    def denoiser(noisy: Tensor, timestep: Tensor, _conditions: object) -> Tensor:
        timesteps.append(timestep)
        return noisy

    stage.loss = replace(stage.loss, denoiser=denoiser)
    for step in range(200):
        stage(source.batch(step), step + 1)
    drawn = torch.cat(timesteps) / 1000
    assert 0.85 < float(drawn.max()) < 0.9


def test_denoiser_and_refiner_read_the_same_latents(chain: Path) -> None:
    """One table for the objects that are trained on, and one for those held out."""
    assert len(list(chain.glob("*/latents/*/000000.safetensors"))) == 2


def test_a_refiner_that_does_not_go_with_the_model_is_not_exported(
    chain: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "model"
    command = ["train", "export", str(chain), "--out", str(target), "--data", str(data)]
    assert main([*command, "--refined-below", "0.95"]) == 2
    assert "expected at most the 0.9 that the refiner was trained up to" in capsys.readouterr().err
    assert main([*command, "--refiner-guidance", "-1"]) == 2
    assert "refiner_guidance is -1.0, expected a finite number of at least 0" in capsys.readouterr().err
    wide = make_denoiser(latent_channels=8, latent_size=4, width=64, layers=1, text_channels=384, patch=1)
    others = tmp_path / "others"
    for stage in ("reconstruction", "autoencoder", "diffusion"):
        shutil.copytree(chain / stage / "weights", others / stage / "weights")
    wide.save_pretrained(others / "refiner" / "weights", half=True)
    with pytest.raises(ValueError, match="the refiner denoises 8 channels, expected the denoiser's 6"):
        export_model(target, RunFolders((data,), others), MINI.sampling)
    assert not target.exists()
    assert main([*command, "--refined-below", "0"]) == 0
    assert not (target / "refiner").exists()
    assert DiffSplatPipeline.from_pretrained(target).refiner is None


def test_a_few_step_solver_beside_the_stages_is_exported(chain: Path, data: Path, tmp_path: Path) -> None:
    runs, target = tmp_path / "runs", tmp_path / "model"
    shutil.copytree(chain, runs)
    FewStepSolver((1.0, 0.7, 0.4), (2.0, 3.0, 4.0)).save_pretrained(runs / "few-step" / "weights")
    export_model(target, RunFolders((data,), runs), MINI.sampling)
    solver = DiffSplatPipeline.from_pretrained(target).few_step_solver
    assert solver is not None
    assert solver.levels().tolist() == pytest.approx([1.0, 0.7, 0.4, 0.0], abs=1e-3)


def test_a_denoiser_of_text_is_exported_with_the_words_of_its_own_data(
    chain: Path, data: Path, tmp_path: Path
) -> None:
    runs, target = tmp_path / "runs", tmp_path / "model"
    shutil.copytree(chain, runs)
    shutil.copytree(chain / "diffusion" / "weights", runs / "text-diffusion" / "weights")
    with pytest.raises(FileNotFoundError, match=r"text-diffusion' lacks its file config\.json, which says"):
        export_model(target, RunFolders((data,), runs), MINI.sampling)
    assert not target.exists()
    record = json.dumps({"folders": {"data": [str(data)]}})
    (runs / "text-diffusion" / "config.json").write_text(record, encoding="utf-8")
    export_model(target, RunFolders((data,), runs), MINI.sampling)
    pipe = DiffSplatPipeline.from_pretrained(target)
    assert pipe.text_denoiser is not None
    assert pipe.known_words is not None
    assert pipe.known_words.of_text == pipe.known_words.words
    wide = make_denoiser(latent_channels=8, latent_size=4, width=64, layers=1, text_channels=384, patch=1)
    wide.save_pretrained(runs / "text-diffusion" / "weights", half=True)
    with pytest.raises(ValueError, match="the text denoiser denoises 8 channels, expected the denoiser's 6"):
        export_model(tmp_path / "other", RunFolders((data,), runs), MINI.sampling)
    assert not (tmp_path / "other").exists()


def test_a_model_without_a_refiner_trains_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []

    def note(_recipe: StageRecipe, folders: StageFolders) -> Outcome:
        trained.append(folders.out.name)
        return Outcome("finished", 0, {}, folders.out)

    monkeypatch.setattr("diffsplat.training.stage_chain.train_stage", note)
    monkeypatch.setattr("diffsplat.training.stage_chain.export_model", lambda *_, **__: 0)
    monkeypatch.setattr(GradientTraining, "check", lambda *_: None)
    sampling = replace(MINI.sampling, defaults=replace(MINI.sampling.defaults, refined_below=0.0))
    assert train_recipe(replace(MINI, sampling=sampling), RunFolders((), tmp_path)) == "finished"
    assert trained == ["reconstruction", "autoencoder", "condition", "diffusion", "elevation"]
    assert train_recipe(MINI, RunFolders((), tmp_path)) == "finished"
    assert trained[5:] == list(MINI.stages)


def test_autoencoder_is_fitted_without_training(chain: Path, data: Path, tmp_path: Path) -> None:
    folders = StageFolders((data,), tmp_path / "run", reconstructor=chain / "reconstruction" / "weights")
    assert not AUTOENCODER.is_finished(folders.out)
    outcome = train_stage(AUTOENCODER, folders)
    assert outcome.status == "finished"
    assert outcome.figures["autoencoder_input_psnr"] > 15
    written = load_file(folders.out / "weights" / "diffusion_pytorch_model.safetensors")
    assert written.keys() == {"center", "components", "latent_scale"}
    assert json.loads((folders.out / "config.json").read_text())["stage"]["latent_channels"] == 8
    assert AUTOENCODER.is_finished(folders.out)


def test_autoencoder_is_fitted_on_the_device_that_was_asked_for(
    chain: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    folders = StageFolders((data,), tmp_path / "run", reconstructor=chain / "reconstruction" / "weights")
    with pytest.raises(ValueError, match="device is cuda, which torch does not find here"):
        train_stage(replace(AUTOENCODER, device="cuda"), folders)
    assert not folders.out.exists()


def test_autoencoder_of_an_earlier_run_keeps_its_components(chain: Path, data: Path, tmp_path: Path) -> None:
    """Later stages that start from that run go on with the latents that they know."""
    earlier = chain / "autoencoder" / "weights"
    folders = StageFolders(
        (data,), tmp_path, start_from=earlier, reconstructor=chain / "reconstruction" / "weights"
    )
    fewer = replace(AUTOENCODER, component_objects=1)
    train_stage(fewer, folders)
    name = "diffusion_pytorch_model.safetensors"
    before, after = load_file(earlier / name), load_file(tmp_path / "weights" / name)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_stopped_stage_went_on_as_if_it_had_not_stopped(chain: Path, data: Path, tmp_path: Path) -> None:
    assert train_stage(RECONSTRUCTION, StageFolders((data,), tmp_path)).status == "finished"
    assert losses(chain / "reconstruction") == losses(tmp_path)


def test_finished_chain_trains_nothing_again(chain: Path, data: Path) -> None:
    patterns = ("*/checkpoints/*/*", "*/weights/*", "*/latents/*")
    before = {path: path.stat().st_mtime_ns for pattern in patterns for path in chain.glob(pattern)}
    assert {path.relative_to(chain).parts[1] for path in before} == {
        "checkpoints",
        "weights",
        "latents",
    }
    assert train_recipe(small_recipe(), RunFolders((data,), chain)) == "finished"
    after = {path: path.stat().st_mtime_ns for pattern in patterns for path in chain.glob(pattern)}
    assert after == before


def test_command_trains_with_overridden_fields(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--optim.lr 1e-4 --steps 2 --dim 48 --blocks 1 --source.batch-size 1"
    options += " --source.novel-views 1 --device cpu --tracker none"
    command = ["train", "reconstruction-mini", "--data", str(data), "--out", str(tmp_path), *options.split()]
    assert main(command) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "weights")
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["trainer"]["optim"]["lr"] == 1e-4
    assert record["stage"]["dim"] == 48
    assert record["folders"]["data"] == [str(data)]
    assert (tmp_path / "weights" / "diffusion_pytorch_model.safetensors").is_file()


def test_export_command_refuses_an_existing_folder_and_replaces_it_by_force(
    chain: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "model"
    options = ["--steps", "7", "--refiner-guidance", "1.5"]
    command = ["train", "export", str(chain), "--out", str(target), "--data", str(data), *options]
    assert main(command) == 0
    index = json.loads((target / "model_index.json").read_text())
    assert (index["steps"], index["refiner_guidance"]) == (7, 1.5)
    (target / "stray").touch()
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    assert not (target / "stray").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("autoencoder-mini", ["--reconstructor", "nowhere"], "'nowhere' holds no trained network"),
        (
            "autoencoder-mini",
            [],
            "--reconstructor is missing, expected the weights of a trained reconstructor",
        ),
        ("diffusion-mini", ["--reconstructor", "nowhere"], "'nowhere' holds no trained network"),
        ("diffusion-mini", ["--optim.lr", "-1"], "optim.lr is -1.0, expected a number above 0"),
    ],
)
def test_bad_requests_are_refused_and_leave_nothing(
    command: str, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["train", command, "--data", str(tmp_path), "--out", str(out), *options]) == 2
    error = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in error
    assert not out.exists()


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [("finished", 0, "weights"), ("out_of_time", 0, "Time is up"), ("interrupted", 130, "interrupted")],
)
def test_command_says_how_the_training_ended(
    status: Status,
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        "diffsplat.cli.train.train_stage", lambda _, folders: Outcome(status, 1, {}, folders.out)
    )
    command = ["train", "reconstruction-mini", "--data", "x", "--out", str(tmp_path)]
    assert main(command) == code
    assert message in "".join(capsys.readouterr())


def test_diverged_training_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def diverge(_recipe: StageRecipe, _folders: StageFolders) -> Outcome:
        raise DivergedError("training diverged: lower optim.lr")

    monkeypatch.setattr("diffsplat.cli.train.train_stage", diverge)
    assert main(["train", "reconstruction-mini", "--data", "x", "--out", "y"]) == 1
    assert capsys.readouterr().err == "diffsplat: error: training diverged: lower optim.lr\n"


def test_list_names_every_command_and_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "list"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:]}
    stages = {f"{stage}-{recipe.name}" for recipe in RECIPES.values() for stage in recipe.stages}
    backbones = {f"diffusion-{name}" for name in ("sd15", "pixart-sigma", "sd35m", "small")}
    controls = {f"controlnet-{kind}" for kind in ("depth", "normal", "canny")}
    assert rows.keys() >= {*RECIPES, *stages, *backbones, *controls}
    assert rows["diffusion-mini"].endswith("--reconstructor --autoencoder --condition-encoder")
    assert "--" not in rows["reconstruction-mini"]
    begun = {name: row.split("--pretrained with ")[1] for name, row in rows.items() if "--pretrained" in row}
    sd15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert begun == {
        "elevation": "facebook/dinov2-with-registers-base",
        "autoencoder-sd": sd15,
        "autoencoder-sdxl": "madebyollin/sdxl-vae-fp16-fix",
        "autoencoder-sd3": "stabilityai/stable-diffusion-3.5-medium",
        "tiny-decoder-sd": "madebyollin/taesd",
        "tiny-decoder-sdxl": "madebyollin/taesdxl",
        "tiny-decoder-sd3": "madebyollin/taesd3",
        "diffusion-sd15": sd15,
        "diffusion-pixart-sigma": "PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers",
        "diffusion-sd35m": "stabilityai/stable-diffusion-3.5-medium",
        **dict.fromkeys(controls, sd15),
    }


def test_initial_weights_are_a_function_of_the_seed(data: Path, tmp_path: Path) -> None:
    folders = StageFolders((data,), tmp_path)
    torch.manual_seed(1)
    first, _ = RECONSTRUCTION.build(folders)
    torch.manual_seed(2)
    second, _ = RECONSTRUCTION.build(folders)
    other, _ = replace(RECONSTRUCTION, trainer=replace(SHORT_TRAINER, seed=5)).build(folders)
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)]
    differ = [not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True)]
    assert all(same)
    assert any(differ)


def test_new_run_starts_from_the_weights_of_an_earlier_one(chain: Path, data: Path, tmp_path: Path) -> None:
    folders = RunFolders((data,), tmp_path, start_from=chain).of_stage("reconstruction")
    still = replace(SHORT_TRAINER, steps=1, seed=9, optim=OptimConfig(lr=1e-12))
    assert train_stage(replace(RECONSTRUCTION, trainer=still), folders).status == "finished"
    name = "diffusion_pytorch_model.safetensors"
    before = load_file(chain / "reconstruction" / "weights" / name)
    after = load_file(folders.out / "weights" / name)
    assert before.keys() == after.keys()
    for key, weights in before.items():
        torch.testing.assert_close(after[key], weights, rtol=1e-3, atol=1e-6)
    wider = replace(RECONSTRUCTION, stage=ReconstructionConfig(dim=96, blocks=1), trainer=still)
    with pytest.raises(ValueError, match="has the shape"):
        train_stage(wider, replace(folders, out=tmp_path / "wider"))


@pytest.mark.parametrize(("least", "verdict"), [(1.0, "reaches"), (99.0, "does NOT reach")])
def test_overfit_trains_and_evaluates_few_objects_and_gives_a_verdict(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    least: float,
    verdict: str,
) -> None:
    monkeypatch.setattr(ReconstructionConfig, "overfit_goal", OverfitGoal("psnr_input", least))
    folders = StageFolders((data,), tmp_path, overfit=1)
    _, source = RECONSTRUCTION.build(folders)
    trained = {prompt for step in range(5) for prompt in source.batch(step).prompt}
    evaluated = {prompt for batch in source.evaluation() for prompt in batch.prompt}
    captions = set(training_objects(folders).rows[0].captions)
    assert trained | evaluated <= captions
    with caplog.at_level(logging.INFO):
        train_stage(RECONSTRUCTION, folders)
    (line,) = [line for line in caplog.messages if line.startswith("overfit on 1 objects: psnr_input")]
    assert f"{verdict} the {least:g} that it must" in line


@pytest.mark.parametrize(("learning_rate", "verdict"), [(1e-2, "reaches"), (1e-9, "does NOT reach")])
def test_overfit_without_a_goal_must_halve_the_training_loss(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, learning_rate: float, verdict: str
) -> None:
    stage = MiniElevationStageConfig(input_size=32, stages=2, places=2, hidden=16, dropout=0.0)
    optim = OptimConfig(lr=learning_rate, warmup_steps=1)
    trainer = TrainerConfig(steps=60, log_every=5, optim=optim, precision="fp32", tracker="none")
    recipe = GradientTraining(stage, ElevationSourceConfig(batch_size=1, views=4), trainer)
    with caplog.at_level(logging.INFO):
        train_stage(recipe, StageFolders((data,), tmp_path, overfit=1))
    (line,) = [line for line in caplog.messages if line.startswith("overfit on 1 objects: the training loss")]
    assert f"{verdict} half of what it was" in line


def test_more_objects_than_there_are_cannot_be_overfitted(data: Path, tmp_path: Path) -> None:
    folders = StageFolders((data,), tmp_path / "run", overfit=5)
    with pytest.raises(InvalidInputError, match="overfit is 5, expected at most the 3 training objects"):
        train_stage(RECONSTRUCTION, folders)
    assert not folders.out.exists()
