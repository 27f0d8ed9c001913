"""G-Objaverse objects to shards to :class:`Views`: a ball of known place, damaged files, interruptions."""

import json
import shutil
import sys
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import OpenEXR
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

from diffsplat.cli.main import main
from diffsplat.data import ObjectDataset
from diffsplat.data.caption_files import read_captions
from diffsplat.data.gobjaverse import gobjaverse_conversion
from diffsplat.data.gobjaverse.gobjaverse_files import BrokenViewError, StoredObject
from diffsplat.data.gobjaverse.gobjaverse_views import RINGS
from diffsplat.data.shard_writing import fill_shards
from support.gobjaverse_objects import (
    BALL,
    LEVEL_DISTANCE,
    RADIUS,
    SIZE,
    UPPER_DISTANCE,
    view_file,
    write_object,
)
from support.gobjaverse_samples import training_views
from support.recordings import OFFICIAL

CAPTIONS = {f"0/{number}": f"ball {number}" for number in range(6)}


@pytest.fixture(scope="session")
def ball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_object(tmp_path_factory.mktemp("ball") / "object")


@pytest.fixture(scope="session")
def shards(ball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of one undamaged object, at its own size."""
    out = tmp_path_factory.mktemp("shards")
    assert main(["data", "gobjaverse", str(ball), "--out", str(out), "--size", str(SIZE)]) == 0
    return out


def copies(ball: Path, source: Path, count: int) -> Path:
    for number in range(count):
        shutil.copytree(ball, source / "0" / str(number))
    return source


def captions_file(folder: Path) -> Path:
    path = folder / "captions.json"
    path.write_text(json.dumps(CAPTIONS))
    return path


def run(source: Path, out: Path, *options: str) -> int:
    return main(["data", "gobjaverse", str(source), "--out", str(out), "--size", "12", *options])


def rows(out: Path) -> list[dict]:
    return [
        row for path in sorted(out.glob("objects-*.parquet")) for row in parquet.read_table(path).to_pylist()
    ]


def dataset(out: Path) -> ObjectDataset:
    return ObjectDataset(out, split="all")


@pytest.mark.parametrize(
    ("numbers", "distance"),
    [
        ((0, 6, 12, 18), UPPER_DISTANCE),
        ((7, 13, 19, 1), UPPER_DISTANCE),
        ((27, 30, 33, 36), LEVEL_DISTANCE),
    ],
)
def test_the_ball_is_where_it_was_in_the_world_of_any_first_view(
    shards: Path, numbers: tuple[int, ...], distance: float
):
    data, start = dataset(shards), numbers[0]
    order = [*range(24), 25, 26, *range(27, 39)]
    views = data.load_views(0, [order.index(number) for number in numbers])
    turn = np.radians(start * 15.0 if start < 24 else 5.0 + (start - 27) * 30.0)
    scale = 1.4 / distance
    x, y, z = BALL * scale
    center = torch.tensor(
        [x * np.cos(turn) - z * np.sin(turn), y, x * np.sin(turn) + z * np.cos(turn)]
    ).float()
    hit = views.depth[:, :, 0] > 0
    assert int(hit.sum()) > 4 * 60
    offsets = views.coord.movedim(2, -1)[hit] * 2 - 1 - center
    distances = offsets.norm(dim=-1)
    torch.testing.assert_close(distances, torch.full_like(distances, RADIUS * scale), rtol=0, atol=5e-4)
    normals = views.normal.movedim(2, -1)[hit] * 2 - 1
    torch.testing.assert_close(normals, offsets / distances[:, None], rtol=0, atol=0.02)
    torch.testing.assert_close(views.cameras.centers[0, 0].norm(), torch.tensor(1.4))
    unprojected = views.cameras.unproject(views.depth).movedim(2, -1)[hit]
    torch.testing.assert_close(unprojected, offsets + center, rtol=0, atol=1e-5)


def test_rings_are_the_groups_of_four_even_views(shards: Path):
    row = dataset(shards).rows[0]
    assert len(row.ring) == 38
    assert row.rings == list(range(9))
    for ring in row.rings:
        views = row.ring_views(ring)
        azimuths = np.array([row.azimuths[view] for view in views])
        np.testing.assert_allclose((azimuths - azimuths[0]) % 360, [0, 90, 180, 270], atol=1e-3)
        assert np.ptp([row.elevations[view] for view in views]) < 1e-3
    free = [view for view, number in enumerate(row.ring) if number < 0]
    np.testing.assert_allclose([row.elevations[view] for view in free], [89, -89], atol=1e-2)


def test_samples_for_training(shards: Path):
    data = ObjectDataset(shards, split="all")
    for seed in range(3):
        views = data.sample(0, seed, novel_views=4, size=SIZE // 2)
        assert tuple(views.image.shape) == (1, 8, 3, SIZE // 2, SIZE // 2)
        four = torch.atan2(views.cameras.centers[0, :4, 0], views.cameras.centers[0, :4, 2]).rad2deg() % 360
        torch.testing.assert_close((four + 1) % 360 - 1, torch.tensor([0.0, 90, 180, 270]), rtol=0, atol=1e-2)


def test_smaller_shards_hold_the_pictures_that_training_sees(tmp_path: Path):
    """Against the reader that the recordings of the original prove, with views 0, 6, 12, 18 of a real object."""
    official = StoredObject(OFFICIAL / "gobjaverse_raw")
    seen = training_views([official.read(number) for number in (0, 6, 12, 18)], size=32)
    source = str(OFFICIAL / "gobjaverse_raw")
    assert main(["data", "gobjaverse", source, "--out", str(tmp_path / "out"), "--size", "32"]) == 0
    views = dataset(tmp_path / "out").canonical(0)
    torch.testing.assert_close(views.image, seen.image, rtol=0, atol=1.01 / 255)
    torch.testing.assert_close(views.mask, seen.mask, rtol=0, atol=0.51 / 255)
    torch.testing.assert_close(views.depth, seen.depth, rtol=0, atol=4e-5)
    torch.testing.assert_close(views.cameras.camera_to_world, seen.cameras.camera_to_world, rtol=0, atol=1e-6)
    inside = (seen.mask == 1).expand_as(seen.normal)
    unit = torch.nn.functional.normalize(seen.normal * 2 - 1, dim=2) * 0.5 + 0.5
    torch.testing.assert_close(views.normal[inside], unit[inside], rtol=0, atol=0.006)


def test_shards_give_what_the_released_networks_saw(tmp_path: Path):
    """Against the recordings' reader; shards of the full size differ from it by their 8 bits alone."""
    official = StoredObject(OFFICIAL / "gobjaverse_raw")
    stored = [official.read(number) for number in (0, 6, 12, 18)]
    size = stored[0].depth.shape[-1]
    seen = training_views(stored, size=size // 2)
    source = str(OFFICIAL / "gobjaverse_raw")
    assert main(["data", "gobjaverse", source, "--out", str(tmp_path / "out"), "--size", str(size)]) == 0
    released = ObjectDataset(tmp_path / "out", split="all", composition="released")
    views = released.canonical(0, size=size // 2)
    for name in ("image", "mask", "normal"):
        torch.testing.assert_close(getattr(views, name), getattr(seen, name), rtol=0, atol=1.5 / 255)
    torch.testing.assert_close(views.coord, seen.coord, rtol=0, atol=1e-3)
    torch.testing.assert_close(views.depth, seen.depth, rtol=0, atol=4e-5)
    exact = dataset(tmp_path / "out").canonical(0, size=size // 2)
    edge = (seen.mask > 0.1) & (seen.mask < 0.9)
    assert float((exact.normal - seen.normal).abs()[edge.expand_as(seen.normal)].mean()) > 0.05


def test_an_archive_gives_the_same_row(ball: Path, shards: Path, tmp_path: Path):
    archive = tmp_path / "in" / "object.tar"
    archive.parent.mkdir()
    with tarfile.open(archive, "w") as tar:
        tar.add(ball, arcname="object")
    assert (
        main(["data", "gobjaverse", str(archive), "--out", str(tmp_path / "out"), "--size", str(SIZE)]) == 0
    )
    assert rows(tmp_path / "out") == rows(shards)


def damage(folder: Path) -> dict[int, str]:
    """Break views, each in its own way; what is said of each."""
    cut = view_file(folder, 1, "_nd.exr")
    cut.write_bytes(cut.read_bytes()[:900])
    view_file(folder, 2, ".json").unlink()
    pose = json.loads(view_file(folder, 3, ".json").read_text())
    view_file(folder, 3, ".json").write_text(json.dumps({**pose, "origin": [0.0, float("nan"), 1.0]}))
    view_file(folder, 4, ".png").write_bytes(b"\x89PNG but no more")
    view_file(folder, 5, ".json").write_text(json.dumps({**pose, "x": [1.0, 1.0, 0.0]}))
    Image.new("RGBA", (SIZE, SIZE)).save(view_file(folder, 27, ".png"))
    Image.new("RGB", (SIZE, SIZE)).save(view_file(folder, 28, ".png"))
    Image.new("RGBA", (8, 8), (9, 9, 9, 255)).save(view_file(folder, 30, ".png"))
    far = json.loads(view_file(folder, 31, ".json").read_text())
    far["origin"] = [2.5 * number for number in far["origin"]]
    view_file(folder, 31, ".json").write_text(json.dumps({**far, "x_fov": 1.2}))
    return {
        1: ".exr file is broken",
        2: ".json file is missing",
        3: "NaN, infinite or missing numbers",
        4: ".png file is broken",
        5: "not at right angles",
        27: "nothing of the object is visible",
        28: "no alpha channel",
        30: f"the image has 8 x 8 pixels, its depth {SIZE} x {SIZE}",
        31: "its field of view is 1.2 radians",
    }


def test_broken_views_are_dropped_and_counted(ball: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    source = copies(ball, tmp_path / "in", 2)
    reasons = damage(source / "0" / "1")
    stored = StoredObject(source / "0" / "1")
    for number, reason in reasons.items():
        with pytest.raises(BrokenViewError, match=reason):
            stored.read(number)
    capfd.readouterr()
    assert run(source, tmp_path / "out") == 0
    table = capfd.readouterr().out
    assert "2 objects converted" in table
    assert "9 views dropped" in table
    assert all(reason in table for reason in reasons.values())
    whole, damaged = sorted(dataset(tmp_path / "out").rows, key=lambda row: row.object_id)
    assert len(whole.ring) == 38
    assert len(damaged.ring) == 29
    assert len(damaged.rings) == 2  # of the starts 0..5 only 0 is whole, of 27..29 only 29
    kept = [number for number in (*range(24), 25, 26, *range(27, 39)) if number not in reasons]
    ringed = {kept[index] for index, ring in enumerate(damaged.ring) if ring >= 0}
    assert ringed == {0, 6, 12, 18, 29, 32, 35, 38}


def _move_object_away(path: Path) -> None:
    """Depths of 4.6 instead of about 1.6, which no shard can hold."""
    file = OpenEXR.File(str(path), separate_channels=True)
    depth = file.channels()["A"].pixels
    depth[depth > 0] = 4.6
    file.write(str(path))


def test_objects_without_four_even_views_are_dropped_and_counted(
    ball: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    source = copies(ball, tmp_path / "in", 2)
    for number in (0, 7, 14, 21, 4, 11, 27, 31):  # one of each group of four
        shutil.rmtree(view_file(source / "0" / "1", number, "").parent)
    _move_object_away(view_file(source / "0" / "1", 38, "_nd.exr"))
    (source / "0" / "cut.tar").write_bytes(b"no archive")
    assert run(source, tmp_path / "out") == 0
    table = capfd.readouterr().out
    assert "1 objects converted" in table
    assert "2 broken or without four even views" in table
    assert "gobjaverse/0/1" in table
    assert "its depth leaves 0.5..2.5" in table
    assert "not a readable .tar archive" in table
    assert [row["object_id"] for row in rows(tmp_path / "out")] == ["gobjaverse/0/0"]
    assert run(source / "0" / "1", tmp_path / "other") == 2
    assert "none of the 1 objects could be converted" in capfd.readouterr().err


def test_one_bad_object_never_ends_a_conversion(
    ball: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """A view with the field of view 0, archives damaged in their middle, and an error that nobody thought of."""
    source = copies(ball, tmp_path / "in", 3)
    pose = view_file(source / "0" / "1", 0, ".json")
    pose.write_text(json.dumps({**json.loads(pose.read_text()), "x_fov": 0}))
    for name, at in (("head.tar", 0.0), ("end.tar", 0.9)):
        with tarfile.open(source / name, "w") as tar:
            tar.add(ball, arcname="object")
        data = bytearray((source / name).read_bytes())
        first = int(at * len(data))
        data[first : first + 600] = b"\xff" * 600
        (source / name).write_bytes(data)
    convert_object = gobjaverse_conversion.convert_object

    def surprising(item, size):
        if item.object_id.endswith("/2"):
            raise AssertionError("nobody thought of this")
        return convert_object(item, size)

    monkeypatch.setattr(gobjaverse_conversion, "convert_object", surprising)
    assert run(source, tmp_path / "out", "--processes", "1") == 0
    table = capfd.readouterr().out
    assert "3 objects converted" in table
    assert "2 broken or without four even views" in table
    assert "its field of view is 0 radians" in table
    assert "not a readable .tar archive" in table
    assert "AssertionError: nobody thought of this" in table
    names = sorted(row["object_id"] for row in rows(tmp_path / "out"))
    assert names == ["gobjaverse/0/0", "gobjaverse/0/1", "gobjaverse/end"]


@pytest.mark.slow
def test_a_cluster_makes_the_same_shards(ball: Path, tmp_path: Path):
    pytest.importorskip("ray")
    source = copies(ball, tmp_path / "in", 6)
    (source / "0" / "cut.tar").write_bytes(b"no archive")
    assert run(source, tmp_path / "local", "--processes", "1") == 0
    assert run(source, tmp_path / "ray", "--ray", "auto") == 0
    files = [sorted((tmp_path / name).glob("objects-*.parquet")) for name in ("local", "ray")]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    assert len(rows(tmp_path / "ray")) == 6
    (files[1][0]).unlink()  # what a driver had not written when it was killed
    assert run(source, tmp_path / "ray", "--ray", "auto") == 0
    assert files[1][0].read_bytes() == files[0][0].read_bytes()


def test_some_objects_by_a_list(ball: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    source = copies(ball, tmp_path / "in", 3)
    ids = tmp_path / "ids.txt"
    ids.write_text("0/2\n0/7\n")
    assert run(source, tmp_path / "out", "--ids", str(ids)) == 0
    assert [row["object_id"] for row in rows(tmp_path / "out")] == ["gobjaverse/0/2"]
    ids.write_text("0/7\n")
    assert run(source, tmp_path / "other", "--ids", str(ids)) == 2
    assert "holds none of the 1 requested objects" in capfd.readouterr().err


def test_an_interrupted_conversion_goes_on(ball: Path, tmp_path: Path):
    source = copies(ball, tmp_path / "in", 6)
    listing = gobjaverse_conversion.list_objects(source, {name: (text,) for name, text in CAPTIONS.items()})
    assert (
        run(source, tmp_path / "whole", "--captions", str(captions_file(tmp_path)), "--processes", "1") == 0
    )
    convert_object = gobjaverse_conversion.convert_object
    done: list[str] = []

    def interrupted(item, size):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(item.object_id)
        return convert_object(item, size)

    with pytest.raises(KeyboardInterrupt):
        fill_shards(listing, partial(interrupted, size=12), tmp_path / "out", size=12, processes=1)
    assert sorted(row["object_id"] for row in rows(tmp_path / "out")) == sorted(done)
    work = partial(convert_object, size=12)
    report = fill_shards(listing, work, tmp_path / "out", size=12, processes=2)
    assert (report.resumed, report.rendered) == (2, 4)
    again = fill_shards(listing, work, tmp_path / "out", size=12, processes=2)
    assert (again.resumed, again.rendered) == (6, 0)

    def by_name(out: Path) -> dict[str, dict]:
        found = rows(out)
        assert len(found) == 6
        return {row["object_id"]: row for row in found}

    assert by_name(tmp_path / "out") == by_name(tmp_path / "whole")


def test_captions(ball: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = copies(ball, tmp_path / "in", 3)
    table = tmp_path / "cap3d.csv"
    table.write_text('uid,caption\nabc,"a ball,  round"\nabc,a sphere\n1,"a ""second"" ball"\n')
    index = tmp_path / "index.json"
    index.write_text(json.dumps({"0/0": "000-142/abc.glb", "0/2": "000-001/unknown.glb"}))
    assert run(source, tmp_path / "out", "--captions", str(table), "--index", str(index)) == 0
    assert "1 have no caption" in capsys.readouterr().out
    found = {row["object_id"]: row["captions"] for row in rows(tmp_path / "out")}
    assert found == {"gobjaverse/abc": ["a ball, round", "a sphere"], "gobjaverse/0/1": ['a "second" ball']}
    (tmp_path / "c.json").write_text(json.dumps({"0/0": ["one", "two"], "x": "three"}))
    assert read_captions(tmp_path / "c.json") == {"0/0": ("one", "two"), "x": ("three",)}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("c.json", "[1]", "1 lacks a text 'file'"),
        ("c.json", '{"a": 3}', "the caption of 'a' is 3, expected text"),
        ("c.json", "{", "cannot read captions"),
        ("c.csv", "a,b,c,d\n", "row 1 has 4 columns"),
        ("c.csv", "uid,caption\n", "holds no caption"),
        ("c.txt", "a b", "expected .json or .csv"),
        ("c.csv", "other,thing\n", "none of the 1 objects"),
    ],
)
def test_caption_files_that_are_refused(
    ball: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, words: str
):
    (tmp_path / name).write_text(content)
    assert run(ball, tmp_path / "out", "--captions", str(tmp_path / name)) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_sources_that_are_refused(ball: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.json").write_text("[]")
    for arguments, words in (
        ((tmp_path / "nowhere", tmp_path / "out"), "no such folder or archive"),
        ((tmp_path / "empty", tmp_path / "out"), "holds no G-Objaverse object"),
        ((ball, tmp_path / "file.json"), "is a file, expected a folder"),
        ((ball, tmp_path / "out", "--size", "4"), "expected at least 8"),
        ((ball, tmp_path / "out", "--index", str(tmp_path / "file.json")), "is not an index"),
    ):
        assert run(arguments[0], arguments[1], *arguments[2:]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1


def test_a_missing_library_is_named(ball: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    assert run(ball, tmp_path / "out") == 2
    assert "pip install 'diffsplat[data]'" in capsys.readouterr().err


def test_rings_lie_evenly_around_the_object():
    """Views 0..23 stand every 15 degrees, 27..38 every 30."""
    upper = [(first, first + 6, first + 12, first + 18) for first in range(6)]
    assert list(RINGS) == [*upper, (27, 30, 33, 36), (28, 31, 34, 37), (29, 32, 35, 38)]
