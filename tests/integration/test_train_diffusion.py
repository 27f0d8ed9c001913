"""Every recipe of a denoiser or ControlNet, with tiny networks, through the command line."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import load_file

from diffsplat.cli.main import main
from diffsplat.data.mesh_ingestion import RenderOptions, ingest
from diffsplat.data.mesh_sources import folder_objects
from diffsplat.io.splat_formats import read_splats
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.models.splat_vae import SplatVAE
from diffsplat.pipelines.image_and_control_conditions import image_latents
from diffsplat.pretrained.release_catalogue import BACKBONES
from support.release_folders import DENOISERS, LATENT_SPACES, VAE, build_release

trimesh = pytest.importorskip("trimesh")

SIZE = 64
RENDERING = ("--rendering-loss", "--rendering.perceptual", "none", "--rendering.loss.perceptual", "0")
CONTROLS = ("depth", "normal", "canny")
CACHED = ("--source.cached-rings", "2")


@dataclass(frozen=True)
class Given:
    """Folders that the recipes read."""

    data: Path
    pretrained: Path
    networks: Path

    def of(self, name: str) -> list[str]:
        """Options that name the folders of a backbone, or of the small models."""
        return [
            *("--data", str(self.data), "--pretrained", str(self.pretrained)),
            *("--reconstructor", str(self.networks / "reconstructor")),
            *("--autoencoder", str(self.networks / name)),
        ]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    root = tmp_path_factory.mktemp("given")
    (root / "meshes").mkdir()
    for number, name in enumerate(("crate", "box", "chest")):
        box = trimesh.creation.box(extents=(1.0, 0.5 + 0.2 * number, 0.7))
        box.visual.face_colors = [80 * number, 90, 200, 255]
        box.export(root / "meshes" / f"{name}.ply")
    options = RenderOptions(size=SIZE, supersampling=1, processes=1, views="orbits")
    ingest(folder_objects(root / "meshes"), root / "data", options)
    networks, pretrained = root / "networks", root / "pretrained"
    torch.manual_seed(0)
    GSRecon(dim=32, blocks=1, heads=1, patch=16).save_pretrained(networks / "reconstructor")
    for name, row in BACKBONES.items():
        build_release(pretrained, name)
        base = pretrained / row.base_repository.rsplit("/", 1)[-1]
        part = "unet" if row.family == "unet" else "transformer"
        DENOISERS[name](row.latent_channels).save_pretrained(base / part)
        vae = {**VAE, **LATENT_SPACES[name]}
        SplatVAE(vae, (4, 4, 4, 4), (1, 1, 1, 1), SIZE).save_pretrained(networks / name)
    small = {**VAE, **LATENT_SPACES["sd15"]}
    SplatVAE(small, (), (), SIZE).save_pretrained(networks / "small")
    AutoencoderKL(**small).save_pretrained(networks / "image-autoencoder")
    return Given(root / "data", pretrained, networks)


def train(recipe: str, out: Path, *options: str) -> int:
    fixed = ["--steps", "3", "--log-every", "1", "--source.batch-size", "2", "--source.novel-views", "1"]
    fixed += ["--source.image-size", str(SIZE)]
    few = ["--source.evaluation-objects", "1", "--sample-guidance", "2", "--sample-steps", "2"]
    quick = ["--accumulation", "1", "--optim.warmup-steps", "1", "--device", "cpu", "--precision", "fp32"]
    return main(["train", recipe, "--out", str(out), *fixed, *few, *quick, *options])


def generated(model: str, out: Path, target: Path, *options: str) -> torch.Tensor:
    """Colours of what the release of a run generates."""
    command = ["generate", "a box", "--model", model, "--weights", str(out / "release"), "--steps", "2"]
    assert main([*command, "-o", str(target), "--force", *options]) == 0
    return read_splats(target).colors


def entries(out: Path, kind: str) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize("name", list(BACKBONES))
@pytest.mark.parametrize("variant", [(), ("--image",), RENDERING], ids=["text", "image", "rendering"])
def test_denoisers_of_backbones_train_and_generate(
    given: Given, tmp_path: Path, picture: Path, name: str, variant: tuple[str, ...]
):
    assert train(f"diffusion-{name}", tmp_path, *given.of(name), *variant) == 0
    first, *_, last = entries(tmp_path, "train")
    assert {"loss", "diffusion"} <= first.keys()
    assert ("rendering" in first) == ("--rendering-loss" in variant)
    assert all(torch.isfinite(torch.tensor([line["loss"] for line in (first, last)])))
    (evaluation,) = entries(tmp_path, "evaluation")
    assert {"loss", "loss_0.1", "psnr_novel_guidance_2", "ssim_input_guidance_2"} <= evaluation.keys()
    row = BACKBONES[name]
    inputs = row.latent_channels + (7 if "--image" in variant else 6)
    stored = weights(tmp_path / "weights")
    first_layer = stored["conv_in.weight" if row.family == "unet" else "pos_embed.proj.weight"]
    assert first_layer.shape[1] == inputs
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "release", moved / "release")  # follows the links
    words = ("--image", str(picture), "--elevation", "10") if "--image" in variant else ()
    made = generated(name, tmp_path, tmp_path / "a.ply", *words)
    assert torch.equal(made, generated(name, moved, tmp_path / "b.ply", *words))
    kind = "transformer_ema" if row.family != "unet" else "unet_ema"
    release = row.image_release if "--image" in variant else row.text_release
    place = tmp_path / "release" / release / "checkpoints" / "000003" / kind
    assert place.resolve() == (tmp_path / "weights").resolve()


def test_denoisers_train_in_bfloat16(given: Given, tmp_path: Path):
    """Diffusion and rendering losses are those of float32 but for what eight bits round."""
    losses: list[list[float]] = []
    for precision in ("fp32", "bf16"):
        out = tmp_path / precision
        options = (*RENDERING, "--widths", "16", "16", "--precision", precision)
        assert train("diffusion-small", out, *given.of("small"), *options) == 0
        losses.append([line[term] for line in entries(out, "train") for term in ("diffusion", "rendering")])
        (folder,) = (out / "checkpoints").iterdir()
        assert {tensor.dtype for tensor in load_file(folder / "ema.safetensors").values()} == {torch.float32}
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


def test_rays_are_learned_from_zero(given: Given, tmp_path: Path):
    """The columns of the latents begin as the 2D model's, those of the rays as zeros, and both move."""
    assert train("diffusion-sd15", tmp_path, *given.of("sd15"), "--ema.decay", "0", "--optim.lr", "1e-3") == 0
    base = given.pretrained / "stable-diffusion-v1-5" / "unet"
    before, after = weights(base)["conv_in.weight"], weights(tmp_path / "weights")["conv_in.weight"]
    moved = (after[:, :4] - before).abs().max()
    assert 0 < float(moved) < 5e-3
    assert 0 < float(after[:, 4:].abs().max()) < 5e-3


