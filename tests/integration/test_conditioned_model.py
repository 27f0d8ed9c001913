"""One denoiser for text, images and control maps: a model folder of it, and its training."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from diffsplat.cli import evaluate
from diffsplat.cli.main import main
from diffsplat.core import Rendering
from diffsplat.data.mesh_ingestion import RenderOptions, ingest
from diffsplat.data.mesh_sources import folder_objects
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.errors import InvalidInputError
from diffsplat.evaluation.control_agreement import condition_images, control_images
from diffsplat.evaluation.evaluation_objects import objects_of_prompts, open_objects
from diffsplat.evaluation.evaluation_prompts import JudgedPrompt
from diffsplat.evaluation.evaluation_result import Evaluation
from diffsplat.evaluation.image_feature_store import FeatureStore
from diffsplat.evaluation.image_metrics import psnr
from diffsplat.evaluation.judged_text_evaluation import Generate
from diffsplat.images.depth_control_map import depth_control_map
from diffsplat.images.image_cutout_and_framing import prepare_condition_image
from diffsplat.io.splat_formats import read_splats
from diffsplat.models import ComponentAutoencoder, GSRecon
from diffsplat.models.condition_encoder import ConditionEncoder
from diffsplat.models.multiview_pixart import MultiViewPixArt
from diffsplat.pipelines import DiffSplatPipeline, SplatOutput
from diffsplat.pipelines.control_maps import canny_map
from diffsplat.pipelines.model_opening import OpeningOptions
from diffsplat.pretrained.model_folders import ModelFolder, SamplingDefaults
from diffsplat.pretrained.release_catalogue import ControlKind
from diffsplat.render import render
from diffsplat.training.elevation_batches import ElevationSourceConfig
from diffsplat.training.latent_batches import LatentBatch, LatentSourceConfig
from diffsplat.training.latent_cache import LatentOptions, latent_table, object_rings
from diffsplat.training.recipes.embedded_mini_recipe import MINI
from diffsplat.training.run_folders import RunFolders, StageFolders
from diffsplat.training.stage_chain import train_recipe
from diffsplat.training.stages.denoiser_configs import MiniDenoiserConfig
from diffsplat.training.stages.diffusion_stage import DiffusionConfig
from diffsplat.training.stages.elevation_stage import MiniElevationStageConfig
from diffsplat.training.stages.principal_component_fit import ComponentFit, ConditionFit
from diffsplat.training.stages.reconstruction_stage import ReconstructionConfig
from diffsplat.training.stages.stage_recipe import GradientTraining, train_stage
from diffsplat.training.trainer_config import TrainerConfig
from diffsplat.training.view_batches import ViewSourceConfig
from diffsplat.training.view_encoder import ViewEncoder
from diffsplat.web.model_worker import load_models
from support.rendered_dots import write_object
from support.short_training import SHORT_TRAINER

trimesh = pytest.importorskip("trimesh")
PROMPT = "a red chair"
SIZE = 32
FURTHER = ConditionEncoder().condition_channels
PLACES = (torch.arange(128) - 63.5) / 40
DISC = (PLACES**2 + PLACES[:, None] ** 2)[None]
"""Squared distance from the middle, in radii of a disc."""


def text_pipeline() -> DiffSplatPipeline:
    """The embedded model without what it knows of images and maps."""
    pipe = DiffSplatPipeline.from_pretrained("mini")
    wide = pipe.denoiser
    assert isinstance(wide, MultiViewPixArt)
    narrow = MultiViewPixArt(**{**wide.config, "in_channels": wide.config["in_channels"] - FURTHER})
    state = wide.state_dict()
    state["pos_embed.proj.weight"] = state["pos_embed.proj.weight"][:, :-FURTHER]
    narrow.load_state_dict(state)
    pipe.denoiser = narrow.eval()
    pipe.condition_encoder = pipe.image_defaults = pipe.elevation_estimator = None
    return pipe


def conditioned_pipeline() -> DiffSplatPipeline:
    """That one, its denoiser widened as training widens it: new weights are zero."""
    pipe = text_pipeline()
    narrow = pipe.denoiser
    assert isinstance(narrow, MultiViewPixArt)
    wide = MultiViewPixArt(**{**narrow.config, "in_channels": narrow.config["in_channels"] + FURTHER})
    state = narrow.state_dict()
    state["pos_embed.proj.weight"] = torch.nn.functional.pad(
        state["pos_embed.proj.weight"], (0, 0, 0, 0, 0, FURTHER)
    )
    wide.load_state_dict(state)
    pipe.denoiser = wide.eval()
    pipe.condition_encoder = ConditionEncoder().eval()
    pipe.image_defaults = SamplingDefaults(steps=2, guidance=2.0, elevation_deg=20.0)
    return pipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose denoiser tells the kinds of condition from each other."""
    pipe = conditioned_pipeline()
    assert isinstance(pipe.denoiser, MultiViewPixArt)
    weight = pipe.denoiser.pos_embed.proj.weight
    torch.nn.init.normal_(weight.data[:, -FURTHER:], std=0.02, generator=torch.Generator().manual_seed(0))
    target = tmp_path_factory.mktemp("models") / "conditioned"
    pipe.save_pretrained(target)
    return target


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[16:48, 20:44] = (200, 40, 30, 255)
    path = tmp_path_factory.mktemp("photos") / "box.png"
    Image.fromarray(pixels).save(path)
    return path


