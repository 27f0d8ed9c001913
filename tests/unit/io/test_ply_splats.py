"""Files are built here with struct and text, never with the writer under test."""

import logging
import math
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffsplat.core import Splats
from diffsplat.errors import InvalidInputError
from diffsplat.io.ply_splats import holds_splats
from diffsplat.io.splat_formats import read_splats, write_splats

NAMES = [
    *("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
]
FIELDS = ("means", "scales", "quats", "opacities", "colors")
C0 = 0.5 / math.sqrt(math.pi)

# Two Gaussians as they stand in a file, and what they mean.
STORED = [
    [0.5, -0.25, 0.125, 0.0, 1.0, -1.0, 0.0, -4.0, -3.0, -5.0, 1.0, 0.0, 0.0, 0.0],
    [-1.0, 2.0, 3.0, 0.5, -0.5, 0.25, 2.0, -2.0, -6.0, -1.0, 0.6, 0.0, 0.8, 0.0],
]
MEANT = {
    "means": [[0.5, -0.25, 0.125], [-1.0, 2.0, 3.0]],
    "colors": [[0.5, 0.5 + C0, 0.5 - C0], [0.5 + 0.5 * C0, 0.5 - 0.5 * C0, 0.5 + 0.25 * C0]],
    "opacities": [0.5, 1 / (1 + math.exp(-2))],
    "scales": [[math.exp(v) for v in (-4, -3, -5)], [math.exp(v) for v in (-2, -6, -1)]],
    "quats": [[1.0, 0, 0, 0], [0.6, 0, 0.8, 0]],
}


def binary(
    rows: list[list[float]] = STORED,
    names: list[str] = NAMES,
    *,
    order: str = "<",
    kind: str = "float",
    code: str = "f",
    newline: str = "\n",
    count: int | None = None,
    before: tuple[list[str], bytes] = ([], b""),
    after: tuple[list[str], bytes] = ([], b""),
) -> bytes:
    header = [
        *("ply", f"format binary_{'little' if order == '<' else 'big'}_endian 1.0", "comment by hand"),
        *before[0],
        f"element vertex {len(rows) if count is None else count}",
        *(f"property {kind} {name}" for name in names),
        *(*after[0], "end_header", ""),
    ]
    body = b"".join(struct.pack(f"{order}{len(row)}{code}", *row) for row in rows)
    return newline.join(header).encode() + before[1] + body + after[1]


def check(path: Path, data: bytes, tolerance: float = 1e-6) -> Splats:
    path.write_bytes(data)
    splats = read_splats(path)
    for name, meant in MEANT.items():
        found: Tensor = getattr(splats, name)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy(), np.array(meant), atol=tolerance, rtol=tolerance)
    return splats


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "splats.ply"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("kind", "code"), [("float", "f"), ("float32", "f"), ("double", "d"), ("float64", "d")]
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_byte_orders_and_number_types(path: Path, order: str, kind: str, code: str, newline: str):
    check(path, binary(order=order, kind=kind, code=code, newline=newline))


def test_any_property_order(path: Path):
    permutation = list(range(len(NAMES)))[::-1]
    rows = [[row[index] for index in permutation] for row in STORED]
    check(path, binary(rows, [NAMES[index] for index in permutation]))


def test_other_properties_of_other_types(path: Path):
    """Normals and byte colours between the properties that matter, as DiffSplat and others write them."""
    header = ["ply", "format binary_little_endian 1.0", "obj_info made by hand", "element vertex 2"]
    header += ["property uchar red", "property short label"]
    header += [f"property float {name}" for name in NAMES]
    header += ["property float nx", "property uint id", "end_header", ""]
    body = b"".join(struct.pack("<Bh14ffI", 200, -3, *row, 9.0, 7) for row in STORED)
    check(path, "\n".join(header).encode() + body)


