"""diffsplat convert, and other verbs with files that are not .ply."""

import math
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from diffsplat.cli.main import main
from diffsplat.cli.output_paths import plan_objects
from diffsplat.core import Splats
from diffsplat.io.image_files import read_image
from diffsplat.io.splat_formats import read_splats, write_splats
from diffsplat.io.splat_suffixes import WRITABLE_SUFFIXES
from diffsplat.pipelines.generation_options import Generation


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with ``four.ply``: four Gaussians of rising opacity, three of them on the axes."""
    monkeypatch.chdir(tmp_path)
    splats = Splats(
        means=torch.tensor([[0.0, 0, 0], [0.4, 0, 0], [0, 0.6, 0], [0, 0, -0.8]]),
        scales=torch.full((4, 3), 0.02),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(4, 1),
        opacities=torch.tensor([0.2, 0.4, 0.6, 0.8]),
        colors=torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]]),
    )
    write_splats(splats, "four.ply")
    return tmp_path


def opacities(name: str) -> list[float]:
    return sorted(round(value, 1) for value in read_splats(name).opacities.tolist())


@pytest.mark.parametrize("suffix", WRITABLE_SUFFIXES)
def test_every_format(here: Path, capsys, suffix: str):
    assert main(["convert", "four.ply", f"out{suffix}"]) == 0
    assert capsys.readouterr().out == f"out{suffix}\n"
    found = read_splats(f"out{suffix}")
    top = found.means[found.means[:, 1].argmax()]
    assert top.tolist() == pytest.approx([0, 0.6, 0], abs=1e-3)
    assert main(["convert", f"out{suffix}", "back.ply"]) == 0
    assert opacities("back.ply") == [0.2, 0.4, 0.6, 0.8]


@pytest.mark.parametrize(("up", "top"), [("y", [0, 0.6, 0]), ("-y", [0, -0.6, 0]), ("z", [0, 0, 0.6])])
def test_up(here: Path, up: str, top: list[float]):
    assert main(["convert", "four.ply", "out.glb", "--up", up]) == 0
    assert read_splats("out.glb").means[2].tolist() == pytest.approx(top, abs=1e-6)
    assert main(["convert", "out.glb", "back.splat", "--from-up", up]) == 0
    assert read_splats("back.splat").means[2].tolist() == pytest.approx([0, 0.6, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["--opacity-min", "0.5"], [0.6, 0.8]),
        (["--crop", "0.5"], [0.2, 0.4]),
        (["--crop", "-1", "-1", "-1", "0.1", "1", "0.1"], [0.2, 0.6, 0.8]),
        (["--crop", "0.7", "--opacity-min", "0.3"], [0.4, 0.6]),
    ],
)
def test_what_is_left_out(here: Path, words: list[str], left: list[float]):
    assert main(["convert", "four.ply", "out.spz", *words]) == 0
    assert opacities("out.spz") == left


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["none.ply", "out.spz"], "there is no such file"),
        (["four.ply", "out.obj"], "the suffix '.obj', expected a splat file"),
        (["four.ply", "out.ksplat"], "only read"),
        (["four.ply", "four.ply"], "exists already"),
        (["four.ply", "four.ply/out.spz"], "'four.ply': it is a file, expected a folder"),
        (["broken.sog", "out.ply"], "'broken.sog' is not a readable splat file"),
        (["four.ply", "out.spz", "--crop", "0.1", "0.2"], "the crop is '0.1 0.2', expected a radius or"),
        (["four.ply", "out.spz", "--crop", "-1"], "expected a positive distance"),
        (["four.ply", "out.spz", "--crop", "1", "0", "0", "0", "1", "1"], "below the greatest"),
        (["four.ply", "out.spz", "--opacity-min", "1.5"], "the smallest opacity is 1.5"),
        (["four.ply", "out.spz", "--opacity-min", "0.9"], "none of the 4 Gaussians"),
    ],
)
def test_refusals(here: Path, capsys, words: list[str], sentence: str):
    (here / "broken.sog").write_bytes(b"PK\3\4 not an archive")
    before = {path: path.read_bytes() for path in here.iterdir()}
    assert main(["convert", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("diffsplat: error: ")
    assert sentence in line
    assert {path: path.read_bytes() for path in here.iterdir()} == before


def test_folders_that_are_missing_are_made(here: Path):
    assert main(["convert", "four.ply", "some/where/out.spz"]) == 0
    assert read_splats("some/where/out.spz").count == 4
    for name, kind in (("deep/view.png", "PNG"), ("deep/turn.gif", "GIF")):
        assert main(["render", "four.ply", "-o", name, "--size", "16", "--frames", "2"]) == 0
        with Image.open(name) as image:
            assert (image.format, image.size) == (kind, (16, 16))


def test_no_choice_is_called_none(capsys: pytest.CaptureFixture[str]):
    for name in ("generate", "serve", "render", "convert"):
        assert main([name, "--help"]) == 0
        assert "{None" not in capsys.readouterr().out


def test_strict_refuses_what_is_otherwise_left_out(here: Path, capsys):
    data = bytearray((here / "four.ply").read_bytes())
    data[-56:-52] = struct.pack("<f", math.nan)
    (here / "nan.ply").write_bytes(data)
    assert main(["convert", "nan.ply", "out.ply", "--strict"]) == 2
    assert "1 of its 4 Gaussians cannot be used" in capsys.readouterr().err
    assert not (here / "out.ply").exists()
    words = [sys.executable, "-m", "diffsplat.cli.main", "convert", "nan.ply", "out.ply"]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "out.ply\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith("left out of 'nan.ply': 1 of its 4 Gaussians")
    assert opacities("out.ply") == [0.2, 0.4, 0.6]


def test_a_folder_of_an_unpacked_sog_file(here: Path):
    assert main(["convert", "four.ply", "four.sog"]) == 0
    with zipfile.ZipFile("four.sog") as archive:
        archive.extractall("folder")
    for number, name in enumerate(("folder", "folder/meta.json")):
        assert main(["convert", name, f"{number}.ply"]) == 0
        assert opacities(f"{number}.ply") == [0.2, 0.4, 0.6, 0.8]


def test_force_replaces(here: Path):
    (here / "out.spz").write_bytes(b"old")
    assert main(["convert", "four.ply", "out.spz", "--force"]) == 0
    assert opacities("out.spz") == [0.2, 0.4, 0.6, 0.8]


def test_render_reads_other_formats(here: Path):
    """The same picture from a lossless format, bit by bit."""
    assert main(["convert", "four.ply", "four.glb"]) == 0
    for name in ("four.ply", "four.glb"):
        assert main(["render", name, "--view", "20,30", f"{name}.png", "--size", "32"]) == 0
    assert (here / "four.ply.png").read_bytes() == (here / "four.glb.png").read_bytes()


def test_render_frames_splats_that_are_elsewhere(here: Path):
    """Far away and large, the same object fills the same picture, wherever a floater is."""
    source = torch.Generator().manual_seed(0)
    means = (torch.rand(500, 3, generator=source) - 0.5) * torch.tensor([1.0, 0.6, 0.3])
    unit = torch.ones(500)
    near = Splats(
        means, unit[:, None].repeat(1, 3) * 0.02, torch.eye(4)[:1].repeat(500, 1), unit, means.abs() * 1.9
    )
    moved = near.means * 40 + torch.tensor([100.0, -30.0, 20.0])
    moved[0] = torch.tensor([9e5, 9e5, 9e5])
    write_splats(near, "near.ply")
    write_splats(Splats(moved, near.scales * 40, near.quats, near.opacities, near.colors), "far.ply")
    shares = []
    for name in ("near", "far"):
        assert main(["render", f"{name}.ply", "--view", "20,30", f"{name}.png", "--size", "64"]) == 0
        shares.append(float((read_image(f"{name}.png").amin(dim=0) < 0.9).float().mean()))
    assert shares[1] > 0.5 * shares[0] > 0.1
    assert main(["render", "far.ply", "--radius", "1.4", "--view", "20,30", "plain.png", "--size", "64"]) == 0
    assert bool((read_image("plain.png") == 1).all())


def test_planned_names_of_several_dots():
    pair = Generation(prompts=("a chair",), count=2)
    planned = plan_objects(pair, Path("out/red.compressed.ply"), "png")
    assert [str(item.splats) for item in planned] == ["out/red-1.compressed.ply", "out/red-2.compressed.ply"]
    assert [str(item.preview) for item in planned] == ["out/red-1.png", "out/red-2.png"]
    (single,) = plan_objects(Generation(prompts=("a chair",)), Path("v1.2.spz"), "mp4")
    assert (str(single.splats), str(single.preview)) == ("v1.2.spz", "v1.2.mp4")
    (meshed,) = plan_objects(Generation(prompts=("a chair",)), Path("a.compressed.ply"), "png", mesh=True)
    assert [str(path) for path in meshed.paths] == ["a.compressed.ply", "a.mesh.glb", "a.png"]


def test_planned_names_of_images():
    images = (Path("x/red shoe.png"), Path("y/hat.jpg"), Path("z/hat.webp"))

    def names(generation: Generation, *images: Path) -> list[str]:
        return [str(item.splats) for item in plan_objects(generation, None, "none", images)]

    unnamed, pair = Generation(prompts=("",)), Generation(prompts=("a shoe", "a hat"))
    assert names(unnamed, images[0]) == ["red-shoe.ply"]
    assert names(unnamed, *images) == ["red-shoe.ply", "hat-1.ply", "hat-2.ply"]
    assert names(Generation(prompts=("a shoe",)), images[0]) == ["a-shoe.ply"]
    assert names(pair, *images[:2]) == [
        *("red-shoe-a-shoe.ply", "red-shoe-a-hat.ply", "hat-a-shoe.ply", "hat-a-hat.ply")
    ]
    planned = plan_objects(pair, Path("out/a.spz"), "none", images[:2])
    assert [str(item.splats) for item in planned] == [f"out/a-{number}.spz" for number in range(1, 5)]
    assert [item.image for item in planned] == [images[0], images[0], images[1], images[1]]


def test_generate_writes_other_formats(here: Path, small_model: Path):
    words = ["generate", "a chair", "--model", str(small_model), "--steps", "1"]
    for name in ("a.ply", "a.glb", "a.compressed.ply"):
        assert main([*words, "-o", name]) == 0
    assert read_splats("a.glb").count == read_splats("a.ply").count == read_splats("a.compressed.ply").count
    assert torch.equal(read_splats("a.glb").means, read_splats("a.ply").means)


def test_names_of_files_are_known_without_torch():
    program = (
        "import sys, diffsplat.cli.output_paths; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=120).returncode == 0


def test_path_whose_bytes_are_no_text_is_printed_as_it_is(here):
    target = b"\xff.splat"
    words = [sys.executable, "-m", "diffsplat.cli.main", "convert", "four.ply", target]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(words, check=False, capture_output=True, timeout=120, env=environment)
    assert (done.returncode, done.stdout) == (0, target + b"\n")
    assert Path(os.fsdecode(target)).is_file()
