"""Two processes train what one trains, make everything once, and survive the death of one of them."""

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffsplat.cli.main import main
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.training.run_lock import locked_run
from diffsplat.training.run_processes import Processes
from support.launched_processes import curve, run_processes, sentences, start_processes

SCRIPT = '''
import os, sys, time
from pathlib import Path
import torch
from torch import nn
from diffsplat.cli.train import _report
from diffsplat.training.run_processes import Processes
from diffsplat.training.trainer_config import EmaConfig, OptimConfig, TrainerConfig
from diffsplat.training.stages.stage_interface import Losses, Report, Stage
from diffsplat.training.trainer import Trainer


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Dropout(0.2))])
        self.last = nn.Linear(32, 8)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.last(x)


class Noisy(Stage):
    """Dropout, noise, and a batch without a finite loss."""

    shardable = True

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = Network()

    def forward(self, batch, step):
        x, y = batch
        loss = (self.network(x + 0.1 * torch.randn_like(x)) - y).square().mean()
        return Losses(loss * float("nan") if float(x[0, 0]) > 1.8 else loss, {"seen": x.mean().detach()})

    def evaluate(self, batch):
        return Report({"mse": (self.network(batch[0]) - batch[1]).square().mean().item()})

    def save_pretrained(self, directory):
        torch.save((type(self.network).__name__, self.network.state_dict()), directory / "weights.pt")


class Source:
    def batch(self, step):
        time.sleep(DELAY)
        x = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
        return x, x.roll(1, -1)

    def evaluation(self):
        return [self.batch(10**6 + number) for number in range(3)]


out, accumulation, DELAY = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
out.mkdir(exist_ok=True)
(out / ("pid-" + os.environ.get("RANK", "0"))).write_text(str(os.getpid()))
torch.set_num_threads(1)
config = TrainerConfig(
    steps=60, seed=3, precision="fp32", device="cpu", accumulation=accumulation, log_every=4, evaluate_every=20,
    checkpoint_minutes=0.003, optim=OptimConfig(lr=1e-2, warmup_steps=10), tracker="none",
    sharded="sharded" in sys.argv, ema=EmaConfig(precision="bf16" if "bf16" in sys.argv else "fp32"),
)


def train():
    with Processes("cpu").explained_loss():
        return Trainer(Noisy(), Source(), config, out).run().status


_report(train, out)
'''
FLOAT_ROUNDING = 2e-6
HALF_ROUNDING = 1e-4
"""Latents are stored in half precision, where float rounding of a grid may tip a number over."""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "train.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="module")
def two(script: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run of two processes."""
    out = tmp_path_factory.mktemp("two")
    code, _, errors = run_processes(2, str(script), str(out), "1", "0")
    assert code == 0, errors
    return out


def once_checkpointed(out: Path, act: Callable[[], None]) -> Callable[[], None]:
    """Waits for checkpoints of a run, then acts."""

    def wait() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and len(list(out.glob("checkpoints/step-*"))) < 2:
            time.sleep(0.02)
        act()

    return wait


def kill(out: Path, rank: int) -> None:
    os.kill(int((out / f"pid-{rank}").read_text()), signal.SIGKILL)


def assert_close(
    first: list[dict[str, float]], second: list[dict[str, float]], tolerance: float = FLOAT_ROUNDING
) -> None:
    assert [entry.keys() for entry in first] == [entry.keys() for entry in second]
    for one, other in zip(first, second, strict=True):
        assert one == {
            name: value if isinstance(value, str) else pytest.approx(value, rel=tolerance, abs=1e-9)
            for name, value in other.items()
        }


def test_two_processes_train_what_one_accumulates(script: Path, two: Path, tmp_path: Path) -> None:
    code, _, errors = run_processes(1, str(script), str(tmp_path), "2", "0")
    assert code == 0, errors
    assert len(curve(two)) == 18
    assert curve(two)[-2]["skipped"] > 0
    assert_close(curve(two), curve(tmp_path))


def test_accelerate_starts_processes_on_the_cpu_too(script: Path, two: Path, tmp_path: Path) -> None:
    code, _, errors = run_processes(2, str(script), str(tmp_path), "1", "0", launcher="accelerate")
    assert code == 0, errors
    assert curve(tmp_path) == curve(two)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_run_with_a_sentence_and_the_run_resumes(
    script: Path, two: Path, tmp_path: Path, rank: int
) -> None:
    slow = (str(script), str(tmp_path), "1", "0.05")
    code, _, errors = run_processes(
        2, *slow, during=once_checkpointed(tmp_path, lambda: kill(tmp_path, rank))
    )
    assert code != 0
    (sentence,) = sentences(errors)
    assert "another process of this run has ended; start the same command again" in sentence
    assert not (tmp_path / "weights").exists()
    if rank == 0:
        code, _, errors = run_processes(1, str(script), str(tmp_path), "1", "0")
        assert code != 0
        assert "started with another configuration: processes was 2 and is 1. Expected the same" in errors
    code, _, errors = run_processes(2, str(script), str(tmp_path), "1", "0")
    assert code == 0, errors
    assert curve(tmp_path) == curve(two)


def test_a_sharded_network_trains_like_whole_ones(script: Path, two: Path, tmp_path: Path) -> None:
    """Curve and files are those of processes that have all weights each, through the death of one of them too."""
    run = (str(script), str(tmp_path), "1")
    kill_one = once_checkpointed(tmp_path, lambda: kill(tmp_path, 1))
    code, _, errors = run_processes(2, *run, "0.05", "sharded", during=kill_one)
    assert code != 0
    assert "another process of this run has ended" in errors
    code, _, errors = run_processes(2, *run, "0", "sharded")
    assert code == 0, errors
    assert_close(curve(tmp_path), curve(two))
    names, weights = zip(
        *(torch.load(out / "weights" / "weights.pt") for out in (tmp_path, two)), strict=True
    )
    assert names == ("Network", "Network")
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[1].items():
        assert type(weights[0][name]) is torch.Tensor
        torch.testing.assert_close(weights[0][name], tensor, rtol=1e-5, atol=1e-7)
    groups = [{path.name for path in out.glob("checkpoints/*60/*")} for out in (tmp_path, two)]
    assert groups[0] == groups[1]


def test_averages_of_a_sharded_network_may_be_in_half_precision(
    script: Path, two: Path, tmp_path: Path
) -> None:
    code, _, errors = run_processes(2, str(script), str(tmp_path), "1", "0", "sharded", "bf16")
    assert code == 0, errors
    (half,) = tmp_path.glob("checkpoints/*60/ema.safetensors")
    averages = load_file(half)
    assert {tensor.dtype for tensor in averages.values()} == {torch.bfloat16}
    expected = torch.load(two / "weights" / "weights.pt")[1]
    for name, tensor in averages.items():
        error = (tensor.float() - expected[name]).norm() / expected[name].norm()
        assert 0 < error < 0.02


def test_an_interrupted_launcher_leaves_a_checkpoint_of_the_last_step(script: Path, tmp_path: Path) -> None:
    with start_processes(2, str(script), str(tmp_path), "1", "0.05") as launcher:
        once_checkpointed(tmp_path, lambda: launcher.send_signal(signal.SIGTERM))()
        _, errors = launcher.communicate(timeout=120)
    assert launcher.returncode != 0
    assert sentences(errors) == ["diffsplat: interrupted; the same command goes on from here"]
    newest = max((tmp_path / "checkpoints").iterdir())
    state = json.loads((newest / "state.json").read_text())
    assert state["step"] > max(entry["step"] for entry in curve(tmp_path)) - 4


STAGES = {
    "reconstruction": "--dim 48 --blocks 1 --steps 3 --log-every 1 --source.batch-size 2 --source.evaluation-objects 1",
    "autoencoder": "--latent-channels 24 --evaluation-objects 1",
    "condition": "--component-views 8 --evaluation-views 2",
    "diffusion": "--width 64 --layers 1 --patch 1 --channels 6 --sampled-objects 1 --sample-steps 2 --steps 3 "
    "--log-every 1 --source.batch-size 2 --source.evaluation-objects 1",
    "elevation": "--steps 2 --source.batch-size 1 --source.views 2 --source.evaluation-objects 1",
}


def chain_command(data: Path, out: Path, accumulation: int) -> list[str]:
    words = ["train", "mini", "--data", str(data), "--out", str(out), "--sampling.refined-below", "0"]
    for stage, options in STAGES.items():
        words += [*options.replace("--", f"--{stage}.").split(), f"--{stage}.device", "cpu"]
        if stage not in ("autoencoder", "condition"):
            words += [f"--{stage}.accumulation", str(accumulation)]
    return words


def test_two_processes_train_a_chain(data: Path, tmp_path: Path) -> None:
    """Networks and the model folder are made once; the losses are those of one process."""
    two, one = tmp_path / "two", tmp_path / "one"
    command = ("-m", "diffsplat.cli.main", *chain_command(data, two, 1))
    code, output, errors = run_processes(2, *command)
    assert code == 0, errors
    assert output.split() == [str(two / "model")]
    assert DiffSplatPipeline.from_pretrained(two / "model")("a box", seed=0, steps=2).splats.count > 0
    assert main(chain_command(data, one, 2)) == 0
    for stage in ("reconstruction", "diffusion"):
        assert_close(
            [entry for entry in curve(two / stage) if entry["kind"] == "train"],
            [entry for entry in curve(one / stage) if entry["kind"] == "train"],
            FLOAT_ROUNDING if stage == "reconstruction" else HALF_ROUNDING,
        )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--bogus", "Unrecognized options: --bogus"),
        ("--optim.lr -1", "diffsplat: error: optim.lr is -1.0, expected a number above 0"),
        ("--data missing", "diffsplat: error: missing holds no objects-*.parquet"),  # the main process looks
        ("--optim.lr-factors nothing 1", "diffsplat: error: optim.lr_factors is 'nothing'"),  # all look
    ],
)
def test_an_error_of_the_user_is_one_sentence_of_two_processes(
    data: Path, tmp_path: Path, options: str, sentence: str
) -> None:
    command = f"train elevation-mini --data {data} --out {tmp_path} --device cpu {options}"
    code, _, errors = run_processes(2, "-m", "diffsplat.cli.main", *command.split())
    assert code != 0
    assert errors.count(sentence) == 1
    assert errors.count("diffsplat: error: ") == sentence.count("diffsplat: error: ")
    codes = set(re.findall(r"exitcode  : (-?\d+)", errors))
    assert "2" in codes
    assert codes <= {"2", "-15"}  # the launcher ends what is still there


def test_a_second_run_of_two_processes_is_refused_in_one_sentence(data: Path, tmp_path: Path) -> None:

    with locked_run(tmp_path, Processes("auto")):
        code, _, errors = run_processes(2, "-m", "diffsplat.cli.main", *chain_command(data, tmp_path, 1))
    assert code != 0
    (sentence,) = sentences(errors)
    assert "another training is running" in sentence