def test_integer_properties_where_floats_are_usual(path: Path):
    """Scales of -4, -3 ... are whole numbers, so they may come as int8."""
    header = ["ply", "format binary_big_endian 1.0", "element vertex 2"]
    header += [f"property {'char' if 'scale' in name else 'float'} {name}" for name in NAMES]
    body = b"".join(
        struct.pack(">7f3b4f", *row[:7], *(int(v) for v in row[7:10]), *row[10:]) for row in STORED
    )
    check(path, "\n".join([*header, "end_header", ""]).encode() + body)


def test_higher_harmonics_are_ignored_with_a_line_in_the_log(path: Path, caplog: pytest.LogCaptureFixture):
    names = [*NAMES, *(f"f_rest_{index}" for index in range(45))]
    with caplog.at_level(logging.WARNING):
        check(path, binary([row + [9.0] * 45 for row in STORED], names))
    assert "45 spherical-harmonic coefficients" in caplog.text


@pytest.mark.parametrize("order", ["<", ">"])
def test_elements_before_and_after_with_lists(path: Path, order: str):
    lines = ["element face 2", "property list uchar int vertex_indices", "property double area"]
    faces = struct.pack(f"{order}B3id", 3, 0, 1, 1, 0.5) + struct.pack(f"{order}Bd", 0, 0.25)
    fixed = ["element camera 3", "property float focal"]
    cameras = struct.pack(f"{order}3f", 1, 2, 3)
    check(path, binary(order=order, before=(lines + fixed, faces + cameras), after=(lines, faces)))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_ascii(path: Path, newline: str, mark: bytes):
    header = ["ply", "format ascii 1.0", "element face 1", "property list uchar int vertex_indices"]
    header += ["element vertex 2", *(f"property float {name}" for name in NAMES)]
    header += ["element edge 1", "property int a", "property int b", "end_header"]
    rows = ["3 0 1 1", *(" ".join(f"{value:g}" for value in row) for row in STORED), "0 1", ""]
    check(path, mark + newline.join(header + rows).encode())


def test_compressed_in_the_other_byte_order(tmp_path: Path):
    """All its numbers have four bytes."""
    write_splats(random_splats(300), tmp_path / "a.compressed.ply")
    header, body = (tmp_path / "a.compressed.ply").read_bytes().split(b"end_header\n", 1)
    swapped = np.frombuffer(body, "<u4").astype(">u4").tobytes()
    header = header.replace(b"little_endian", b"big_endian")
    (tmp_path / "b.compressed.ply").write_bytes(header + b"end_header\n" + swapped)
    little, big = (read_splats(tmp_path / f"{name}.compressed.ply") for name in "ab")
    assert torch.equal(little.means, big.means)
    assert torch.equal(little.colors, big.colors)


def test_ascii_with_uneven_white_space_and_no_last_newline(path: Path):
    header = ["ply", "format ascii 1.0", "element vertex 2", *(f"property float {name}" for name in NAMES)]
    rows = ["  " + " \t ".join(f"{value:.3e}" for value in row) + "  " for row in STORED]
    check(path, "\n".join([*header, "end_header", *rows]).encode())


def test_quaternions_are_normalised_and_colours_clipped(path: Path):
    row = [*STORED[0][:3], 40.0, -40.0, 0.0, *STORED[0][6:10], 0.0, 3.0, 0.0, -4.0]
    path.write_bytes(binary([row]))
    splats = read_splats(path)
    assert splats.quats.tolist() == [pytest.approx([0, 0.6, 0, -0.8], abs=1e-7)]
    assert splats.colors.tolist() == [[1.0, 0.0, 0.5]]


def test_infinite_logits_are_opacities_of_zero_and_one(path: Path):
    rows = [[*STORED[0][:6], sign * math.inf, *STORED[0][7:]] for sign in (-1, 1)]
    path.write_bytes(binary(rows))
    assert read_splats(path).opacities.tolist() == [0.0, 1.0]


# What is written


