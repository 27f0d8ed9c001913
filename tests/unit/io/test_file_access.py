import errno
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from diffsplat.errors import DiskError, InvalidInputError
from diffsplat.io.file_access import atomic_path, explained_os_errors, require_readable, require_writable


def test_the_target_appears_only_when_the_block_ends(tmp_path: Path):
    target = tmp_path / "a.ply"
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".ply"
        temporary.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["a.ply"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]):
    def write() -> None:
        with atomic_path(tmp_path / "a.ply") as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        write()
    assert os.listdir(tmp_path) == []


def test_a_failure_keeps_the_file_that_was_there(tmp_path: Path):
    target = tmp_path / "a.ply"
    target.write_bytes(b"old")

    def write() -> None:
        with atomic_path(target, force=True) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.ply"]


def test_an_existing_file_needs_force(tmp_path: Path):
    target = tmp_path / "a.ply"
    target.write_bytes(b"old")
    with pytest.raises(InvalidInputError, match="exists already"), atomic_path(target):
        pass
    assert target.read_bytes() == b"old"
    with atomic_path(target, force=True) as temporary:
        temporary.write_bytes(b"new")
    assert target.read_bytes() == b"new"


def test_the_file_gets_the_permissions_of_an_ordinary_new_file(tmp_path: Path):
    (tmp_path / "plain").touch()
    with atomic_path(tmp_path / "a.ply"):
        pass
    with atomic_path(tmp_path / "b.safetensors") as path:
        save_file({"weight": torch.zeros(1)}, path)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_link_keeps_pointing_to_the_replaced_file(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    real, link = tmp_path / "folder" / "real.ply", tmp_path / "link.ply"
    real.write_bytes(b"old")
    link.symlink_to(real)
    with atomic_path(link, force=True) as temporary:
        temporary.write_bytes(b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


def test_bad_targets_get_one_sentence_each(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    cases = {
        tmp_path: "is a directory",
        Path(""): "is a directory",
        tmp_path / "missing" / "a.ply": "does not exist",
        tmp_path / "file" / "a.ply": "does not exist",
        tmp_path / "pipe": "expected a regular file",
        Path("/dev/null"): "expected a regular file",
        tmp_path / ("x" * 300): "too long",
    }
    for target, words in cases.items():
        for force in (False, True):
            with pytest.raises(InvalidInputError, match=words) as caught:
                require_writable(target, force=force)
            assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_directory_is_named(tmp_path: Path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    with pytest.raises(InvalidInputError, match="is not writable"), atomic_path(closed / "a.ply"):
        pass


def test_a_long_name_leaves_room_for_the_temporary_one(tmp_path: Path):
    target = tmp_path / ("é" * 120 + ".ply")
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"x")
    assert target.read_bytes() == b"x"


def test_bad_sources_get_one_sentence_each(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    cases = {
        tmp_path / "none": "no such file",
        tmp_path: "a directory",
        tmp_path / "pipe": "a device or pipe",
    }
    for source, words in cases.items():
        with pytest.raises(InvalidInputError, match=words):
            require_readable(source)


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_of_writers_at_once_exactly_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool):
    if not links:

        def refuse(*_: object) -> None:
            raise PermissionError(errno.EPERM, "no hard links here")

        monkeypatch.setattr(os, "link", refuse)
    target, together = tmp_path / "a.ply", threading.Barrier(8)

    def write(number: int) -> bool:
        try:
            with atomic_path(target) as temporary:
                temporary.write_text(str(number))
                together.wait(30)
        except InvalidInputError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert won.count(True) == 1
    assert target.read_text() == str(won.index(True))
    assert [path.name for path in tmp_path.iterdir()] == ["a.ply"]


def test_a_full_disk_is_an_error_of_its_own():
    for number, kind in ((errno.ENOSPC, DiskError), (errno.EACCES, InvalidInputError)):
        with (
            pytest.raises(InvalidInputError, match="cannot write it: ") as caught,
            explained_os_errors("cannot write it"),
        ):
            raise OSError(number, os.strerror(number))
        assert type(caught.value) is kind
