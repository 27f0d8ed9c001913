"""Records of how splats were made: found by a plain look at the file, and in nobody's way."""

import json
import struct
from pathlib import Path

import pytest
import torch

from diffsplat.core import Splats
from diffsplat.io.splat_formats import read_splats, write_splats
from diffsplat.io.splat_suffixes import WRITABLE_SUFFIXES

ORIGIN = {"prompt": 'ein "Stuhl" für\n50 Zwerge ' + "x" * 700, "seed": 7, "options": {"steps": 3}}


def splats() -> Splats:
    torch.manual_seed(0)
    return Splats(
        means=torch.rand(5, 3) - 0.5,
        scales=torch.full((5, 3), 0.1),
        quats=torch.tensor([1.0, 0, 0, 0]).expand(5, 4),
        opacities=torch.full((5,), 0.5),
        colors=torch.rand(5, 3),
    )


def stored(path: Path) -> dict | None:
    """What a file says, read without the package."""
    data = path.read_bytes()
    match path.suffix:
        case ".ply":
            head = data[: data.index(b"end_header\n")].decode("ascii").splitlines()
            assert max(map(len, head)) < 256
            text = "".join(line.removeprefix("comment origin ") for line in head if "comment origin" in line)
            return json.loads(text)
        case ".gltf":
            return json.loads(data)["asset"]["extras"]["origin"]
        case ".glb":
            total, length = struct.unpack("<II", data[8:16])
            assert total == len(data)
            assert length % 4 == 0
            return json.loads(data[20 : 20 + length])["asset"]["extras"]["origin"]
    return None


@pytest.mark.parametrize("suffix", WRITABLE_SUFFIXES)
def test_files_hold_their_origin_and_the_same_splats(tmp_path: Path, suffix: str):
    plain, told = tmp_path / f"plain{suffix}", tmp_path / f"told{suffix}"
    write_splats(splats(), plain)
    write_splats(splats(), told, origin=ORIGIN)
    assert stored(told) == (ORIGIN if suffix.endswith((".ply", ".gltf", ".glb")) else None)
    one, other = read_splats(plain), read_splats(told)
    for name in ("means", "scales", "quats", "opacities", "colors"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