def random_splats(count: int, seed: int = 0) -> Splats:
    generator = torch.Generator().manual_seed(seed)
    quats = torch.randn(count, 4, generator=generator)
    opacities = torch.rand(count, generator=generator)
    opacities[: count // 4] = 10 ** (-8 * opacities[: count // 4])
    opacities[0], opacities[1] = 0, 1
    colors = (torch.rand(count, 3, generator=generator) * 1.2 - 0.1).clamp(0, 1)
    return Splats(
        means=torch.randn(count, 3, generator=generator)
        * 10 ** (torch.rand(count, 1, generator=generator) * 6 - 3),
        scales=10 ** (-6 * torch.rand(count, 3, generator=generator)),
        quats=quats / quats.norm(dim=-1, keepdim=True),
        opacities=opacities,
        colors=colors,
    )


def test_the_bytes_written_are_the_original_layout(path: Path):
    splats = Splats(**{name: torch.tensor(values) for name, values in MEANT.items()})
    write_splats(splats, path)
    header, body = path.read_bytes().split(b"end_header\n", 1)
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    assert "comment up axis +y, right-handed" in lines
    assert [line for line in lines if line.startswith(("element", "property"))] == [
        "element vertex 2",
        *(f"property float {name}" for name in NAMES),
    ]
    found = [struct.unpack("<14f", body[start : start + 56]) for start in (0, 56)]
    np.testing.assert_allclose(found, STORED, atol=2e-6)
    assert len(body) == 2 * 56


def test_what_is_written_reads_back(path: Path):
    splats = random_splats(20_000)
    write_splats(splats, path)
    back = read_splats(path)
    assert torch.equal(back.means, splats.means)
    assert torch.equal(back.quats, splats.quats)
    torch.testing.assert_close(back.scales, splats.scales, rtol=2e-6, atol=0)
    torch.testing.assert_close(back.colors, splats.colors, rtol=0, atol=1e-6)
    torch.testing.assert_close(back.opacities, splats.opacities, rtol=2e-6, atol=0)
    for edge in (0, 1):
        assert torch.equal(back.opacities == edge, splats.opacities == edge)
        assert torch.equal(back.colors == edge, splats.colors == edge)


def test_what_was_read_is_bitwise_stable(tmp_path: Path):
    write_splats(random_splats(50_000, seed=1), tmp_path / "a.ply")
    first = read_splats(tmp_path / "a.ply")
    write_splats(first, tmp_path / "b.ply")
    second = read_splats(tmp_path / "b.ply")
    for name in FIELDS:
        assert torch.equal(getattr(first, name), getattr(second, name)), name


@settings(max_examples=150, deadline=None)
@given(
    opacity=st.floats(0, 1, width=32),
    sigma=st.floats(2.0**-126, 2.0**100, width=32),
    color=st.floats(0, 1, width=32),
    coordinate=st.floats(allow_nan=False, allow_infinity=False, width=32),
)
def test_any_single_gaussian_survives(
    tmp_path_factory: pytest.TempPathFactory, opacity: float, sigma: float, color: float, coordinate: float
):
    path = tmp_path_factory.mktemp("one") / "one.ply"
    splats = Splats(
        means=torch.full((1, 3), coordinate),
        scales=torch.full((1, 3), sigma),
        quats=torch.tensor([[0.5, -0.5, 0.5, -0.5]]),
        opacities=torch.tensor([opacity]),
        colors=torch.full((1, 3), color),
    )
    write_splats(splats, path)
    back = read_splats(path)
    assert torch.equal(back.means, splats.means)
    torch.testing.assert_close(back.scales, splats.scales, rtol=1e-5, atol=0)
    torch.testing.assert_close(back.opacities, splats.opacities, rtol=1e-5, atol=1e-44)
    torch.testing.assert_close(back.colors, splats.colors, rtol=0, atol=1e-6)


def test_each_up_axis_turns_the_file_and_reads_back(tmp_path: Path):
    """A Gaussian above the origin and long along the vertical must be so along the axis of the file."""
    splats = Splats(
        means=torch.tensor([[0.1, 2.0, 0.3]]),
        scales=torch.tensor([[0.1, 0.9, 0.2]]),
        quats=torch.tensor([[1.0, 0, 0, 0]]),
        opacities=torch.tensor([0.5]),
        colors=torch.tensor([[0.2, 0.4, 0.6]]),
    )
    cases = {"y": [0.1, 2.0, 0.3], "z": [0.1, -0.3, 2.0], "minus-y": [0.1, -2.0, -0.3]}
    longest = {"y": 1, "z": 2, "minus-y": 1}
    for up, means in cases.items():
        file = tmp_path / f"{up}.ply"
        write_splats(splats, file, up=up)  # pyright: ignore[reportArgumentType]
        header, body = file.read_bytes().split(b"end_header\n", 1)
        assert f"up axis {up.replace('minus-', '-') if '-' in up else '+' + up}".encode() in header
        row = struct.unpack("<14f", body)
        assert row[:3] == pytest.approx(means)
        w, x, y, z = row[10:]
        local_y = [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)]
        assert abs(local_y[longest[up]]) == pytest.approx(1, abs=1e-6)
        back = read_splats(file)
        torch.testing.assert_close(back.means, splats.means, rtol=0, atol=0)
        torch.testing.assert_close(back.quats.abs(), splats.quats.abs(), rtol=0, atol=2e-7)


