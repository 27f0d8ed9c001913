"""Meshes to a model folder: every stage for a few steps, through the command line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffsplat.cli.main import main
from diffsplat.models.mini_denoiser import make_denoiser
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pretrained.network_folders import save_half
from diffsplat.training.grid_cache import GridSourceConfig
from diffsplat.training.latent_cache import LatentSourceConfig
from diffsplat.training.model_export import ExportConfig, export_model
from diffsplat.training.recipes import (
    RECIPES,
    AutoencoderRun,
    DiffusionRun,
    ReconstructionRun,
    RunConfig,
    embedded_text_encoder,
    train,
)
from diffsplat.training.stage_chain import ChainConfig, chain_parts, train_chain
from diffsplat.training.stages.autoencoder_stage import AutoencoderConfig
from diffsplat.training.stages.diffusion_stage import DiffusionConfig, DiffusionStage
from diffsplat.training.stages.reconstruction_stage import ReconstructionConfig
from diffsplat.training.trainer import DivergedError, Outcome, Status, TrainerConfig, is_finished
from diffsplat.training.trainer_config import REFINER_LEVEL, OptimConfig
from diffsplat.training.view_batches import ViewSourceConfig

pytest.importorskip("trimesh")


def small_chain() -> ChainConfig:
    views = ViewSourceConfig(batch_size=2, novel_views=2, evaluation_objects=1)
    trainer = TrainerConfig(
        steps=3,
        log_every=1,
        precision="fp32",
        device="cpu",
        tensorboard=False,
        optim=OptimConfig(warmup_steps=1),
    )
    return ChainConfig(
        reconstruction=ReconstructionRun(ReconstructionConfig(dim=48, blocks=1), views, trainer),
        autoencoder=AutoencoderRun(
            AutoencoderConfig(latent_channels=8),
            GridSourceConfig(batch_size=2, novel_views=2, evaluation_objects=1),
            trainer,
        ),
        diffusion=DiffusionRun(
            DiffusionConfig(width=64, layers=1, patch=1, channels=6, pictured_objects=1, pictured_steps=2),
            LatentSourceConfig(text_encoder=embedded_text_encoder(), batch_size=2, evaluation_objects=1),
            trainer,
        ),
        refiner=DiffusionRun(
            DiffusionConfig(width=64, layers=1, patch=1, greatest_level=0.9, pictured_objects=1),
            LatentSourceConfig(text_encoder=embedded_text_encoder(), batch_size=2, evaluation_objects=1),
            trainer,
        ),
    )


def losses(out: Path) -> list[float]:
    entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [entry["loss"] for entry in entries if entry["kind"] == "train"]


@pytest.fixture(scope="module")
def chain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a chain that was stopped once in its first stage."""
    out = tmp_path_factory.mktemp("chain")
    config = small_chain()
    hurried = replace(config.reconstruction.trainer, max_minutes=1e-9)
    first = replace(config, reconstruction=replace(config.reconstruction, trainer=hurried))
    assert train_chain(first, (data,), out) == "out_of_time"
    assert not (out / "autoencoder").exists()
    assert train_chain(config, (data,), out) == "finished"
    return out


def test_chain_writes_a_model_that_the_pipeline_loads(chain: Path) -> None:
    pipe = DiffSplatPipeline.from_pretrained(chain / "model")
    splats = pipe("a box", seed=0, steps=2).splats
    assert splats.batch_shape == (1,)
    assert splats.count == 4 * 32 * 32
    names = {path.name for path in (chain / "model").iterdir()}
    networks = {"reconstructor", "autoencoder", "denoiser", "refiner", "text_encoder", "scheduler"}
    assert names == networks | {"model_index.json", "README.md", "CREDITS.md"}
    card = (chain / "model" / "README.md").read_text()
    for stage, figure in (
        ("reconstructor", "psnr_novel"),
        ("denoiser", "velocity_error"),
        ("refiner", "velocity_error"),
    ):
        (row,) = [line for line in card.splitlines() if line.startswith(f"| {stage} | 3 | 6 |")]
        assert figure in row


