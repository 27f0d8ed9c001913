"""Manifests: groups, defaults, what is refused, and the labels of the ones that come with the package."""

import json

import numpy as np
import pytest
import trimesh

from diffsplat.data.manifest_meshes import manifest_objects
from diffsplat.data.object_manifest import BUILT_IN, read_manifest
from diffsplat.data.shard_schema import split_of


@pytest.fixture
def folder(tmp_path):
    """Two boxes, one below a folder of the archive's own."""
    for name in ("top/pack/one.stl", "top/pack/two.stl", "top/pack/three.stl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        trimesh.creation.box((1, 2, 3)).export(tmp_path / name)
    return tmp_path


def written(folder, content):
    (folder / "m.json").write_text(json.dumps(content))
    return manifest_objects(folder, "m.json", "mine")


def test_groups_hand_their_fields_down(folder):
    inner = {
        "author": "Ann (ann.org)",
        "pack": "nice_pack",
        "objects": [{"file": "pack/one.stl", "phrase": "box"}],
    }
    other = {"file": "pack/two.stl", "phrase": "tall box", "author": "Bob", "noun": "tower", "key": "k"}
    listing = written(folder, {"licence": "CC0-1.0", "collection": "c", "objects": [inner, other]})
    one, two = listing.objects
    assert (one.object_id, one.source, one.creator, one.license) == (
        "c/pack/one.stl",
        "Ann nice pack",
        "Ann (ann.org)",
        "CC0-1.0",
    )
    assert (two.label.noun, two.label.phrase, two.creator, two.name) == ("tower", "tall box", "Bob", "k")
    assert listing.left_out == ("pack/three.stl",)
    assert one.variants == two.variants == 4


def test_people_keep_their_colours(folder):
    (woman,) = written(folder, [{"file": "pack/one.stl", "phrase": "woman", "category": "people"}]).objects
    assert woman.variants == 0
    assert not woman.label.colored


def test_the_mesh_is_turned_and_stretched(folder):
    """A quarter turn about y takes x to z: (1, 2, 3) becomes (3, 2, 1), then the given box."""
    turn = {"file": "pack/one.stl", "phrase": "box", "rotation": [0, 0, 1, 0, 1, 0, -1, 0, 0]}
    (turned,) = written(folder, [turn]).objects
    low, high = turned.load().bounds()
    np.testing.assert_allclose((high - low) / (high - low)[2], [3, 2, 1], rtol=1e-5)
    (stretched,) = written(folder, [{**turn, "extent": [4, 1, 1]}]).objects
    low, high = stretched.load().bounds()
    np.testing.assert_allclose((high - low) / (high - low)[2], [4, 1, 1], rtol=1e-5)


def test_rare_nouns_are_not_held_out(folder):
    """Keys that this manifest would hold out: found with the published rule (SHA-256), for a noun of 1 and of 3."""
    names = [f"pack{i}" for i in range(200)]
    pack = next(name for name in names if split_of(f"mine {name} box") == "test")
    files = [f"pack/{name}.stl" for name in ("one", "two", "three")]
    entries = [{"file": files[0], "phrase": "box", "pack": pack}]
    assert written(folder, entries).objects[0].split == "train"
    entries += [{"file": file, "phrase": "box", "pack": f"{pack} {file}"} for file in files[1:]]
    assert written(folder, entries).objects[0].split == "test"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "lists no object"),
        (["x"], "expected JSON objects"),
        ([{"phrase": "box"}], "has no file"),
        ([{"file": "pack/one.stl"}], "has no phrase"),
        ([{"file": "pack/one.stl", "phrase": 3}], "phrase of 'pack/one.stl' is 3"),
        ([{"file": "pack/one.stl", "phrase": "box", "rotation": [1]}], "rotation"),
        ([{"file": "pack/one.stl", "phrase": "box", "repaints": -1}], "repaints"),
        ([{"file": "../one.stl", "phrase": "box"}], "outside the collection"),
        ([{"file": "/etc/one.stl", "phrase": "box"}], "outside the collection"),
        ([{"file": "pack/one.stl", "phrase": "box"}] * 2, "twice"),
        ([{"file": "pack/none.stl", "phrase": "box"}], "holds no object"),
        ({"objects": 3}, "not a list"),
    ],
)
def test_wrong_manifests_are_refused(folder, content, message):
    with pytest.raises(ValueError, match=message):
        written(folder, content)


def test_no_manifest(folder):
    with pytest.raises(ValueError, match=r"no manifest 'none\.json'"):
        manifest_objects(folder, "none.json", "mine")
    (folder / "m.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="cannot read the manifest"):
        manifest_objects(folder, "m.json", "mine")


def labels(name, folder):
    return {entry.file: entry for entry in read_manifest(folder, name, "x")}


@pytest.mark.parametrize(
    ("manifest", "ending", "phrase", "noun"),
    [
        ("kaykit", "chair_B_wood.gltf", "wooden chair", ""),
        ("kaykit", "crate_carrots.gltf", "crate of carrots", "crate"),
        ("kaykit", "car_taxi.gltf", "taxi", ""),
        ("kaykit", "sword_2handed_color.gltf", "long sword", ""),
        ("sweethome3d", "peugeot-308.obj", "car", ""),
    ],
)
def test_labels_that_come_with_the_package(tmp_path, manifest, ending, phrase, noun):
    (entry,) = (entry for file, entry in labels(manifest, tmp_path).items() if file.endswith(f"/{ending}"))
    assert (entry.phrase, entry.noun) == (phrase, noun)


def test_manifests_of_the_package_name_licence_and_author(tmp_path):
    """The numbers that the data's own description gives."""
    counts = {name: len(labels(name, tmp_path)) for name in BUILT_IN}
    assert (counts["kaykit"], counts["sweethome3d"]) == (632, 758)
    for name in BUILT_IN:
        for entry in labels(name, tmp_path).values():
            assert entry.licence in ("CC0-1.0", "CC-BY-3.0", "CC-BY-3.0-US")
            assert entry.author != "unknown"
            assert entry.collection == name