def values(output: SplatOutput) -> torch.Tensor:
    return torch.cat([output.splats.means, output.splats.colors], dim=-1)


def generated(folder: Path, output: Path, *words: object) -> torch.Tensor:
    command = ["generate", "--model", folder, "--steps", 2, "-o", output, "--force", *words]
    assert main([str(word) for word in command]) == 0
    splats = read_splats(output)
    return torch.cat([splats.means, splats.colors], dim=-1)


def test_a_widened_denoiser_makes_of_text_what_it_made_before():
    narrow, wide = text_pipeline(), conditioned_pipeline()
    before, after = (values(pipe(PROMPT, steps=3, seed=3)) for pipe in (narrow, wide))
    torch.testing.assert_close(after, before, atol=1e-4, rtol=0)


def test_one_folder_generates_from_text_images_and_maps(folder: Path, photo: Path, tmp_path: Path):
    words = {
        "text": (PROMPT,),
        "image": ("--image", photo, "--elevation", 20),
        "depth": (PROMPT, "--control", "depth", "--control-image", photo),
        "canny": (PROMPT, "--control", "canny", "--control-image", photo),
    }
    made = {name: generated(folder, tmp_path / "a.ply", *given) for name, given in words.items()}
    for first, second in (("text", "depth"), ("depth", "canny"), ("image", "text")):
        same = made[first].shape == made[second].shape
        assert not same or (made[first] - made[second]).abs().mean() > 1e-3


def test_a_folder_keeps_how_it_is_sampled_from_text_and_from_images(folder: Path):
    stored = ModelFolder.find(folder)
    assert stored.defaults() == DiffSplatPipeline.from_pretrained("mini").defaults
    assert stored.defaults(image=True) == SamplingDefaults(steps=2, guidance=2.0, elevation_deg=20.0)
    assert stored.controls == ("depth", "normal", "canny")
    index = json.loads((folder / "model_index.json").read_text())
    assert index["condition_encoder"] == ["diffsplat", "ConditionEncoder"]
    assert "image_denoiser" not in index


def test_an_image_has_guidance_of_its_own_and_no_refiner(folder: Path, photo: Path):
    pipe = DiffSplatPipeline.from_pretrained(folder)
    output = pipe("", image=photo, elevation=20.0)
    assert (output.generation.steps, output.generation.guidance) == (2, 2.0)
    expected = values(output)
    pipe.refiner = None
    assert torch.equal(values(pipe("", image=photo, elevation=20.0)), expected)


