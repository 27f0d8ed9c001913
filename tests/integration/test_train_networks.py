"""Every recipe of a single network but the denoisers: three steps with tiny networks, and its files open again."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from diffsplat.data.mesh_ingestion import RenderOptions, ingest
from diffsplat.data.mesh_sources import folder_objects
from diffsplat.errors import InvalidInputError, MissingFileError
from diffsplat.models.denoiser_families import Variant
from diffsplat.models.efficientnet import load_efficientnet
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.models.splat_vae import SplatVAE
from diffsplat.pretrained.network_folders import open_elevation_estimator
from diffsplat.pretrained.release_catalogue import DINOV2_REPOSITORY, ELEVATION_RELEASE, RECONSTRUCTOR_RELEASE
from diffsplat.pretrained.release_catalogue import find_backbone as released_row
from diffsplat.pretrained.release_layout import find_release
from diffsplat.pretrained.released_networks import (
    load_elevation_network,
    load_reconstructor,
    load_splat_vae,
)
from diffsplat.training.recipes import network_recipes
from diffsplat.training.rendered_view_loss import RenderedViewWeights, RenderingLossOptions
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.stages.image_autoencoder_stage import ImageAutoencoderConfig
from diffsplat.training.stages.stage_recipe import GradientTraining, train_stage
from support.made_up_vgg import linear_weights, torchvision_weights
from support.release_folders import LATENT_SPACES, VAE

pytest.importorskip("trimesh")

SIZE = 32
BACKBONES: dict[Variant, str] = {"sd": "sd15", "sdxl": "pixart-sigma", "sd3": "sd35m"}
TRAINER = {
    "steps": 3,
    "log_every": 1,
    "evaluate_every": 0,
    "precision": "fp32",
    "device": "cpu",
    "accumulation": 1,
    "tracker": "none",
}
SMALL_SIZES = {"image_size": SIZE, "widths": (4, 8), "latent_channels": 3, "norm_groups": 2}
ELEVATION_SIZES = {"input_size": 32, "stages": 3, "frozen_stages": 2, "places": 1, "hidden": 8}
IMAGE_VAE = ImageAutoencoderConfig(widths=(4, 8), latent_channels=3, norm_groups=2, crop=16)


def shortened(name: str, /, **stage: Any) -> GradientTraining:
    """A recipe of three steps and small batches, with some options of its stage changed."""
    recipe = network_recipes()[name].stage
    assert isinstance(recipe, GradientTraining)
    source: Any = replace(recipe.source, batch_size=1, evaluation_objects=1)
    if hasattr(source, "image_size"):
        source = replace(source, image_size=None)
    trainer: Any = replace(recipe.trainer, **TRAINER)
    return replace(recipe, stage=replace(recipe.stage, **stage), source=source, trainer=trainer)


@pytest.fixture(scope="module")
def reconstructor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("reconstructor")
    GSRecon(dim=32, blocks=1, heads=2, parametrization="residual", pixel_grid="center").save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="module")
def released_reconstructor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the legacy pixel grid and without a configuration, as a release has it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("released-reconstructor")
    network = GSRecon(dim=64, blocks=1, heads=1, image_size=SIZE)
    network.save_pretrained(folder, weights_file="model.safetensors")
    return folder


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny real components in folders named like the repositories."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("pretrained")
    for variant, backbone in BACKBONES.items():
        repository, part = released_row(backbone).trained_autoencoder
        vae = AutoencoderKL(**VAE, **LATENT_SPACES[backbone])
        vae.save_pretrained(folder / repository.rsplit("/", 1)[-1] / part)
        tiny = AutoencoderTiny(
            encoder_block_out_channels=(4, 4, 4, 4),
            decoder_block_out_channels=(4, 4, 4, 4),
            num_encoder_blocks=(1, 1, 1, 1),
            num_decoder_blocks=(1, 1, 1, 1),
            latent_channels=LATENT_SPACES[backbone]["latent_channels"],
        )
        tiny.save_pretrained(folder / released_row(BACKBONES[variant]).tiny_autoencoder.rsplit("/", 1)[-1])
    dinov2 = Dinov2WithRegistersConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=1, image_size=42, patch_size=14
    )
    Dinov2WithRegistersModel(dinov2).save_pretrained(folder / DINOV2_REPOSITORY.rsplit("/", 1)[-1])
    return folder


@pytest.fixture(scope="module")
def perceptual(tmp_path_factory: pytest.TempPathFactory) -> RenderingLossOptions:
    """LPIPS of made-up weights in a local folder."""
    folder = tmp_path_factory.mktemp("lpips")
    save_file(torchvision_weights(), folder / "vgg16-397923af.safetensors")
    save_file(linear_weights(), folder / "vgg.safetensors")
    return RenderingLossOptions(RenderedViewWeights(perceptual=1.0, perceptual_size=0), "lpips", folder)


@pytest.fixture(scope="module")
def image_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("image-vae")
    IMAGE_VAE.network().save_pretrained(folder)
    return folder


def test_image_autoencoder_small(data: Path, tmp_path: Path):
    recipe = replace(shortened("image-autoencoder-small"), stage=IMAGE_VAE)
    outcome = train_stage(recipe, StageFolders((data,), tmp_path))
    assert outcome.status == "finished"
    vae = AutoencoderKL.from_pretrained(tmp_path / "weights")
    assert vae.config["scaling_factor"] != AutoencoderKL().config["scaling_factor"]


def test_autoencoder_small(data: Path, reconstructor: Path, tmp_path: Path):
    folders = StageFolders((data,), tmp_path, reconstructor=reconstructor)
    outcome = train_stage(shortened("autoencoder-small", **SMALL_SIZES, rendering_from=2), folders)
    assert outcome.status == "finished"
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert any("rgb" in line for line in logged)
    trained = SplatVAE.from_pretrained(tmp_path / "weights")
    assert (trained.latent_shape, trained.pixel_grid) == ((4, 3, 16, 16), "center")


def test_reconstruction_small(data: Path, tmp_path: Path):
    assert (
        train_stage(shortened("reconstruction-small"), StageFolders((data,), tmp_path)).status == "finished"
    )
    small = GSRecon.from_pretrained(tmp_path / "weights").config
    mini = network_recipes()["reconstruction-mini"].stage
    assert isinstance(mini, GradientTraining)
    assert small == mini.stage.network().config  # pyright: ignore[reportAttributeAccessIssue]


def test_reconstruction(data: Path, perceptual: RenderingLossOptions, tmp_path: Path):
    sizes = {"dim": 64, "blocks": 1, "heads": 1, "image_size": SIZE}
    recipe = shortened("reconstruction", **sizes, rendering=perceptual)
    assert train_stage(recipe, StageFolders((data,), tmp_path)).status == "finished"
    *_, evaluation = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert '"perceptual"' in (tmp_path / "metrics.jsonl").read_text()
    assert 0 < evaluation["lpips_novel"] == pytest.approx(evaluation["lpips_input"], rel=0.5)
    place = find_release(tmp_path / "release", RECONSTRUCTOR_RELEASE)
    own, released = GSRecon.from_pretrained(tmp_path / "weights"), load_reconstructor(place)
    for name, tensor in own.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(released.state_dict()[name], tensor)
    assert released.pixel_grid == own.pixel_grid == "legacy"


@pytest.mark.parametrize("variant", BACKBONES)
def test_autoencoder_then_its_tiny_decoder(
    data: Path, pretrained: Path, released_reconstructor: Path, tmp_path: Path, variant: Variant
):
    folders = StageFolders(
        (data,), tmp_path / "full", pretrained=pretrained, reconstructor=released_reconstructor
    )
    options = {"image_size": SIZE, "rendering": RenderingLossOptions()}
    assert train_stage(shortened(f"autoencoder-{variant}", **options), folders).status == "finished"
    full = load_splat_vae(
        folders.out / "weights", variant=variant, image_vae={**VAE, **LATENT_SPACES[BACKBONES[variant]]}
    )
    assert full.tiny_decoder is None
    assert full.scaling_factor == LATENT_SPACES[BACKBONES[variant]]["scaling_factor"]

    tiny_folders = replace(folders, out=tmp_path / "tiny", autoencoder=folders.out)
    assert train_stage(shortened(f"tiny-decoder-{variant}", **options), tiny_folders).status == "finished"
    release = released_row(BACKBONES[variant]).autoencoder_release
    trained = load_splat_vae(
        find_release(tmp_path / "tiny" / "release", release),
        variant=variant,
        image_vae={**VAE, **LATENT_SPACES[BACKBONES[variant]]},
    )
    for name, tensor in full.vae.state_dict().items():
        assert torch.equal(trained.vae.state_dict()[name], tensor)
    start = load_file(
        pretrained
        / released_row(BACKBONES[variant]).tiny_autoencoder.rsplit("/", 1)[-1]
        / "diffusion_pytorch_model.safetensors"
    )
    moved = trained.state_dict()["tiny_decoder.layers.0.weight"] - start["decoder.layers.0.weight"]
    assert 0 < float(moved.abs().max()) < 0.01


def test_elevation(data: Path, pretrained: Path, tmp_path: Path):
    outcome = train_stage(shortened("elevation"), StageFolders((data,), tmp_path, pretrained=pretrained))
    assert outcome.status == "finished"
    assert outcome.figures["mean_error_degrees"] < 90
    trained = load_elevation_network(find_release(tmp_path / "release", ELEVATION_RELEASE))
    start = Dinov2WithRegistersModel.from_pretrained(pretrained / DINOV2_REPOSITORY.rsplit("/", 1)[-1])
    name = "encoder.layer.0.mlp.fc1.weight"
    moved = trained.backbone.state_dict()[name] - start.state_dict()[name]
    # Two updates of at most a tenth of the learning rate; the first has the learning rate 0.
    assert 0 < float(moved.abs().max()) < 3 * 0.1 * 1e-4


def test_elevation_mini(data: Path, tmp_path: Path):
    """Trained on images as they are and mirrored, either of them at random."""
    recipe = shortened("elevation-mini", **ELEVATION_SIZES, dropout=0.0, recoloring=0.0)
    assert train_stage(recipe, StageFolders((data,), tmp_path)).status == "finished"
    trained = open_elevation_estimator(tmp_path / "weights")
    stage, source = recipe.build(StageFolders((data,), tmp_path))
    stage.eval()
    batch = replace(source.batch(0), images=source.batch(0).images[:1], degrees=source.batch(0).degrees[:1])
    ways = [
        functional.smooth_l1_loss(stage.network(images), batch.degrees, beta=2.0).item()
        for images in (batch.images, batch.images.flip(-1))
    ]
    assert abs(ways[0] - ways[1]) > 1e-6
    losses = {round(stage(batch, 1).total.item(), 5) for _ in range(20)}
    assert losses == {round(value, 5) for value in ways}
    assert trained.config["stages"] == 3
    # What is frozen is that of ImageNet; the first update has the learning rate 0, the others move the rest.
    learned, known = trained.trunk.state_dict(), load_efficientnet().state_dict()
    kept = {name: torch.equal(tensor, known[name].half().float()) for name, tensor in learned.items()}
    moved = {name for name, same in kept.items() if not same}
    assert moved
    assert all(name.startswith(("blocks.3.", "blocks.4.")) for name in moved)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("reconstruction-small", {"dim": 32, "blocks": 1, "heads": 2}),
        ("autoencoder-small", {**SMALL_SIZES, "rendering_from": 1}),
        ("image-autoencoder-small", {"widths": (4, 8), "latent_channels": 3, "norm_groups": 2}),
        ("elevation-mini", ELEVATION_SIZES),
    ],
)
def test_stages_train_in_bfloat16(
    data: Path, reconstructor: Path, tmp_path: Path, name: str, sizes: dict[str, Any]
):
    """Losses and figures are those of float32 but for what eight bits round, and all that is kept is float32."""
    recipe = shortened(name, **sizes)
    logged: dict[str, list[dict[str, float]]] = {}
    for precision in ("fp32", "bf16"):
        trainer = replace(recipe.trainer, precision=precision)
        folders = StageFolders((data,), tmp_path / precision, reconstructor=reconstructor)
        assert train_stage(replace(recipe, trainer=trainer), folders).status == "finished"
        lines = (folders.out / "metrics.jsonl").read_text().splitlines()
        logged[precision] = [json.loads(line) for line in lines]
    for exact, rounded in zip(*logged.values(), strict=True):
        figures = {
            key: exact[key] for key in exact.keys() & {"loss", "psnr_input", "psnr", "mean_error_degrees"}
        }
        assert figures
        assert {key: rounded[key] for key in figures} == pytest.approx(figures, rel=0.03)
    norms = [[line.get("gradient_norm") for line in lines] for lines in logged.values()]
    assert norms[0] != norms[1]
    for group in ("weights", "ema", "optimizer"):
        kept = load_file(tmp_path / "bf16" / "checkpoints" / "step-00000003" / f"{group}.safetensors")
        assert {tensor.dtype for tensor in kept.values()} == {torch.float32}


def test_a_reconstructor_or_data_of_other_images_is_refused(data: Path, pretrained: Path, tmp_path: Path):
    large = tmp_path / "large"
    GSRecon(dim=64, blocks=1, heads=1, image_size=64).save_pretrained(large, weights_file="model.safetensors")
    folders = StageFolders((data,), tmp_path / "run", pretrained=pretrained, reconstructor=large)
    recipe = shortened("autoencoder-sd", image_size=SIZE, rendering=RenderingLossOptions())
    with pytest.raises(InvalidInputError, match="image size of the reconstructor is 64, expected the 32"):
        train_stage(recipe, folders)
    with pytest.raises(InvalidInputError, match="size of the data's images is 32, expected the 128 pixels"):
        train_stage(shortened("reconstruction-small", image_size=128), folders)
    with pytest.raises(
        InvalidInputError, match="patch is 5, expected a divisor of the 32 pixels of the data"
    ):
        train_stage(shortened("reconstruction-small", patch=5), folders)
    assert not folders.out.exists()


def test_a_run_goes_on_with_the_network_that_it_began_with(data: Path, reconstructor: Path, tmp_path: Path):
    recipe = shortened("autoencoder-small", **SMALL_SIZES)
    folders = StageFolders((data,), tmp_path / "run", reconstructor=reconstructor)
    assert train_stage(recipe, folders).step == 3
    moved = shutil.copytree(reconstructor, tmp_path / "moved")
    assert train_stage(recipe, replace(folders, reconstructor=moved)).step == 3
    GSRecon(dim=32, blocks=1, heads=1, parametrization="residual", pixel_grid="center").save_pretrained(moved)
    with pytest.raises(InvalidInputError, match=r"networks\.reconstructor was"):
        train_stage(recipe, replace(folders, reconstructor=moved))


@pytest.mark.parametrize("name", ["reconstruction-small", "image-autoencoder-small", "elevation-mini"])
def test_a_start_from_another_kind_of_network_is_refused(data: Path, tmp_path: Path, name: str):
    SplatVAE({**VAE, **LATENT_SPACES["sd15"]}, (), (), SIZE).save_pretrained(tmp_path / "vae")
    folders = StageFolders((data,), tmp_path / "run", start_from=tmp_path / "vae")
    with pytest.raises(
        InvalidInputError, match=r"start_from is .*/vae', expected the folder of a .* a SplatVAE"
    ):
        train_stage(shortened(name), folders)
    assert not (tmp_path / "run").exists()


def test_an_image_autoencoder_of_other_sizes_is_no_start(data: Path, image_vae: Path, tmp_path: Path):
    folders = StageFolders((data,), tmp_path / "run", start_from=image_vae)
    with pytest.raises(InvalidInputError, match=r"has the shape .* expected .* as in this AutoencoderKL"):
        train_stage(shortened("image-autoencoder-small", widths=(8, 8), norm_groups=2), folders)


def test_a_missing_image_diffusion_model_is_named(data: Path, released_reconstructor: Path, tmp_path: Path):
    folders = StageFolders((data,), tmp_path, pretrained=tmp_path, reconstructor=released_reconstructor)
    recipe = shortened("autoencoder-sdxl", image_size=SIZE, rendering=RenderingLossOptions())
    with pytest.raises(MissingFileError, match="models download pixart-sigma --for-training"):
        train_stage(recipe, folders)


def test_images_of_several_sizes_are_refused(data: Path, tmp_path: Path):
    options = RenderOptions(size=64, supersampling=1, recolor=False, processes=1)
    ingest(folder_objects(data.parent / "meshes"), tmp_path / "large", options)
    folders = StageFolders((data, tmp_path / "large"), tmp_path / "run")
    for name, option in (("reconstruction-small", True), ("elevation-mini", False)):
        with pytest.raises(
            InvalidInputError, match="the data's images is 32 and 64, expected one size"
        ) as refusal:
            train_stage(shortened(name), folders)
        assert ("source.image_size" in str(refusal.value)) == option
    assert not (tmp_path / "run").exists()
    recipe = shortened("reconstruction-small")
    smaller: Any = replace(recipe.source, image_size=32)
    assert train_stage(replace(recipe, source=smaller), folders).status == "finished"


def test_images_and_shards_without_normals_are_refused(data: Path, tmp_path: Path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").touch()
    with pytest.raises(MissingFileError, match="holds images but no objects"):
        train_stage(shortened("reconstruction-small"), StageFolders((tmp_path / "images",), tmp_path / "a"))
    bare = without_columns(data, tmp_path / "bare", "normal")
    with pytest.raises(InvalidInputError, match="has no normals and depths"):
        train_stage(shortened("reconstruction-small"), StageFolders((bare,), tmp_path / "b"))


def test_elevations_are_learned_from_images_without_normals_and_depths(data: Path, tmp_path: Path):
    """The same batches as with them, and those are not all one image."""
    bare = without_columns(data, tmp_path / "bare", "normal", "depth")
    recipe = shortened("elevation-mini", **ELEVATION_SIZES)
    with_geometry, without = (
        recipe.source.build(StageFolders((folder,), tmp_path / "run")).batch(1).images
        for folder in (data, bare)
    )
    torch.testing.assert_close(without, with_geometry, rtol=0, atol=0)
    assert float((with_geometry - with_geometry[:1]).abs().amax()) > 0.1
    assert train_stage(recipe, StageFolders((bare,), tmp_path / "run")).status == "finished"


def without_columns(data: Path, out: Path, *names: str) -> Path:
    """Copies of shards that lack some columns."""
    from pyarrow import parquet

    out.mkdir()
    for shard in data.glob("objects-*.parquet"):
        parquet.write_table(parquet.read_table(shard).drop_columns(list(names)), out / shard.name)
    return out


def test_missing_perceptual_weights_say_where_they_come_from(data: Path, tmp_path: Path):
    recipe = shortened("reconstruction", image_size=SIZE)
    rendering = replace(recipe.stage.rendering, perceptual_weights=tmp_path)  # pyright: ignore[reportAttributeAccessIssue]
    recipe = replace(recipe, stage=replace(recipe.stage, rendering=rendering))
    with pytest.raises(MissingFileError, match=r"take https://download\.pytorch\.org/models/vgg16"):
        train_stage(recipe, StageFolders((data,), tmp_path / "out"))