def test_the_refiner_is_trained_below_its_level_and_sampled_there(
    chain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert DiffSplatPipeline.from_pretrained(chain / "model").defaults.refined_below == REFINER_LEVEL
    run = small_chain().refiner
    cache = chain / "diffusion" / "latents"
    record = json.loads((chain / "refiner" / "config.json").read_text())
    assert record["source"]["cache"] == str(cache)
    data = tuple(Path(place) for place in record["source"]["data"])
    stage, source = run.refining(data, chain / "refiner", chain_parts(chain, embedded_text_encoder())).build()
    assert isinstance(stage, DiffusionStage)
    assert stage.channels == 6
    levels = []
    monkeypatch.setattr(
        "diffsplat.training.stages.diffusion_stage.predict_latents",
        lambda network, noisy, level, text, rays: levels.append(level) or noisy,
    )
    for step in range(200):
        stage(source.batch(step))
    drawn = torch.cat(levels)
    assert 0.85 < float(drawn.max()) < 0.9
    (batch,) = source.evaluation()
    names = {f"velocity_error_{level}" for level in (0.54, 0.81, 0.873)}
    assert set(stage.evaluate(batch).scalars) == names | {"velocity_error"}


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
    parts = chain_parts(chain, embedded_text_encoder())
    save_half(wide, tmp_path / "wide" / "weights")
    with pytest.raises(ValueError, match="the refiner denoises 8 channels, expected the denoiser's 6"):
        export_model(target, replace(parts, refiner=tmp_path / "wide" / "weights"), ExportConfig(), (data,))
    assert not target.exists()
    assert main([*command, "--no-refiner"]) == 0
    assert not (target / "refiner").exists()
    assert DiffSplatPipeline.from_pretrained(target).refiner is None


def test_linear_autoencoder_is_written_without_training(chain: Path, data: Path, tmp_path: Path) -> None:
    run = small_chain().autoencoder
    outcome = train(run.placed((data,), tmp_path, chain / "reconstruction" / "weights"))
    assert outcome.status == "finished"
    written = load_file(tmp_path / "weights" / "diffusion_pytorch_model.safetensors")
    assert written.keys() == {"center", "components", "latent_scale"}
    assert json.loads((tmp_path / "config.json").read_text())["stage"]["latent_channels"] == 8
    assert is_finished(replace(run.trainer, out=tmp_path))


def test_stopped_stage_went_on_as_if_it_had_not_stopped(chain: Path, data: Path, tmp_path: Path) -> None:
    run = small_chain().reconstruction.placed((data,), tmp_path)
    assert train(run).status == "finished"
    assert losses(chain / "reconstruction") == losses(tmp_path)


def test_finished_chain_trains_nothing_again(chain: Path, data: Path) -> None:
    places = ("*/checkpoints/*/*", "*/weights/*", "*/grids/*/*", "*/latents/*")
    before = {path: path.stat().st_mtime_ns for place in places for path in chain.glob(place)}
    assert {path.relative_to(chain).parts[1] for path in before} == {
        "checkpoints",
        "weights",
        "grids",
        "latents",
    }
    assert train_chain(small_chain(), (data,), chain) == "finished"
    after = {path: path.stat().st_mtime_ns for place in places for path in chain.glob(place)}
    assert after == before


def test_command_trains_with_overridden_fields(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--optim.lr 1e-4 --steps 2 --stage.dim 48 --stage.blocks 1 --source.batch-size 1"
    words += " --source.novel-views 1 --device cpu --no-tensorboard"
    command = ["train", "reconstruction-mini", "--data", str(data), "--out", str(tmp_path), *words.split()]
    assert main(command) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "weights")
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["trainer"]["optim"]["lr"] == 1e-4
    assert record["stage"]["dim"] == 48
    assert record["source"]["data"] == [str(data)]
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
    ("words", "message"),
    [
        (["--reconstructor", "nowhere"], "'nowhere' holds no trained network"),
        (["--reconstructor", "nowhere", "--optim.lr", "-1"], "optim.lr is -1.0, expected a number above 0"),
    ],
)
def test_bad_requests_are_refused_and_leave_nothing(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["train", "autoencoder-mini", "--data", str(tmp_path), "--out", str(out), *words]) == 2
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
    monkeypatch.setattr("diffsplat.cli.train.train", lambda run: Outcome(status, 1, {}, run.trainer.out))
    command = ["train", "reconstruction-mini", "--data", "x", "--out", str(tmp_path)]
    assert main(command) == code
    assert message in "".join(capsys.readouterr())


def test_diverged_training_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def diverge(_run: RunConfig) -> Outcome:
        raise DivergedError("training diverged: lower optim.lr")

    monkeypatch.setattr("diffsplat.cli.train.train", diverge)
    assert main(["train", "reconstruction-mini", "--data", "x", "--out", "y"]) == 1
    assert capsys.readouterr().err == "diffsplat: error: training diverged: lower optim.lr\n"


def test_recipes_are_of_the_embedded_model() -> None:
    assert set(RECIPES) == {
        "reconstruction-mini",
        "autoencoder-mini",
        "diffusion-mini",
        "refiner-mini",
    }
    for make in RECIPES.values():
        assert make() == make()


def test_initial_weights_are_a_function_of_the_seed(data: Path, tmp_path: Path) -> None:
    run = small_chain().reconstruction.placed((data,), tmp_path)
    torch.manual_seed(1)
    first, _ = run.build()
    torch.manual_seed(2)
    second, _ = run.build()
    other, _ = replace(run, trainer=replace(run.trainer, seed=5)).build()
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)]
    differ = [not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True)]
    assert all(same)
    assert any(differ)


def test_new_run_starts_from_the_weights_of_an_earlier_one(chain: Path, data: Path, tmp_path: Path) -> None:
    earlier = chain / "reconstruction" / "weights"
    run = small_chain().reconstruction.placed((data,), tmp_path)
    still = replace(run.trainer.optim, lr=1e-12)
    trainer = replace(run.trainer, steps=1, seed=9, optim=still, start_from=earlier)
    assert train(replace(run, trainer=trainer)).status == "finished"
    name = "diffusion_pytorch_model.safetensors"
    before, after = load_file(earlier / name), load_file(tmp_path / "weights" / name)
    assert before.keys() == after.keys()
    for key, weights in before.items():
        torch.testing.assert_close(after[key], weights, rtol=1e-3, atol=1e-6)
    wider = replace(run.stage, dim=96)
    with pytest.raises(ValueError, match="has the shape"):
        train(replace(run, stage=wider, trainer=replace(trainer, out=tmp_path / "wider")))
