"""An IP-Adapter on the tiny UNet of a released model, against the pipeline of diffusers with the same files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from starlette.testclient import TestClient
from transformers import CLIPVisionModelWithProjection

from diffsplat.cli.main import main
from diffsplat.io.splat_formats import read_splats
from diffsplat.models.denoiser_forward_pass import network_output
from diffsplat.models.multiview_attention import set_multiview_attention
from diffsplat.models.text.text_condition import TextCondition
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pipelines.model_opening import OpeningOptions
from diffsplat.web.generation_app import create_app
from diffsplat.web.generation_service import Service
from diffsplat.web.model_worker import load_models
from support.api_client import events, sentence
from support.ip_adapter_files import FEATURES, build_ip_adapter
from support.release_folders import CLIP_WIDTH


def opened(weights: Path, name: str = "sd15", **options: Any) -> DiffSplatPipeline:
    pipe: Any = DiffSplatPipeline.from_pretrained(name, weights=weights, **options)
    pipe.autoencoder.image_size, pipe.autoencoder.latent_size = 64, 8
    pipe.set_progress_bar_config(disable=True)
    pipe.precision = "fp32"
    return pipe


def made(pipe: DiffSplatPipeline, **options: Any) -> torch.Tensor:
    latents = pipe("a red chair", steps=2, **options).latents
    assert latents is not None
    return latents


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = torch.randint(256, (32, 32, 3), generator=torch.Generator().manual_seed(4), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize("plus", [False, True])
def test_features_and_output_are_those_of_diffusers(weights: Path, tmp_path: Path, photo: Path, plus: bool):
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from transformers import CLIPImageProcessor

    pipe, other = opened(weights), opened(weights)
    file = build_ip_adapter(tmp_path, pipe.denoiser, plus=plus)
    pipe.load_ip_adapter(file, scale=0.6)
    (features, without) = pipe._image_features(pipe.prepare(ip_adapter_image=photo).prompt[None])
    stock: Any = StableDiffusionPipeline(
        vae=None,
        text_encoder=None,
        tokenizer=None,
        unet=other.denoiser,
        scheduler=None,
        safety_checker=None,
        feature_extractor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32),
        image_encoder=CLIPVisionModelWithProjection.from_pretrained(tmp_path / "image_encoder"),
        requires_safety_checker=False,
    )
    stock.load_ip_adapter(str(tmp_path), subfolder="", weight_name="adapter.safetensors")
    stock.set_ip_adapter_scale(0.6)
    (embeds,) = stock.prepare_ip_adapter_image_embeds(Image.open(photo), None, "cpu", 1, True)
    expected = torch.cat([without, features]).unsqueeze(1)
    assert torch.allclose(embeds, expected, atol=1e-5)
    inputs, tokens = torch.randn(2, 1, 10, 8, 8), torch.randn(2, 77, CLIP_WIDTH)
    text = TextCondition(tokens, image=torch.cat([without, features]))
    set_multiview_attention(pipe.denoiser, 1)
    with torch.no_grad():
        ours = network_output(pipe.denoiser, inputs, torch.tensor([500, 500]), text)
        theirs = other.denoiser(
            inputs[:, 0], 500, tokens, added_cond_kwargs={"image_embeds": [embeds]}
        ).sample
    assert torch.allclose(ours[:, 0], theirs, atol=1e-5)


def test_an_image_prompt_steers_and_can_be_taken_out(weights: Path, tmp_path: Path, photo: Path):
    pipe = opened(weights)
    plain = made(pipe)
    with pytest.raises(ValueError, match="expected no ip_adapter_image"):
        made(pipe, ip_adapter_image=photo)
    file = build_ip_adapter(tmp_path, pipe.denoiser)
    pipe.load_ip_adapter(file)
    calls: list[Any] = []
    hook = pipe.denoiser.register_forward_pre_hook(
        lambda _m, _a, kwargs: calls.append(kwargs["added_cond_kwargs"]["image_embeds"][0]), with_kwargs=True
    )
    steered = made(pipe, ip_adapter_image=photo)
    hook.remove()
    assert calls[0].shape == (8, 1, FEATURES)
    assert not calls[0][:4].any()
    assert calls[0][4:].any()
    assert not torch.allclose(steered, plain, atol=1e-3)
    other = torch.zeros(3, 40, 20)
    assert not torch.allclose(made(pipe, ip_adapter_image=other), steered, atol=1e-3)
    pipe.set_ip_adapter_scale(0)
    assert torch.allclose(made(pipe, ip_adapter_image=photo), plain, atol=1e-5)
    with pytest.raises(ValueError, match="expected an ip_adapter_image"):
        made(pipe)
    with pytest.raises(ValueError, match="has an IP-Adapter, expected one without it"):
        pipe.save_pretrained(tmp_path / "model")
    pipe.unload_ip_adapter()
    assert torch.equal(made(pipe), plain)


def test_what_does_not_fit_is_refused_and_leaves_the_network(weights: Path, tmp_path: Path):
    pipe = opened(weights)
    plain = made(pipe)
    file = build_ip_adapter(tmp_path, pipe.denoiser)
    wrong = UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    narrow = build_ip_adapter(tmp_path / "narrow", wrong)
    with pytest.raises(ValueError, match="does not fit the denoiser"):
        pipe.load_ip_adapter(narrow)
    save_file({"image_proj.norm.weight": torch.zeros(2)}, tmp_path / "face.safetensors")
    with pytest.raises(ValueError, match="holds no IP-Adapter, plain or plus"):
        pipe.load_ip_adapter(tmp_path / "face.safetensors")
    with pytest.raises(ValueError, match=r"config\.json': there is no such file"):
        pipe.load_ip_adapter(file, encoder=tmp_path / "none")
    assert torch.equal(made(pipe), plain)
    with pytest.raises(ValueError, match="a SD3Transformer2DModel takes no IP-Adapter, expected sd15"):
        opened(weights, "sd35m").load_ip_adapter(file)


def test_from_the_command_line(
    weights: Path, tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
):
    pipe: Any = DiffSplatPipeline.from_pretrained("sd15", weights=weights)
    file, output = build_ip_adapter(tmp_path, pipe.denoiser), tmp_path / "a.ply"
    base = ["generate", "a red chair", "--model", "sd15", "--weights", str(weights), "--steps", "2"]
    adapter = ["--ip-adapter", str(file), "--ip-adapter-scale", "0.5"]
    assert main([*base, "-o", str(output), *adapter, "--ip-adapter-image", str(photo)]) == 0
    pipe.load_ip_adapter(file, scale=0.5)
    (expected,) = pipe("a red chair", steps=2, ip_adapter_image=photo).objects()
    assert torch.allclose(read_splats(output).means, expected.splats.means, atol=1e-4)
    capsys.readouterr()
    for words in (adapter, ["--ip-adapter-image", str(photo)]):
        assert main([*base, "-o", str(output), "--force", *words]) == 2
        assert "--ip-adapter and --ip-adapter-image go together" in capsys.readouterr().err


def test_from_a_server(weights: Path, tmp_path: Path, photo: Path):
    pipe: Any = DiffSplatPipeline.from_pretrained("sd15", weights=weights)
    file = build_ip_adapter(tmp_path, pipe.denoiser)
    models = load_models(["sd15"], OpeningOptions(weights=weights, ip_adapter=file, device="cpu"))
    assert "ip_adapter_image" not in models.models["sd15"].reasons
    pipe.load_ip_adapter(file)
    expected = pipe("a red chair", steps=2, seed=0, ip_adapter_image=photo).splats[0].visible()
    options = {"prompt": "a red chair", "steps": 2, "seed": 0}
    with TestClient(create_app(Service(models)), base_url="http://localhost:7860") as client:
        refused = client.post("/api/jobs", json=options)
        assert (refused.status_code, sentence(refused)) == (
            422,
            "this model has an IP-Adapter, expected an ip_adapter_image",
        )
        answer = client.post("/api/jobs", data=options, files={"ip_adapter_image": photo.read_bytes()})
        job = events(client, answer.json()["id"])[-1]
        assert job["state"] == "done", job["error"]
        assert job["results"][0]["splats"] == expected.count
        assert set(job["images"]) == {"ip_adapter_image"}
