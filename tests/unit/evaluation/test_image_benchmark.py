"""Protocols of renderings, on dots that NumPy draws where the stored cameras see known points."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffsplat.core import Splats
from diffsplat.evaluation.held_out_view_evaluation import evaluate_images
from diffsplat.evaluation.image_benchmark import ImageBenchmark
from diffsplat.geometry import elevation_deg
from diffsplat.render import render
from support.rendered_dots import COLORS, FOCAL, PLACES, POINTS, SIZE, blender_pose, seen_at, write_object


def dots(scale: float) -> Splats:
    """The points in the world of a generation: Y up, the first camera at azimuth 0, scaled."""
    turn = math.radians(PLACES[0][1])
    x, y, z = POINTS.T
    ahead, right = x * math.cos(turn) + y * math.sin(turn), -x * math.sin(turn) + y * math.cos(turn)
    means = scale * np.stack([right, z, ahead], axis=1)
    return Splats(
        means=torch.tensor(means, dtype=torch.float32)[None],
        scales=torch.full((1, 3, 3), 0.02),
        quats=torch.tensor([1.0, 0, 0, 0]).expand(1, 3, 4),
        opacities=torch.full((1, 3), 0.99),
        colors=torch.tensor(COLORS, dtype=torch.float32)[None],
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_object(tmp_path / "data" / "b" / "views")
    write_object(tmp_path / "data" / "a" / "views")
    return tmp_path / "data"


def test_cameras_see_points_where_the_renderings_show_them(data: Path):
    ((name, views), _) = ImageBenchmark(views="views", size=SIZE).read(data)
    assert name == "a"
    assert elevation_deg(views.cameras)[0].tolist() == pytest.approx([20.0, -10.0, 60.0], abs=1e-3)
    # What a generated image shows at the object: 1.4 * 1024 / 1422.222 = 1.008 wide.
    scale = 1.008 / (PLACES[0][0] / FOCAL)
    shown = render(dots(scale), views.cameras, normals=False)
    rows, columns = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    for view, place in enumerate(PLACES):
        for color, expected in enumerate(seen_at(blender_pose(*place))):
            others = [channel for channel in range(3) if channel != color]
            weight = 1 - shown.rgb[0, view, others].amax(dim=0)
            weight = weight * (shown.rgb[0, view, color] > 0.9)
            found = [float((weight * axis).sum() / weight.sum()) for axis in (columns, rows)]
            assert found == pytest.approx(expected.tolist(), abs=0.3)


def test_transparent_renderings_are_on_white_and_figures_tell_the_given_view(data: Path):
    protocol = ImageBenchmark(objects=("b",), views="views", seen_view=1, novel_views=(2,), size=SIZE)
    nothing = replace(dots(1), opacities=torch.zeros(1, 3))
    result = evaluate_images({"empty": lambda _: nothing}, protocol.read(data))
    assert [entry["object"] for entry in result.objects] == ["b"]
    for figure, number in (("seen", 1), ("novel", 2)):
        pixels = np.asarray(Image.open(data / "b" / "views" / f"{number:03}.png")).astype(float) / 255
        white = pixels[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:]
        expected = -10 * math.log10(((white - 1) ** 2).mean())
        assert result.figures[f"empty_{figure}_psnr"] == pytest.approx(expected, abs=1e-3)


def test_the_protocol_of_the_package_names_its_objects_and_cameras():
    protocol = ImageBenchmark.open("gso30")
    assert len(set(protocol.objects)) == 30
    assert protocol.field_of_view_deg == pytest.approx(math.degrees(2 * math.atan(0.5 / FOCAL)), abs=1e-4)


def test_a_limit_is_spread_over_the_list(data: Path):
    write_object(data / "c" / "views")
    assert [name for name, _ in ImageBenchmark(views="views", size=SIZE).read(data, 2)] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"object": ["a"]}, "unexpected keyword argument 'object'"),
        ({"objects": 3}, "is not a protocol"),
        ({"seen_view": -1}, "seen_view=-1"),
        ({"background": "black"}, "the background white"),
        ({"field_of_view_deg": 200}, "field_of_view_deg=200"),
    ],
)
def test_wrong_protocols_are_one_sentence(tmp_path: Path, content: dict[str, object], reason: str):
    (tmp_path / "mine.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=reason):
        ImageBenchmark.open(str(tmp_path / "mine.json"))


def test_missing_and_damaged_files_are_named(data: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.json"):
        ImageBenchmark.open(str(tmp_path / "nothing.json"))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        list(ImageBenchmark().read(tmp_path / "nothing"))
    protocol = ImageBenchmark(objects=("a",), views="views", size=SIZE)
    for content in (b"", b"no array", np.zeros((3, 4)).dumps()):
        (data / "a" / "views" / "001.npy").write_bytes(content)
        with pytest.raises(ValueError, match=r"001\.npy"):
            list(protocol.read(data))
    np.save(data / "a" / "views" / "001.npy", np.zeros((3, 4)))
    with pytest.raises(ValueError, match="holds no rigid pose"):
        list(protocol.read(data))
    (data / "a" / "views" / "001.npy").unlink()
    with pytest.raises(ValueError, match=r"001\.npy"):
        list(protocol.read(data))
    with pytest.raises(FileNotFoundError, match="holds no renderings"):
        list(ImageBenchmark(objects=("d",)).read(data))
