"""The command line: what it writes, what it refuses, what it leaves behind."""

import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffsplat.cli.main import SUBCOMMANDS, main
from diffsplat.core import Splats
from diffsplat.data.training_vocabulary import TrainingVocabulary
from diffsplat.io.splat_formats import read_splats, write_splats
from diffsplat.pipelines import DiffSplatPipeline, unfamiliar_prompts

ROOT = os.geteuid() == 0


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_model(monkeypatch):
    """Fails the test when a model is loaded: a refusal has to come before."""

    def load(*args, **kwargs):
        pytest.fail("the model was loaded before the request was refused")

    monkeypatch.setattr(DiffSplatPipeline, "from_pretrained", load)


@pytest.fixture
def splats(here) -> Path:
    generator = torch.Generator().manual_seed(0)
    quats = torch.randn(50, 4, generator=generator)
    write_splats(
        Splats(
            means=torch.rand(50, 3, generator=generator) - 0.5,
            scales=torch.full((50, 3), 0.05),
            quats=quats / quats.norm(dim=-1, keepdim=True),
            opacities=torch.full((50,), 0.9),
            colors=torch.rand(50, 3, generator=generator),
        ),
        here / "object.ply",
    )
    return here / "object.ply"


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def refused(capsys, *words: str) -> str:
    """Run words that have to be refused; returns the sentence."""
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("diffsplat: error: ")
    return lines[0].removeprefix("diffsplat: error: ")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "no prompt was given"),
        ([""], "the prompt is empty"),
        (["   "], "the prompt is empty"),
        (["x" * 10_000], "the prompt has 10000 characters, expected at most 1000"),
        (["a chair", "--steps", "-3"], "steps is -3"),
        (["a chair", "--steps", "0"], "steps is 0"),
        (["a chair", "--count", "0"], "count is 0"),
        (["a chair", "--seed", "-1"], "seed is -1"),
        (["a chair", "--guidance", "-1"], "guidance is -1.0"),
        (["a chair", "--guidance", "nan"], "guidance is nan"),
        (["a chair", "--elevation", "100"], "elevation is 100"),
        (["a chair", "--prompts", "nosuch.txt"], "'nosuch.txt': there is no such file"),
        (["a chair", "--prompts", "folder"], "'folder': it is a directory"),
        (["--prompts", "blank.txt"], "'blank.txt' holds no prompts"),
        (["--prompts", "picture.ply"], "'picture.ply' is not a text file in UTF-8"),
        (["a chair", "--out", "folder"], "'folder': it is a directory"),
        (["a chair", "-o", "there.ply"], "'there.ply' exists already"),
        (["a chair", "-o", "new.ply", "--preview", "png"], "'new.png' exists already"),
        (["a chair", "-o", "there.ply/chair.ply"], "'there.ply': it is a file, expected a folder"),
        (["a chair", "-o", "there.ply/deep/chair.ply"], "there.ply' is a file, expected a folder"),
        (["a chair", "-o", "chair.obj"], "the suffix '.obj', expected .ply"),
        (["a chair", "-o", "/dev/null"], "/dev/null"),
        (["a chair", "-o", "/proc/chair.ply"], "cannot write"),
        (["a chair", "a taxi", "-o", "/proc/chairs"], "cannot write"),
        (["a chair", "a taxi", "-o", "there.txt"], "'there.txt': it is a file, expected a folder"),
        (["a chair", "-o", "x" * 300 + ".ply"], "xxx"),
    ],
)
def test_generate_refuses_before_the_model_is_loaded(here, small_model, no_model, capsys, words, sentence):
    (here / "folder").mkdir()
    (here / "there.ply").write_text("kept")
    (here / "there.txt").write_text("kept")
    (here / "new.png").write_text("kept")
    (here / "blank.txt").write_text("\n  \n")
    Image.new("RGB", (8, 8), "red").save(here / "picture.ply", format="JPEG")
    before = listing(here)
    assert sentence in refused(capsys, "generate", *words, "--model", str(small_model))
    assert listing(here) == before
    assert (here / "there.ply").read_text() == "kept"


@pytest.mark.skipif(ROOT, reason="root may write everywhere")
def test_folder_without_permission_is_refused(here, small_model, no_model, capsys):
    locked = here / "locked"
    locked.mkdir(mode=0o555)
    for target in ("locked/chair.ply", "locked"):
        words = ["a chair", "a taxi"] if target == "locked" else ["a chair"]
        sentence = refused(capsys, "generate", *words, "-o", target, "--model", str(small_model))
        assert "locked" in sentence
    assert listing(locked) == set()


def test_unknown_model_and_device(here, small_model, capsys):
    assert (
        "unknown model 'maxi', expected one of: mini, sd15, pixart-sigma, sd35m; or a model folder"
        in refused(capsys, "generate", "a chair", "--model", "maxi")
    )
    (here / "empty").mkdir()
    assert "model_index.json is missing" in refused(capsys, "generate", "a chair", "--model", "empty")
    small = str(small_model)
    assert "unknown device 'abacus'" in refused(
        capsys, "generate", "a chair", "--model", small, "--device", "abacus"
    )
    assert "there is no device 'cuda:99'" in refused(
        capsys, "generate", "a chair", "--model", small, "--device", "cuda:99"
    )
    assert listing(here) == {"empty"}


