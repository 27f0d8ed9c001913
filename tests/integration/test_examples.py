"""The examples run as they are printed in the documentation, at small sizes."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image, ImageDraw

from diffsplat.core import SPLAT_FIELDS
from diffsplat.io.splat_formats import read_splats
from diffsplat.pipelines import DiffSplatPipeline
from support.release_folders import build_elevation, build_release

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = build_release(tmp_path_factory.mktemp("weights"), "sd15")
    build_elevation(weights)
    return weights


def test_text_to_splats(tmp_path: Path):
    example("00_text_to_splats").main(("a red armchair", "a taxi"), tmp_path, frames=4)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name}.{suffix}" for name in ("a-red-armchair", "a-taxi") for suffix in ("ply", "png", "mp4")
    }
    assert read_splats(tmp_path / "a-taxi.ply").count > 1000


def test_change_components(tmp_path: Path):
    example("01_change_components").main(out=tmp_path, steps=2)
    assert len({path.read_bytes() for path in tmp_path.glob("*.png")}) == 5


def test_fit_splats(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    example("02_fit_splats").main(out=tmp_path, steps=41, count=800)
    heard = [
        float(line.split()[2]) for line in capsys.readouterr().out.splitlines() if line.startswith("step")
    ]
    assert heard[-1] > heard[0] + 2
    assert size_of(tmp_path / "fitted.png") == (8 * 64, 2 * 64)


def test_image_to_splats(tmp_path: Path, sd15: Path, capsys: pytest.CaptureFixture[str]):
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((8, 8, 50, 50), fill=(200, 30, 30, 255))
    image.save(tmp_path / "disk.png")
    example("03_image_to_splats").main(tmp_path / "disk.png", "sd15", sd15, tmp_path / "out", 2)
    assert "degrees above the horizon" in capsys.readouterr().out
    assert size_of(tmp_path / "out" / "disk.png") == (4 * 256, 256)


def test_control_maps(tmp_path: Path, sd15: Path):
    trimesh = pytest.importorskip("trimesh")
    trimesh.creation.icosphere(2).export(tmp_path / "ball.glb")
    example("04_control_maps").main(
        "a ball", tmp_path / "ball.glb", model="sd15", weights=sd15, out=tmp_path / "out", steps=2
    )
    with Image.open(tmp_path / "out" / "depth.png") as image:
        assert image.getpixel((0, 0)) == (255, 255, 255)
        assert max(image.convert("L").crop((100, 100, 156, 156)).getdata()) < 255


def test_train_on_meshes(tmp_path: Path):
    trimesh = pytest.importorskip("trimesh")
    for number in range(12):
        box = trimesh.creation.box(extents=(1.0, 0.4 + 0.05 * number, 0.7))
        box.visual.face_colors = [20 * number, 90, 200, 255]
        box.export(tmp_path / f"box-{number}.ply")
    example("05_train_on_meshes").main(tmp_path, tmp_path / "run", steps=1, size=64, prompt="a box")
    assert read_splats(tmp_path / "run" / "first.ply").count > 0


def test_without_the_pipeline(tmp_path: Path):
    """Every step written out gives bitwise what the pipeline gives."""
    module = example("06_without_the_pipeline")
    made = module.generate("a red armchair", seed=0)
    expected = DiffSplatPipeline.from_pretrained("mini")("a red armchair", seed=0).splats[0]
    for name in SPLAT_FIELDS:
        assert torch.equal(getattr(made, name), getattr(expected, name)), name
    module.main("a blue sofa", tmp_path / "sofa.ply")
    assert read_splats(tmp_path / "sofa.ply").count > 1000


def test_pages_show_every_example():
    """The formatter once turned the include lines into text, which no build of the pages complained about."""
    root = Path(__file__).parents[2]
    pages = "".join(path.read_text() for path in (root / "docs").glob("*.md"))
    shown = set(re.findall(r'^--8<-- "examples/(.+)"$', pages, flags=re.MULTILINE))
    numbered = {path.name for path in (root / "examples").glob("0*.py")}
    assert shown == numbered
