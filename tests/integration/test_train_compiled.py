"""Training through ``torch.compile``."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diffsplat.training.stages.stage_interface import Losses, Report, Stage
from diffsplat.training.trainer import Trainer
from diffsplat.training.trainer_config import OptimConfig
from support.short_training import SHORT_TRAINER


class Layers(nn.Sequential):
    """Layers that note whether they are compiled."""

    compiling = False

    def forward(self, vectors: Tensor) -> Tensor:
        self.compiling = torch.compiler.is_compiling()
        return super().forward(vectors)


class Perceptron(Stage):
    """Two layers that learn to turn a vector by one place."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Layers(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, batch: Tensor, _step: int, /) -> Losses:
        return Losses((self.network(batch) - batch.roll(1, -1)).square().mean())

    def evaluate(self, batch: Tensor) -> Report:
        return Report({"error": float((self.network(batch) - batch.roll(1, -1)).square().mean())})

    def save_pretrained(self, directory: Path, /) -> None:
        torch.save(self.network.state_dict(), directory / "weights.pt")


class Source:
    def batch(self, step: int) -> Tensor:
        return torch.randn(16, 8, generator=torch.Generator().manual_seed(step))

    def evaluation(self) -> list[Tensor]:
        return [self.batch(10**6)]


def figures(out: Path, *, compiled: bool) -> list[float]:
    """Losses of a few steps, and the error of the averaged weights."""
    torch.manual_seed(0)
    config = replace(SHORT_TRAINER, steps=6, compile=compiled, optim=OptimConfig(lr=0.1, warmup_steps=1))
    stage = Perceptron()
    assert Trainer(stage, Source(), config, out).run().status == "finished"
    assert stage.network.compiling == compiled
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] if line["kind"] == "train" else line["error"] for line in lines]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_has_the_same_losses(tmp_path: Path) -> None:
    plain = figures(tmp_path / "plain", compiled=False)
    compiled = figures(tmp_path / "compiled", compiled=True)
    torch.compiler.reset()
    assert compiled == pytest.approx(plain, rel=1e-5)
    assert plain[0] != pytest.approx(plain[5], rel=1e-2)
    names = [torch.load(tmp_path / run / "weights" / "weights.pt").keys() for run in ("plain", "compiled")]
    assert names[0] == names[1]
