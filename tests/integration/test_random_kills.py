"""Runs that are killed twenty times at random end with the curve and the weights of the run that nobody killed."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from support.launched_processes import curve

KILLS = 20
OPTIONS = {
    "reconstruction-mini": "--dim 48 --blocks 1 --steps 240 --source.batch-size 1 --source.novel-views 1",
    "diffusion-mini": "--width 64 --layers 1 --patch 1 --channels 6 --sampled-objects 1 --sample-steps 2 --steps 240 "
    "--source.batch-size 2",
}
SHARED = (
    "--device cpu --precision fp32 --tracker none --log-every 5 --evaluate-every 60 --checkpoint-steps 7 "
    "--optim.warmup-steps 5 --source.evaluation-objects 1"
)


def train(recipe: str, data: Path, out: Path, networks: Path | None) -> list[str]:
    words = [
        sys.executable,
        "-m",
        "diffsplat.cli.main",
        "train",
        recipe,
        "--data",
        str(data),
        "--out",
        str(out),
    ]
    if networks is not None:
        for need in ("reconstructor", "autoencoder"):
            words += [f"--{need}", str(networks / need / "weights")]
    return [*words, *OPTIONS[recipe].split(), *SHARED.split()]


def newest(out: Path) -> int:
    return max((int(path.name[5:]) for path in out.glob("checkpoints/step-*")), default=0)


def kill_at_random(command: list[str], out: Path, chance: random.Random) -> bool:
    """Start, wait until it trains, kill after a random moment; whether it was still running."""
    before = newest(out)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while process.poll() is None and newest(out) <= before and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL


@pytest.fixture(scope="module")
def networks(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reconstructor and an autoencoder of a few steps."""
    root = tmp_path_factory.mktemp("networks")
    made = train("reconstruction-mini", data, root / "reconstructor", None)
    subprocess.run([*made, "--steps", "2"], check=True, capture_output=True)
    fit = "--latent-channels 24 --evaluation-objects 0 --device cpu --reconstructor"
    words = [*made[:4], "autoencoder-mini", "--data", str(data), "--out", str(root / "autoencoder")]
    subprocess.run(
        [*words, *fit.split(), str(root / "reconstructor" / "weights")], check=True, capture_output=True
    )
    return root


@pytest.mark.slow
@pytest.mark.parametrize("recipe", OPTIONS)
def test_twenty_kills_leave_no_trace(recipe: str, data: Path, networks: Path, tmp_path: Path) -> None:
    needed = networks if recipe.startswith("diffusion") else None
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(train(recipe, data, whole, needed), check=True, capture_output=True)
    chance = random.Random(0)
    kills = sum(kill_at_random(train(recipe, data, killed, needed), killed, chance) for _ in range(KILLS))
    assert kills >= KILLS // 2
    subprocess.run(train(recipe, data, killed, needed), check=True, capture_output=True)
    assert curve(killed) == curve(whole)
    for group in ("weights", "ema", "optimizer"):
        file = f"checkpoints/step-00000240/{group}.safetensors"
        first, second = load_file(whole / file), load_file(killed / file)
        assert first.keys() == second.keys()
        assert all(first[key].tobytes() == second[key].tobytes() for key in first)