def test_a_refiner_of_text_refines_only_what_is_held_to_an_image(folder: Path, photo: Path):
    """It has no channels for the image, and would lose what nothing else holds."""
    pipe = DiffSplatPipeline.from_pretrained(folder)
    pipe.image_defaults = SamplingDefaults(
        steps=2, guidance=2.0, refined_below=0.9, refiner_guidance=2.0, projection=True
    )

    def made(**given: Any) -> torch.Tensor:
        return values(pipe(PROMPT, image=photo, elevation=20.0, **given))

    refined, free = made(), made(unprojected=True)
    pipe.refiner = None
    assert not torch.equal(made(), refined)
    assert torch.equal(made(unprojected=True), free)


@pytest.mark.parametrize(("prompt", "halves"), [("", 1), (PROMPT, 2)])
def test_a_refiner_of_text_is_not_guided_by_none(folder: Path, photo: Path, prompt: str, halves: int):
    """Both halves would be the same, since it does not see the image."""
    pipe = DiffSplatPipeline.from_pretrained(folder)
    pipe.image_defaults = SamplingDefaults(
        steps=2, guidance=2.0, refined_below=0.9, refiner_guidance=2.0, projection=True
    )
    assert isinstance(pipe.refiner, MultiViewPixArt)
    seen: list[int] = []
    pipe.refiner.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(0, 1).shape[0]))
    pipe(prompt, image=photo, elevation=20.0)
    assert seen == [4 * halves]


def test_the_first_view_takes_over_the_image(folder: Path, photo: Path):
    """And no more than the outline of a depth map; the networks of this folder make nothing of either."""
    pipe = DiffSplatPipeline.from_pretrained(folder, control="depth")
    pipe.image_defaults = SamplingDefaults(steps=2, guidance=2.0, projection=True)
    shown = prepare_condition_image(photo, size=128)

    def first_view(**given: Any) -> Rendering:
        made = pipe(PROMPT, elevation=20.0, **given)
        return render(made.splats, made.cameras[:, :1])

    projected, free = first_view(image=photo), first_view(image=photo, unprojected=True)
    quality = [float(psnr(each.rgb[:, 0].clamp(0, 1), shown.image[None])) for each in (projected, free)]
    assert quality[0] > 15 > quality[1] + 3
    mapped = first_view(control=depth_control_map(shown.alpha))
    covered = mapped.alpha[0, 0] > 0.5
    assert (covered & shown.outline).sum() / (covered | shown.outline).sum() > 0.9
    assert psnr(mapped.rgb[:, 0].clamp(0, 1), shown.image[None]) < quality[0]


def agreement(folder: Path, kind: ControlKind, control: torch.Tensor) -> tuple[float, Rendering]:
    """IoU of the first view's silhouette and a disc, and that view; the networks of this folder make nothing."""
    pipe = DiffSplatPipeline.from_pretrained(folder, control=kind)
    pipe.image_defaults = SamplingDefaults(steps=2, guidance=2.0, smoothing=2.5, projection=True)
    made = pipe(PROMPT, control=control, elevation=0.0)
    view = render(made.splats, made.cameras[:, :1])
    covered, disc = view.alpha[0, 0] > 0.5, DISC[0] < 1
    return float((covered & disc).sum() / (covered | disc).sum()), view


def test_the_first_view_takes_over_the_outline_of_edges(folder: Path):
    drawn = torch.where(DISC < 1, 0.2, 1.0).expand(3, -1, -1)
    edges = canny_map(drawn).clone()
    assert agreement(folder, "canny", edges)[0] > 0.9
    large = functional.interpolate(drawn[None], scale_factor=4)[
        0
    ]  # its lines become pale where it is made smaller
    assert agreement(folder, "canny", canny_map(large))[0] > 0.9
    edges[:, :70, 60:70] = 1
    assert agreement(folder, "canny", edges)[0] < 0.7