def test_generate_writes_splats_and_contact_sheet(here, small_model, capsys):
    assert main(["generate", "A red  Chair!", "--model", str(small_model), "--preview", "png"]) == 0
    assert capsys.readouterr().out.split() == ["a-red-chair.ply", "a-red-chair.png"]
    assert listing(here) == {"a-red-chair.ply", "a-red-chair.png"}
    assert 0 < read_splats("a-red-chair.ply").count <= 4 * 16 * 16
    with Image.open("a-red-chair.png") as sheet:
        assert sheet.size == (4 * 256, 256)


def test_generate_says_once_what_the_model_does_not_know(
    here, small_model, capsys, monkeypatch, tmp_path_factory
):
    model = shutil.copytree(small_model, tmp_path_factory.mktemp("words") / "model")
    TrainingVocabulary({"chair": 2, "table": 1, "lamp": 1, "bed": 1}, {}).save(model)
    monkeypatch.setattr(unfamiliar_prompts, "FAR", 2.0)  # the encoder of this model is untrained
    assert main(["generate", "a giraffe", "a red chair", "--count", "2", "--model", str(model)]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "trained on nothing like" in line]
    assert len(lines) == 1
    assert "'a giraffe'; the nearest that it knows: " in lines[0]
    assert len(listing(here)) == 4


def test_generate_repeats_to_the_byte(here, small_model):
    common = ["--model", str(small_model), "--seed", "3"]
    assert main(["generate", "a red chair", "-o", "one.ply", *common]) == 0
    assert main(["generate", "a taxi", "a red chair", "-o", "several", *common]) == 0
    assert (here / "one.ply").read_bytes() == (here / "several" / "a-red-chair.ply").read_bytes()
    assert main(["generate", "a red chair", "-o", "one.ply", "--force", *common, "--steps", "1"]) == 0
    assert (here / "one.ply").read_bytes() != (here / "several" / "a-red-chair.ply").read_bytes()


def test_names_of_several_objects(here, small_model):
    (here / "list.txt").write_text("a taxi\n\n a taxi \na Löwe\n", encoding="utf-8")
    common = ["--model", str(small_model), "--steps", "1"]
    assert main(["generate", "a chair", "--prompts", "list.txt", "-o", "out", *common]) == 0
    assert listing(here / "out") == {"a-chair.ply", "a-taxi-1.ply", "a-taxi-2.ply", "a-lowe.ply"}
    assert main(["generate", "a chair", "--count", "2", "--seed", "9", *common]) == 0
    assert {"a-chair-seed9.ply", "a-chair-seed10.ply"} < listing(here)
    assert main(["generate", "a chair", "--count", "2", "-o", "pair.ply", *common]) == 0
    assert {"pair-1.ply", "pair-2.ply"} < listing(here)


def test_the_axis_that_points_up_in_the_file(here, small_model):
    common = ["generate", "a chair", "--model", str(small_model), "--steps", "1"]
    assert main([*common, "-o", "plain.ply"]) == 0
    assert main([*common, "-o", "down.ply", "--up", "-y"]) == 0
    plain, down = Path("plain.ply").read_bytes(), Path("down.ply").read_bytes()
    heights = [float(np.frombuffer(data.split(b"end_header\n")[1][4:8], "<f4")[0]) for data in (plain, down)]
    assert heights[0] == pytest.approx(-heights[1])
    assert read_splats("plain.ply").means.sub(read_splats("down.ply").means).abs().max() < 1e-6


def test_moving_preview(here, small_model):
    words = ["generate", "a chair", "--model", str(small_model), "--steps", "1", "--preview", "gif"]
    assert main(words) == 0
    with Image.open("a-chair.gif") as video:
        assert video.n_frames > 20


def test_interrupt_in_the_middle_leaves_only_finished_objects(here, small_model, monkeypatch, capsys):
    original = DiffSplatPipeline.generate

    def interrupted(self, request, *rest):
        if request.prompts == ("a taxi",):
            raise KeyboardInterrupt
        return original(self, request, *rest)

    monkeypatch.setattr(DiffSplatPipeline, "generate", interrupted)
    words = ["generate", "a chair", "a taxi", "--model", str(small_model), "--steps", "1"]
    assert main(words) == 130
    assert listing(here) == {"a-chair.ply"}
    assert capsys.readouterr().err.strip().splitlines()[-1] == "diffsplat: interrupted"


