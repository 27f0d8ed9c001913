"""Complete folders of every released model, tiny and untrained, and an image for them."""

from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from diffsplat.pretrained.release_catalogue import BACKBONES
from support.release_folders import build_elevation, build_release


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    for name in BACKBONES:
        build_release(folder, name)
    build_elevation(folder)
    return folder


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk that is cut out already."""
    path = tmp_path_factory.mktemp("picture") / "disk.png"
    image = Image.new("RGBA", (96, 64), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((20, 10, 70, 55), fill=(200, 30, 30, 255))
    image.save(path)
    return path