def test_turned_files_read_back_as_the_same_gaussians(tmp_path: Path):
    splats = random_splats(500, seed=2)
    write_splats(splats, tmp_path / "y.ply")
    straight = read_splats(tmp_path / "y.ply")
    for up, tolerance in (("minus-y", 0.0), ("z", 3e-7)):
        write_splats(splats, tmp_path / f"{up}.ply", up=up)  # pyright: ignore[reportArgumentType]
        back = read_splats(tmp_path / f"{up}.ply")
        for name in FIELDS:
            torch.testing.assert_close(getattr(back, name), getattr(straight, name), rtol=0, atol=tolerance)


def test_other_precisions_are_written_as_float32(tmp_path: Path):
    splats = random_splats(100)
    write_splats(splats.to(torch.float64), tmp_path / "a.ply")
    write_splats(splats, tmp_path / "b.ply")
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()


def test_splats_that_a_file_cannot_hold(path: Path):
    splats = random_splats(4)
    with pytest.raises(InvalidInputError, match=r"got the batch \(1,\)"):
        write_splats(splats.map(lambda tensor: tensor[None]), path)
    with pytest.raises(InvalidInputError, match="no splats to write"):
        write_splats(splats.map(lambda tensor: tensor[:0]), path)
    with pytest.raises(InvalidInputError, match="beyond float32"):
        write_splats(
            Splats(**{**vars(splats.to(torch.float64)), "means": splats.means.double() * 1e300}), path
        )
    assert list(path.parent.iterdir()) == []


def test_suffixes(tmp_path: Path):
    for name in ("a.obj", "a", "a.ply.bak"):
        with pytest.raises(InvalidInputError, match=r"expected a splat file: \.ply"):
            read_splats(tmp_path / name)
        with pytest.raises(InvalidInputError, match=r"expected a splat file: \.ply"):
            write_splats(random_splats(2), tmp_path / name)
    write_splats(random_splats(2), tmp_path / "A.PLY")
    assert read_splats(tmp_path / "A.PLY").count == 2


def test_an_existing_file_is_kept_without_force(path: Path):
    path.write_bytes(b"mine")
    with pytest.raises(InvalidInputError, match="exists already"):
        write_splats(random_splats(2), path)
    assert path.read_bytes() == b"mine"
    write_splats(random_splats(2), path, force=True)
    assert read_splats(path).count == 2


# Broken files

GOOD = binary()
HEAD = GOOD[: GOOD.index(b"end_header")]


def with_value(name: str, value: float) -> bytes:
    row = list(STORED[0])
    row[NAMES.index(name)] = value
    return binary([row, STORED[1]])