def test_ctrl_c_of_a_real_process(here, small_model, start_command):
    words = ["generate", "a chair", "--model", str(small_model), "--steps", "100000", "-o", "chair.ply"]
    with start_command(*words) as process:
        assert process.stderr is not None
        seen = b""
        deadline = time.monotonic() + 600
        while b"a chair" not in seen and time.monotonic() < deadline:
            seen += process.stderr.read1(4096)
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=300)
    assert process.returncode == 130
    assert rest.decode().rstrip().endswith("diffsplat: interrupted")
    assert b"Traceback" not in rest
    assert listing(here) == set()


def test_render_view_and_turntable(here, splats, capsys):
    words = ["render", str(splats), "--view", "-20,45", "view.png", "--turntable", "turn.gif"]
    assert main([*words, "--size", "48", "--frames", "5"]) == 0
    assert capsys.readouterr().out.split() == ["view.png", "turn.gif"]
    with Image.open("view.png") as picture:
        assert picture.size == (48, 48)
        assert min(picture.convert("L").getextrema()) < 200
    with Image.open("turn.gif") as video:
        assert (video.n_frames, video.size) == (5, (48, 48))


def test_render_looks_from_the_named_side(here):
    """A red splat on the +X side and a blue one on the -X side: azimuth 90 looks from +X."""
    quats = torch.tensor([[1.0, 0, 0, 0]] * 2)
    colors = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])
    means = torch.tensor([[0.4, 0, 0], [-0.4, 0, 0]])
    write_splats(Splats(means, torch.full((2, 3), 0.1), quats, torch.full((2,), 0.98), colors), "two.ply")
    for azimuth, expected in (("90", "red"), ("-90", "blue")):
        name = f"{expected}.png"
        assert main(["render", "two.ply", "--view", f"0,{azimuth}", name, "--size", "65"]) == 0
        with Image.open(name) as picture:
            red, _, blue = picture.convert("RGB").getpixel((32, 32))
        assert (red > 200 > 100 > blue) == (expected == "red")
        assert (blue > 200 > 100 > red) == (expected == "blue")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nosuch.ply", "--view", "0,0", "out.png"], "'nosuch.ply': there is no such file"),
        (["folder", "--view", "0,0", "out.png"], "'folder': it is a directory"),
        (["picture.ply", "--view", "0,0", "out.png"], "picture.ply"),
        (["object.ply"], "nothing to render was named"),
        (["object.ply", "--view", "0", "out.png"], "the view is '0'"),
        (["object.ply", "--view", "0,1,2", "out.png"], "the view is '0,1,2'"),
        (["object.ply", "--view", "95,0", "out.png"], "the elevation is 95"),
        (["object.ply", "--view", "nan,0", "out.png"], "the elevation is nan"),
        (["object.ply", "--view", "0,inf", "out.png"], "the azimuth is inf"),
        (["object.ply", "--view", "0,0", "out.xyz"], "'out.xyz' has the suffix '.xyz'"),
        (["object.ply", "--view", "0,0", "object.ply"], "'object.ply' exists already"),
        (["object.ply", "--view", "0,0", "folder"], "'folder': it is a directory"),
        (["object.ply", "--turntable", "out.avi"], "'out.avi' has the suffix '.avi'"),
        (["object.ply", "--turntable", "out.gif", "--size", "0"], "the size is 0"),
        (["object.ply", "--turntable", "out.gif", "--frames", "0"], "--frames is 0"),
        (["object.ply", "--turntable", "out.gif", "--fps", "-1"], "frame rate is -1"),
        (["object.ply", "--turntable", "out.gif", "--radius", "0"], "the radius is 0"),
    ],
)
def test_render_refuses(here, splats, capsys, words, sentence):
    (here / "folder").mkdir()
    Image.new("RGB", (8, 8), "red").save(here / "picture.ply", format="JPEG")
    before = listing(here)
    assert sentence in refused(capsys, "render", *words)
    assert listing(here) == before


def test_unknown_subcommand(capsys):
    assert "unknown subcommand 'paint', expected one of: generate" in refused(capsys, "paint")


def test_arguments_that_cannot_be_parsed_exit_with_2(here, capsys):
    assert main(["generate", "a chair", "--steps", "many"]) == 2
    assert listing(here) == set()


def test_help_and_version_come_without_torch():
    script = (
        "import sys; from diffsplat.cli.main import main; "
        "assert main(['--help']) == 0 == main(['--version']); "
        "assert main(['generate', '--help']) == 0; "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^diffsplat \d+\.\d+", done.stdout, re.MULTILINE)
    for word in ("generate", "render", "train", "data", "evaluate", "--guidance", "--preview"):
        assert word in done.stdout


def _with_help(name: str) -> list[list[str]]:
    """A subcommand, and those below it."""
    below = getattr(importlib.import_module(f"diffsplat.cli.{name}"), "COMMANDS", {})
    return [[name], *([name, *command.split(":")] for command in below)]


def test_no_help_names_none_as_a_choice(capsys: pytest.CaptureFixture[str]):
    for words in (words for name in SUBCOMMANDS for words in _with_help(name)):
        assert main([*words, "--help"]) == 0
        assert "None" not in capsys.readouterr().out, words
