"""Runs of every kind of stage that are killed at random end as the run that nobody killed: curve, weights, averages."""

import random
import time
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.numpy import load_file

from diffsplat.cli.main import main
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.models.splat_vae import SplatVAE
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.stages.denoiser_configs import SmallUNetConfig
from support.forked_training import fork_server, start_training
from support.launched_processes import curve

SIZE = 32
WIDTHS = (16, 32)
UNET = "--widths 16 32 --head-width 16 --sampled-objects 0"
AUTOENCODER = "--widths 4 8 --latent-channels 3 --norm-groups 2"
SAMPLES = "--sampled-objects 1 --sample-steps 1"
OPTIONS = {
    "reconstruction-mini": "--dim 48 --blocks 1 --source.novel-views 1",
    "image-autoencoder-small": f"{AUTOENCODER} --crop 16",
    "autoencoder-small": f"{AUTOENCODER} --image-size {SIZE} --source.novel-views 1 --rendering-from 5 --crop 16",
    "elevation-small": "--input-size 32 --stages 2 --hidden 8",
    "diffusion-mini": f"--width 64 --layers 1 --patch 1 --channels 6 --condition-channels 12 {SAMPLES}",
    "refiner-mini": f"--width 64 --layers 1 --patch 1 --channels 6 {SAMPLES}",
    "diffusion-small": f"{UNET} --image --source.novel-views 0",
    "diffusion-small --rendering-loss": f"{UNET} --source.novel-views 1",
    "controlnet-depth-small": "--sampled-objects 0 --source.novel-views 0",
}
KILLS = dict.fromkeys(OPTIONS, 2) | dict.fromkeys(("reconstruction-mini", "diffusion-mini"), 3)
"""Twenty in all."""
MANY_KILLS = 20
STEPS_A_KILL = 6
LATENTS = ("diffusion-mini", "refiner-mini")
SHARED = (
    "--device cpu --precision fp32 --tracker none --log-every 2 --evaluate-every 7 --checkpoint-steps 2 "
    "--optim.warmup-steps 5 --source.evaluation-objects 1 --source.batch-size 1"
)


@dataclass(frozen=True)
class Given:
    """Folders that the stages read."""

    data: Path
    networks: Path

    def command(self, recipe: str, out: Path, steps: int) -> list[str]:
        """A training of some steps."""
        name, *variant = recipe.split()
        words = ["train", name, *variant, "--data", str(self.data), "--out", str(out), "--steps", str(steps)]
        needs = {
            "reconstructor": "reconstructor",
            "image-autoencoder": "image-autoencoder",
            "denoiser": "denoiser",
            "condition-encoder": "condition",
        }
        needs["autoencoder"] = "components" if recipe in LATENTS else "autoencoder"
        for need, folder in needs.items():
            words += [f"--{need}", str(self.networks / folder)]
        return [*words, *OPTIONS[recipe].split(), *SHARED.split()]


@pytest.fixture(scope="module")
def given(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Given:
    """Networks with random weights, and an autoencoder of a few components."""
    root = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    GSRecon(dim=32, blocks=1, heads=1, patch=16, pixel_grid="center").save_pretrained(root / "reconstructor")
    vae = {
        "block_out_channels": (4, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 2,
    }
    AutoencoderKL(**vae).save_pretrained(root / "image-autoencoder")
    autoencoder = SplatVAE(vae, (), (), SIZE, pixel_grid="center")
    autoencoder.save_pretrained(root / "autoencoder")
    unet = SmallUNetConfig(widths=WIDTHS, head_width=16).open(StageFolders((), root), autoencoder, False)
    unet.save_pretrained(root / "denoiser")  # type: ignore[attr-defined]
    folders = ["--data", str(data), "--reconstructor", str(root / "reconstructor"), "--device", "cpu"]
    fits = {
        "components": "autoencoder-mini --latent-channels 8 --evaluation-objects 0",
        "condition": "condition-mini --channels 8 --component-views 8 --evaluation-views 2",
    }
    for name, words in fits.items():
        assert main(["train", *words.split(), *folders, "--out", str(root / "fit" / name)]) == 0
        (root / "fit" / name / "weights").rename(root / name)
    return Given(data, root)


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    """With everything imported, so that a first training starts as fast as the others."""
    server = fork_server()
    finish(start_training(server, ["train", "list"]))
    return server


def newest(out: Path) -> int:
    return max((int(path.name[5:]) for path in out.glob("checkpoints/step-*")), default=0)


def wait_for_checkpoint(process: ForkServerProcess, out: Path, before: int) -> None:
    deadline = time.monotonic() + 300
    while process.is_alive() and newest(out) <= before and time.monotonic() < deadline:
        time.sleep(0.002)


def finish(process: ForkServerProcess) -> None:
    process.join(1200)  # also compiles the rasterizer where nothing did so before
    assert process.exitcode == 0


def kill_after(process: ForkServerProcess, seconds: float) -> bool:
    """Whether it was still running then."""
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode != 0


def kill_at_random(server: ForkServerContext, given: Given, recipe: str, root: Path, kills: int) -> int:
    """Train once without and once with kills; how many of these met a running training.

    The first comes while the networks are read and caches are made, the others after some steps of training.
    """
    steps = STEPS_A_KILL * (kills + 1)
    started = time.monotonic()
    process = start_training(server, given.command(recipe, root / "whole", steps))
    wait_for_checkpoint(process, root / "whole", 0)
    ready = time.monotonic()
    finish(process)
    loop = time.monotonic() - ready
    chance, met = random.Random(recipe), 0
    killed, command = root / "killed", given.command(recipe, root / "killed", steps)
    for number in range(kills):
        before = newest(killed)
        process = start_training(server, command)
        if number:
            wait_for_checkpoint(process, killed, before)
        met += kill_after(process, chance.uniform(0, loop / (kills + 1) if number else ready - started))
    finish(start_training(server, command))
    return met


def assert_same(whole: Path, killed: Path) -> None:
    assert len(curve(whole)) > 4
    assert curve(killed) == curve(whole)
    (last,) = {max((out / "checkpoints").iterdir()).name for out in (whole, killed)}
    for group in ("weights", "ema", "optimizer"):
        first, second = (
            load_file(out / "checkpoints" / last / f"{group}.safetensors") for out in (whole, killed)
        )
        assert first.keys() == second.keys()
        assert all(first[key].tobytes() == second[key].tobytes() for key in first)


@pytest.mark.parametrize("recipe", OPTIONS)
def test_kills_leave_no_trace(recipe: str, given: Given, server: ForkServerContext, tmp_path: Path) -> None:
    assert kill_at_random(server, given, recipe, tmp_path, KILLS[recipe]) >= 1
    assert_same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", OPTIONS)
def test_many_kills_leave_no_trace(
    recipe: str, given: Given, server: ForkServerContext, tmp_path: Path
) -> None:
    assert kill_at_random(server, given, recipe, tmp_path, MANY_KILLS) >= MANY_KILLS // 2
    assert_same(tmp_path / "whole", tmp_path / "killed")
