"""LoRA files on the denoisers of tiny released models, against merged weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from starlette.testclient import TestClient

from diffsplat.cli.main import main
from diffsplat.io.splat_formats import read_splats
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pipelines.model_opening import OpeningOptions
from diffsplat.web.generation_app import create_app
from diffsplat.web.generation_service import Service
from diffsplat.web.model_worker import load_models
from support.api_client import CHAIR, finished, sentence

PREFIXES = {"sd15": "unet.", "pixart-sigma": "base_model.model.", "sd35m": "transformer."}
LAYERS = ("to_q", "to_k", "to_v", "to_out.0")


def opened(weights: Path, name: str) -> DiffSplatPipeline:
    """For views of 64 pixels, in fp32: merged and unmerged weights round at different places."""
    pipe: Any = DiffSplatPipeline.from_pretrained(name, weights=weights)
    pipe.autoencoder.image_size, pipe.autoencoder.latent_size = 64, 8
    pipe.set_progress_bar_config(disable=True)
    pipe.precision = "fp32"
    return pipe


def made(pipe: DiffSplatPipeline) -> torch.Tensor:
    latents = pipe("a red chair", steps=2).latents
    assert latents is not None
    return latents


def write_lora(pipe: DiffSplatPipeline, prefix: str, file: Path, seed: int) -> dict[str, torch.Tensor]:
    """A file for every attention, and what it adds to each weight by layer."""
    generator = torch.Generator().manual_seed(seed)
    state, added = {}, {}
    for name, module in pipe.denoiser.named_modules():
        if name.endswith(LAYERS):
            rows, columns = module.weight.shape
            down = torch.randn(2, columns, generator=generator)
            up = torch.randn(rows, 2, generator=generator) * 0.3
            state[f"{prefix}{name}.lora_A.weight"], state[f"{prefix}{name}.lora_B.weight"] = down, up
            added[name] = up @ down
    save_file(state, file)
    return added


def add(pipe: DiffSplatPipeline, added: dict[str, torch.Tensor], scale: float) -> None:
    for name, module in pipe.denoiser.named_modules():
        if name in added:
            module.weight.data += scale * added[name]


@pytest.mark.parametrize("name", PREFIXES)
def test_several_files_add_to_the_weights_as_their_formula_says(weights: Path, tmp_path: Path, name: str):
    """W + scale * B A of every file; then with other scales, merged, and taken out."""
    pipe, merged = opened(weights, name), opened(weights, name)
    plain = made(pipe)
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    changes = [write_lora(pipe, PREFIXES[name], file, seed) for seed, file in enumerate(files)]
    assert pipe.load_lora_weights(files[0], scale=0.7) == len(changes[0])
    add(merged, changes[0], 0.7)
    one = made(pipe)
    assert not torch.allclose(one, plain, atol=1e-3)
    assert torch.allclose(one, made(merged), atol=1e-3)
    pipe.load_lora_weights(files[1], "second", scale=-0.5)
    add(merged, changes[1], -0.5)
    assert torch.allclose(made(pipe), made(merged), atol=1e-3)
    pipe.set_adapters("lora0", 0.7)
    assert torch.allclose(made(pipe), one, atol=1e-3)
    pipe.set_adapters(["lora0", "second"], [0.2, 0.4])
    add(merged, changes[0], -0.5)
    add(merged, changes[1], 0.9)
    assert torch.allclose(made(pipe), made(merged), atol=1e-3)
    with pytest.raises(ValueError, match="there is no adapter 'third', expected one of: lora0, second"):
        pipe.set_adapters("third")
    with pytest.raises(ValueError, match="the adapter is called 'second', expected a free name"):
        pipe.load_lora_weights(files[1], "second")
    with pytest.raises(ValueError, match="has LoRA layers"):
        pipe.save_pretrained(tmp_path / "model")
    pipe.fuse_lora()
    assert torch.allclose(made(pipe), made(merged), atol=1e-3)
    assert set(pipe.denoiser.state_dict()) == set(merged.denoiser.state_dict())
    pipe.save_pretrained(tmp_path / "model")
    again = opened(weights, name)
    again.load_lora_weights(files[0])
    again.unload_lora_weights()
    assert torch.equal(made(again), plain)


def test_a_file_of_kohya_with_alphas(weights: Path, tmp_path: Path):
    """As LCM-LoRA is stored: W + alpha / rank * B A, convolutions too."""
    pipe, merged = opened(weights, "sd15"), opened(weights, "sd15")
    generator = torch.Generator().manual_seed(1)
    state, count = {}, 0
    for name, module in merged.denoiser.named_modules():
        if not (name.endswith(LAYERS) or name.endswith((".conv1", ".conv2"))) or "blocks" not in name:
            continue
        shape = module.weight.shape
        down = torch.randn(4, *shape[1:], generator=generator)
        up = torch.randn(shape[0], 4, *(1 for _ in shape[2:]), generator=generator) * 0.2
        key = f"lora_unet_{name.replace('.', '_')}"
        state |= {
            f"{key}.lora_down.weight": down,
            f"{key}.lora_up.weight": up,
            f"{key}.alpha": torch.tensor(2.0),
        }
        module.weight.data += (2 / 4) * torch.einsum("or,r...->o...", up.flatten(1), down)
        count += 1
    save_file(state, tmp_path / "kohya.safetensors")
    assert pipe.load_lora_weights(tmp_path / "kohya.safetensors") == count
    assert torch.allclose(made(pipe), made(merged), atol=1e-3)


def test_what_does_not_fit_is_refused_and_leaves_the_network(weights: Path, tmp_path: Path):
    pipe = opened(weights, "pixart-sigma")
    plain = made(pipe)
    file = tmp_path / "x.safetensors"
    layer = "transformer.transformer_blocks.0.attn1.to_q.lora"
    for state, message in (
        ({"unet.a.lora_A.weight": torch.zeros(1, 2)}, "holds no weights for a PixArtTransformer2DModel"),
        ({f"{layer}_A.weight": torch.zeros(1, 2), f"{layer}_B.weight": torch.zeros(16, 1)}, "does not fit"),
    ):
        save_file(state, file)
        with pytest.raises(ValueError, match=message):
            pipe.load_lora_weights(file)
        assert torch.equal(made(pipe), plain)


def test_a_few_step_file_from_the_command_line(weights: Path, tmp_path: Path):
    pipe = opened(weights, "sd15")
    files = [tmp_path / "few-steps.safetensors", tmp_path / "style.safetensors"]
    for seed, file in enumerate(files):
        write_lora(pipe, "unet.", file, seed)
    base = ["generate", "a red chair", "--model", "sd15", "--weights", str(weights), "-o"]
    few = ["--sampler", "lcm", "--steps", "2", "--guidance", "1", "--force"]
    results = []
    for lora in ([], [str(files[0])], [*map(str, files), "--lora-scale", "1", "0.5"]):
        output = tmp_path / "a.ply"
        assert main([*base, str(output), *few, *(["--lora", *lora] if lora else [])]) == 0
        results.append(read_splats(output).means.mean(dim=0))
    assert not torch.allclose(results[0], results[1], atol=1e-6)
    assert not torch.allclose(results[1], results[2], atol=1e-6)
    wrong = ["--lora", *map(str, files), "--lora-scale", "1", "1", "1", "--force"]
    assert main([*base, str(tmp_path / "b.ply"), *wrong]) == 2


def test_a_request_chooses_among_the_files_of_the_server(weights: Path, tmp_path: Path):
    """``serve --lora``: strengths by the names of the files, for one job."""
    pipe = opened(weights, "sd15")
    (tmp_path / "b").mkdir()
    files = [tmp_path / "a-style.safetensors", tmp_path / "b" / "a-style.safetensors"]
    for seed, file in enumerate(files):
        write_lora(pipe, "unet.", file, seed)
    options = OpeningOptions(weights=weights, lora=tuple(files), lora_scale=(0.5, 0.2), device="cpu")
    worker = load_models(["sd15"], options)
    served: Any = worker.models["sd15"].pipe
    served.autoencoder.image_size, served.autoencoder.latent_size = 64, 8
    served.precision = "fp32"
    with TestClient(create_app(Service(worker)), base_url="http://localhost") as client:
        (model,) = client.get("/api/models").json()["models"]
        assert model["lora"] == {"a_style": 0.5, "a_style_": 0.2}
        job = finished(client, lora_scales={"a_style_": -0.7})
        assert (job["state"], job["lora_scales"]) == ("done", {"a_style_": -0.7})
        written = client.get(f"/api/jobs/{job['id']}/results/0.ply").content
        answer = client.post("/api/jobs", json=CHAIR | {"lora_scales": {"other": 1}})
        assert answer.status_code == 422
        assert sentence(answer) == "there is no adapter 'other', expected one of: a_style, a_style_"
        assert client.post("/api/jobs", json=CHAIR | {"lora_scales": [1]}).status_code == 422
    pipe.load_lora_weights(files[1], scale=-0.7)
    (tmp_path / "made.ply").write_bytes(written)
    expected = pipe("a red chair", steps=2).objects()[0].splats
    assert torch.allclose(read_splats(tmp_path / "made.ply").means, expected.means, atol=1e-4)
    assert served.lora_scales == {"a_style": 0.5, "a_style_": 0.2}
