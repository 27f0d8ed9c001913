"""A run that is killed and continued is, bit for bit, the run that nobody killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from safetensors.numpy import load_file

SCRIPT = '''
import sys, time
from pathlib import Path
import torch
from torch import nn
from diffsplat.training.trainer_config import EmaConfig, OptimConfig, TrainerConfig
from diffsplat.training.stages.stage_interface import Losses, Report, Stage
from diffsplat.training.trainer import Trainer


class Noisy(Stage):
    """Everything that could go out of step: dropout, running statistics, noise, steps that are skipped."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(
            nn.Linear(8, 32), nn.BatchNorm1d(32), nn.GELU(), nn.Dropout(0.2), nn.Linear(32, 32), nn.GELU(),
            nn.Linear(32, 8),
        )

    def forward(self, batch, step):
        x, y = batch
        loss = (self.network(x + 0.1 * torch.randn_like(x)) - y).square().mean()
        return Losses(loss * float("nan") if float(x[0, 0]) > 1.8 else loss)

    def evaluate(self, batch):
        return Report({"mse": (self.network(batch[0]) - batch[1]).square().mean().item()})

    def save_pretrained(self, directory):
        (directory / "done").touch()


class Source:
    def batch(self, step):
        time.sleep(DELAY)
        if DELAY and step == 290:  # of 300: the run that is to be killed does not end by itself
            time.sleep(600)
        x = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
        return x, x.roll(1, -1)

    def evaluation(self):
        return [self.batch(10**6)]


out, DELAY = Path(sys.argv[1]), float(sys.argv[2])
torch.set_num_threads(1)
config = TrainerConfig(
    steps=150, seed=3, precision="fp32", device="cpu", accumulation=2,
    log_every=4, evaluate_every=30, checkpoint_minutes=0.003,
    optim=OptimConfig(name="muon", lr=1e-2, warmup_steps=10), ema=EmaConfig(decay=0.9),
)
print(Trainer(Noisy(), Source(), config, out).run().status)
'''


def _command(script: Path, out: Path, delay: float) -> list[str]:
    return [sys.executable, str(script), str(out), str(delay)]


def _run(script: Path, out: Path) -> None:
    done = subprocess.run(_command(script, out, 0.0), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "finished"


def _curve(out: Path) -> list[dict[str, float]]:
    """Metrics without the clock."""
    clock = ("seconds", "samples_per_second")
    entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in entry.items() if key not in clock} for entry in entries]


def _kill_in_the_middle(command: list[str], out: Path) -> int:
    """SIGKILL after some checkpoints; the number of the last one that is whole."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            steps = [int(path.name[5:]) for path in (out / "checkpoints").glob("step-*")]
            if steps and max(steps) >= 40:
                break
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    return max(int(path.name[5:]) for path in (out / "checkpoints").glob("step-*"))


def test_killed_and_continued_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _run(script, whole)
    assert 40 <= _kill_in_the_middle(_command(script, killed, 0.005), killed) < 150
    assert not (killed / "weights").exists()
    _run(script, killed)
    assert len(_curve(whole)) > 37
    assert _curve(killed) == _curve(whole)
    assert _curve(whole)[-2]["skipped"] > 0
    for group in ("weights", "ema", "optimizer"):
        file = f"checkpoints/step-00000150/{group}.safetensors"
        first, second = load_file(whole / file), load_file(killed / file)
        assert first.keys() == second.keys()
        assert all(first[key].tobytes() == second[key].tobytes() for key in first)
