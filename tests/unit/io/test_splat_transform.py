"""Files go to and come from PlayCanvas' splat-transform, a program that was written without this one.

Needs node and the npm package ``@playcanvas/splat-transform``: its ``bin/cli.mjs`` is named by the environment
variable ``SPLAT_TRANSFORM``, or the package is installed where ``npm root`` or ``npm root --global`` points
(``npm install --global @playcanvas/splat-transform@2.7.1``). Skipped without it.
"""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffsplat.core import Splats
from diffsplat.geometry.rotations import multiply_quaternions
from diffsplat.io.splat_formats import read_splats, write_splats
from support.splat_sets import PRECISIONS, Precision, assert_same, lattice_splats

CLI = Path("@playcanvas/splat-transform/bin/cli.mjs")


def find_program() -> Path | None:
    if shutil.which("node") is None:
        return None
    if named := os.environ.get("SPLAT_TRANSFORM"):
        return Path(named)
    if shutil.which("npm") is None:
        return None
    for arguments in ([], ["--global"]):
        root = subprocess.run(
            ["npm", "root", *arguments], check=False, capture_output=True, text=True, timeout=60
        )
        if root.returncode == 0 and (Path(root.stdout.strip()) / CLI).is_file():
            return Path(root.stdout.strip()) / CLI
    return None


@pytest.fixture(scope="module")
def program() -> Path:
    found = find_program()
    if found is None:
        pytest.skip("node or @playcanvas/splat-transform is not installed")
    return found


def transform(program: Path, source: Path, target: Path, *options: str) -> None:
    words = [
        "node",
        str(program),
        "--quiet",
        "--overwrite",
        "--gpu",
        "cpu",
        *options,
        str(source),
        str(target),
    ]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=300)
    assert target.is_file(), done.stdout + done.stderr


def summed(suffix: str, **changes: float) -> Precision:
    """A format's precision and a little for the .ply files on the way."""
    bound = PRECISIONS[suffix]
    slack = Precision(
        bound.mean + 1e-6, bound.log_sigma + 1e-5, bound.angle + 0.1, bound.opacity + 2e-6, bound.color + 1e-6
    )
    return replace(slack, **changes)


@pytest.mark.parametrize("suffix", [".ply", ".compressed.ply", ".splat", ".spz", ".sog"])
def test_files_written_here_are_read_there(program: Path, tmp_path: Path, suffix: str):
    """The .ply files it writes have -Y up and do not say so."""
    splats = lattice_splats(1500)
    ours, theirs = tmp_path / f"ours{suffix}", tmp_path / "theirs.ply"
    write_splats(splats, ours, up="minus-y" if suffix == ".ply" else None)
    transform(program, ours, theirs)
    # It reads the bytes of a rotation in .splat files as 0..255 of -1..1, half a step off.
    expected = summed(suffix, angle=2.2) if suffix == ".splat" else summed(suffix)
    assert_same(read_splats(theirs, up="minus-y"), splats, expected)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".ply", ()),
        (".compressed.ply", ()),
        (".spz", ("--spz-version", "3")),
        (".spz", ("--spz-version", "4")),
        (".sog", ()),
    ],
)
def test_files_written_there_are_read_here(
    program: Path, tmp_path: Path, suffix: str, options: tuple[str, ...]
):
    splats = lattice_splats(1500)
    ours, theirs = tmp_path / "ours.ply", tmp_path / f"theirs{suffix}"
    write_splats(splats, ours, up="minus-y")
    transform(program, ours, theirs, *options)
    found = read_splats(theirs, up="minus-y" if suffix == ".ply" else None)
    expected = {
        # It keeps 12 bits behind the point.
        ".spz": summed(suffix, mean=2.0**-13 + 1e-6),
        # It cuts where others round, and its tables of sizes and colours, made of clusters, leave a few far off;
        # what it then reads out of its own file is compared strictly below.
        ".sog": summed(suffix, mean=6e-5, log_sigma=0.1, angle=2.2, opacity=1.01 / 255, color=1),
    }.get(suffix, summed(suffix))
    assert_same(found, splats, expected)
    again = tmp_path / "again.ply"
    transform(program, theirs, again)
    # What it makes of its own file is what this reader makes of it.
    assert_same(read_splats(again, up="minus-y"), found, Precision(1e-6, 1e-5, 0.1, 2e-6, 2e-6))


def test_glb_written_there_is_read_here(program: Path, tmp_path: Path):
    """On the way from -Y up to glTF, it turns objects by half a circle about the vertical."""
    splats = lattice_splats(1500)
    write_splats(splats, tmp_path / "ours.splat")
    transform(program, tmp_path / "ours.splat", tmp_path / "theirs.glb")
    found = read_splats(tmp_path / "theirs.glb")
    half_turn = torch.tensor([0.0, 0.0, 1.0, 0.0]).expand_as(found.quats)
    turned = Splats(
        found.means * torch.tensor([-1.0, 1.0, -1.0]),
        found.scales,
        multiply_quaternions(half_turn, found.quats),
        found.opacities,
        found.colors,
    )
    assert_same(turned, splats, summed(".splat", angle=2.2))
