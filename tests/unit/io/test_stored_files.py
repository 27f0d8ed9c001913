"""Files built by hand from the descriptions of their formats mean what those say."""

import base64
import gzip
import io
import json
import math
import struct
import urllib.parse
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from diffsplat.core import SPLAT_FIELDS, Splats
from diffsplat.errors import InvalidInputError
from diffsplat.io.splat_formats import holds_splats, read_splats, write_splats
from support import stored_files
from support.splat_sets import C0, rotations


def read(tmp_path: Path, suffix: str, data: bytes) -> Splats:
    """As stored: no axis is turned."""
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    return read_splats(path, up="y")


def test_splat(tmp_path: Path):
    rows = stored_files.splat_row((1, 2, 3), (0.25, 0.5, 0.125), (255, 0, 51, 204), (128, 255, 128, 128))
    rows += stored_files.splat_row((-1, 0, 0.5), (0.0, 1, 1), (0, 0, 0, 255), (0, 128, 128, 128))
    found = read(tmp_path, ".splat", rows)
    assert found.means.tolist() == [[1, 2, 3], [-1, 0, 0.5]]
    assert found.scales[0].tolist() == [0.25, 0.5, 0.125]
    assert 0 < float(found.scales[1, 0]) < 1e-6
    np.testing.assert_allclose(found.colors, [[1, 0, 0.2], [0, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(found.opacities, [0.8, 1], atol=1e-6)
    np.testing.assert_allclose(found.quats, [[0, 1, 0, 0], [-1, 0, 0, 0]], atol=1e-6)


@pytest.mark.parametrize("version", [2, 4])
def test_spz(tmp_path: Path, version: int):
    data = stored_files.spz_version_2() if version == 2 else stored_files.spz_version_4()
    found = read(tmp_path, ".spz", data)
    assert found.means.tolist() == [[0.5, -0.25, 1], [-1, 2, 0]]
    np.testing.assert_allclose(found.scales, [[math.exp(v) for v in (-4, -5, -6)]] * 2, rtol=1e-6)
    np.testing.assert_allclose(found.opacities, [1, 0.2], atol=1e-6)
    np.testing.assert_allclose(found.colors, 0.5 + (128 / 255 - 0.5) / 0.15 * C0, atol=1e-6)
    # A quarter turn about +x, and in the other file one about -x which has y as the largest of two equals.
    matrices = rotations(found)
    np.testing.assert_allclose(np.abs(matrices[0]), np.eye(3), atol=0.02)
    quarter = [[1, 0, 0], [0, 0, -1], [0, 1, 0]] if version == 2 else [[0, -1, 0], [-1, 0, 0], [0, 0, -1]]
    np.testing.assert_allclose(matrices[1], quarter, atol=0.02)


def test_spz_version_1_has_half_floats(tmp_path: Path):
    found = read(tmp_path, ".spz", stored_files.spz_version_1())
    assert found.means.tolist() == [[0.5, -0.25, 1], [-1, 1000, 0]]
    np.testing.assert_allclose(found.scales, [[math.exp(v) for v in (-4, -5, -6)]] * 2, rtol=1e-6)
    np.testing.assert_allclose(rotations(found)[1], [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=0.02)


@pytest.mark.parametrize("build", [stored_files.spz_version_1, stored_files.spz_version_2])
def test_spz_that_is_not_packed(tmp_path: Path, build: Callable[[], bytes]):
    packed = read(tmp_path, ".spz", build())
    plain = read(tmp_path, ".spz", gzip.decompress(build()))
    assert torch.equal(plain.means, packed.means)
    assert torch.equal(plain.quats, packed.quats)


def test_spz_with_bytes_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    plain = gzip.decompress(stored_files.spz_version_2())
    assert read(tmp_path, ".spz", gzip.compress(plain + bytes(5))).count == 2
    assert "5 bytes behind" in caplog.text
    caplog.clear()
    # Flag 2: extensions follow.
    extended = plain[:14] + b"\2" + plain[15:] + bytes(5)
    assert read(tmp_path, ".spz", gzip.compress(extended)).count == 2
    assert not caplog.records


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        (".spz", stored_files.spz_version_2()),
        (".spz", gzip.decompress(stored_files.spz_version_1())),
        (".spz", stored_files.spz_version_4()),
        (".ksplat", stored_files.ksplat(0)),
        (".ksplat", stored_files.ksplat(1)),
        (".splat", stored_files.splat_row((1, 2, 3), (1, 1, 1), (255, 0, 51, 204), (128, 255, 128, 128))),
    ],
)
def test_bytes_behind_any_file_are_counted(
    tmp_path: Path, suffix: str, data: bytes, caplog: pytest.LogCaptureFixture
):
    count = read(tmp_path, suffix, data).count
    assert "behind" not in caplog.text
    assert read(tmp_path, suffix, data + bytes(7)).count == count
    assert "7 bytes behind" in caplog.text
    with pytest.raises(InvalidInputError, match="7 bytes behind"):
        read_splats(tmp_path / f"a{suffix}", strict=True)


@pytest.mark.parametrize("count", [1000, 1_000_000])
def test_a_regular_spz_file_may_be_packed_very_small(tmp_path: Path, count: int):
    """Equal Gaussians, packed a thousand times smaller than they are."""
    header = struct.pack("<IIIBBBB", 0x5053474E, 3, count, 0, 12, 0, 0)
    data = gzip.compress(header + bytes(20 * count), 9)
    assert count < 10_000 or len(data) * 900 < 20 * count
    assert read(tmp_path, ".spz", data).count == count


def outliers(reach: float, far: int) -> Splats:
    """1000 Gaussians within one unit of the origin, the last ``far`` of them on a ball of this radius instead."""
    source = torch.Generator().manual_seed(0)
    means = torch.rand(1000, 3, generator=source) * 2 - 1
    if far:
        means[-far:] = reach * torch.nn.functional.normalize(means[-far:], dim=1)
    ones = torch.ones(1000)
    quats = torch.tensor([[1.0, 0, 0, 0]]).expand(1000, 4)
    return Splats(means, ones[:, None].expand(-1, 3) * 0.01, quats, ones, ones[:, None].expand(-1, 3) / 2)


@pytest.mark.parametrize(("far", "warned"), [(0, False), (1, True)])
def test_what_far_outliers_cost_a_compressed_ply_file_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, far: int, warned: bool
):
    """Of four chunks the last one, of 1000 - 3 x 256 Gaussians, holds the outlier and is rounded to its distance."""
    path = tmp_path / "a.compressed.ply"
    write_splats(outliers(1e5, far), path, up="y")
    message = "232 of 1000 Gaussians are moved by more than their size"
    assert (message in caplog.text) == warned
    near = outliers(1e5, 0).means[: 1000 - far]
    errors = (near[:, None] - read_splats(path, up="y").means[None]).abs().amax(dim=2).amin(dim=1)
    assert int((errors > 0.005).sum()) == (231 if warned else 0)


@pytest.mark.parametrize("reach", [3e3, 2e4, 1e5, 7e8])
@pytest.mark.parametrize("far", [1, 40])
def test_far_outliers_do_not_cost_an_spz_file_its_precision(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, reach: float, far: int
):
    splats = outliers(reach, far)
    write_splats(splats, tmp_path / "a.spz")
    found = read_splats(tmp_path / "a.spz")
    error = (found.means - splats.means)[:-far].abs().amax(dim=1)
    assert float(error.median()) < 2.5e-4
    if reach > 4096:
        assert f"{far} of 1000 Gaussians are farther than" in caplog.text
        # Seen from the origin, the far ones look as before: the same direction, and as much smaller as nearer.
        near, size = found.means[-far:].norm(dim=1), found.scales[-far:, 0].clamp(min=1e-4)
        cosine = torch.cosine_similarity(found.means[-far:], splats.means[-far:])
        assert float(cosine.min()) > 1 - 1e-6
        assert bool((near < 4096).all())
        expected = (0.01 * near / reach).clamp(min=1e-4)
        torch.testing.assert_close(size.log(), expected.log(), rtol=0, atol=1 / 16)
    else:
        assert not caplog.records


def test_a_large_scene_loses_no_gaussian_in_an_spz_file(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    splats = outliers(1.0, 0).map(lambda values: values)
    spread = Splats(splats.means * 5000, *(getattr(splats, name) for name in SPLAT_FIELDS[1:]))
    write_splats(spread, tmp_path / "a.spz")
    found = read_splats(tmp_path / "a.spz")
    assert float((found.means - spread.means).abs().max()) <= 2**-11 + 1e-3
    assert "rounded to 0.0009" in caplog.text


@pytest.mark.parametrize("level", [0, 1, 2])
def test_ksplat(tmp_path: Path, level: int):
    found = read(tmp_path, ".ksplat", stored_files.ksplat(level))
    np.testing.assert_allclose(found.means, [[1, 2, 3], [3.5, 2, 0.5], [0, 2.5, 0]], atol=1e-4)
    assert found.scales.tolist() == [[0.25, 0.5, 0.125]] * 3
    assert found.quats.tolist() == [[0, 1, 0, 0]] * 3
    np.testing.assert_allclose(found.colors, [[1, 0, 0.2]] * 3, atol=1e-6)
    np.testing.assert_allclose(found.opacities, 0.8, atol=1e-6)


def test_sog_version_1(tmp_path: Path):
    found = read(tmp_path, ".sog", stored_files.sog_version_1())
    np.testing.assert_allclose(found.means, [[math.e - 1] * 3, [1 - math.e] * 3], rtol=1e-5)
    logs = [[0, -8, -6.4], [-4.8, -3.2, -1.6]]
    np.testing.assert_allclose(found.scales.log(), logs, atol=1e-5)
    np.testing.assert_allclose(found.opacities, [1 / (1 + math.exp(-4)), 1 / (1 + math.exp(4))], rtol=1e-5)
    low, high = max(0.5 - 2 * C0, 0), min(0.5 + 2 * C0, 1)
    np.testing.assert_allclose(found.colors, [[low, high, max(0.5 - 1.2 * C0, 0)], [high] * 3], atol=1e-6)
    # Left out: w in the first, y in the second, whose x is sqrt(0.5).
    half = math.sqrt(0.5)
    np.testing.assert_allclose(found.quats, [[half, half, 0, 0], [0, half, half, 0]], atol=0.01)


def with_null(key: str, field: str) -> bytes:
    """A file of version 2 whose 256 values of ``key`` start with null."""
    table = {"codebook": [-1 + index / 128 for index in range(256)]}
    meta = {
        "version": 2,
        "count": 2,
        "means": {"mins": [-1] * 3, "maxs": [1] * 3, "files": ["l.webp", "u.webp"]},
        "scales": table | {"files": ["s.webp"]},
        "quats": {"files": ["q.webp"]},
        "sh0": table | {"files": ["c.webp"]},
    }
    meta[key] = meta[key] | {field: [None, *meta[key][field][1:]]}
    textures = {
        "l.webp": stored_files.webp([(255, 255, 255, 255), (0, 0, 0, 255)]),
        "u.webp": stored_files.webp([(255, 255, 255, 255), (0, 0, 0, 255)]),
        "s.webp": stored_files.webp([(0, 1, 255, 255), (2, 2, 2, 255)]),
        "q.webp": stored_files.webp([(128, 128, 128, 252)] * 2),
        "c.webp": stored_files.webp([(0, 128, 255, 255), (128, 128, 128, 255)]),
    }
    return stored_files.sog(meta, textures)


def test_sog_with_null_at_the_start_of_a_table(tmp_path: Path):
    """The table goes on to there as PlayCanvas' viewer has it: its last step is a 255th of the rest's range."""
    found = read(tmp_path, ".sog", with_null("scales", "codebook"))
    first = (-1 + 1 / 128) + ((-1 + 1 / 128) - (-1 + 255 / 128)) / 255
    np.testing.assert_allclose(found.scales[0].log(), [first, -1 + 1 / 128, -1 + 255 / 128], atol=1e-5)
    found = read(tmp_path, ".sog", with_null("sh0", "codebook"))
    np.testing.assert_allclose(found.colors[0, 0], 0.5 + first * C0, atol=1e-5)


def test_sog_without_bounds_is_refused(tmp_path: Path):
    with pytest.raises(InvalidInputError, match="none of its 2 Gaussians is usable"):
        read(tmp_path, ".sog", with_null("means", "mins"))


@pytest.mark.parametrize("prefix", ["", "export/", "a/b/"])
def test_sog_in_a_folder_and_in_a_folder_of_the_archive(tmp_path: Path, prefix: str):
    whole = read(tmp_path, ".sog", stored_files.sog_version_1())
    with (
        zipfile.ZipFile(io.BytesIO(stored_files.sog_version_1())) as old,
        zipfile.ZipFile(tmp_path / "b.sog", "w") as new,
    ):
        for name in old.namelist():
            new.writestr(prefix + name, old.read(name))
    with zipfile.ZipFile(tmp_path / "b.sog") as archive:
        archive.extractall(tmp_path / "unpacked")
    folder = tmp_path / "unpacked" / prefix
    for path in (tmp_path / "b.sog", folder, folder / "meta.json"):
        assert torch.equal(read_splats(path, up="y").means, whole.means)
    (folder / "q.webp").unlink()
    with pytest.raises(InvalidInputError, match=r"is not a readable splat file: .*q\.webp.* no such file"):
        read_splats(folder)


def test_sog_in_a_folder_names_no_file_elsewhere(tmp_path: Path):
    with zipfile.ZipFile(io.BytesIO(stored_files.sog_version_1())) as archive:
        archive.extractall(tmp_path)
    text = (tmp_path / "meta.json").read_text().replace("q.webp", "../q.webp")
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(InvalidInputError, match="is elsewhere"):
        read_splats(tmp_path)


def test_a_wrong_suffix_does_not_matter(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    found = read(tmp_path, ".splat", stored_files.spz_version_2())
    assert found.means.tolist() == [[0.5, -0.25, 1], [-1, 2, 0]]
    assert "is read as .spz" in caplog.text


def spz_in_gltf(spz: bytes, place: str, count: int = 2) -> bytes:
    """A ``.gltf`` file whose splats are a ``.spz`` file; ``place`` names the extensions on the way to it."""
    document = json.loads(stored_files.gltf([{"mesh": 0, "translation": [0, 0, 5]}], [0]))
    settings: dict = {"bufferView": 0}
    for name in reversed(place.split("/")):
        settings = {"extensions": {name: settings}}
    primitive = {"mode": 0, "attributes": {"POSITION": 0}, **settings}
    text = "data:application/octet-stream;base64," + base64.b64encode(spz).decode()
    document |= {
        "extensionsRequired": place.split("/"),
        "meshes": [{"primitives": [primitive]}],
        "accessors": [{"componentType": 5126, "count": count, "type": "VEC3"}],
        "buffers": [{"byteLength": len(spz), "uri": text}],
        "bufferViews": [{"buffer": 0, "byteLength": len(spz)}],
    }
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "place",
    [
        "KHR_gaussian_splatting/KHR_gaussian_splatting_compression_spz_2",
        "KHR_gaussian_splatting/KHR_gaussian_splatting_compression_spz",
        "KHR_spz_gaussian_splats_compression",
    ],
)
def test_gltf_with_spz_inside(tmp_path: Path, place: str):
    found = read(tmp_path, ".gltf", spz_in_gltf(stored_files.spz_version_2(), place))
    assert found.means.tolist() == [[0.5, -0.25, 6], [-1, 2, 5]]
    assert holds_splats(tmp_path / "a.gltf")
    with pytest.raises(InvalidInputError, match="holds 2 Gaussians, its attributes promise 1"):
        read(tmp_path, ".gltf", spz_in_gltf(stored_files.spz_version_2(), place, count=1))


def test_gltf_with_other_compression_is_named(tmp_path: Path):
    name = "KHR_gaussian_splatting/EXT_future_splats"
    with pytest.raises(InvalidInputError, match="use EXT_future_splats, which is not read"):
        read(tmp_path, ".gltf", spz_in_gltf(b"", name))
    document = json.loads(stored_files.gltf_with_nodes()) | {
        "extensionsRequired": ["EXT_meshopt_compression"]
    }
    with pytest.raises(InvalidInputError, match="compressed with EXT_meshopt_compression"):
        read(tmp_path, ".gltf", json.dumps(document).encode())


def test_gltf_of_an_older_draft_is_named(tmp_path: Path):
    text = stored_files.gltf_with_nodes().replace(b"KHR_gaussian_splatting:ROTATION", b"_ROTATION")
    with pytest.raises(InvalidInputError, match="_ROTATION of an older draft"):
        read(tmp_path, ".gltf", text)


def test_gltf_nodes_and_normalised_numbers(tmp_path: Path):
    found = read(tmp_path, ".gltf", stored_files.gltf_with_nodes())
    np.testing.assert_allclose(found.means, [[10, 22, 30]], atol=1e-5)
    np.testing.assert_allclose(found.scales, [[1, 0.5, 0.25]], atol=1e-6)
    np.testing.assert_allclose(found.opacities, [0.2], atol=1e-6)
    np.testing.assert_allclose(found.colors, [[0.5, 0.5 + C0, 0.5 - C0]], atol=1e-6)
    np.testing.assert_allclose(rotations(found)[0], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-6)


def test_gltf_linear_colours(tmp_path: Path):
    found = read(tmp_path, ".gltf", stored_files.gltf([{"mesh": 0}], [0], color_space="lin_rec709_display"))
    np.testing.assert_allclose(found.colors[0, 0], 1.055 * 0.5 ** (1 / 2.4) - 0.055, atol=1e-6)


@pytest.mark.parametrize(
    ("second", "count"),
    [
        ({"scale": [0, 0, 0]}, 1),
        ({"matrix": [0] * 15 + [1]}, 1),
        ({"extensions": {"KHR_node_visibility": {"visible": False}}}, 1),
        ({"extensions": {"KHR_node_visibility": {"visible": True}}}, 2),
        ({"children": None, "matrix": None, "extensions": None}, 2),
        ({"rotation": [0, 0, 2, 2]}, 2),
    ],
)
def test_gltf_nodes_that_show_nothing_are_left_out(tmp_path: Path, second: dict, count: int):
    data = stored_files.gltf([{"mesh": 0}, {"mesh": 0, **second}], [0, 1])
    assert read(tmp_path, ".gltf", data).count == count


@pytest.mark.parametrize(
    "uri",
    [
        lambda data: "data:;base64," + base64.encodebytes(data).decode(),
        lambda data: "DATA:a/b; BASE64," + base64.urlsafe_b64encode(data).decode().rstrip("="),
        lambda data: "data:application/gltf-buffer," + urllib.parse.quote(data),
    ],
)
def test_gltf_data_in_addresses_of_any_kind(tmp_path: Path, uri: Callable[[bytes], str]):
    document = json.loads(stored_files.gltf([{"mesh": 0}], [0]))
    (buffer,) = document["buffers"]
    buffer["uri"] = uri(base64.b64decode(buffer["uri"].partition(",")[2]))
    assert read(tmp_path, ".gltf", json.dumps(document).encode()).means.tolist() == [[1, 0, 0]]


GLTF_REFUSALS = {
    "stretched": ({"nodes": [{"mesh": 0, "scale": [1, 2, 1]}]}, "stretches or mirrors"),
    "mirrored": ({"nodes": [{"mesh": 0, "scale": [-1, 1, 1]}]}, "stretches or mirrors"),
    "a circle of nodes": ({"nodes": [{"mesh": 0, "children": [0]}]}, "do not form a tree"),
    "another file": ({"buffers": [{"byteLength": 4, "uri": "../secret.bin"}]}, "in another file"),
    "a file by address": ({"buffers": [{"byteLength": 4, "uri": "file:///etc/passwd"}]}, "in another file"),
    "no splats": ({"meshes": [{"primitives": [{"attributes": {}}]}]}, "no primitive with the extension"),
    "a missing mesh": ({"nodes": [{"mesh": 7}]}, "refers to the mesh 7"),
    "a missing node": ({"scenes": [{"nodes": [5]}]}, "refers to the node 5"),
    "broken base64": ({"buffers": [{"uri": "data:;base64,???"}]}, "broken base64"),
    "no nodes but numbers": ({"nodes": [3]}, "a node that is not an object"),
}


@pytest.mark.parametrize("name", GLTF_REFUSALS)
def test_gltf_refusals(tmp_path: Path, name: str):
    changes, words = GLTF_REFUSALS[name]
    nodes = changes.get("nodes", [{"mesh": 0}])
    data = stored_files.gltf(nodes, [0], **{key: value for key, value in changes.items() if key != "nodes"})
    with pytest.raises(InvalidInputError, match=words):
        read(tmp_path, ".gltf", data)


def test_gltf_parts_used_often_cannot_multiply(tmp_path: Path):
    """A thousand nodes with a mesh of 100 Gaussians, which would be 5 MB out of 60 kB."""
    document = json.loads(stored_files.gltf([{"mesh": 0}] * 1000, list(range(1000))))
    data = bytes(100 * 60)
    document["buffers"] = [{"uri": "data:;base64," + base64.b64encode(data).decode()}]
    document["bufferViews"] = [{"buffer": 0, "byteLength": len(data)}] * 2
    document["accessors"] = [entry | {"count": 100, "byteOffset": 0} for entry in document["accessors"]]
    with pytest.raises(InvalidInputError, match="repeat more Gaussians"):
        read(tmp_path, ".gltf", json.dumps(document).encode() + b" " * 20_000)


def test_gltf_has_a_bounded_number_of_parts(tmp_path: Path):
    document = json.loads(stored_files.gltf([{"mesh": 0}] * 500, list(range(500))))
    document["meshes"][0]["primitives"] *= 10
    with pytest.raises(InvalidInputError, match="more than 4096 pieces"):
        read(tmp_path, ".gltf", json.dumps(document).encode())


def test_a_mesh_is_told_from_splats(tmp_path: Path):
    mesh = {"asset": {"version": "2.0"}, "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}]}
    for suffix in (".gltf", ".glb"):
        text = json.dumps(mesh).encode()
        text += b" " * (-len(text) % 4)
        chunk = struct.pack("<II", len(text), 0x4E4F534A) + text
        data = text if suffix == ".gltf" else b"glTF" + struct.pack("<II", 2, 12 + len(chunk)) + chunk
        (tmp_path / f"mesh{suffix}").write_bytes(data)
        assert not holds_splats(tmp_path / f"mesh{suffix}")
        row = stored_files.splat_row((1, 2, 3), (1, 1, 1), (9, 9, 9, 9), (255, 128, 128, 128))
        write_splats(read(tmp_path, ".splat", row), tmp_path / f"splats{suffix}")
        assert holds_splats(tmp_path / f"splats{suffix}")


def test_glb_written_is_what_the_extension_asks_for(tmp_path: Path):
    row = stored_files.splat_row((1, 2, 3), (0.25, 0.5, 0.125), (255, 0, 51, 204), (128, 255, 128, 128))
    write_splats(read(tmp_path, ".splat", row), tmp_path / "b.glb")
    data = (tmp_path / "b.glb").read_bytes()
    magic, version, size, length, kind = struct.unpack_from("<4sIII4s", data)
    assert (magic, version, size, kind) == (b"glTF", 2, len(data), b"JSON")
    assert length % 4 == 0
    document = json.loads(data[20 : 20 + length])
    binary_size, binary_kind = struct.unpack_from("<I4s", data, 20 + length)
    assert binary_kind == b"BIN\0"
    assert binary_size == document["buffers"][0]["byteLength"] == len(data) - 28 - length
    assert document["extensionsUsed"] == ["KHR_gaussian_splatting"]
    (primitive,) = document["meshes"][0]["primitives"]
    assert primitive["mode"] == 0
    assert primitive["extensions"]["KHR_gaussian_splatting"]["colorSpace"] == "srgb_rec709_display"
    values = {}
    for name, index in primitive["attributes"].items():
        accessor = document["accessors"][index]
        view = document["bufferViews"][accessor["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        code = {5126: "<f4", 5121: "u1"}[accessor["componentType"]]
        start = 28 + length + view["byteOffset"]
        values[name] = np.frombuffer(data[start : start + view["byteLength"]], code).tolist()
    prefix = "KHR_gaussian_splatting:"
    assert values["POSITION"] == [1, 2, 3]
    assert values[prefix + "SCALE"] == [0.25, 0.5, 0.125]
    assert values[prefix + "ROTATION"] == pytest.approx([1, 0, 0, 0], abs=1e-6)
    assert values[prefix + "OPACITY"] == pytest.approx([0.8])
    assert values[prefix + "SH_DEGREE_0_COEF_0"] == pytest.approx([0.5 / C0, -0.5 / C0, -0.3 / C0], rel=1e-5)
    assert values["COLOR_0"] == [255, 0, 51, 204]


def test_glb_with_json_padded_by_zeros(tmp_path: Path):
    document = json.loads(stored_files.gltf([{"mesh": 0}], [0]))
    binary = base64.b64decode(document["buffers"][0].pop("uri").partition(",")[2])
    text = json.dumps(document).encode()
    text += bytes(4 + -len(text) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
    chunks += struct.pack("<II", len(binary), 0x004E4942) + binary
    data = struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
    assert read(tmp_path, ".glb", data).count == 1