def test_white_edges_on_black_are_refused(folder: Path):
    edges = 1 - canny_map(torch.where(DISC < 1, 0.2, 1.0).expand(3, -1, -1))
    sentence = r"the black share of the edge map is 9\d%, expected black edges on white, at most 75%"
    with pytest.raises(InvalidInputError, match=sentence):
        agreement(folder, "canny", edges)


def test_the_first_view_takes_over_the_normals_of_a_map(folder: Path):
    """Those of a corrugated disc, which smoothing alone would make flat."""
    x = 0.8 * torch.sin(torch.arange(128) * (2 * torch.pi / 12)).expand(128, -1)
    normals = functional.normalize(torch.stack([x, torch.zeros_like(x), torch.ones_like(x)]), dim=0)
    overlap, view = agreement(folder, "normal", torch.where(DISC < 1, normals / 2 + 0.5, 1.0))
    assert overlap > 0.9
    assert view.normal is not None
    inner = DISC[0] < 0.7
    found, expected = view.normal[0, 0, 0][inner], normals[0][inner]
    assert float(torch.corrcoef(torch.stack([found, expected]))[0, 1]) > 0.8
    assert float(found.std() / expected.std()) > 0.7


def test_images_and_maps_are_not_taken_together(folder: Path, photo: Path):
    pipe = DiffSplatPipeline.from_pretrained(folder, control="depth")
    with pytest.raises(ValueError, match="an image or a control map, expected one of them"):
        pipe(PROMPT, image=photo, control=photo)
    with pytest.raises(ValueError, match="follows no control map"):
        DiffSplatPipeline.from_pretrained(folder)(PROMPT, control=photo)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> StageFolders:
    """Boxes of several colours on orbits, and untrained networks."""
    root = tmp_path_factory.mktemp("conditioned")
    (root / "meshes").mkdir()
    for number, name in enumerate(("crate", "box", "chest", "trunk")):
        mesh = trimesh.creation.box(extents=(1.0, 0.6, 0.3 + 0.2 * number))
        mesh.visual.vertex_colors = [60 * number, 200, 40, 255]
        mesh.export(root / "meshes" / f"{name}.ply")
    options = RenderOptions(size=SIZE, supersampling=1, processes=1, views="orbits")
    ingest(folder_objects(root / "meshes"), root / "data", options)
    torch.manual_seed(0)
    GSRecon(
        dim=32, blocks=1, heads=1, patch=8, parametrization="residual", pixel_grid="center"
    ).save_pretrained(root / "reconstructor")
    ComponentAutoencoder(image_size=SIZE, patch=8, latent_channels=16).save_pretrained(root / "autoencoder")
    given = StageFolders(
        (root / "data",),
        root / "run",
        reconstructor=root / "reconstructor",
        autoencoder=root / "autoencoder",
    )
    fit = ConditionFit(channels=8, component_views=8, evaluation_views=2)
    train_stage(fit, replace(given, out=root / "condition"))
    return replace(given, condition_encoder=root / "condition")


def test_latents_of_rings_are_those_of_their_views(folders: StageFolders):
    dataset = ObjectDataset(folders.data, split="train")
    table = latent_table(folders, dataset, rings=3, options=LatentOptions(channels=6))
    assert len(table.rings) == sum(min(3, len(row.rings)) for row in dataset.rows)
    assert [ring.row for ring in table.rings[: len(dataset)]] == list(range(len(dataset)))
    encoder = ViewEncoder.open(folders)
    for number in (0, len(dataset), len(table.rings) - 1):
        ring = table.rings[number]
        row = dataset.rows[ring.row]
        turned = [row.azimuths[view] for view in ring.views]
        assert np.allclose(np.diff(turned) % 360, 90, atol=1e-3)
        expected = encoder(dataset.load_views(ring.row, ring.views))[0, :, :6]
        torch.testing.assert_close(table.latents[number].float(), expected, atol=5e-3, rtol=1e-2)
    starts = {
        dataset.rows[ring.row].ring_views(dataset.rows[ring.row].ring[ring.views[0]])[0]
        for ring in table.rings
    }
    assert starts != {ring.views[0] for ring in table.rings}


