"""Model folders of any networks: what is saved from the released models is generated with as they are."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file

from diffsplat.cli.main import main
from diffsplat.io.splat_formats import read_splats
from diffsplat.models.splat_vae import SplatVAE
from diffsplat.models.text.stored_prompts import StoredPrompts
from diffsplat.pipelines import DiffSplatPipeline, SplatOutput
from diffsplat.pipelines.model_opening import ModelChoice, OpeningOptions
from diffsplat.pretrained.model_folders import ModelFolder, write_index
from diffsplat.pretrained.release_catalogue import BACKBONES
from diffsplat.web.model_worker import load_models

NAMES = list(BACKBONES)
PROMPT = "a red chair"


@pytest.fixture(scope="module")
def folders(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model folders of the variants of sd15, each alone, and of all of them together."""
    root = tmp_path_factory.mktemp("folders")
    variants = {"text": {}, "image": {"image": True}, "depth": {"control": "depth"}}
    for name, variant in variants.items():
        DiffSplatPipeline.from_pretrained("sd15", weights=weights, **variant).save_pretrained(root / name)
    for name in variants:
        shutil.copytree(root / name, root / "all", dirs_exist_ok=True)
    components = [path.name for path in (root / "all").iterdir() if path.is_dir()]
    defaults = [ModelFolder.find(root / name).defaults() for name in ("text", "image")]
    write_index(root / "all", components, *defaults)
    return {name: root / name for name in (*variants, "all")}


def values(output: SplatOutput) -> torch.Tensor:
    return torch.cat([output.splats.means, output.splats.colors], dim=-1)


def generated(folder: Path, output: Path, *words: object) -> torch.Tensor:
    command = ["generate", PROMPT, "--model", folder, "--steps", 2, "-o", output, "--force", *words]
    assert main([str(word) for word in command]) == 0
    splats = read_splats(output)
    assert splats.count > 1000
    return torch.cat([splats.means, splats.colors], dim=-1)


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["generate", PROMPT, *map(str, words)]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_round_trip_of_every_backbone(weights: Path, tmp_path: Path, picture: Path, name: str, image: bool):
    """In half precision once; from then on the same."""
    released = DiffSplatPipeline.from_pretrained(name, weights=weights, image=image, dtype=torch.float32)
    options = {"steps": 3, "elevation": 20.0, "seed": 4, **({"image": picture} if image else {})}
    expected = values(released(PROMPT, **options))  # type: ignore[arg-type]
    released.save_pretrained(tmp_path / "first")
    assert len({path.stat().st_mode for path in (tmp_path / "first").rglob("*") if path.is_file()}) == 1
    first = DiffSplatPipeline.from_pretrained(tmp_path / "first")
    assert first.defaults == released.defaults
    assert first.takes_image == image
    made = values(first(PROMPT, **options))  # type: ignore[arg-type]
    assert (made - expected).abs().mean() < 0.01
    first.defaults = released.defaults
    assert (values(first(PROMPT, **(options | {"seed": 5}))) - expected).abs().mean() > 0.02  # type: ignore[arg-type]
    first.save_pretrained(tmp_path / "second")
    second = DiffSplatPipeline.from_pretrained(tmp_path / "second")
    assert torch.equal(values(second(PROMPT, **options)), made)  # type: ignore[arg-type]
    assert str(weights) not in "".join(
        path.read_text() for path in (tmp_path / "first").rglob("*config.json")
    )


def test_an_index_names_the_class_of_every_component(folders: dict[str, Path]):
    index = json.loads((folders["all"] / "model_index.json").read_text())
    assert {name: value for name, value in index.items() if isinstance(value, list)} == {
        "denoiser": ["diffusers", "UNet2DConditionModel"],
        "image_denoiser": ["diffusers", "UNet2DConditionModel"],
        "autoencoder": ["diffsplat", "SplatVAE"],
        "image_encoder": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["diffsplat", "ClipT5Encoder"],
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "elevation_estimator": ["diffsplat", "ElevationEstimator"],
        "controlnet-depth": ["diffusers", "ControlNetModel"],
    }
    assert (index["prediction"], index["guidance"]) == ("epsilon", 7.5)
    assert (index["image"]["prediction"], index["image"]["guidance"]) == ("v_prediction", 2.0)
    stored = load_file(folders["all"] / "image_denoiser" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}


def test_one_folder_holds_all_variants(folders: dict[str, Path], tmp_path: Path, picture: Path):
    """Each is generated as from a folder of its own, with its own prediction and guidance."""
    words = {
        "text": (),
        "image": ("--image", picture),
        "depth": ("--control", "depth", "--control-image", picture),
    }
    made = {name: generated(folders["all"], tmp_path / "a.ply", *given) for name, given in words.items()}
    for name, given in words.items():
        assert torch.equal(made[name], generated(folders[name], tmp_path / "b.ply", *given))
    assert made["text"].shape != made["depth"].shape or not torch.allclose(
        made["text"], made["depth"], atol=1e-3
    )
    image = DiffSplatPipeline.from_pretrained(folders["all"], image=True)
    text = DiffSplatPipeline.from_pretrained(folders["all"])
    predictions = [pipe.scheduler.config["prediction_type"] for pipe in (text, image)]
    assert predictions == ["epsilon", "v_prediction"]
    assert isinstance(text.autoencoder, SplatVAE)
    assert text.image_encoder is None


