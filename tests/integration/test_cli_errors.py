"""Errors on the command line: what the user can put right, and bugs, which do not look like it."""

import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from diffsplat.cli.main import main
from diffsplat.core import Splats
from diffsplat.errors import DiffSplatError
from diffsplat.geometry import ring_cameras
from diffsplat.io.splat_formats import write_splats
from diffsplat.pipelines import DiffSplatPipeline


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of temporary files, and the one to work in."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


@pytest.fixture
def splats(logs: Path) -> Path:
    """A file of 100 splats."""
    ones = torch.ones(100)
    quats = torch.tensor([1.0, 0, 0, 0]).expand(100, 4)
    write_splats(
        Splats(torch.rand(100, 3), ones.expand(3, 100).T * 0.1, quats, ones, torch.rand(100, 3)), "a.ply"
    )
    return Path("a.ply")


@pytest.fixture
def bug(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Exception:
    """An error that the pipeline raises and nobody expects."""

    def broken(*_: object) -> None:
        raise request.param

    monkeypatch.setattr(DiffSplatPipeline, "generate", broken)
    return request.param


BUGS = [
    KeyError("weights"),
    ValueError("shapes\ndiffer"),
    RuntimeError("oddity"),
    OSError(5, "broken"),
    ImportError(),
]


@pytest.mark.parametrize("bug", BUGS, indirect=True, ids=lambda bug: type(bug).__name__)
def test_a_bug_is_one_sentence_and_a_log_file(
    bug: Exception, logs: Path, small_model: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["generate", "a chair", "--model", str(small_model)]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("diffsplat:")]
    start = f"diffsplat: internal error: {type(bug).__name__}: "
    found = re.fullmatch(re.escape(start) + r".*; the traceback is in (\S+), --debug prints it", line)
    assert found, line
    log = Path(found[1])
    assert list(logs.glob("*.log")) == [log]
    assert log.stat().st_mode & 0o077 == 0
    text = log.read_text()
    assert "Traceback (most recent call last)" in text
    assert "in broken" in text
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("bug", BUGS[:1], indirect=True)
@pytest.mark.parametrize("position", [0, 1, 2, 4])
def test_debug_prints_the_traceback(
    bug: Exception, position: int, logs: Path, small_model: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["generate", "a chair", "--model", str(small_model)]
    assert main([*words[:position], "--debug", *words[position:]]) == 1
    errors = capsys.readouterr().err
    assert "Traceback (most recent call last)" in errors
    assert errors.splitlines()[-1] == "diffsplat: internal error: KeyError: 'weights'"
    assert list(logs.iterdir()) == []


@pytest.mark.parametrize("bug", BUGS[:1], indirect=True)
def test_without_a_place_for_the_log_the_traceback_is_printed(
    bug: Exception,
    logs: Path,
    small_model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    assert main(["generate", "a chair", "--model", str(small_model)]) == 1
    errors = capsys.readouterr().err
    assert "Traceback (most recent call last)" in errors
    assert errors.splitlines()[-1] == "diffsplat: internal error: KeyError: 'weights'"


def test_an_error_of_the_user_has_its_traceback_with_debug_only(
    logs: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["render", "none.ply", "--view", "0,0", "a.png"]) == 2
    sentence = capsys.readouterr().err
    assert sentence == "diffsplat: error: cannot read 'none.ply': there is no such file\n"
    assert main(["render", "none.ply", "--view", "0,0", "a.png", "--debug"]) == 2
    errors = capsys.readouterr().err
    assert "Traceback (most recent call last)" in errors
    assert errors.endswith(sentence)
    assert list(logs.iterdir()) == []


@pytest.mark.parametrize("debug", [False, True])
def test_an_option_that_a_configuration_refuses_is_a_sentence(
    capsys: pytest.CaptureFixture[str], *, debug: bool
):
    """A sentence for nested configurations as for any other error of the user."""
    command = ["train", "elevation-mini", "--data", "a", "--out", "b", "--optim.lr", "-1"]
    assert main(command + ["--debug"] * debug) == 2
    errors = capsys.readouterr().err
    sentence = "diffsplat: error: optim.lr is -1.0, expected a number above 0\n"
    assert errors.endswith(sentence)
    assert (errors == sentence) != debug


def test_an_unknown_option_is_named_once(capsys: pytest.CaptureFixture[str]):
    assert main(["train", "list", "--bogus"]) == 2
    assert capsys.readouterr().err.count("Unrecognized options: --bogus") == 1


def test_what_follows_two_dashes_is_no_option(capsys: pytest.CaptureFixture[str]):
    assert main(["--", "--debug"]) == 2
    assert "unknown subcommand '--'" in capsys.readouterr().err


def test_a_disk_that_fails_on_reading_is_a_sentence(logs: Path, capsys: pytest.CaptureFixture[str]):
    """The first page of a process's memory is a regular file that cannot be read."""
    Path("memory.ply").symlink_to("/proc/self/mem")
    assert main(["convert", "memory.ply", "a.spz"]) == 2
    assert capsys.readouterr().err == "diffsplat: error: cannot read 'memory.ply': Input/output error\n"


def test_the_system_refuses_a_path_that_was_named(logs: Path, capsys: pytest.CaptureFixture[str]):
    name = "x" * 300
    for words in (["models", "list", "--weights", name], ["models", "list", f"--weights={name}"]):
        assert main(words) == 2
        assert capsys.readouterr().err.startswith(f"diffsplat: error: File name too long: '{name}")
    assert list(logs.iterdir()) == []


@pytest.mark.parametrize(
    "command", [["convert", "a.ply", "b.ply"], ["encode", "a red chair", "-o", "b.safetensors"]]
)
def test_a_full_disk_is_a_sentence(splats: Path, small_model: Path, command: list[str]):
    model = ["--model", str(small_model)] if command[0] == "encode" else []
    done = subprocess.run(
        [sys.executable, "-m", "diffsplat.cli.main", *command, *model],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1] == f"diffsplat: error: cannot write '{command[-1]}': File too large"
    assert list(Path().iterdir()) == [splats]


def test_a_bad_size_in_python_is_an_error_of_the_user(small_pipeline: DiffSplatPipeline):
    output = small_pipeline("a chair", steps=1)
    for size in (0, -1):
        with pytest.raises(DiffSplatError, match=f"size is {size}"):
            output.render(size=size)
        with pytest.raises(DiffSplatError, match=f"size is {size}"):
            ring_cameras(size=size)


@pytest.mark.parametrize("arguments", [{"steps": 0}, {"count": 0}, {"seed": -1}, {"guidance": float("nan")}])
def test_bad_arguments_in_python_are_errors_of_the_user(small_pipeline: DiffSplatPipeline, arguments: dict):
    with pytest.raises(DiffSplatError):
        small_pipeline("a chair", **arguments)