def conditioned_batches(folders: StageFolders, count: int = 40) -> list[LatentBatch]:
    config = LatentSourceConfig(batch_size=2, channels=6, rings=3, conditioned_share=0.7)
    source = config.build(folders)
    return [source.batch(step) for step in range(count)]


def test_a_condition_shows_the_first_view_of_its_latents(folders: StageFolders):
    dataset = ObjectDataset(folders.data, split="train")
    table = latent_table(folders, dataset, rings=3, options=LatentOptions(channels=6))
    kinds = set()
    for batch in conditioned_batches(folders):
        if batch.condition is None:
            continue
        kinds.add(batch.condition.kind)
        for latents, image in zip(batch.latents, batch.condition.images, strict=True):
            numbers = [n for n, other in enumerate(table.latents) if torch.equal(other.float(), latents)]
            shown = [table.rings[number] for number in numbers]
            views = [dataset.load_views(ring.row, ring.views[:1]) for ring in shown]
            expected = [condition_images(view, batch.condition.kind)[0] for view in views]
            assert any(torch.equal(image, other) for other in expected)
    assert kinds == {"image", "depth", "normal", "canny"}


def test_batches_of_text_alone_are_seen_from_the_front(folders: StageFolders):
    dataset = ObjectDataset(folders.data, split="train")
    fronts = latent_table(folders, dataset).latents[:, :, :6].float()
    plain = [batch for batch in conditioned_batches(folders) if batch.condition is None]
    assert 5 < len(plain) < 20
    for batch in plain:
        assert all(batch.prompt)
        for latents in batch.latents:
            assert any(torch.equal(latents, front) for front in fronts)


def test_rings_are_drawn_in_the_same_way_again(folders: StageFolders):
    dataset = ObjectDataset(folders.data, split="train")
    assert object_rings(dataset, 3) == object_rings(dataset, 3)


def test_training_of_one_denoiser_for_all(folders: StageFolders, tmp_path: Path):
    """It starts from a denoiser of text, and its figures tell batches with an image from those without."""
    text = MiniDenoiserConfig(width=64, layers=1, patch=1, channels=6)
    narrow = text.untrained(ViewEncoder.open(folders).codec)
    narrow.save_pretrained(tmp_path / "text")
    recipe = GradientTraining(
        DiffusionConfig(replace(text, condition_channels=12), sample_steps=2, sampled_objects=1),
        LatentSourceConfig(batch_size=2, evaluation_objects=1, channels=6, rings=2, conditioned_share=0.5),
        replace(SHORT_TRAINER, steps=4),
    )
    given = replace(folders, out=tmp_path / "run", start_from=tmp_path / "text")
    weights = dict(recipe.build(given)[0].network.named_parameters())
    for name, value in narrow.named_parameters():
        assert torch.equal(weights[name][:, : value.shape[1]] if value.ndim == 4 else weights[name], value)
    figures = train_stage(recipe, given).figures
    assert {"loss", "image_loss", "image_psnr_seen_guidance_3", "image_psnr_others_guidance_3"} <= set(
        figures
    )
    trained = MultiViewPixArt.from_pretrained(tmp_path / "run" / "weights")
    assert trained.config["in_channels"] == narrow.config["in_channels"] + 12
    assert trained.pos_embed.proj.weight[:, -12:].abs().max() > 0


