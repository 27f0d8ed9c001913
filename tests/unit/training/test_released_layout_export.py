"""The release folder of a run: links, copies where there are none, and the newest step alone."""

from pathlib import Path

import pytest

from diffsplat.pretrained.release_catalogue import BACKBONES, RECONSTRUCTOR_RELEASE
from diffsplat.pretrained.release_layout import find_release
from diffsplat.training.released_layout_export import Release, lay_release
from diffsplat.training.run_folders import StageFolders

SD15 = BACKBONES["sd15"]


@pytest.fixture
def folders(tmp_path: Path) -> StageFolders:
    """A run's weights, a reconstructor of a run, an autoencoder of a release, and a 2D model."""
    places = {
        "autoencoder": tmp_path / "downloaded" / SD15.autoencoder_release / "checkpoints" / "012345",
        "reconstructor": tmp_path / "reconstruction" / "weights",
        "weights": tmp_path / "run" / "weights",
        "vae": tmp_path / "pretrained" / "stable-diffusion-v1-5" / "vae",
    }
    for name, place in places.items():
        place.mkdir(parents=True)
        (place / "model.safetensors").write_text(name)
    return StageFolders(
        (),
        tmp_path / "run",
        pretrained=tmp_path / "pretrained",
        reconstructor=tmp_path / "reconstruction",
        autoencoder=tmp_path / "downloaded" / SD15.autoencoder_release,
    )


def held(folder: Path) -> str:
    return (folder / "model.safetensors").read_text()


@pytest.mark.parametrize("links", [True, False])
def test_everything_lies_where_the_released_weights_lie(
    folders: StageFolders, links: bool, monkeypatch: pytest.MonkeyPatch
):
    def refused(*_arguments: object, **_options: object) -> None:
        raise OSError("this file system has no links")

    if not links:
        monkeypatch.setattr(Path, "symlink_to", refused)
    lay_release(Release.of_denoiser(SD15, image=True), folders, 7)
    target = lay_release(Release.of_denoiser(SD15), folders, 30)
    assert target == folders.out / "release"
    assert sorted(path.name for path in target.iterdir()) == sorted(
        (SD15.text_release, SD15.autoencoder_release, RECONSTRUCTOR_RELEASE, "stable-diffusion-v1-5")
    )
    denoiser = find_release(target, SD15.text_release, "unet_ema")
    assert (denoiser.parent.name, denoiser.is_symlink(), held(denoiser)) == ("000030", links, "weights")
    autoencoder = find_release(target, SD15.autoencoder_release)
    assert (autoencoder.name, held(autoencoder)) == ("012345", "autoencoder")
    assert held(find_release(target, RECONSTRUCTOR_RELEASE)) == "reconstructor"
    assert held(target / "stable-diffusion-v1-5" / "vae") == "vae"
    (folders.out / "weights" / "model.safetensors").write_text("longer trained")
    assert held(denoiser) == ("longer trained" if links else "weights")


def test_a_run_that_is_moved_keeps_its_own_weights(folders: StageFolders):
    lay_release(Release.of_controlnet(SD15, "depth"), folders, 1)
    moved = folders.out.rename(folders.out.with_name("moved"))
    assert held(find_release(moved / "release", SD15.control_releases["depth"], "controlnet")) == "weights"
