"""Released weights, tiny and untrained, measured on rendered boxes; the figures computed again by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from diffsplat.cli.main import main
from diffsplat.evaluation.evaluation_objects import held_out_views, open_objects
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.pretrained.release_catalogue import BACKBONES, RECONSTRUCTOR_RELEASE
from diffsplat.pretrained.released_model_opening import ReleasedModel, load_autoencoder
from diffsplat.render import render
from support.made_up_vgg import lpips_by_definition, save_lpips
from support.release_folders import build_release


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GSRecon]:
    weights = build_release(tmp_path_factory.mktemp("measured"), "sd15")
    torch.manual_seed(0)
    reconstructor = GSRecon(dim=64, blocks=1, heads=1)
    folder = weights / RECONSTRUCTOR_RELEASE / "checkpoints" / "000001"
    folder.mkdir(parents=True)
    save_file(reconstructor.state_dict(), folder / "model.safetensors")
    return weights, reconstructor.eval()


@pytest.mark.parametrize("what", ["reconstruction", "autoencoder"])
def test_figures_of_released_weights(measured: tuple[Path, GSRecon], data: Path, tmp_path: Path, what: str):
    weights, reconstructor = measured
    words = ["evaluate", what, "--data", str(data), "--model", "sd15", "--weights", str(weights)]
    words += ["--perceptual", "lpips", "--perceptual-weights", str(save_lpips(tmp_path / "vgg"))]
    assert main([*words, "--out", str(tmp_path / "a.json")]) == 0
    figures = json.loads((tmp_path / "a.json").read_text())["figures"]
    ((_, views),) = held_out_views(open_objects(data, split="test", variants=False))
    inputs = views.take(slice(0, 4))
    with torch.no_grad():
        grid = reconstructor(inputs)
        if what == "autoencoder":
            vae = load_autoencoder(ReleasedModel(BACKBONES["sd15"], weights=weights))
            grid = vae.decode(vae.encode(grid))
        splats = grid.to_splats(inputs.cameras, "legacy")
        images = render(splats, views.cameras, normals=False).rgb.clamp(0, 1)[0]
    errors = ((images.double() - views.image[0]) ** 2).numpy().mean(axis=(1, 2, 3))
    expected = -10 * np.log10(errors)
    assert figures[f"{what}_input_psnr"] == pytest.approx(expected[:4].mean(), abs=1e-4)
    assert figures[f"{what}_novel_psnr"] == pytest.approx(expected[4:].mean(), abs=1e-4)
    distances = [lpips_by_definition(*pair) for pair in zip(images, views.image[0], strict=True)]
    assert figures[f"{what}_input_lpips"] == pytest.approx(np.mean(distances[:4]), abs=1e-4)
    assert figures[f"{what}_novel_lpips"] == pytest.approx(np.mean(distances[4:]), abs=1e-4)