def test_the_elevation_network_is_stored_under_its_released_names(weights: Path, folders: dict[str, Path]):
    stored, released = (
        DiffSplatPipeline.from_pretrained(model, weights=weights, image=True).elevation_estimator
        for model in (folders["all"], "sd15")
    )
    assert stored is not None
    assert released is not None
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for made, expected in zip(stored.classify(images), released.classify(images), strict=True):
            assert torch.allclose(made, expected, atol=2e-3)
    assert stored.config == released.config
    names = load_file(folders["all"] / "elevation_estimator" / "model.safetensors").keys()
    assert names == load_file(next(weights.glob("elevest*/checkpoints/*/model.safetensors"))).keys()


def test_a_folder_with_an_image_denoiser_alone_wants_an_image(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    message = refusal(capsys, "--model", folders["image"], "-o", tmp_path / "a.ply")
    assert "generates from an image, expected an image" in message


def test_a_server_and_an_encoder_take_variants_of_folders(folders: dict[str, Path], tmp_path: Path):
    names = [str(folders["all"]), f"{folders['all']}:image", f"{folders['all']}:depth"]
    models = load_models(names, OpeningOptions(device="cpu")).models
    assert {name: (model.pipe.takes_image, model.controls) for name, model in models.items()} == {
        "all": (False, ()),
        "all:image": (True, ()),
        "all:depth": (False, ("depth",)),
    }
    file = tmp_path / "prompts.safetensors"
    assert main(["encode", PROMPT, "--model", names[0], "-o", str(file)]) == 0
    ahead = generated(folders["all"], tmp_path / "a.ply", "--embeddings", file)
    assert torch.equal(ahead, generated(folders["all"], tmp_path / "b.ply"))


@pytest.mark.parametrize(
    ("folder", "words", "says"),
    [
        ("text", ("--image", "{picture}"), "takes text only, expected another such as mini or sd15"),
        ("depth", ("--image", "{picture}"), "takes no image, expected another such as mini or sd15"),
        (
            "all",
            ("--control", "canny", "--control-image", "{picture}"),
            "has no ControlNet 'canny', expected one of: depth",
        ),
    ],
)
def test_variants_that_a_folder_lacks(
    folders: dict[str, Path],
    tmp_path: Path,
    picture: Path,
    folder: str,
    words: tuple[str, ...],
    says: str,
    capsys: pytest.CaptureFixture[str],
):
    given = [word.format(picture=picture) for word in words]
    message = refusal(capsys, "--model", folders[folder], "-o", tmp_path / "a.ply", *given)
    assert says in message
    assert str(folders[folder]) in message


@pytest.mark.parametrize(
    ("variant", "file"),
    [
        ({}, "denoiser/diffusion_pytorch_model.safetensors"),
        ({"image": True}, "image_encoder/config.json"),
        ({"image": True}, "elevation_estimator/model.safetensors"),
        ({"controls": ("depth",)}, "controlnet-depth/diffusion_pytorch_model.safetensors"),
    ],
)
def test_a_missing_file_is_named_before_anything_is_opened(
    folders: dict[str, Path], tmp_path: Path, variant: dict[str, object], file: str
):
    shutil.copytree(folders["all"], tmp_path / "model")
    (tmp_path / "model" / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks its file {file}"):
        ModelChoice(str(tmp_path / "model"), **variant).defaults()  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=f"lacks its file {file}"):
        ModelChoice(str(tmp_path / "model"), **variant).open()  # type: ignore[arg-type]


def test_what_could_not_be_read_again_is_not_written(folders: dict[str, Path], tmp_path: Path):
    target = tmp_path / "model"
    pipe = DiffSplatPipeline.from_pretrained(folders["depth"], control="depth")
    pipe.control_kind = None
    with pytest.raises(ValueError, match="control_kind is None, expected the kind"):
        pipe.save_pretrained(target)
    pipe.control_kind = "depth"
    encoder, pipe.text_encoder = pipe.text_encoder, StoredPrompts({})
    with pytest.raises(ValueError, match="a StoredPrompts does not belong into a model folder"):
        pipe.save_pretrained(target)
    pipe.text_encoder = encoder
    pipe.denoiser.add_adapter(LoraConfig(r=1, target_modules=["to_q"]))  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="the denoiser has LoRA layers"):
        pipe.save_pretrained(target)
    assert not target.exists()


def test_an_index_without_the_sampling_of_its_image_denoiser_is_refused(
    folders: dict[str, Path], tmp_path: Path
):
    index = json.loads((folders["all"] / "model_index.json").read_text())
    del index["image"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="lacks 'image', expected how it is sampled with an image"):
        DiffSplatPipeline.from_pretrained(tmp_path)
