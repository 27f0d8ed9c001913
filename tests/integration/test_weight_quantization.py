"""Weights in eight bits on tiny released models."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from diffsplat.cli.main import main
from diffsplat.io.splat_formats import read_splats
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pipelines.weight_quantization import stored_bytes

pytest.importorskip("torchao")


@pytest.mark.parametrize("name", ["sd15", "pixart-sigma", "sd35m"])
def test_eight_bits_are_close_and_take_a_quarter_of_float32(weights: Path, name: str):
    pipe: Any = DiffSplatPipeline.from_pretrained(name, weights=weights)
    pipe.autoencoder.image_size, pipe.autoencoder.latent_size = 64, 8
    pipe.set_progress_bar_config(disable=True)
    pipe.precision = "fp32"
    before = pipe("a red chair", steps=2).latents
    for network in (pipe.denoiser, pipe.text_encoder):
        linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
        assert linear
    full = stored_bytes(pipe.denoiser)
    matrices = sum(m.weight.numel() for m in pipe.denoiser.modules() if isinstance(m, nn.Linear))
    rows = sum(m.weight.shape[0] for m in pipe.denoiser.modules() if isinstance(m, nn.Linear))
    assert pipe.quantize() is pipe
    saved = full - stored_bytes(pipe.denoiser)
    assert 3 * matrices - 8 * rows <= saved <= 3 * matrices  # a scale a row, perhaps a zero point
    after = pipe("a red chair", steps=2).latents
    assert not torch.equal(before, after)
    assert (after - before).abs().mean() < 0.02 * before.abs().mean()


def test_from_the_command_line(weights: Path, tmp_path: Path):
    base = ["generate", "a red chair", "--model", "sd35m", "--weights", str(weights), "--steps", "1", "-o"]
    for name, options in (("a.ply", []), ("b.ply", ["--quantize", "int8"])):
        assert main([*base, str(tmp_path / name), *options]) == 0
    plain, quantized = (read_splats(tmp_path / name).means.mean(dim=0) for name in ("a.ply", "b.ply"))
    assert not torch.equal(plain, quantized)
    assert torch.allclose(plain, quantized, atol=0.02)
