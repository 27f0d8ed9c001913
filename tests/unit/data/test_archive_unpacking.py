"""Archives of unknown origin: contents by the formats' own descriptions, and what must never be unpacked."""

import contextlib
import gzip
import io
import tarfile
import zipfile

import pytest

from diffsplat.data import archive_unpacking
from diffsplat.data.archive_unpacking import unpack
from diffsplat.errors import InvalidInputError


def tar_bytes(files, mode="w:xz"):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return data.getvalue()


def zip_bytes(files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def debian_bytes(files):
    """An ar archive with a data.tar.xz, by the description in deb(5)."""
    members = [("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", tar_bytes(files))]
    lines = b"!<arch>\n"
    for name, data in members:
        lines += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
        lines += data + b"\n" * (len(data) % 2)
    return lines


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".unpacked"
    }


@pytest.mark.parametrize(
    ("name", "make"), [("a.tar.xz", tar_bytes), ("a.zip", zip_bytes), ("a.deb", debian_bytes)]
)
def test_every_kind_gives_its_files_once(tmp_path, name, make):
    wanted = {"objects.json": b"[]", "pack/chair.glb": b"chair"}
    (tmp_path / name).write_bytes(make(wanted))
    folder = unpack(tmp_path / name, tmp_path / "out")
    assert files_of(folder) == wanted
    (folder / "pack/chair.glb").write_bytes(b"kept")
    assert files_of(unpack(tmp_path / name, tmp_path / "out"))["pack/chair.glb"] == b"kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "out"])


def test_libraries_inside_are_unpacked(tmp_path):
    library = zip_bytes({"arm.obj": b"v 0 0 0"})
    (tmp_path / "a.deb").write_bytes(debian_bytes({"./usr/Nice.sh3f": library}))
    assert files_of(unpack(tmp_path / "a.deb", tmp_path / "out"))["usr/Nice/arm.obj"] == b"v 0 0 0"


def test_a_folder_is_its_own_content(tmp_path):
    assert unpack(tmp_path, tmp_path / "out") == tmp_path
    with pytest.raises(FileNotFoundError, match="no such archive"):
        unpack(tmp_path / "missing.zip", tmp_path / "out")


@pytest.mark.parametrize("make", [tar_bytes, zip_bytes])
@pytest.mark.parametrize("name", ["../../evil", "/tmp/diffsplat-evil", "a/../../../evil"])
def test_nothing_lands_outside(tmp_path, make, name):
    place = tmp_path / "one/two"
    place.mkdir(parents=True)
    (place / "a.bin").write_bytes(make({name: b"evil"}))
    with contextlib.suppress(InvalidInputError):
        unpack(place / "a.bin", place / "out")
    outside = [path for path in tmp_path.rglob("*evil*") if place / "out" not in path.parents]
    assert outside == []


def test_links_and_devices_are_left_out(tmp_path):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, kind in (("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("pipe", tarfile.FIFOTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
    (tmp_path / "a.tar").write_bytes(data.getvalue())
    assert files_of(unpack(tmp_path / "a.tar", tmp_path / "out")) == {}


@pytest.mark.parametrize("make", [tar_bytes, zip_bytes])
@pytest.mark.parametrize(("limit", "value"), [("MOST_BYTES", 1 << 20), ("MOST_FILES", 2)])
def test_bombs_are_refused_and_leave_nothing(tmp_path, monkeypatch, make, limit, value):
    monkeypatch.setattr(archive_unpacking, limit, value)
    (tmp_path / "a.bin").write_bytes(make({f"{i}": b"\0" * (1 << 19) for i in range(3)}))
    with pytest.raises(ValueError, match="holds more than"):
        unpack(tmp_path / "a.bin", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("make", [tar_bytes, zip_bytes, debian_bytes])
def test_damage_is_one_sentence(tmp_path, make):
    whole = make({"a": bytes(range(256)) * 40, "b": b"b" * 3000})
    for cut in range(10, len(whole) - 8, len(whole) // 9):
        (tmp_path / "a.bin").write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"a\.bin"):
            unpack(tmp_path / "a.bin", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_another_archive_in_the_same_place_is_refused(tmp_path):
    for name in ("a.zip", "b.zip"):
        (tmp_path / name).write_bytes(zip_bytes({"x": name.encode()}))
    unpack(tmp_path / "a.zip", tmp_path / "out")
    with pytest.raises(ValueError, match=r"does not hold b\.zip"):
        unpack(tmp_path / "b.zip", tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("before", [False, True])
def test_a_huge_header_is_refused_before_it_is_read(tmp_path, kind, before):
    """64 MiB of zeros pack into 64 kB, and tarfile reads such a header in one piece."""
    path, size = tmp_path / "bomb.tar.gz", 64 << 20
    header = tarfile.TarInfo("name")
    header.type, header.size = kind, size
    with gzip.open(path, "wb") as file:
        if before:
            file.write(tarfile.TarInfo("a").tobuf())
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(64):
            file.write(bytes(1 << 20))
    with pytest.raises(
        InvalidInputError, match=r"bomb\.tar\.gz.* has 67,108,864 bytes, expected at most 1,048,576"
    ):
        unpack(path, tmp_path / "files")
    assert not (tmp_path / "files").exists()
