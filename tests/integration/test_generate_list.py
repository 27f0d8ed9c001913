"""``generate --sharded`` on the command line: the same splats as one by one, and options that do not fit."""

import json
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

from pyarrow import parquet

from diffsplat.cli.main import main
from diffsplat.core.splats import SPLAT_FIELDS
from diffsplat.io.splat_formats import read_splats


@pytest.fixture
def prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "prompts.txt"
    path.write_text("a red chair\n\na blue mug\n")
    return path


def test_objects_are_those_of_single_commands(prompts: Path, capfd: pytest.CaptureFixture[str]):
    options = ["--steps", "1", "--seed", "4"]
    assert main(["generate", "--prompts", str(prompts), "-o", "out", "--sharded", *options]) == 0
    assert capfd.readouterr().out == "out/index\n"
    assert main(["generate", "a blue mug", "-o", "mug.ply", *options]) == 0
    rows = parquet.read_table("out/index").to_pylist()
    assert [(row["prompt"], row["seed"], row["model"]) for row in rows] == [
        ("a red chair", 4, "mini"),
        ("a blue mug", 4, "mini"),
    ]
    made, single = read_splats(Path("out") / rows[1]["file"]), read_splats("mug.ply")
    for name in SPLAT_FIELDS:
        assert bool((getattr(made, name) == getattr(single, name)).all()), name
    assert json.loads(Path("out/run.json").read_text())["revision"] == rows[0]["revision"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sharded"], "expected --prompts FILE and --output FOLDER"),
        (["a chair", "--prompts", "prompts.txt", "-o", "out", "--sharded"], "and no prompt"),
        (["--prompts", "prompts.txt", "-o", "out", "--sharded", "--preview", "png"], "takes no images"),
        (["--prompts", "prompts.txt", "-o", "out", "--sharded", "--format", ".obj"], "the format is '.obj'"),
        (["--prompts", "prompts.txt", "-o", "out", "--sharded", "--part", "0"], "expected at least 1"),
        (["a chair", "--ray", "auto"], "without --sharded"),
        (["--prompts", "prompts.txt", "-o", "prompts.txt", "--sharded"], "it is a file"),
    ],
)
def test_options_that_do_not_fit(
    prompts: Path, options: list[str], words: str, capfd: pytest.CaptureFixture[str]
):
    assert main(["generate", *options]) == 2
    error = capfd.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert [path.name for path in prompts.parent.iterdir()] == ["prompts.txt"]
