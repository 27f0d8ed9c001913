"""Judging on real renders: from shards to a fitted judge, and the commands."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from diffsplat.cli import evaluate as cli_evaluate
from diffsplat.cli.main import main
from diffsplat.data import shard_schema
from diffsplat.evaluation.evaluation_objects import held_out_views, objects_of_prompts, open_objects
from diffsplat.evaluation.evaluation_prompts import JudgedPrompt
from diffsplat.evaluation.image_feature_store import FeatureStore
from diffsplat.evaluation.noun_judge_fitting import (
    ObjectFeatures,
    cross_validation,
    fit_on_renders,
    fitted_views,
    load_or_fit,
    unfitted_view,
)
from diffsplat.models.principal_component_autoencoder import ComponentAutoencoder
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.render.meshes.view_sets import view_set

parquet = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")

SIZE = 16
PAINT = {"tomato": (200, 40, 30), "sky": (40, 90, 220), "leaf": (40, 160, 50)}
SHAPE = {"tomato": (4, 4), "sky": (2, 6), "leaf": (6, 2)}
"""Half the height and half the width of a noun's rectangle."""


def rectangle(noun: str, shade: float) -> dict[str, bytes]:
    """A flat rectangle in the middle of the picture, 1.4 from the camera."""
    inside = np.zeros((SIZE, SIZE), dtype=bool)
    high, wide = SHAPE[noun]
    inside[SIZE // 2 - high : SIZE // 2 + high, SIZE // 2 - wide : SIZE // 2 + wide] = True
    rgba = np.zeros((SIZE, SIZE, 4), dtype=np.uint8)
    rgba[inside] = (*(round(channel * shade) for channel in PAINT[noun]), 255)
    normal = np.where(inside[..., None], np.array([0.0, 0.0, 1.0]), 0.0)
    return {
        "rgba": shard_schema.encode_image(rgba),
        "normal": shard_schema.encode_normal(normal),
        "depth": shard_schema.encode_depth(np.where(inside, 1.4, 0.0)),
    }


def row(name: str, noun: str, variant: str, split: str) -> dict[str, object]:
    views = view_set("variant" if variant else "mini", 0)
    cameras = views.cameras()
    color = variant or {"tomato": "red", "sky": "blue", "leaf": "green"}[noun]
    shades = np.random.default_rng(len(name)).uniform(0.7, 1.0, len(views.ring))
    pictures = [rectangle(noun, shade) for shade in shades]
    return {
        "object_id": f"test/{name}" + (f"#{variant}" if variant else ""),
        "name": name,
        "noun": noun,
        "captions": [f"a {color} {noun}"],
        "colors": [color],
        "tags": [],
        "variant": variant,
        "split": split,
        "source": "test",
        "license": "CC0-1.0",
        "creator": "nobody",
        "size": SIZE,
        "azimuths": list(views.azimuths),
        "elevations": list(views.elevations),
        "ring": list(views.ring),
        "camera_to_world": cameras.camera_to_world.ravel().tolist(),
        "intrinsics": cameras.intrinsics.ravel().tolist(),
        **{key: [picture[key] for picture in pictures] for key in ("rgba", "normal", "depth")},
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two folders of shards: three nouns, three training things each, one held out; one repainted version."""
    folder = tmp_path_factory.mktemp("data")
    for source, things in (("first", (0, 1)), ("second", (2, 3))):
        (folder / source).mkdir()
        rows = []
        for noun in PAINT:
            for thing in things:
                split = "test" if thing == 3 else "train"
                rows.append(row(f"{noun} {'x' * thing}", noun, "", split))
                rows.append(row(f"{noun} {'x' * thing}", noun, "grey", split))
        table = pa.Table.from_pylist(rows, schema=shard_schema.table_schema())
        parquet.write_table(table, folder / source / "objects-00000.parquet")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """An untrained reconstructor, which starts from the known geometry, and an autoencoder."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    GSRecon(
        dim=32, blocks=1, heads=1, patch=8, parametrization="residual", pixel_grid="center"
    ).save_pretrained(folder / "reconstructor")
    ComponentAutoencoder(image_size=SIZE, patch=8, latent_channels=4).save_pretrained(folder / "autoencoder")
    (folder / "model_index.json").write_text("{}", encoding="utf-8")
    return folder


class OutlineNetwork(torch.nn.Module):
    """Stands for the big network: how dark the rows and the columns of the picture are, for a sum of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.pictures += len(images)
        dark = (1 - images).mean(dim=1)
        profile = torch.cat([dark.sum(dim=1), dark.sum(dim=2)], dim=1)
        return profile / profile.sum(dim=1, keepdim=True)


def test_objects_of_all_folders_are_found(data, tmp_path):
    assert len(open_objects(data, split="train")) == 3 * 3 * 2
    assert len(open_objects(data, split="test", variants=False)) == 3
    assert len(open_objects(data / "second", split="all", variants=False)) == 3 * 2
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_objects(data / "nowhere", split="all")
    with pytest.raises(FileNotFoundError, match="objects-"):
        open_objects(tmp_path, split="all")


def test_fitted_and_other_views_are_different_directions(data):
    for item in open_objects(data, split="all").rows:
        fitted = fitted_views(item)
        assert len(fitted) == (2 if item.variant else 4)
        assert {item.ring[view] for view in fitted} == {1}
        if not item.variant:
            assert not set(unfitted_view(item)) & set(fitted)


def test_a_judge_fitted_on_shards_names_held_out_things(data):
    judge, figures = fit_on_renders(data, list(PAINT), FeatureStore(OutlineNetwork()))
    assert judge.nouns == ("leaf", "sky", "tomato")
    assert figures.held_out_objects == figures.held_out_objects_per_view == figures.held_out_views == 1
    assert (figures.held_out_count, figures.cross_validated_nouns) == (3, 3)
    assert figures.cross_validated == figures.cross_validated_distorted == 1
    with pytest.raises(ValueError, match="'lamp'"):
        fit_on_renders(data, ["tomato", "lamp"], FeatureStore(OutlineNetwork()))


def test_a_fitted_judge_is_kept(data, tmp_path):
    network = OutlineNetwork()
    judge, figures = load_or_fit(data, list(PAINT), FeatureStore(network), tmp_path / "judge")
    seen = network.pictures
    again, same = load_or_fit(data, list(PAINT)[::-1], FeatureStore(network), tmp_path / "judge")
    assert network.pictures == seen > 0
    assert same == figures
    assert torch.equal(again.weight, judge.weight)
    others, _ = load_or_fit(data, ["sky", "leaf"], FeatureStore(network), tmp_path / "judge")
    assert others.nouns == ("leaf", "sky")


def seen(name: str, noun: str, clean: float, distorted: float | None = None) -> ObjectFeatures:
    """Four views whose first feature tells the noun, and maybe once more: it lies then, and the second one tells."""
    offsets = torch.linspace(-0.1, 0.1, 4)[:, None]
    features = torch.cat([offsets + clean, torch.zeros(4, 1)], dim=1)
    if distorted is None:
        return ObjectFeatures(name, noun, features, features[None][:0])
    changed = torch.cat([offsets - clean, offsets + 3 * distorted], dim=1)
    return ObjectFeatures(name, noun, features, changed[None])


def test_cross_validation_judges_without_the_thing_itself():
    # Five things look like their noun; the sixth looks like the other noun, so only memory could name it.
    things = [seen(f"a{i}", "axe", 1.0) for i in range(6)] + [seen(f"b{i}", "bed", -1.0) for i in range(5)]
    clean, distorted = cross_validation([*things, seen("odd", "bed", 1.0)])
    assert clean == {"axe": 1.0, "bed": pytest.approx(5 / 6)}
    assert not distorted


def test_a_judge_knows_the_distorted_images_that_it_was_fitted_on():
    things = [seen(f"a{i}", "axe", 1.0, 1.0) for i in range(6)]
    things += [seen(f"b{i}", "bed", -1.0, -1.0) for i in range(6)]
    clean, distorted = cross_validation(things)
    assert clean == distorted == {"axe": 1.0, "bed": 1.0}


def test_objects_of_prompts_have_the_noun_and_the_color_where_there_is_one(data):
    train = open_objects(data, split="train")
    prompts = [JudgedPrompt("a", "tomato", "grey", True), JudgedPrompt("b", "sky", "pink", False)]
    real = objects_of_prompts(train, prompts)
    assert real["a"].prompt == ("a grey tomato",)
    assert real["b"].prompt[0] in ("a blue sky", "a grey sky")
    with pytest.raises(ValueError, match="no training object is a 'moon'"):
        objects_of_prompts(train, [JudgedPrompt("c", "moon", "grey", False)])


def test_no_picture_is_looked_at_twice(tmp_path):
    path = tmp_path / "features" / "store.safetensors"
    pictures = list(torch.rand(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)))
    network = OutlineNetwork()
    store = FeatureStore(network, path)
    first = store.features([*pictures[:3], pictures[0]])
    assert network.pictures == 3
    store.save()
    again = OutlineNetwork()
    both = FeatureStore(again, path).features(pictures)
    assert again.pictures == 2
    assert torch.equal(both[:3], first[:3])
    torch.testing.assert_close(both, OutlineNetwork()(torch.stack(pictures)), atol=1e-3, rtol=0)


def test_reconstruction_and_autoencoder_commands(data, model, tmp_path, capsys):
    out = tmp_path / "report.json"
    words = ["evaluate", "autoencoder", "--data", str(data), "--model", str(model), "--out", str(out)]
    assert main(words) == 0
    report = json.loads(out.read_text(encoding="utf-8"))
    assert len(report["objects"]) == 3
    assert (tmp_path / "report.png").is_file()
    # The reconstructor starts from the pixels' own colours and depths; the untrained autoencoder from nothing.
    assert report["figures"]["reconstruction_input_psnr"] > report["figures"]["autoencoder_input_psnr"] + 3
    assert "autoencoder_novel_ssim" in capsys.readouterr().out
    assert main(words) == 2
    assert "exists already" in capsys.readouterr().err
    assert (
        main(["evaluate", "reconstruction", "--data", str(data), "--model", str(model), "--limit", "2"]) == 0
    )
    assert "reconstruction, 2 objects" in capsys.readouterr().out


def test_the_ceiling_of_a_denoiser_keeps_its_channels_alone(data, model, tmp_path, monkeypatch):
    """Each object is reconstructed once for all rows."""
    folder = shutil.copytree(model, tmp_path / "model")
    autoencoder = ComponentAutoencoder(image_size=SIZE, patch=8, latent_channels=4)
    reconstructor = GSRecon.from_pretrained(folder / "reconstructor")
    seen = [views.take(slice(0, 4)) for _, views in held_out_views(open_objects(data, split="test"), None)]
    autoencoder.fit_components([reconstructor(views) for views in seen])
    autoencoder.save_pretrained(folder / "autoencoder")
    index = {"_class_name": "DiffSplatPipeline"}
    (folder / "model_index.json").write_text(json.dumps(index), "utf-8")
    calls = []
    forward = GSRecon.forward
    monkeypatch.setattr(GSRecon, "forward", lambda self, views: calls.append(1) or forward(self, views))

    def measured(channels: int) -> dict[str, float]:
        (folder / "denoiser").mkdir(exist_ok=True)
        (folder / "denoiser" / "config.json").write_text(json.dumps({"out_channels": channels}), "utf-8")
        out = tmp_path / f"{channels}.json"
        words = ["evaluate", "autoencoder", "--data", str(data), "--model", str(folder), "--out", str(out)]
        assert main(words) == 0
        return json.loads(out.read_text("utf-8"))["figures"]

    for channels, same in ((4, True), (1, False)):
        calls.clear()
        figures = measured(channels)
        assert len(calls) == 3
        assert (figures["denoised_novel_psnr"] == figures["autoencoder_novel_psnr"]) is same


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--data", ".", "--limit", "0"], "--limit is 0"),
        (["--data", ".", "--out", "report.txt"], "expected .json"),
        (["--data", ".", "--model", "unheard-of"], "unheard-of"),
    ],
)
def test_bad_requests_are_refused_in_one_line(words, reason, model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    chosen = words if "--model" in words else [*words, "--model", str(model)]
    assert main(["evaluate", "reconstruction", *chosen]) == 2
    error = capsys.readouterr().err.strip()
    assert reason in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_a_reconstructor_is_refused(data, tmp_path, capsys):
    (tmp_path / "model_index.json").write_text("{}", encoding="utf-8")
    assert main(["evaluate", "reconstruction", "--data", str(data), "--model", str(tmp_path)]) == 2
    assert "has no reconstructor" in capsys.readouterr().err


def test_every_subcommand_has_help(capsys):
    for name in cli_evaluate.COMMANDS:
        assert main(["evaluate", name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"usage: diffsplat evaluate {name}")
