"""The reconstructor and the autoencoder by themselves, against the object that the views were drawn of."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from diffsplat.cli.main import main
from diffsplat.data.latent_files import StoredLatents
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.data.view_folders import read_view_folder
from diffsplat.geometry import orbit_cameras, ring_cameras
from diffsplat.io.splat_formats import read_splats
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.pretrained.release_catalogue import RECONSTRUCTOR_RELEASE
from diffsplat.render import render
from support.box_views import FIRST_AZIMUTH_DEG, blender_camera, draw_box, write_box
from support.release_folders import build_release

AZIMUTHS = (0.0, 90.0, 180.0, 270.0, 45.0, 200.0)
"""The four views, and two between them."""


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("views") / "box"
    write_box(folder)
    return folder


def decibels(file: Path, elevation: float = 20.0) -> np.ndarray:
    """PSNR of the splats of a file against the box itself, in the views and between them."""
    cameras = orbit_cameras(AZIMUTHS, elevation, width=128, height=128)
    images = render(read_splats(file), cameras, normals=False).rgb.clamp(0, 1).movedim(1, -1).double().numpy()
    found = []
    for image, azimuth in zip(images, AZIMUTHS, strict=True):
        rgba = draw_box(blender_camera(FIRST_AZIMUTH_DEG + azimuth, elevation, 1.4), 128)[0] / 255.0
        truth = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
        found.append(-10 * np.log10(((image - truth) ** 2).mean()))
    return np.array(found)


def run(*words: object) -> int:
    return main(["reconstruct", *map(str, words)])


def test_the_embedded_model_reconstructs_an_object_and_its_latents(views: Path, tmp_path: Path):
    assert run(views, "-o", tmp_path / "box.ply") == 0
    assert run(views, "-o", tmp_path / "box.safetensors") == 0
    assert run(tmp_path / "box.safetensors", "-o", tmp_path / "decoded.ply") == 0
    assert (decibels(tmp_path / "box.ply") > 26).all()
    assert (decibels(tmp_path / "decoded.ply") > 25).all()
    assert load_file(tmp_path / "box.safetensors")["latents"].shape == (1, 4, 192, 16, 16)


def test_an_object_of_shards(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """An untrained residual network leaves Gaussians on the surface, here of boxes about 1 wide."""
    model = tmp_path / "model"
    GSRecon(
        dim=16, blocks=1, heads=1, parametrization="residual", pixel_grid="center", image_size=32
    ).save_pretrained(model / "reconstructor")
    (model / "model_index.json").write_text("{}")
    row = ObjectDataset(data, split="all").rows[0]
    words = ("--model", model, "-o", tmp_path / "a.ply")
    assert run(data, "--object", row.object_id, *words) == 0
    means = read_splats(tmp_path / "a.ply").means
    span = means.amax(dim=0) - means.amin(dim=0)
    assert 50 < len(means) <= 4 * 32 * 32
    assert float(span.max()) == pytest.approx(1.0, abs=0.06)
    assert run(data, "--object", "nothing", *words, "--force") == 2
    assert "no object of split 'all'" in capsys.readouterr().err
    assert run(data, "--object", row.object_id, "--model", model, "-o", tmp_path / "a.safetensors") == 2
    assert "has no autoencoder" in capsys.readouterr().err


def test_released_networks(views: Path, tmp_path: Path):
    """Tiny and untrained: views are composed and unprojected as the released ones need it."""
    weights = build_release(tmp_path / "weights", "sd15")
    torch.manual_seed(0)
    reconstructor = GSRecon(dim=64, blocks=1, heads=1).eval()
    folder = weights / RECONSTRUCTOR_RELEASE / "checkpoints" / "000001"
    folder.mkdir(parents=True)
    save_file(reconstructor.state_dict(), folder / "model.safetensors")
    words = ("--model", "sd15", "--weights", weights, "-o")
    assert run(views, *words, tmp_path / "a.ply") == 0
    assert run(views, *words, tmp_path / "a.safetensors") == 0
    assert run(tmp_path / "a.safetensors", *words, tmp_path / "b.ply") == 0
    seen = read_view_folder(views, size=256, composition="released")
    with torch.no_grad():
        expected = reconstructor(seen).to_splats(seen.cameras, "legacy")[0].visible()
    assert torch.allclose(read_splats(tmp_path / "a.ply").means, expected.means, atol=1e-5)


def test_what_cannot_be_done_is_one_sentence(views: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "other.safetensors").write_bytes(b"nothing")
    (tmp_path / "there.ply").write_bytes(b"")
    cameras = ring_cameras(size=128).map(lambda tensor: tensor[None])
    StoredLatents(torch.zeros(1, 4, 192, 16, 16), cameras, "another").save(tmp_path / "another.safetensors")
    for words, reason in (
        ((views, "-o", "a.txt"), "a.txt"),
        ((views, "-o", tmp_path / "there.ply"), "exists"),
        ((tmp_path, "-o", tmp_path / "a.ply"), "transforms.json"),
        ((tmp_path / "other.safetensors", "-o", tmp_path / "a.ply"), "holds no latents"),
        ((tmp_path / "none.safetensors", "-o", tmp_path / "a.ply"), "no such file"),
        ((tmp_path / "another.safetensors", "-o", tmp_path / "a.ply"), "model 'another', expected 'mini'"),
    ):
        assert run(*words) == 2
        error = capsys.readouterr().err
        assert reason in error
        assert error.count("\n") == 1
    assert not (tmp_path / "a.ply").exists()
