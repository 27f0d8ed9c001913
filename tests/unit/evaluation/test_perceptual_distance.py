"""LPIPS and shift-tolerant LPIPS against distances that their own packages gave.

The packages' code was run once, with stand-ins for the modules that they import and do not need here, on the weights
and images of :mod:`support.made_up_vgg`: ``lpips`` 0.1.4 (``net="vgg"``) and ``stlpips-pytorch`` 0.0.2
(``net="vgg"``, ``variant="shift_tolerant"``), with torch 2.13 on CPU.
"""

import importlib.metadata
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from diffsplat.evaluation.perceptual_distance import (
    LINEAR_FILE,
    VGG_FILE,
    VggDistance,
    load_perceptual_distance,
)
from support.made_up_vgg import (
    image_pairs,
    linear_weights,
    lpips_by_definition,
    shift_tolerant_weights,
    torchvision_weights,
)

LPIPS = [1.304282307624817, 0.0792073905467987]
ST_LPIPS = [1.1838562488555908, 0.05390205606818199]
ST_LPIPS_OF_THE_PACKAGE = [0.5795308947563171, 0.043372735381126404]


@pytest.fixture(scope="module")
def lpips() -> VggDistance:
    return VggDistance.from_published(torchvision_weights(), linear_weights())


@pytest.fixture(scope="module")
def shift_tolerant() -> VggDistance:
    weights = shift_tolerant_weights()
    return VggDistance.from_published(weights, weights, shift_tolerant=True)


def test_lpips(lpips: VggDistance):
    assert lpips(*image_pairs()).tolist() == pytest.approx(LPIPS, rel=1e-5)


def test_views_in_0_to_1(lpips: VggDistance):
    images, references = (part.unflatten(0, (1, 2)) / 2 + 0.5 for part in image_pairs())
    distances = lpips.of_views(images, references)
    assert distances.shape == (1, 2)
    assert distances[0].tolist() == pytest.approx(LPIPS, rel=1e-5)
    defined = [lpips_by_definition(*pair) for pair in zip(images[0], references[0], strict=True)]
    assert defined == pytest.approx(LPIPS, rel=1e-5)


def test_shift_tolerant_lpips(shift_tolerant: VggDistance):
    assert shift_tolerant(*image_pairs()).tolist() == pytest.approx(ST_LPIPS, rel=1e-5)


def test_published_weights_of_the_shift_tolerant_variant():
    try:
        importlib.metadata.distribution("stlpips-pytorch")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("stlpips-pytorch is not installed")
    distance = load_perceptual_distance("st-lpips")
    assert distance is not None
    assert distance(*image_pairs()).tolist() == pytest.approx(ST_LPIPS_OF_THE_PACKAGE, rel=1e-5)


@pytest.mark.parametrize("name", ["lpips", "shift_tolerant"])
def test_identities(name: str, request: pytest.FixtureRequest):
    distance = request.getfixturevalue(name)
    first, second = image_pairs()
    assert torch.equal(distance(first, first), torch.zeros(2))
    assert torch.allclose(distance(first, second), distance(second, first), rtol=1e-6)


@pytest.mark.parametrize("converted", [False, True])
def test_weights_in_a_folder(tmp_path: Path, converted: bool):
    save: Any = save_file if converted else torch.save
    ending = "safetensors" if converted else "pth"
    # The classifier on top, which torchvision's file also holds.
    weights = {**torchvision_weights(), "classifier.0.weight": torch.zeros(2, 2)}
    save(weights, (tmp_path / VGG_FILE).with_suffix(f".{ending}"))
    save(linear_weights(), (tmp_path / LINEAR_FILE).with_suffix(f".{ending}"))
    distance = load_perceptual_distance("lpips", tmp_path)
    assert distance is not None
    assert distance(*image_pairs()).tolist() == pytest.approx(LPIPS, rel=1e-5)


def test_no_distance():
    assert load_perceptual_distance("none") is None


def test_downloaded_and_packaged_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    packaged = tmp_path / "lpips" / "weights" / "v0.1" / "vgg.pth"
    packaged.parent.mkdir(parents=True)
    torch.save(linear_weights(), packaged)
    (tmp_path / "lpips-0.1.4.dist-info").mkdir()
    (tmp_path / "lpips-0.1.4.dist-info" / "METADATA").write_text("Name: lpips\nVersion: 0.1.4\n")
    monkeypatch.syspath_prepend(tmp_path)
    asked: list[str] = []

    def download(url: str, **_options: Any) -> dict[str, Any]:
        asked.append(url)
        if len(asked) > 1:
            raise URLError("no route to host")
        return torchvision_weights()

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", download)
    distance = load_perceptual_distance("lpips")
    assert distance is not None
    assert distance(*image_pairs()).tolist() == pytest.approx(LPIPS, rel=1e-5)
    with pytest.raises(ConnectionError, match=r"vgg16-397923af\.pth cannot be downloaded .*no route to host"):
        load_perceptual_distance("lpips")


def test_packages_that_are_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.path", [])
    for kind, package in (("lpips", "lpips"), ("st-lpips", "stlpips-pytorch")):
        with pytest.raises(ModuleNotFoundError, match=f"pip install --no-deps {package}"):
            load_perceptual_distance(kind)


def test_missing_and_wrong_weights(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"vgg16-397923af\.pth' are missing"):
        load_perceptual_distance("lpips", tmp_path)
    weights = torchvision_weights()
    del weights["features.28.bias"]
    with pytest.raises(ValueError, match=r"stages\.4\.2\.bias has the shape None, expected \(512,\)"):
        VggDistance.from_published(weights, linear_weights())
    with pytest.raises(ValueError, match=r"weights\.0 has the shape None, expected \(64,\)"):
        VggDistance.from_published(torchvision_weights(), {})
