"""Loading networks from files in the released layout. The truth is the stock network they were saved from."""

import gc
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, PixArtTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn

from diffsplat.core import SplatGrid
from diffsplat.models.denoiser_families import VARIANTS
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.models.splat_vae import SplatVAE
from diffsplat.pretrained.release_layout import find_release, latest_iteration, repository_folder
from diffsplat.pretrained.released_networks import (
    DIFFUSERS_CLASSES,
    load_controlnet,
    load_denoiser,
    load_elevation_state,
    load_reconstructor,
    load_splat_vae,
    read_config,
)

STEM = "diffusion_pytorch_model"
SMALL = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}


def make_unet(in_channels: int = 11) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=in_channels,
        out_channels=4,
        cross_attention_dim=12,
        attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **SMALL,
    ).eval()


def make_pixart(in_channels: int = 11) -> PixArtTransformer2DModel:
    return PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=in_channels,
        out_channels=8,
        num_layers=1,
        cross_attention_dim=16,
        caption_channels=12,
        sample_size=8,
        norm_num_groups=4,
    ).eval()


def make_sd3(in_channels: int = 23) -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=8,
        in_channels=in_channels,
        out_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        caption_projection_dim=16,
        pooled_projection_dim=10,
        pos_embed_max_size=12,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    ).eval()


MAKERS = {"unet": make_unet, "pixart": make_pixart, "sd3": make_sd3}
DEAD_NAMES = {stock: dead for dead, stock in DIFFUSERS_CLASSES.items()}


def arguments(network: Any, batch: int = 2) -> dict[str, Any]:
    """Inputs of one pass with one view."""
    generator = torch.Generator().manual_seed(3)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    sample, text = noise(batch, network.config.in_channels, 8, 8), noise(batch, 5, 12)
    given: dict[str, Any] = {"encoder_hidden_states": text, "timestep": torch.full((batch,), 7)}
    if isinstance(network, PixArtTransformer2DModel):
        given["added_cond_kwargs"] = {"resolution": None, "aspect_ratio": None}
    if isinstance(network, SD3Transformer2DModel):
        given["pooled_projections"] = noise(batch, 10)
    key = "sample" if isinstance(network, UNet2DConditionModel) else "hidden_states"
    return {key: sample, **given}


@torch.no_grad()
def run(network: Any, **changed: Any) -> torch.Tensor:
    return network(**{**arguments(network), **changed}, return_dict=False)[0]


def save_as_released(network: Any, folder: Path, **saving: Any) -> Path:
    """Save with the class names of the original and with the extra keys that its files have."""
    network.save_pretrained(folder, **saving)
    path = folder / "config.json"
    text = path.read_text()
    for stock, dead in DEAD_NAMES.items():
        text = text.replace(f'"{stock}"', f'"{dead}"')
    extras = {"view_concat_condition": True, "input_concat_plucker": True, "decay": 0.9999, "power": 0.75}
    path.write_text(json.dumps({**json.loads(text), **extras}))
    return folder


