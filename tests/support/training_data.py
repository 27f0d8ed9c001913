"""Rendered objects to train on."""

import itertools
from pathlib import Path

import pytest

from diffsplat.data.mesh_ingestion import RenderOptions, ingest
from diffsplat.data.mesh_sources import folder_objects
from diffsplat.data.shard_schema import split_of


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of three boxes for training and one held out, 32 pixels wide."""
    trimesh = pytest.importorskip("trimesh")
    root = tmp_path_factory.mktemp("objects")
    words = [f"{''.join(letters)}_box" for letters in itertools.product("abcdef", repeat=3)]
    train_names = [word for word in words if split_of(_phrase(word)) == "train"][:3]
    test_names = [word for word in words if split_of(_phrase(word)) == "test"][:1]
    (root / "meshes").mkdir()
    for number, name in enumerate(train_names + test_names):
        box = trimesh.creation.box(extents=(1.0, 0.4 + 0.2 * number, 0.7))
        box.visual.face_colors = [60 * number, 90, 200, 255]
        box.export(root / "meshes" / f"{name}.ply")
    listing = folder_objects(root / "meshes")
    ingest(listing, root / "shards", RenderOptions(size=32, supersampling=1, recolor=False, processes=1))
    return root / "shards"


def _phrase(file: str) -> str:
    """The name that a file's object is held out by. Only of a noun with several objects is any held out."""
    return file.replace("_", " ")
