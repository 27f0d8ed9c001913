"""CLIP similarity and R-precision of a tiny real CLIP, against transformers' own forward pass and loops in NumPy."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from diffsplat.cli.main import main
from diffsplat.evaluation.clip_scores import ClipScorer, clip_similarity, r_precision

TEXTS = ("a red chair", "a blue barrel", "x")


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer.from_pretrained(folder, model_max_length=24).save_pretrained(folder)
    layers = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = layers | {
        "vocab_size": len(words),
        "max_position_embeddings": 24,
        "bos_token_id": len(words) - 2,
        "eos_token_id": len(words) - 1,
    }
    vision = layers | {"image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    return folder


def test_similarity_is_that_of_transformers(clip_folder: Path):
    images = torch.rand(4, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    pictures = [
        Image.fromarray((image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)) for image in images
    ]
    model: Any = CLIPModel.from_pretrained(clip_folder)
    tokens = CLIPTokenizer.from_pretrained(clip_folder)(list(TEXTS), padding=True, return_tensors="pt")
    pixels = CLIPImageProcessor.from_pretrained(clip_folder)(images=pictures, return_tensors="pt")
    with torch.no_grad():
        logits = model(**tokens, **pixels).logits_per_image / model.logit_scale.exp()
    scorer = ClipScorer.from_pretrained(clip_folder)
    views, texts = scorer.images(images), scorer.texts(TEXTS)
    assert torch.allclose(views @ texts.T, logits, atol=1e-5)
    two = clip_similarity(views.unflatten(0, (2, 2)), texts[:2])
    assert two.tolist() == pytest.approx(
        [100 * float(logits[:2, 0].mean()), 100 * float(logits[2:, 1].mean())], abs=1e-4
    )


def test_r_precision_counts_views_that_find_their_prompt():
    generator = np.random.default_rng(0)
    images, pool = generator.normal(size=(5, 3, 8)), generator.normal(size=(4, 8))
    images /= np.linalg.norm(images, axis=-1, keepdims=True)
    pool /= np.linalg.norm(pool, axis=-1, keepdims=True)
    own = [0, 1, 2, 3, 1]
    expected = [
        np.mean([max(range(4), key=lambda text: float(view @ pool[text])) == wanted for view in views])
        for views, wanted in zip(images, own, strict=True)
    ]
    found = r_precision(torch.tensor(images), torch.tensor(pool), own)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert 0 < float(found.mean()) < 1


def test_image_reward_of_its_package(
    clip_folder: Path,
    small_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """A stand-in of the package, with the calls that its page shows: it tells prompts by length, images by size."""
    (tmp_path / "prompts.txt").write_text("a red chair\na taxi\n")
    words = [
        "evaluate",
        "clip",
        str(tmp_path / "prompts.txt"),
        "--model",
        str(small_model),
        "--steps",
        "2",
    ]
    words += ["--clip", str(clip_folder), "--image-reward", "--out", str(tmp_path / "a.json")]
    monkeypatch.setitem(sys.modules, "ImageReward", None)
    assert main(words) == 2
    assert "pip install image-reward" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "ImageReward")
    (tmp_path / "ImageReward.py").write_text(
        "class Network:\n"
        "    def score(self, prompt, image):\n"
        "        assert image.mode == 'RGB'\n"
        "        return len(prompt) + image.width / 1000\n"
        "def load(name):\n"
        "    assert name == 'ImageReward-v1.0'\n"
        "    return Network()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert main(words) == 0
    report = json.loads((tmp_path / "a.json").read_text())
    for name in ("generated", "between"):
        rewards = [entry[f"{name}_image_reward"] for entry in report["objects"]]
        assert rewards == pytest.approx([11.016, 6.016])
        assert report["figures"][f"{name}_image_reward"] == pytest.approx(8.516)


def test_the_command_writes_a_report_that_compares(
    clip_folder: Path, small_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red chair\na blue taxi\n\na red chair\n")
    base = ["evaluate", "clip", str(prompts), "--model", str(small_model), "--steps", "2", "--clip"]
    words = [*base, str(clip_folder)]
    for name, seed in (("a.json", "0"), ("b.json", "1")):
        assert main([*words, "--seed", seed, "--out", str(tmp_path / name)]) == 0
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["figures"]["pool"] == 2
    assert len(report["objects"]) == 3
    assert report["objects"][0] == report["objects"][2]
    assert -100 <= report["figures"]["between_clip_similarity"] <= 100
    assert (tmp_path / "a.png").is_file()
    first, second, third = (str(tmp_path / name) for name in ("a.json", "b.json", "c.json"))
    capsys.readouterr()
    assert main(["evaluate", "compare", first, second]) == 0
    table = capsys.readouterr().out
    figures = [
        json.loads(Path(file).read_text())["figures"]["between_r_precision"] for file in (first, second)
    ]
    line = next(line.split() for line in table.splitlines() if line.startswith("between_r_precision"))
    assert [float(cell) for cell in line[1:]] == pytest.approx([*figures, figures[1] - figures[0]], abs=1e-4)
    Path(third).write_text(json.dumps({**report, "subcommand": "judge"}))
    assert main(["evaluate", "compare", first, third]) == 2
    assert "expected two of one subcommand" in capsys.readouterr().err
    assert main([*base, str(tmp_path)]) == 2
    assert "holds no CLIP model" in capsys.readouterr().err