def test_a_denoiser_of_another_size_or_kind_is_no_start(folders: StageFolders, tmp_path: Path):
    """Refused before the latents are computed, which may take minutes."""
    codec = ViewEncoder.open(folders).codec
    MiniDenoiserConfig(width=64, layers=2, patch=1, channels=6).untrained(codec).save_pretrained(
        tmp_path / "deeper"
    )
    MiniDenoiserConfig(width=64, layers=1, patch=1, channels=6, condition_channels=12).untrained(
        codec
    ).save_pretrained(tmp_path / "wider")
    recipe = GradientTraining(
        DiffusionConfig(MiniDenoiserConfig(width=64, layers=1, patch=1, channels=6)),
        LatentSourceConfig(batch_size=2, channels=6),
        SHORT_TRAINER,
    )
    for start, expected in (
        ("deeper", r"num_layers of the denoiser in .*deeper' is 2, expected the 1 of the one to train"),
        ("wider", r"in_channels of the denoiser in .*wider' is 24, expected the 12 of the one to train"),
        (folders.autoencoder, r"expected the folder of a MultiViewPixArt, not of a ComponentAutoencoder"),
    ):
        given = replace(folders, out=tmp_path / "run", start_from=tmp_path / str(start))
        with pytest.raises(InvalidInputError, match=expected):
            train_stage(recipe, given)
    assert not (tmp_path / "run").exists()


def test_another_encoder_is_refused(folders: StageFolders):
    config = MiniDenoiserConfig(width=64, layers=1, patch=1, channels=6, condition_channels=10)
    with pytest.raises(
        ValueError, match="condition_channels is 10, expected the 12 of the condition encoder"
    ):
        DiffusionConfig(config).build(folders)


def test_without_its_encoder_a_conditioned_denoiser_is_not_trained(folders: StageFolders, tmp_path: Path):
    recipe = GradientTraining(
        DiffusionConfig(MiniDenoiserConfig(width=64, layers=1, patch=1, channels=6, condition_channels=12)),
        LatentSourceConfig(),
        TrainerConfig(steps=1),
    )
    given = replace(folders, out=tmp_path / "run", condition_encoder=None)
    with pytest.raises(ValueError, match="--condition-encoder is missing"):
        train_stage(recipe, given)


def test_a_server_takes_words_and_images_with_one_model(folder: Path, photo: Path):
    served = load_models([str(folder), f"{folder}:depth"], OpeningOptions()).models
    words, depth = served["conditioned"], served["conditioned:depth"]
    assert set(words.reasons) == {"control", "ip_adapter_image"}
    assert "unlike conditioned:depth, conditioned:normal" in words.reasons["control"]
    assert set(depth.reasons) == {"ip_adapter_image"}
    with_image = words.pipe.prepare(image=photo)
    assert with_image.image is not None
    assert words.pipe.prepare().image is None
    assert depth.pipe.prepare(control=photo).control is not None


def test_images_and_maps_are_measured_by_the_command_line(folder: Path, data: Path, tmp_path: Path):
    common = ["--model", folder, "--data", data, "--limit", 1, "--force", "--out"]
    for words, names in (
        (["image"], {"image_seen_psnr", "image_novel_psnr", "image_seen_ssim", "image_novel_ssim"}),
        (
            ["control", "--kind", "normal"],
            {
                f"{name}_{figure}"
                for name in ("with_map", "without")
                for figure in ("silhouette_iou", "normal_cosine")
            },
        ),
    ):
        report = tmp_path / f"{words[0]}.json"
        assert main([str(word) for word in ["evaluate", *words, *common, report]]) == 0
        assert set(json.loads(report.read_text())["figures"]) == names
        assert report.with_suffix(".png").is_file()


