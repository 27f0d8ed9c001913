"""From mesh files to shards and back: geometry, interruption, broken meshes, streaming, sources, credits."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time

import datasets
import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
import trimesh
from PIL import Image

from diffsplat.cli.data import nouns, render, write_credits
from diffsplat.core import Views
from diffsplat.data import ObjectDataset, shard_schema
from diffsplat.data.caption_file_overrides import label_of_captions
from diffsplat.data.caption_files import CaptionedObject
from diffsplat.data.mesh_ingestion import RenderOptions, ingest, relabel
from diffsplat.data.mesh_sources import folder_objects
from diffsplat.data.shard_reading import decode_pixels

OPTIONS = RenderOptions(size=32, recolor=False, processes=1)


def painted(shape, color):
    shape.visual.face_colors = color
    return shape


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """A red sphere and a few boxes, rendered."""
    source, out = tmp_path_factory.mktemp("meshes"), tmp_path_factory.mktemp("shards")
    ball = trimesh.creation.icosphere(subdivisions=4, radius=3.0)
    painted(ball, [200, 30, 30, 255]).export(source / "Red_Ball01.ply")
    for index in range(3):
        painted(trimesh.creation.box((1, 2, 3 + index)), [40, 90, 200, 255]).export(
            source / f"box{index}.ply"
        )
    report = ingest(folder_objects(source), out, OPTIONS)
    assert (report.rendered, report.rows, report.broken) == (4, 4, [])
    return out


def index_of(dataset, word):
    return next(i for i, row in enumerate(dataset.rows) if word in row.object_id)


@pytest.mark.parametrize("first", [0, 6, 13, 22])
def test_a_sphere_lies_on_its_sphere_in_the_world_of_any_first_view(shards, first):
    """Every coordinate is 0.46 from the origin and every normal points away from it, whatever view comes first."""
    dataset = ObjectDataset(shards, split="all")
    views = dataset.load_views(index_of(dataset, "Ball"), [first, (first + 5) % 24, (first + 9) % 24])
    hit = (views.depth > 0)[0, :, 0]
    points = (views.coord[0] * 2 - 1).movedim(1, -1)[hit]
    normals = (views.normal[0] * 2 - 1).movedim(1, -1)[hit]
    lengths = points.norm(dim=-1)
    assert lengths.median() == pytest.approx(0.46, abs=2e-3)
    assert (lengths - 0.46).abs().quantile(0.9) < 0.01
    assert (normals * points / lengths[:, None]).sum(-1).quantile(0.1) > 0.97
    center = views.cameras.centers[0, 0]
    assert center[0].abs() < 1e-5
    assert center[2] > 0
    assert center.norm() == pytest.approx(1.4, abs=1e-5)
    outside = ~hit
    assert (views.image[0].movedim(1, -1)[outside & (views.mask[0, :, 0] == 0)] == 1).all()
    assert (views.coord[0].movedim(1, -1)[outside] == 1).all()
    assert (views.normal[0].movedim(1, -1)[outside] == 1).all()


def test_coordinates_come_from_depth_and_camera(shards):
    dataset = ObjectDataset(shards, split="all")
    views = dataset.sample(index_of(dataset, "box1"), 3, novel_views=4)
    hit = (views.depth > 0).expand_as(views.coord)
    expected = views.cameras.unproject(views.depth) * 0.5 + 0.5
    torch.testing.assert_close(views.coord[hit], expected[hit], atol=1e-6, rtol=0)


def test_pictures_hold_what_another_reader_sees(shards):
    dataset = ObjectDataset(shards, split="all")
    index = index_of(dataset, "Ball")
    row = dataset.rows[index]
    table = parquet.read_table(str(row.shard)).slice(row.place, 1).to_pylist()[0]
    picture = np.asarray(Image.open(io.BytesIO(table["rgba"][2])).convert("RGBA")).astype(np.float64) / 255
    steps = np.asarray(Image.open(io.BytesIO(table["depth"][2]))).astype(np.float64)
    views = dataset.load_views(index, [2])
    white = picture[..., :3] * picture[..., 3:] + 1 - picture[..., 3:]
    np.testing.assert_allclose(views.image[0, 0].movedim(0, -1), white, atol=1e-6)
    np.testing.assert_allclose(dataset.load_images(index, [2])[0].movedim(0, -1), white, atol=1e-6)
    depth = np.where(steps > 0, 0.5 + (steps - 1) * 2.0 / 65534, 0)
    np.testing.assert_allclose(views.depth[0, 0, 0], depth, atol=1e-6)


def test_samples_are_rings_and_follow_the_seed(shards):
    dataset = ObjectDataset(shards, split="all")
    one, again, other = (dataset.sample(1, seed, novel_views=3) for seed in (5, 5, 6))
    assert torch.equal(one.image, again.image)
    assert not torch.equal(one.cameras.camera_to_world, other.cameras.camera_to_world)
    assert one.count == 7
    assert one.prompt[0] in dataset.rows[1].captions
    for seed in range(6):
        centers = dataset.sample(2, seed, novel_views=3).cameras.centers[0, :4]
        azimuths = torch.rad2deg(torch.atan2(centers[:, 0], centers[:, 2])) % 360
        turned = azimuths[1:].tolist()
        assert turned == pytest.approx([90, 180, 270], abs=1e-2)
        assert centers[:, 1].std() < 1e-5
    batch = Views.concatenate([dataset.sample(i, 0, novel_views=3) for i in range(3)])
    assert batch.image.shape == (3, 7, 3, 32, 32)


def test_the_canonical_views_start_at_the_front(shards):
    dataset = ObjectDataset(shards, split="all")
    index = index_of(dataset, "box2")
    views = dataset.canonical(index)
    pose = dataset.rows[index].cameras.camera_to_world[0]
    torch.testing.assert_close(views.cameras.camera_to_world[0, 0], pose, atol=1e-6, rtol=0)
    elevation = torch.asin(views.cameras.centers[0, :, 1] / 1.4)
    torch.testing.assert_close(torch.rad2deg(elevation), torch.full((4,), 10.0))


def test_smaller_views(shards):
    dataset = ObjectDataset(shards, split="all")
    index = index_of(dataset, "Ball")
    large, small = dataset.load_views(index, [0, 4]), dataset.load_views(index, [0, 4], size=16)
    blocks = large.image.unflatten(-1, (16, 2)).unflatten(-3, (16, 2)).mean(dim=(-1, -3))
    torch.testing.assert_close(small.image, blocks, atol=1e-6, rtol=0)
    hit = (small.depth > 0)[0, :, 0]
    radius = (small.coord[0] * 2 - 1).movedim(1, -1)[hit].norm(dim=-1)
    assert radius.median() == pytest.approx(0.46, abs=5e-3)
    with pytest.raises(ValueError, match="divisor"):
        dataset.load_views(index, [0], size=20)


def test_names_and_captions_of_a_folder(shards):
    dataset = ObjectDataset(shards, split="all")
    row = dataset.rows[index_of(dataset, "Ball")]
    assert (row.name, row.noun) == ("red ball", "ball")
    assert row.colors == ("red",)
    assert "a 3d model of a red ball" in row.captions
    assert dataset.noun_counts() == {"box": 3, "ball": 1}


def test_datasets_streams_the_shards(shards):
    files = sorted(str(path) for path in shards.glob("*.parquet"))
    stream = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    rows = list(stream)
    assert len(rows) == 4
    assert {len(row["rgba"]) for row in rows} == {24}
    assert Image.open(io.BytesIO(rows[0]["rgba"][0])).size == (32, 32)


def test_depth_keeps_a_thirty_thousandth():
    depth = np.random.default_rng(0).uniform(0.6, 2.4, (20, 20))
    depth[:5] = 0
    steps = decode_pixels(shard_schema.encode_depth(depth), "depth", len(depth)).astype(np.float64)
    assert (steps[:5] == 0).all()
    np.testing.assert_allclose(0.5 + (steps[5:] - 1) * 2 / 65534, depth[5:], atol=1.6e-5)
    with pytest.raises(ValueError, match="depth spans"):
        shard_schema.encode_depth(np.array([[3.0]]))


def test_broken_meshes_are_reported_and_the_others_rendered(tmp_path, capsys):
    source = tmp_path / "in"
    source.mkdir()
    trimesh.creation.box().export(source / "good.stl")
    (source / "bad.glb").write_bytes(b"no mesh at all")
    (source / "empty.obj").write_text("v 0 0 0\n")
    flat = trimesh.Trimesh([[0, 0, 0], [0, 0, 0], [0, 0, 0]], [[0, 1, 2]], process=False)
    flat.export(source / "point.ply")
    render(source, tmp_path / "out", RenderOptions(size=16, processes=1))
    table = capsys.readouterr().out
    assert "1 objects rendered" in table
    assert "3 broken" in table
    assert all(f"folder/{name}" in table for name in ("bad.glb", "empty.obj", "point.ply"))
    (source / "good.stl").unlink()
    with pytest.raises(ValueError, match="none of the 3 meshes"):
        render(source, tmp_path / "other", RenderOptions(size=16, processes=1))


def test_losses_are_said_and_keep_colours_out_of_captions(tmp_path, capsys):
    """A chair whose texture is gone is not called grey, nor repainted; one that lost a line keeps its colours."""
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "a.mtl").write_text("newmtl wood\nKd 0.5 0.5 0.5\nmap_Kd gone.png\nnewmtl red\nKd 0.7 0 0\n")
    square = "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
    (source / "chair.obj").write_text(square + "usemtl wood\nf 1 2 3 4\n")
    (source / "table.obj").write_text(square + "usemtl red\nf 1 2 3 4\nf 1 2 9\n")
    render(source, out, RenderOptions(size=32, processes=1))
    printed = capsys.readouterr()
    for said in (printed.out, printed.err):
        assert said.count("folder/chair.obj") == said.count("folder/table.obj") == 1
        assert "its texture 'gone.png' is missing" in said
        assert "1 of its triangles refer to vertices that it lacks" in said
    assert "0 broken, 2 incomplete" in printed.out
    chair, table, *repainted = sorted(ObjectDataset(out, split="all").rows, key=lambda row: row.object_id)
    assert repainted
    assert all(row.object_id.startswith("folder/table.obj#") for row in repainted)
    assert chair.colors == ()
    assert "a chair" in chair.captions
    assert not any("gray" in caption or "grey" in caption for caption in chair.captions)
    assert table.colors == ("red",)


def test_killed_and_resumed(tmp_path):
    """SIGKILL after the first shard: whole shards only, and the second run adds exactly what is missing."""
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for index in range(100):
        trimesh.creation.box((1, 1 + index / 50, 2)).export(source / f"box{index:03d}.stl")
    code = (
        "import sys; from pathlib import Path; from diffsplat.data.mesh_ingestion import RenderOptions, ingest\n"
        "from diffsplat.data.mesh_sources import folder_objects\n"
        "options = RenderOptions(size=16, recolor=False, processes=1)\n"
        "ingest(folder_objects(Path(sys.argv[1])), Path(sys.argv[2]), options)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(source), str(out)], stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 120
    while not list(out.glob("objects-*.parquet")) and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = {name for path in out.glob("objects-*.parquet") for name in ids(path)}
    assert 0 < len(first) < 100
    report = ingest(folder_objects(source), out, RenderOptions(size=16, recolor=False, processes=2))
    assert report.resumed == len(first)
    assert report.rendered == 100 - len(first)
    found = [name for path in sorted(out.glob("objects-*.parquet")) for name in ids(path)]
    assert sorted(found) == [f"folder/box{index:03d}.stl" for index in range(100)]


def ids(path):
    return parquet.read_table(path, columns=["object_id"]).column(0).to_pylist()


def chair(path, color=(30, 140, 60)):
    """A box with a flat texture, as the packs have it."""
    box = trimesh.creation.box((1, 2, 1))
    box.visual = trimesh.visual.TextureVisuals(
        uv=np.full((8, 2), 0.5),
        material=trimesh.visual.material.PBRMaterial(baseColorTexture=Image.new("RGB", (8, 8), color)),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    box.export(path)


def test_an_archive_with_a_manifest_and_repainted_versions(tmp_path, capsys):
    chair(tmp_path / "packs/Furniture/chair_A.glb")
    chair(tmp_path / "packs/Furniture/floor_small.glb")
    entry = {
        "file": "Furniture/chair_A.glb",
        "phrase": "desk chair",
        "pack": "Furniture",
        "author": "Ann (a.com)",
    }
    licence = {"licence": "CC0-1.0", "licence_basis": "stated", "triangles": 12}
    (tmp_path / "packs/objects.json").write_text(json.dumps([entry | licence]))
    with tarfile.open(tmp_path / "packs.tar.xz", "w:xz") as archive:
        archive.add(tmp_path / "packs", "top")
    out = tmp_path / "out"
    options = RenderOptions(size=32, processes=1)
    render(tmp_path / "packs.tar.xz", out, options, "objects.json")
    assert "1 objects rendered (5 rows), 0 were there already, 1 left out" in capsys.readouterr().out
    dataset = ObjectDataset(out, split="all")
    original, *variants = dataset.rows
    assert (original.object_id, original.noun) == ("packs/Furniture/chair_A.glb", "chair")
    assert (original.source, original.creator) == ("Ann Furniture", "Ann (a.com)")
    assert (original.license, original.license_basis) == ("CC0-1.0", "stated")
    assert original.captions[0] == "a green desk chair"
    assert len({row.variant for row in variants}) == 4
    assert "green" not in {row.variant for row in variants}
    assert {row.split for row in dataset.rows} == {"train"}, "the only chair is not held out"
    plain = dataset.load_views(0, [0, 1, 2, 3])
    for index, row in enumerate(variants, start=1):
        assert row.captions[0].split()[1] == row.variant
        views = dataset.load_views(index, [0, 1, 2, 3])
        assert torch.equal(views.depth, plain.depth)
        assert torch.equal(views.normal, plain.normal)
        assert not torch.equal(views.image, plain.image)
    before = dataset.load_views(2, [5]).image
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps([entry | licence | {"phrase": "throne"}]))
    render(tmp_path / "packs.tar.xz", out, RenderOptions(), str(changed), relabel=True)
    assert capsys.readouterr().out == "5 rows relabelled.\n"
    relabelled = ObjectDataset(out, split="all")
    assert {row.noun for row in relabelled.rows} == {"throne"}
    assert torch.equal(relabelled.load_views(2, [5]).image, before)
    render(tmp_path / "packs.tar.xz", out, options, "objects.json")
    assert "0 objects rendered (0 rows), 1 were there already" in capsys.readouterr().out
    nouns([out])
    assert capsys.readouterr().out == "    1  throne\n"
    write_credits([out], tmp_path / "CREDITS.md")
    page = (tmp_path / "CREDITS.md").read_text()
    assert "https://creativecommons.org/publicdomain/zero/1.0/" in page
    assert "no licence text is beside these files" in page
    assert "- Ann (a.com): `Furniture/chair_A.glb`" in page


def test_shards_without_newer_columns_are_read_and_relabelled(tmp_path):
    chair(tmp_path / "in/chair_A.glb")
    listing = folder_objects(tmp_path / "in")
    ingest(listing, tmp_path / "out", OPTIONS)
    (shard,) = (tmp_path / "out").glob("*.parquet")
    parquet.write_table(parquet.read_table(shard).drop_columns("license_basis"), shard)
    assert ObjectDataset(tmp_path / "out", split="all").rows[0].license_basis == ""
    assert relabel(listing, tmp_path / "out") == 1
    assert parquet.read_table(shard).schema.names == shard_schema.table_schema().names


def test_meshes_of_other_formats_are_counted(tmp_path, caplog):
    for name in ("a.FBX", "b.fbx", "c.dae"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"2 \.fbx left out, convert to \.glb; 1 \.dae left out"):
        folder_objects(tmp_path)
    chair(tmp_path / "d.glb")
    assert len(folder_objects(tmp_path).objects) == 1
    assert "2 .fbx left out" in caplog.text


def test_names_that_are_no_unicode_are_kept_apart(tmp_path):
    """As old archives hold them, in Latin-1."""
    source = tmp_path / "in"
    source.mkdir()
    for name in (b"chair \xe9.ply", b"chair \xe8.ply"):
        trimesh.creation.box().export(tmp_path / "a.ply")
        os.rename(tmp_path / "a.ply", os.path.join(os.fsencode(source), name))
    report = ingest(folder_objects(source), tmp_path / "out", OPTIONS)
    assert (report.rendered, report.broken) == (2, [])
    (shard,) = (tmp_path / "out").glob("objects-*.parquet")
    assert sorted(ids(shard)) == [r"folder/chair \xe8.ply", r"folder/chair \xe9.ply"]


def test_refusals(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        folder_objects(tmp_path / "missing")
    with pytest.raises(ValueError, match="holds no mesh file"):
        folder_objects(tmp_path)
    (tmp_path / "x.deb").write_bytes(b"\xff\xd8 a jpeg")
    with pytest.raises(FileNotFoundError, match="expected the output of diffsplat data"):
        ObjectDataset(tmp_path)
    trimesh.creation.box().export(tmp_path / "box.stl")
    listing = folder_objects(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        ingest(listing, tmp_path / "x.deb", OPTIONS)
    with pytest.raises(ValueError, match="at least 8"):
        ingest(listing, tmp_path / "out", RenderOptions(size=2))


def test_reading_refuses_what_is_not_there(shards):
    dataset = ObjectDataset(shards, split="all")
    with pytest.raises(ValueError, match="no views"):
        dataset.load_views(0, [])
    with pytest.raises(IndexError, match=r"expected 0\.\.23"):
        dataset.load_views(0, [24])
    with pytest.raises(ValueError, match="expected train, test or all"):
        ObjectDataset(shards, split="validation")


def test_importing_needs_no_optional_package():
    code = (
        "import sys\n"
        "for name in ('DracoPy', 'meshoptimizer', 'pyarrow', 'OpenEXR'): sys.modules[name] = None\n"
        "import diffsplat.data.mesh_ingestion, diffsplat.data.mesh_sources, diffsplat.cli.data\n"
        "from diffsplat.data.shard_schema import import_pyarrow\n"
        "try: import_pyarrow()\n"
        "except ImportError as error: print(error)\n"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "diffsplat[train]" in done.stdout


def test_captions_of_a_file_and_repainted_versions_of_own_meshes(tmp_path, capsys):
    chair(tmp_path / "in/kitchen/chair_B.glb")
    chair(tmp_path / "in/thing.glb", (200, 30, 30))
    (tmp_path / "c.csv").write_text("file,caption,noun\nthing.glb,A red throne with arms,throne\n")
    render(
        tmp_path / "in", tmp_path / "out", RenderOptions(size=32, processes=1), captions=tmp_path / "c.csv"
    )
    assert "2 objects rendered (10 rows)" in capsys.readouterr().out
    rows = {row.object_id.split("/", 1)[1]: row for row in ObjectDataset(tmp_path / "out", split="all").rows}
    assert rows["thing.glb"].captions == ("A red throne with arms",)
    assert (rows["thing.glb"].noun, rows["thing.glb"].colors) == ("throne", ("red",))
    assert rows["kitchen/chair_B.glb"].captions[0] == "a green chair"
    painted_rows = [row for name, row in rows.items() if name.startswith("thing.glb#")]
    assert len(painted_rows) == 4
    assert {row.captions[0] for row in painted_rows} <= {
        f"{'an' if row.variant == 'orange' else 'a'} {row.variant} throne" for row in painted_rows
    }
    (tmp_path / "c.json").write_text(json.dumps([{"file": "none.glb", "caption": "a chair"}]))
    with pytest.raises(ValueError, match=r"name 'none\.glb', expected a mesh file such as"):
        render(tmp_path / "in", tmp_path / "other", RenderOptions(), captions=tmp_path / "c.json")


@pytest.mark.parametrize(
    ("caption", "noun"),
    [
        ("a red chair with arms", "chair"),
        ("The old wooden coffee table", "table"),
        ("orange", "orange"),
        ("a bowl of soup", "bowl"),
    ],
)
def test_nouns_of_captions(caption, noun):
    assert label_of_captions(CaptionedObject((caption,))).noun == noun
