"""Weights in eight and four bits on tiny released models."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from diffsplat.cli.main import main
from diffsplat.io.splat_formats import read_splats
from diffsplat.pipelines import DiffSplatPipeline

PACKAGES = {"int8": "torchao", "nf4": "bitsandbytes"}


def stored_bytes(network: nn.Module) -> int:
    """Memory of a network's weights and buffers."""
    return sum(_bytes(tensor) for tensor in [*network.parameters(), *network.buffers()])


def _bytes(tensor: Any) -> int:
    """Of a tensor, or of the parts that a quantised one is made of."""
    if (state := getattr(tensor, "quant_state", None)) is not None:  # of bitsandbytes
        return tensor.nbytes + sum(part.nbytes for part in state.as_dict(packed=True).values())
    if hasattr(tensor, "__tensor_flatten__") and type(tensor).__name__ not in ("Parameter", "Tensor"):
        names, _ = tensor.__tensor_flatten__()
        return sum(_bytes(getattr(tensor, name)) for name in names)
    return tensor.nbytes


def opened(weights: Path, name: str) -> Any:
    """A released model for views of 64 pixels, computed in float32."""
    pipe: Any = DiffSplatPipeline.from_pretrained(name, weights=weights)
    pipe.autoencoder.image_size, pipe.autoencoder.latent_size = 64, 8
    pipe.set_progress_bar_config(disable=True)
    pipe.precision = "fp32"
    return pipe


@pytest.mark.parametrize("name", ["sd15", "pixart-sigma", "sd35m"])
def test_eight_bits_are_close_and_take_a_quarter_of_float32(weights: Path, name: str):
    pytest.importorskip("torchao")
    pipe = opened(weights, name)
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


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_from_the_command_line(weights: Path, tmp_path: Path, kind: str):
    pytest.importorskip(PACKAGES[kind])
    base = ["generate", "a red chair", "--model", "sd35m", "--weights", str(weights), "--steps", "1", "-o"]
    for name, options in (("a.ply", []), ("b.ply", ["--quantize", kind])):
        assert main([*base, str(tmp_path / name), *options]) == 0
    plain, quantized = (read_splats(tmp_path / name).means.mean(dim=0) for name in ("a.ply", "b.ply"))
    assert not torch.equal(plain, quantized)
    assert torch.allclose(plain, quantized, atol=0.02)


@pytest.mark.parametrize("name", ["sd15", "pixart-sigma", "sd35m"])
def test_four_bits_are_near_and_take_an_eighth_of_float32(weights: Path, name: str):
    pytest.importorskip("bitsandbytes")
    pipe = opened(weights, name)
    before, full = pipe("a red chair", steps=2).latents, stored_bytes(pipe.denoiser)
    linear = [module for module in pipe.denoiser.modules() if isinstance(module, nn.Linear)]
    matrices, count = sum(layer.weight.numel() for layer in linear), len(linear)
    pipe.quantize("nf4")
    saved = full - stored_bytes(pipe.denoiser)
    assert 3.3 * matrices - 2500 * count <= saved <= 3.5 * matrices  # a table of its own for every layer
    after = pipe("a red chair", steps=2).latents
    assert not torch.equal(before, after)
    assert (after - before).abs().mean() < 0.2 * before.abs().mean()


class _Packed(nn.Parameter):
    """Stands for ``bitsandbytes.nn.Params4bit``: packed when it is moved, as an unsigned type that is no number."""

    def __new__(cls, data: torch.Tensor, quant_type: str, module: nn.Module) -> "_Packed":
        assert quant_type == "nf4"
        assert isinstance(module, _Linear4bit)
        packed = torch.Tensor._make_subclass(cls, data.reshape(-1).view(torch.uint8), False)
        packed.full = data
        return packed


class _Linear4bit(nn.Linear):
    """Stands for ``bitsandbytes.nn.Linear4bit``."""

    def __init__(self, inputs: int, outputs: int, *, quant_type: str, device: str) -> None:
        super().__init__(inputs, outputs, device=device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight.full.to(x.dtype), self.bias)


@pytest.mark.parametrize("name", ["sd15", "pixart-sigma", "sd35m"])
def test_four_bit_layers_compute_what_linear_ones_do(
    weights: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    """With a stub that keeps all bits, every network gives the same: T5 is not confused by the type of its weights."""
    layers = SimpleNamespace(Linear4bit=_Linear4bit, Params4bit=_Packed)
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(nn=layers))
    monkeypatch.setitem(sys.modules, "bitsandbytes.nn", layers)
    pipe = opened(weights, name)
    before = pipe("a red chair", steps=2).latents
    pipe.quantize("nf4")
    for network in (pipe.denoiser, pipe.text_encoder):
        assert any(isinstance(module, _Linear4bit) for module in network.modules())
    assert torch.equal(before, pipe("a red chair", steps=2).latents)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_missing_package_is_named_with_its_extra(
    weights: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    for module in (PACKAGES[kind], f"{PACKAGES[kind]}.quantization"):
        monkeypatch.setitem(sys.modules, module, None)
    base = ["generate", "a red chair", "--model", "sd35m", "--weights", str(weights), "--quantize", kind]
    assert main([*base, "-o", str(tmp_path / "a.ply")]) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "pip install" in line)
    assert PACKAGES[kind] in line
    assert {"int8": "diffsplat[quantize]", "nf4": "diffsplat[nf4]"}[kind] in line
    assert not list(tmp_path.iterdir())


def test_four_bits_are_not_streamed(weights: Path, capsys: pytest.CaptureFixture[str]):
    base = ["generate", "a red chair", "--model", "sd35m", "--weights", str(weights), "--quantize", "nf4"]
    assert main([*base, "--low-memory"]) == 2
    assert "expected one of them, or --quantize int8" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_the_description_counts_quantised_weights(weights: Path, kind: Any):
    pytest.importorskip(PACKAGES[kind])
    pipe = opened(weights, "sd35m")
    (before,) = (line for line in repr(pipe).splitlines() if line.startswith("  denoiser"))
    (after,) = (line for line in repr(pipe.quantize(kind)).splitlines() if line.startswith("  denoiser"))
    assert after == before.replace("float32", {"int8": "float32/int8", "nf4": "float32/nf4"}[kind])