def test_what_is_judged_follows_the_map_of_a_real_object(
    folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch
):
    """With ``--control``; the judge itself needs fifty nouns, and has tests of its own."""
    asked = JudgedPrompt("a green box", "box", "green", trained=True)
    made: list[torch.Tensor] = []

    def judged(generate: Generate, prompts: list[JudgedPrompt], *_: object) -> Evaluation:
        made.extend(generate(prompt.prompt).means for prompt in prompts)
        return Evaluation({"noun_rank1": 1.0}, [], torch.zeros(3, 8, 8))

    monkeypatch.setattr(evaluate, "stored_prompts", lambda _prompts, **_: [asked])
    monkeypatch.setattr(
        evaluate, "_judge", lambda _: (None, {"seen": 1.0}, FeatureStore.__new__(FeatureStore))
    )
    monkeypatch.setattr(evaluate, "evaluate_text", judged)
    words = ["evaluate", "text", "--model", folder, "--data", data, "--steps", 2]
    assert main([str(word) for word in [*words, "--control", "depth"]]) == 0
    assert main([str(word) for word in words]) == 0
    views = objects_of_prompts(open_objects(data, split="train"), [asked])[asked.prompt]
    pipe = DiffSplatPipeline.from_pretrained(folder, control="depth")
    control = control_images(views, "depth")[0]
    expected = pipe(asked.prompt, control=control, elevation=10.0, steps=2).splats[0].means
    torch.testing.assert_close(made[0], expected, atol=1e-4, rtol=0)
    assert not torch.allclose(made[1], expected, atol=1e-2)


def test_a_protocol_is_measured_and_reported(folder: Path, tmp_path: Path):
    write_object(tmp_path / "data" / "a" / "views")
    (tmp_path / "mine.json").write_text(json.dumps({"views": "views", "novel_views": [2], "size": 32}))
    report = tmp_path / "a.json"
    words = [
        "--model",
        folder,
        "--data",
        tmp_path / "data",
        "--protocol",
        tmp_path / "mine.json",
        "--out",
        report,
    ]
    assert main([str(word) for word in ["evaluate", "image", *words]]) == 0
    found = json.loads(report.read_text())
    assert [entry["object"] for entry in found["objects"]] == ["a"]
    assert found["figures"].keys() == {
        "image_seen_psnr",
        "image_novel_psnr",
        "image_seen_ssim",
        "image_novel_ssim",
    }
    assert found["settings"]["protocol"]["novel_views"] == [2]
    assert main([str(word) for word in ["evaluate", "image", *words, "--force", "--baselines"]]) == 2


def test_a_chain_with_conditions_makes_a_model_for_all(data: Path, photo: Path, tmp_path: Path):
    trainer = replace(SHORT_TRAINER, steps=2)
    latents = LatentSourceConfig(batch_size=2, evaluation_objects=1, channels=6, conditioned_share=0.5)
    network = MiniDenoiserConfig(width=64, layers=1, patch=1, channels=6, condition_channels=12)
    views = ViewSourceConfig(batch_size=2, novel_views=2, evaluation_objects=1)
    recipe = replace(
        MINI,
        stages={
            "reconstruction": GradientTraining(ReconstructionConfig(dim=48, blocks=1), views, trainer),
            "autoencoder": ComponentFit(latent_channels=8, evaluation_objects=1),
            "condition": ConditionFit(channels=8, component_views=8, evaluation_views=2),
            "diffusion": GradientTraining(DiffusionConfig(network, sampled_objects=0), latents, trainer),
            "refiner": GradientTraining(
                DiffusionConfig(replace(network, greatest_level=0.9), sampled_objects=0), latents, trainer
            ),
            "elevation": GradientTraining(
                MiniElevationStageConfig(input_size=32, stages=2, hidden=8),
                ElevationSourceConfig(batch_size=2, views=2, evaluation_objects=1),
                trainer,
            ),
        },
    )
    assert train_recipe(recipe, RunFolders((data,), tmp_path)) == "finished"
    stored = ModelFolder.find(tmp_path / "model")
    assert stored.takes_every_condition
    assert stored.defaults(image=True) == MINI.sampling.image_defaults(refined=True)
    for words in ((PROMPT,), ("--image", photo), (PROMPT, "--control", "normal", "--control-image", photo)):
        assert len(generated(tmp_path / "model", tmp_path / "a.ply", *words)) > 100
