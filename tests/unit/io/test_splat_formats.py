"""Every format of splats: what is written reads back within its bits, upright, and complete or not at all."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffsplat.core import Splats
from diffsplat.errors import InvalidInputError
from diffsplat.io.splat_formats import SPLAT_FORMATS, holds_splats, read_splats, write_splats
from diffsplat.io.splat_suffixes import READABLE_SUFFIXES, WRITABLE_SUFFIXES, splat_stem, splat_suffix
from support.splat_sets import PRECISIONS, Precision, assert_same, lattice_splats

UPRIGHT_IN_VIEWERS = {
    ".ply": "y",
    ".compressed.ply": "minus-y",
    ".splat": "minus-y",
    ".spz": "y",
    ".sog": "minus-y",
    ".glb": "y",
    ".gltf": "y",
    ".ksplat": "minus-y",
}


def test_the_table_of_formats_and_the_names_agree():
    assert set(SPLAT_FORMATS) == set(READABLE_SUFFIXES) == set(UPRIGHT_IN_VIEWERS)
    assert {name for name, entry in SPLAT_FORMATS.items() if entry.encode} == set(WRITABLE_SUFFIXES)
    assert {name: entry.up for name, entry in SPLAT_FORMATS.items()} == UPRIGHT_IN_VIEWERS


@pytest.mark.parametrize(
    ("name", "suffix", "stem"),
    [
        ("chair.ply", ".ply", "chair"),
        ("a/red.chair.ply", ".ply", "red.chair"),
        ("chair.compressed.ply", ".compressed.ply", "chair"),
        ("Chair.Compressed.PLY", ".compressed.ply", "Chair"),
        ("compressed.ply", ".ply", "compressed"),
        (".compressed.ply", ".ply", ".compressed"),
        ("chair.ksplat", ".ksplat", "chair"),
        ("chair.splat", ".splat", "chair"),
        ("chair.ply.bak", None, "chair.ply.bak"),
        (".ply", None, ".ply"),
        ("ply", None, "ply"),
        ("splat", None, "splat"),
    ],
)
def test_suffixes_of_several_dots(name: str, suffix: str | None, stem: str):
    assert splat_suffix(name) == suffix
    assert splat_stem(name) == stem


@pytest.mark.parametrize("suffix", WRITABLE_SUFFIXES)
@pytest.mark.parametrize("count", [1, 2, 255, 257, 3000])
def test_what_is_written_reads_back_within_the_bits_of_the_format(tmp_path: Path, suffix: str, count: int):
    splats = lattice_splats(count)
    path = tmp_path / f"a{suffix}"
    write_splats(splats, path)
    found = read_splats(path)
    assert_same(found, splats, PRECISIONS[suffix])
    assert holds_splats(path)
    for edge in (0, 1):
        assert int((found.opacities == edge).sum()) >= int((splats.opacities == edge).sum())
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", WRITABLE_SUFFIXES)
def test_what_was_read_is_stable(tmp_path: Path, suffix: str):
    """Quantised once, Gaussians keep their order, and come within the same bits of themselves again."""
    write_splats(lattice_splats(1000), tmp_path / f"a{suffix}")
    first = read_splats(tmp_path / f"a{suffix}")
    write_splats(first, tmp_path / f"b{suffix}")
    second = read_splats(tmp_path / f"b{suffix}")
    assert_same(second, first, PRECISIONS[suffix])
    assert torch.equal(first.opacities.sort().values, second.opacities.sort().values)


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(),
    reach=st.sampled_from([1e-3, 1.0, 100.0]),
    count=st.integers(1, 6),
)
@pytest.mark.parametrize("suffix", WRITABLE_SUFFIXES)
def test_quantisation_laws(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject, reach: float, count: int
):
    """Whatever the values, each comes back within half a step of the format."""
    unit = st.floats(0, 1, width=32)
    colors = torch.tensor(data.draw(st.lists(st.tuples(unit, unit, unit), min_size=count, max_size=count)))
    opacities = torch.tensor(data.draw(st.lists(unit, min_size=count, max_size=count)))
    parts = st.tuples(*[st.floats(-1, 1, width=32)] * 4).filter(lambda q: sum(v * v for v in q) > 0.01)
    quats = torch.tensor(data.draw(st.lists(parts, min_size=count, max_size=count)))
    logs = st.tuples(*[st.floats(-9, 3, width=32)] * 3)
    scales = torch.tensor(data.draw(st.lists(logs, min_size=count, max_size=count))).exp()
    shift = st.tuples(*[st.floats(-0.25, 0.25, width=32)] * 3)
    jitter = torch.tensor(data.draw(st.lists(shift, min_size=count, max_size=count)))
    steps = torch.linspace(-1, 1, count + 1)[:count, None] * 0.75
    means = (steps + jitter / count) * reach
    splats = Splats(means, scales, quats / quats.norm(dim=-1, keepdim=True), opacities, colors)
    path = tmp_path_factory.mktemp("laws") / f"a{suffix}"
    write_splats(splats, path)
    bound = PRECISIONS[suffix]
    span = float((means.max(dim=0).values - means.min(dim=0).values).max())
    mean = {
        ".compressed.ply": span / 1023 * 0.51 + reach * 1e-6,
        ".spz": 2.0**-17 + reach * 1e-7,
        ".sog": 2 * (1 + reach) * np.log1p(reach) / 65535 * 0.51 + reach * 1e-6,
    }.get(suffix, 0.0)
    log_sigma = {".compressed.ply": 12 / 2046 + 1e-5, ".sog": 12 / 510 + 1e-5}.get(suffix, bound.log_sigma)
    assert_same(
        read_splats(path), splats, Precision(mean, log_sigma, bound.angle, bound.opacity, bound.color)
    )


@pytest.mark.parametrize("suffix", WRITABLE_SUFFIXES)
@pytest.mark.parametrize("up", ["y", "z", "minus-y"])
def test_each_axis_can_point_up(tmp_path: Path, suffix: str, up: str):
    """Written with one axis up and read with the same one, or with its own word for it, nothing has turned."""
    splats = lattice_splats(200)
    path = tmp_path / f"a{suffix}"
    write_splats(splats, path, up=up)  # pyright: ignore[reportArgumentType]
    bound = PRECISIONS[suffix]
    near = Precision(bound.mean + 1e-6, bound.log_sigma, bound.angle, bound.opacity, bound.color)
    assert_same(read_splats(path, up=up), splats, near)  # pyright: ignore[reportArgumentType]
    if suffix.endswith(".ply"):
        assert_same(read_splats(path), splats, near)


@pytest.mark.parametrize("suffix", WRITABLE_SUFFIXES)
def test_a_tall_gaussian_above_the_origin_stays_so(tmp_path: Path, suffix: str):
    """As stored, it is where the viewers of the format have their sky; asked of the reader, it is at +Y."""
    splats = Splats(
        means=torch.tensor([[0.1, 0.9, 0.3], [0.0, 0.0, 0.0]]),
        scales=torch.tensor([[0.01, 0.2, 0.02], [0.01, 0.01, 0.01]]),
        quats=torch.tensor([[1.0, 0, 0, 0], [1.0, 0, 0, 0]]),
        opacities=torch.tensor([0.8, 0.2]),
        colors=torch.full((2, 3), 0.5),
    )
    path = tmp_path / f"a{suffix}"
    write_splats(splats, path)
    as_stored = read_splats(path, up="y")
    top = as_stored.means[int(as_stored.opacities.argmax())]
    flips = {"y": (1, 1, 1), "minus-y": (1, -1, -1)}[UPRIGHT_IN_VIEWERS[suffix]]
    assert top.tolist() == pytest.approx([0.1 * flips[0], 0.9 * flips[1], 0.3 * flips[2]], abs=1e-3)
    assert_same(read_splats(path), splats, Precision(1e-3, 0.04, 1.2, 0.003, 0.004))


@pytest.mark.parametrize("suffix", WRITABLE_SUFFIXES)
def test_refusals_leave_nothing_behind(tmp_path: Path, suffix: str):
    splats = lattice_splats(4)
    path = tmp_path / f"a{suffix}"
    with pytest.raises(InvalidInputError, match=r"got the batch \(1,\)"):
        write_splats(splats.map(lambda tensor: tensor[None]), path)
    with pytest.raises(InvalidInputError, match="no splats to write"):
        write_splats(splats.map(lambda tensor: tensor[:0]), path)
    huge = splats.map(torch.Tensor.double)
    huge = Splats(huge.means * 1e300, huge.scales, huge.quats, huge.opacities, huge.colors)
    if suffix != ".sog":
        with pytest.raises(InvalidInputError, match=r"beyond float32|cannot hold"):
            write_splats(huge, path)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"mine")
    with pytest.raises(InvalidInputError, match="exists already"):
        write_splats(splats, path)
    assert path.read_bytes() == b"mine"


def test_ksplat_is_only_read(tmp_path: Path):
    with pytest.raises(InvalidInputError, match="only read"):
        write_splats(lattice_splats(2), tmp_path / "a.ksplat")


@pytest.mark.parametrize("suffix", READABLE_SUFFIXES)
@pytest.mark.parametrize(
    "content", [b"", b"\0", b"junk" * 2000, b"\x1f\x8b\x08", b"PK\3\4", b"glTF\2\0\0\0{}", b"{}"]
)
def test_nonsense_gets_one_sentence(tmp_path: Path, suffix: str, content: bytes):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"^'.*' is not a readable splat file: [^\n]+$"):
        read_splats(path)


@pytest.mark.parametrize("suffix", WRITABLE_SUFFIXES)
def test_cut_files_get_one_sentence(tmp_path: Path, suffix: str):
    whole, path = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write_splats(lattice_splats(300), whole)
    data = whole.read_bytes()
    for length in (0, 3, 15, len(data) // 3 | 1, len(data) // 2 | 1, len(data) - 1):
        path.write_bytes(data[:length])
        # Without a header nothing says how many there should be.
        strict = suffix == ".splat"
        with pytest.raises(InvalidInputError, match="is not a readable splat file"):
            read_splats(path, strict=strict)


@pytest.mark.parametrize("suffix", WRITABLE_SUFFIXES)
def test_bytes_behind_a_file_are_ignored(tmp_path: Path, suffix: str):
    path = tmp_path / f"a{suffix}"
    write_splats(lattice_splats(300), path)
    whole = read_splats(path)
    filler = b" " if suffix == ".gltf" else b"\0"
    path.write_bytes(path.read_bytes() + filler * 7)
    assert torch.equal(read_splats(path).means, whole.means)


def test_missing_files_and_folders(tmp_path: Path):
    for suffix in READABLE_SUFFIXES:
        with pytest.raises(InvalidInputError, match="there is no such file"):
            read_splats(tmp_path / f"a{suffix}")
    (tmp_path / "a.spz").mkdir()
    with pytest.raises(InvalidInputError, match="is a directory"):
        read_splats(tmp_path / "a.spz")


@pytest.mark.parametrize(
    "content",
    ["<!DOCTYPE html>\r\n<title>404</title>" * 9, "version https://git-lfs.github.com/spec/v1\noid 0\n"],
)
def test_a_text_is_no_dot_splat_file(tmp_path: Path, content: str):
    (tmp_path / "a.splat").write_text(content)
    with pytest.raises(InvalidInputError, match="it is text"):
        read_splats(tmp_path / "a.splat")