BROKEN = {
    "empty": (b"", "it is empty"),
    "jpeg": (b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(400), "does not start like a PLY"),
    "magic only": (b"ply\n", "header has no end"),
    "prefix": (b"plywood\nend_header\n", "does not start like a PLY"),
    "header cut": (HEAD, "header has no end"),
    "body cut": (GOOD[:-1], "promises 2 vertices"),
    "no body": (GOOD[: GOOD.index(b"end_header") + 11], "promises 2 vertices"),
    "count too high": (binary(count=3), "promises 3 vertices"),
    "absurd count": (binary(count=10**17), "promises 100000000000000000 vertices"),
    "count of many digits": (GOOD.replace(b"vertex 2", b"vertex " + b"9" * 5000), "is not understood"),
    "negative count": (GOOD.replace(b"vertex 2", b"vertex -2"), "is not understood"),
    "no vertices": (binary([], count=0), "has no vertices"),
    "no vertex element": (GOOD.replace(b"element vertex", b"element point"), "names 0 vertex elements"),
    "two vertex elements": (binary(before=(["element vertex 0", "property int a"], b"")), "names 2 vertex"),
    "no properties": (binary([], [], count=5), "have no properties"),
    "no format": (GOOD.replace(b"format binary_little_endian 1.0\n", b""), "no line with the format"),
    "two formats": (GOOD.replace(b"comment by hand", b"format ascii 1.0"), "is not understood"),
    "format of the future": (GOOD.replace(b"endian 1.0", b"endian 2.0"), "is not understood"),
    "unknown type": (GOOD.replace(b"float opacity", b"half opacity"), "is not understood"),
    "property first": (GOOD.replace(b"comment by hand", b"property float x"), "is not understood"),
    "same name twice": (GOOD.replace(b"float y\n", b"float x\n"), "same name"),
    "list in vertices": (GOOD.replace(b"float rot_3", b"list uchar float rot_3"), "have a list property"),
    "float list length": (
        binary(before=(["element face 1", "property list float int v"], b"")),
        "is not understood",
    ),
    "plain point cloud": (binary([[1, 2, 3]], ["x", "y", "z"]), "a point cloud, not .* lack f_dc_0, f_dc_1"),
    "coloured point cloud": (
        binary([[1, 2, 3, 1, 1, 1]], ["x", "y", "z", "red", "green", "blue"]),
        "a point cloud, not splats: its vertices lack opacity, scale_0",
    ),
    "mesh": (
        binary([[1, 2, 3]], ["x", "y", "z"], after=(["element face 0", "property list uchar int v"], b"")),
        "a mesh, not splats",
    ),
    "missing rotation": (GOOD.replace(b"rot_3", b"rot_9"), "lack rot_3"),
    "list runs over": (
        binary(before=(["element face 1", "property list uint double v"], struct.pack("<I", 2**32 - 1))),
        "ends inside the element 'face'",
    ),
    "negative list": (
        binary(before=(["element face 1", "property list int double v"], struct.pack("<i", -5))),
        "broken list",
    ),
    "absurd list count": (
        binary(before=(["element face 999999999999", "property list uchar int v"], b"\0" * 100)),
        "ends inside the element 'face'",
    ),
    "absurd element before": (
        binary(before=(["element face 999999999999", "property int v"], b"")),
        "promises 2 vertices",
    ),
    "beyond float32": (
        binary([[1e300, *STORED[0][1:]]], kind="double", code="d"),
        r"none of its 1 Gaussians is usable \(1 with NaN or infinite positions\)",
    ),
    "ascii words": (
        b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\nhello\n",
        "are not 1 numbers each",
    ),
    "ascii short row": (
        b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nend_header\n1\n",
        "are not 2 numbers each",
    ),
    "ascii lines missing": (
        b"ply\nformat ascii 1.0\nelement vertex 9\nproperty float x\nend_header\n1\n2\n",
        "promises 9 vertices",
    ),
    "ascii skips beyond the end": (
        b"ply\nformat ascii 1.0\nelement a 9999999999\nelement vertex 1\nproperty float x\nend_header\n1\n",
        "promises 1 vertices",
    ),
    "binary in ascii": (
        b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n" + bytes(range(256)),
        "(are not 1 numbers each|promises 1 vertices)",
    ),
    "utf-16": ("ply\nformat ascii 1.0\n".encode("utf-16"), "does not start like a PLY"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_get_one_sentence(path: Path, name: str):
    data, words = BROKEN[name]
    path.write_bytes(data)
    with pytest.raises(InvalidInputError, match=words) as caught:
        read_splats(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 300 + len(str(path))


UNUSABLE = {
    "NaN position": ("y", math.nan, "1 with NaN or infinite positions"),
    "infinite position": ("z", math.inf, "1 with NaN or infinite positions"),
    "NaN colour": ("f_dc_1", math.nan, "1 with NaN or infinite colours"),
    "NaN scale": ("scale_1", math.nan, "1 with NaN, infinite or negative sizes"),
    "infinite sigma": ("scale_0", 1000.0, "1 with NaN, infinite or negative sizes"),
    "NaN rotation": ("rot_2", math.nan, "1 with rotations that are NaN, infinite or zero"),
    "infinite rotation": ("rot_2", math.inf, "1 with rotations that are NaN, infinite or zero"),
    "zero rotation": ("rot_0", 0.0, "1 with rotations that are NaN, infinite or zero"),
    "NaN opacity": ("opacity", math.nan, "1 with NaN as opacity"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_gaussian_is_left_out_and_counted(
    path: Path, caplog: pytest.LogCaptureFixture, name: str
):
    column, value, reason = UNUSABLE[name]
    path.write_bytes(with_value(column, value))
    assert read_splats(path).means.tolist() == MEANT["means"][1:]
    (record,) = caplog.records
    assert record.getMessage() == (
        f"left out of {str(path)!r}: 1 of its 2 Gaussians cannot be used ({reason})"
    )
    with pytest.raises(InvalidInputError, match="1 of its 2 Gaussians cannot be used"):
        read_splats(path, strict=True)


@pytest.mark.parametrize("name", ["y", "opacity", "rot_0"])
def test_nothing_usable_is_refused(path: Path, name: str):
    rows = [list(row) for row in STORED]
    for row in rows:
        row[NAMES.index(name)] = math.nan
    path.write_bytes(binary(rows))
    with pytest.raises(InvalidInputError, match=r"none of its 2 Gaussians is usable \(2 with"):
        read_splats(path)


ASCII = HEAD.replace(b"binary_little_endian", b"ascii") + b"end_header\n"
LINES = b"\n".join(" ".join(map(str, row)).encode() for row in STORED)
TRAILING = {
    "newline": (GOOD + b"\n", 2, "1 byte behind"),
    "zeros": (GOOD + bytes(64), 2, "64 bytes behind"),
    "another row": (binary(count=1), 1, "56 bytes behind"),
    "text": (ASCII + LINES + b"\nthe end", 2, "8 bytes behind"),
}


@pytest.mark.parametrize("name", TRAILING)
def test_bytes_behind_the_table_are_ignored(path: Path, caplog: pytest.LogCaptureFixture, name: str):
    data, count, words = TRAILING[name]
    path.write_bytes(data)
    assert read_splats(path).means.tolist() == MEANT["means"][:count]
    assert words in caplog.text
    with pytest.raises(InvalidInputError, match=words):
        read_splats(path, strict=True)


def test_a_sigma_of_zero_is_flat(path: Path):
    path.write_bytes(with_value("scale_0", -math.inf))
    assert read_splats(path).scales[0].tolist() == pytest.approx([1e-10, math.exp(-3), math.exp(-5)])


def test_flat_gaussians_with_two_sigmas(path: Path):
    names = [name for name in NAMES if name != "scale_2"]
    path.write_bytes(binary([row[:9] + row[10:] for row in STORED], names))
    found = read_splats(path)
    assert found.scales[0].tolist() == pytest.approx([math.exp(-4), math.exp(-3), 1e-10])
    np.testing.assert_allclose(found.quats, MEANT["quats"], atol=1e-6)


def test_colours_as_red_green_blue(path: Path):
    names = [*NAMES[:3], "red", "green", "blue", *NAMES[6:]]
    path.write_bytes(binary([[*STORED[0][:3], 0.25, 0.5, 1.0, *STORED[0][6:]]], names))
    assert read_splats(path).colors.tolist() == [[0.25, 0.5, 1.0]]
    header = path.read_bytes()
    for name in (b"red", b"green", b"blue"):
        header = header.replace(b"float " + name, b"uchar " + name)
    start = header.index(b"end_header\n") + 11
    row = struct.pack("<3f3B8f", *STORED[0][:3], 0, 51, 255, *STORED[0][6:])
    path.write_bytes(header[:start] + row)
    np.testing.assert_allclose(read_splats(path).colors, [[0, 0.2, 1]], atol=1e-6)


def test_missing_file_and_directory(tmp_path: Path):
    with pytest.raises(InvalidInputError, match="no such file"):
        read_splats(tmp_path / "none.ply")
    (tmp_path / "folder.ply").mkdir()
    with pytest.raises(InvalidInputError, match="it is a directory"):
        read_splats(tmp_path / "folder.ply")


def mutate(data: bytes, generator: np.random.Generator) -> bytes:
    """One to four of: bytes flipped, cut out, doubled, a digit or word of the header exchanged."""
    words = [
        b"0",
        b"-1",
        b"999999999999",
        b"vertex",
        b"float",
        b"list",
        b"double",
        b"uchar",
        b"ascii",
        b"\n",
        b"nan",
    ]
    for _ in range(generator.integers(1, 5)):
        array = bytearray(data)
        start = int(generator.integers(0, max(len(array), 1)))
        length = int(generator.integers(1, 40))
        match generator.integers(0, 5):
            case 0:
                array[start : start + 1] = bytes([int(generator.integers(0, 256))])
            case 1:
                del array[start : start + length]
            case 2:
                array[start:start] = array[start : start + length]
            case 3:
                array[start : start + int(generator.integers(0, 8))] = words[generator.integers(len(words))]
            case _:
                del array[start:]
        data = bytes(array)
    return data


def test_mutated_files_are_read_or_refused_and_never_cost_memory(path: Path):
    ascii_file = b"\n".join(
        [
            HEAD.replace(b"binary_little_endian", b"ascii") + b"end_header",
            *(" ".join(map(str, row)).encode() for row in STORED),
        ]
    )
    lists = (["element face 1", "property list uchar int v"], struct.pack("<B3i", 3, 0, 1, 1))
    seeds = [GOOD, binary(order=">", kind="double", code="d"), ascii_file, binary(before=lists, after=lists)]
    generator = np.random.default_rng(0)
    refused, starts = 0, set[str]()
    tracemalloc.start()
    for index in range(2000):
        path.write_bytes(mutate(seeds[index % len(seeds)], generator))
        try:
            splats = read_splats(path)
        except InvalidInputError as error:
            refused += 1
            starts.add(str(error).split("is not a readable splat file: ")[1].split()[0])
        else:
            assert splats.count >= 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 1000 < refused < 2000
    assert {start for start in starts if not start.isdecimal()} == {"it", "its", "none"}, (
        "a sentence of another's making"
    )
    assert peak < 2_000_000


@pytest.mark.parametrize("text", [False, True])
def test_reading_takes_a_small_multiple_of_the_file(path: Path, text: bool):
    count = 20_000
    rows = np.tile(np.array(STORED, np.float32), (count // 2, 1))
    header = HEAD.replace(b"vertex 2", b"vertex %d" % count)
    if text:
        lines = b"\n".join(b" ".join(b"%g" % value for value in row) for row in rows)
        path.write_bytes(header.replace(b"binary_little_endian", b"ascii") + b"end_header\n" + lines)
    else:
        path.write_bytes(header + b"end_header\n" + rows.tobytes())
    tracemalloc.start()
    assert read_splats(path).count == count
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * path.stat().st_size


def test_splats_are_told_from_meshes_by_the_header(tmp_path: Path):
    mesh = tmp_path / "mesh.ply"
    mesh.write_text(
        "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
    )
    assert not holds_splats(mesh)
    (tmp_path / "splats.ply").write_bytes(
        b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float scale_0\nend_header\n"
    )
    assert holds_splats(tmp_path / "splats.ply")
    (tmp_path / "none.ply").write_text("solid")
    with pytest.raises(
        InvalidInputError, match=r"none\.ply' is not a readable \.ply file: it does not start like"
    ):
        holds_splats(tmp_path / "none.ply")