@pytest.fixture(params=MAKERS)
def original(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(1)
    return MAKERS[request.param]()


@pytest.fixture
def unet(tmp_path: Path) -> tuple[UNet2DConditionModel, Path]:
    torch.manual_seed(2)
    network = make_unet()
    return network, save_as_released(network, tmp_path / "unet_ema")


def test_dead_class_names_and_extra_keys(unet: tuple[UNet2DConditionModel, Path]):
    assert "CrossAttnDownBlockMV2D" in (unet[1] / "config.json").read_text()
    kind, arguments = read_config(unet[1])
    assert kind == "UNet2DConditionModel"
    assert arguments["down_block_types"] == ["CrossAttnDownBlock2D", "DownBlock2D"]
    assert arguments["mid_block_type"] == "UNetMidBlock2DCrossAttn"
    assert arguments.keys().isdisjoint(("view_concat_condition", "input_concat_plucker", "decay", "power"))


def test_a_single_file(original: Any, tmp_path: Path):
    loaded = load_denoiser(save_as_released(original, tmp_path))
    assert type(loaded) is type(original)
    assert not loaded.training
    assert torch.equal(run(loaded), run(original))


def test_every_buffer_is_that_of_the_stock_network(original: Any, tmp_path: Path):
    loaded = load_denoiser(save_as_released(original, tmp_path))
    found = dict(loaded.named_buffers())
    assert found.keys() == dict(original.named_buffers()).keys()
    for name, buffer in original.named_buffers():
        assert torch.equal(found[name], buffer), name


def test_positions_of_another_size_than_the_trained_one(tmp_path: Path):
    original = make_pixart()
    loaded = load_denoiser(save_as_released(original, tmp_path))
    larger = torch.randn(2, 11, 12, 12)
    assert torch.equal(run(loaded, hidden_states=larger), run(original, hidden_states=larger))


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_and_variants(original: Any, tmp_path: Path, variant: str | None):
    saved = save_as_released(original, tmp_path, max_shard_size="20KB", variant=variant)
    assert len(list(saved.glob("*-of-*.safetensors"))) > 1
    assert torch.equal(run(load_denoiser(saved)), run(original))


def test_a_single_file_of_half_precision(original: Any, tmp_path: Path):
    expected = run(original)
    original.half()
    saved = save_as_released(original, tmp_path, variant="fp16")
    assert [path.name for path in saved.glob("*.safetensors")] == [f"{STEM}.fp16.safetensors"]
    assert next(load_denoiser(saved).parameters()).dtype == torch.float16
    loaded = load_denoiser(saved, dtype=torch.float32)
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
    assert float((run(loaded) - expected).norm() / expected.norm()) < 0.01


def test_controlnet_takes_its_configuration_from_the_unet(
    unet: tuple[UNet2DConditionModel, Path], tmp_path: Path
):
    torch.manual_seed(4)
    original = ControlNetModel.from_unet(unet[0], conditioning_embedding_out_channels=(4, 6, 10)).eval()
    for layer in original.controlnet_down_blocks:
        nn.init.normal_(layer.weight)
    original.save_pretrained(tmp_path)
    # What the released files hold: the defaults of the class.
    (tmp_path / "config.json").write_text(json.dumps({"in_channels": 4, "attention_head_dim": 8}))
    loaded = load_controlnet(tmp_path, load_denoiser(unet[1]))
    given = {**arguments(unet[0]), "controlnet_cond": torch.rand(2, 3, 32, 32), "return_dict": False}
    with torch.no_grad():
        for found, expected in zip(loaded(**given)[0], original(**given)[0], strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_splat_autoencoder_of_each_variant(variant: Any, tmp_path: Path):
    torch.manual_seed(5)
    settings = {"block_out_channels": (32, 64), "layers_per_block": 1, **VARIANTS[variant]}
    original = SplatVAE(settings, tiny_widths=(6, 6), tiny_blocks=(2, 1), image_size=16).eval()
    save_file(original.state_dict(), tmp_path / "model.safetensors")
    loaded = load_splat_vae(tmp_path, variant=variant)
    latents = torch.randn(1, 4, settings["latent_channels"], 8, 8)
    assert loaded.latent_shape == (4, settings["latent_channels"], 128, 128)
    for decoder in ("full", "tiny"):
        assert torch.equal(
            loaded.decode(latents, decoder=decoder).values, original.decode(latents, decoder=decoder).values
        )


def test_splat_autoencoder_without_tiny_decoder_and_with_the_image_vaes_configuration(tmp_path: Path):
    settings = {**SMALL, **VARIANTS["sdxl"]}
    original = SplatVAE(settings, tiny_widths=()).eval()
    save_file(original.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"4 latent channels.*expected one of: sd, sdxl, sd3"):
        load_splat_vae(tmp_path)
    loaded = load_splat_vae(tmp_path, image_vae={"scaling_factor": 0.13025, "norm_num_groups": 4})
    grid = SplatGrid(torch.rand(1, 2, 12, 8, 8))
    assert torch.equal(loaded.encode(grid), original.encode(grid))
    with pytest.raises(ValueError, match="has no tiny decoder"):
        loaded.decode(loaded.encode(grid), decoder="tiny")


def test_sampled_latents_follow_their_generator_and_the_posterior():
    vae = SplatVAE({**SMALL, **VARIANTS["sd3"]}, tiny_widths=()).eval()
    grid = SplatGrid(torch.rand(1, 2, 12, 8, 8))
    with torch.no_grad():
        draws = [vae.encode(grid, sample=True, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
        posterior = vae.posterior(grid)
        noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    expected = 1.5305 * (posterior.mean + posterior.std * noise - 0.0609)
    torch.testing.assert_close(draws[0][0], expected)


def test_reconstructor_sizes_follow_from_its_weights(tmp_path: Path):
    original = GSRecon(dim=128, blocks=3, heads=2, patch=4)
    save_file(original.state_dict(), tmp_path / "model.safetensors")
    loaded = load_reconstructor(tmp_path)
    assert (loaded.patch, loaded.pixel_grid, loaded.parametrization) == (4, "legacy", "absolute")
    assert [block.attn.heads for block in loaded.transformer.blocks] == [2, 2, 2]
    assert all(torch.equal(loaded.state_dict()[name], w) for name, w in original.state_dict().items())


def test_elevation_state_in_shards(tmp_path: Path):
    halves = {"model-00001-of-00002": {"a": torch.ones(2)}, "model-00002-of-00002": {"b": torch.zeros(3)}}
    for name, state in halves.items():
        save_file(state, tmp_path / f"{name}.safetensors")
    places = {weight: f"{name}.safetensors" for name, state in halves.items() for weight in state}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    state = load_elevation_state(tmp_path)
    assert {name: weight.tolist() for name, weight in state.items()} == {"a": [1, 1], "b": [0, 0, 0]}


def test_layout(tmp_path: Path):
    checkpoints = tmp_path / "gsdiff" / "checkpoints"
    for name in ("000900", "013020", "013020.tmp", "99", "final"):
        (checkpoints / name / "unet_ema").mkdir(parents=True)
    assert latest_iteration(checkpoints).name == "013020"
    assert find_release(tmp_path, "gsdiff", "unet_ema") == checkpoints / "013020" / "unet_ema"
    assert repository_folder(tmp_path, "owner/name-v1-5") == tmp_path / "name-v1-5"
    with pytest.raises(FileNotFoundError, match=r"controlnet.*diffsplat models download"):
        find_release(tmp_path, "gsdiff", "controlnet")
    with pytest.raises(FileNotFoundError, match=r"other.*diffsplat models download"):
        find_release(tmp_path, "other")


def break_shard(folder: Path) -> Path:
    make_unet().save_pretrained(folder, max_shard_size="20KB")
    (folder / f"{STEM}.safetensors").unlink()
    shard = sorted(folder.glob("*-of-*.safetensors"))[1]
    shard.unlink()
    return shard


def break_index(folder: Path) -> Path:
    shard = break_shard(folder)
    index = folder / f"{STEM}.safetensors.index.json"
    index.unlink()
    del shard
    return index


def break_map(folder: Path) -> Path:
    shard = break_shard(folder)
    save_file({"something": torch.zeros(1)}, shard)
    return folder / f"{STEM}.safetensors.index.json"


def break_length(folder: Path) -> Path:
    path = folder / f"{STEM}.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    return path


def break_everything(folder: Path) -> Path:
    path = folder / f"{STEM}.safetensors"
    path.write_bytes(b"")
    return path


def break_header(folder: Path) -> Path:
    path = folder / f"{STEM}.safetensors"
    path.write_bytes(b"<html>not found</html>")
    return path


def break_shape(folder: Path) -> Path:
    path = folder / f"{STEM}.safetensors"
    save_file({**load_file(path), "conv_in.weight": torch.zeros(8, 4, 3, 3)}, path)
    return path


def break_names(folder: Path) -> Path:
    path = folder / f"{STEM}.safetensors"
    save_file({f"module.{name}": weight for name, weight in load_file(path).items()}, path)
    return folder


def break_pickle(folder: Path) -> Path:
    (folder / f"{STEM}.safetensors").unlink()
    path = folder / f"{STEM}.bin"
    torch.save(make_unet().state_dict(), path)
    return path


def break_nothing_left(folder: Path) -> Path:
    (folder / f"{STEM}.safetensors").unlink()
    return folder


def break_config(folder: Path) -> Path:
    (folder / "config.json").unlink()
    return folder / "config.json"


def break_json(folder: Path) -> Path:
    (folder / "config.json").write_text('{"_class_name": ')
    return folder / "config.json"


def break_class(folder: Path) -> Path:
    (folder / "config.json").write_text('{"_class_name": "FluxTransformer2DModel"}')
    return folder / "config.json"


def break_folder(folder: Path) -> Path:
    shutil.rmtree(folder)
    return folder / "config.json"


@pytest.mark.parametrize(
    ("harm", "kind", "says"),
    [
        (break_shard, FileNotFoundError, "is missing, download it again"),
        (break_index, FileNotFoundError, "download it again"),
        (break_map, ValueError, "download them again"),
        (break_length, ValueError, "truncated .* download it again"),
        (break_everything, ValueError, "truncated .* download it again"),
        (break_header, ValueError, "not a safetensors file, delete it and download it again"),
        (
            break_shape,
            ValueError,
            r"conv_in.weight .* \(8, 4, 3, 3\), expected \(8, 11, 3, 3\).* download both",
        ),
        (
            break_names,
            ValueError,
            "lacks conv_in.bias and .* unknown module.conv_in.bias .* download the folder",
        ),
        (break_pickle, ValueError, "is a pickle, .* never loaded: convert it to .*safetensors"),
        (break_nothing_left, FileNotFoundError, "no weights, .* download it again"),
        (break_config, FileNotFoundError, "is missing, download"),
        (break_json, ValueError, "not valid JSON, download it again"),
        (break_class, ValueError, "FluxTransformer2DModel.* expected one of: UNet2DConditionModel"),
        (break_folder, FileNotFoundError, "is missing, download"),
    ],
)
def test_bad_weights_are_refused_in_one_sentence(
    unet: tuple[UNet2DConditionModel, Path], harm: Any, kind: type[Exception], says: str
):
    culprit = harm(unet[1])
    with pytest.raises(kind, match=says) as caught:
        load_denoiser(unet[1])
    message = str(caught.value)
    assert culprit.name in message
    assert "\n" not in message.strip()


def test_a_pickle_is_not_even_opened(unet: tuple[UNet2DConditionModel, Path]):
    trap = unet[1].parent / "touched"
    path = break_pickle(unet[1])
    path.write_bytes(b"cpathlib\nPath\n(V" + str(trap).encode() + b"\ntR.")
    with pytest.raises(ValueError, match="pickle"):
        load_denoiser(unet[1])
    assert not trap.exists()


def test_plain_states_are_checked_alike(tmp_path: Path):
    torch.save({}, tmp_path / "model.pt")
    for load in (load_splat_vae, load_reconstructor, load_elevation_state):
        with pytest.raises(ValueError, match=r"model\.pt.* is a pickle"):
            load(tmp_path)
    save_file({"other": torch.zeros(1)}, tmp_path / "model.safetensors")
    for load in (load_splat_vae, load_reconstructor):
        with pytest.raises(ValueError, match=r"lacks the weight .* expected the released files"):
            load(tmp_path)


def resident(key: str) -> int:
    """``VmRSS`` or its highest value ``VmHWM`` of this process, in bytes."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found.group(1))


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from /proc"
)
def test_weights_are_never_held_twice(tmp_path: Path):
    """The peak while a float16 file is loaded as float32 stays near one float32 copy."""
    with torch.device("meta"):
        network = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(256, 512),
            cross_attention_dim=32,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        ).half()
    size = 4 * sum(weight.numel() for weight in network.parameters())
    assert size > 150e6
    network.to_empty(device="cpu").save_pretrained(tmp_path)
    del network
    gc.collect()
    # Writing 5 there sets the highest value back to the present one.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    loaded = load_denoiser(tmp_path, dtype=torch.float32)
    peak = resident("VmHWM") - before
    assert next(loaded.parameters()).dtype == torch.float32
    # One float32 copy and the pages of the float16 file that is being read; less where freed memory is used again.
    assert 0.3 * size < peak < 1.65 * size