def test_an_image_model_starts_from_a_text_model(given: Given, tmp_path: Path):
    assert train("diffusion-sd15", tmp_path / "text", *given.of("sd15")) == 0
    options = ("--image", "--start-from", str(tmp_path / "text"), "--optim.lr", "1e-9", "--ema.decay", "0")
    assert train("diffusion-sd15", tmp_path / "image", *given.of("sd15"), *options) == 0
    text, image = (weights(tmp_path / name / "weights") for name in ("text", "image"))
    torch.testing.assert_close(image["conv_in.weight"][:, :10], text["conv_in.weight"], atol=1e-7, rtol=0)
    assert float(image["conv_in.weight"][:, 10:].abs().max()) < 1e-7


def test_condition_images_are_sampled_in_training_only(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sampled = []

    def recorded(vae: AutoencoderKL, images: torch.Tensor, *, sample: bool) -> torch.Tensor:
        sampled.append(sample)
        return image_latents(vae, images, sample=sample)

    monkeypatch.setattr("diffsplat.training.stages.diffusion_stage.image_latents", recorded)
    assert train("diffusion-sd15", tmp_path, *given.of("sd15"), "--image") == 0
    assert sampled == [True, True, True, False]


@pytest.mark.parametrize("kind", CONTROLS)
def test_controlnets_train_on_a_frozen_denoiser(given: Given, tmp_path: Path, picture: Path, kind: str):
    assert train("diffusion-sd15", tmp_path / "text", *given.of("sd15")) == 0
    options = [*given.of("sd15"), "--denoiser", str(tmp_path / "text")]
    assert train(f"controlnet-{kind}", tmp_path / "control", *options) == 0
    stored = weights(tmp_path / "control" / "weights")
    assert float(stored["controlnet_mid_block.weight"].abs().max()) > 0
    assert stored["conv_in.weight"].shape[1] == 10
    out, words = tmp_path / "control", ("--control", kind, "--control-image", str(picture))
    plain = generated("sd15", out, tmp_path / "plain.ply")
    steered = generated("sd15", out, tmp_path / "steered.ply", *words, "--control-scale", "200")
    assert plain.shape != steered.shape or not torch.allclose(plain, steered, atol=1e-4)
    assert torch.equal(plain, generated("sd15", tmp_path / "text", tmp_path / "text.ply"))


@pytest.mark.parametrize("kind", CONTROLS)
@pytest.mark.parametrize("cached", [(), CACHED], ids=["online", "cached"])
def test_small_controlnets_train(given: Given, tmp_path: Path, kind: str, cached: tuple[str, ...]):
    """Their prompts have a mask, which ControlNets of diffusers do not take."""
    tiny = ("--widths", "16", "16")
    assert train("diffusion-small", tmp_path / "text", *given.of("small"), *tiny) == 0
    options = (*given.of("small"), "--denoiser", str(tmp_path / "text"))
    assert train(f"controlnet-{kind}-small", tmp_path / "control", *options, *cached) == 0
    (evaluation,) = entries(tmp_path / "control", "evaluation")
    assert {"silhouette_iou_guidance_2", "silhouette_iou_without_control"} <= evaluation.keys()


def test_a_controlnet_starts_from_an_earlier_one(given: Given, tmp_path: Path):
    tiny = ("--widths", "16", "16")
    assert train("diffusion-small", tmp_path / "text", *given.of("small"), *tiny) == 0
    options = (*given.of("small"), "--denoiser", str(tmp_path / "text"), "--sampled-objects", "0")
    assert train("controlnet-depth-small", tmp_path / "first", *options, "--optim.lr", "1e-2") == 0
    more = ("--start-from", str(tmp_path / "first"), "--optim.lr", "1e-9")
    assert train("controlnet-depth-small", tmp_path / "second", *options, *more) == 0
    first, second = (weights(tmp_path / name / "weights") for name in ("first", "second"))
    assert float(first["controlnet_mid_block.weight"].abs().max()) > 1e-3
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


@pytest.mark.parametrize(
    "variant", [(), ("--image",), RENDERING, CACHED], ids=["text", "image", "rendering", "cached"]
)
def test_small_denoisers_train(given: Given, tmp_path: Path, variant: tuple[str, ...]):
    tiny = ("--widths", "16", "16", "--image-autoencoder", str(given.networks / "image-autoencoder"))
    assert train("diffusion-small", tmp_path, *given.of("small"), *tiny, *variant) == 0
    assert len(entries(tmp_path, "train")) == 3


def test_an_image_autoencoder_of_other_latents_is_refused(
    given: Given, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    other = {**VAE, **LATENT_SPACES["sd15"], "latent_channels": 6}
    AutoencoderKL(**other).save_pretrained(tmp_path / "other")
    options = ("--widths", "16", "16", "--image", "--image-autoencoder", str(tmp_path / "other"))
    assert train("diffusion-small", tmp_path / "out", *given.of("small"), *options) == 2
    expected = "latent channels of the image autoencoder is 6, expected the 4 of the splat autoencoder"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pretrained", "nowhere"], "'nowhere/stable-diffusion-v1-5/unet' holds no network of"),
        (["--autoencoder", "nowhere"], "'nowhere' holds no trained network"),
        (["--image", "--control", "depth"], "control is depth, expected none with an image"),
        (["--dropout", "0.5"], "dropout is 0.5, expected a share from 0 to 1/3"),
    ],
)
def test_bad_input_is_one_sentence(
    given: Given, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert train("diffusion-sd15", tmp_path / "run", *given.of("sd15"), *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_data_of_another_size_is_refused_before_captions_are_encoded(
    given: Given, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("diffsplat.training.stages.diffusion_stage.PromptTable.open", None)
    monkeypatch.setattr("diffsplat.training.stages.diffusion_stage.ViewEncoder.open", None)
    SplatVAE({**VAE, **LATENT_SPACES["sd15"]}, (), (), 128).save_pretrained(tmp_path / "vae")
    options = [*given.of("sd15"), "--autoencoder", str(tmp_path / "vae")]
    assert train("diffusion-sd15", tmp_path / "run", *options) == 2
    assert (
        "the size of the data's images is 64, expected the 128 pixels of the networks"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--autoencoder {networks}/reconstructor", "the folder of a SplatVAE, not of a GSRecon"),
        ("--reconstructor {networks}/small", "the folder of a GSRecon, not of a SplatVAE"),
        ("--image --image-autoencoder {networks}/small", "a AutoencoderKL, not of a SplatVAE"),
        ("--control depth --denoiser {networks}/small", "a UNet2DConditionModel, not of a SplatVAE"),
        ("--start-from {unets}/text --autoencoder {networks}/sd35m", "is 4, expected the 16 of the latents"),
        ("--start-from {unets}/image", "is 11, expected at most 10: the 4 of the latents"),
    ],
)
def test_networks_of_another_kind_are_refused(
    given: Given, tmp_path: Path, options: str, message: str, capsys: pytest.CaptureFixture[str]
):
    unets = tmp_path / "unets"
    DENOISERS["sd15"](10).save_pretrained(unets / "text")
    DENOISERS["sd15"](11).save_pretrained(unets / "image")
    filled = options.format(networks=given.networks, unets=unets).split()
    assert train("diffusion-small", tmp_path / "run", *given.of("small"), *filled) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
