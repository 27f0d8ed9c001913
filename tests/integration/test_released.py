"""The command line and the pipeline on complete folders of released models, tiny and untrained."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffsplat.cli.main import main
from diffsplat.io.image_files import read_image, write_image
from diffsplat.io.splat_formats import read_splats
from diffsplat.models.elevation_network import ElevationEstimator
from diffsplat.models.text.stored_prompts import StoredPrompts
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pipelines.control_maps import control_maps_from
from diffsplat.pipelines.generation_options import Generation
from diffsplat.pretrained.release_catalogue import BACKBONES
from support.release_folders import build_release

NAMES = list(BACKBONES)


def run(*words: object) -> int:
    return main([str(word) for word in words])


def generate(weights: Path, output: Path, *words: object) -> torch.Tensor:
    """Run the command and return the positions and colours that it wrote."""
    assert run("generate", *words, "--weights", weights, "--steps", 2, "-o", output, "--force") == 0
    return values_of(output)


def values_of(path: Path) -> torch.Tensor:
    splats = read_splats(path)
    assert splats.count > 1000
    values = torch.cat([splats.means, splats.colors], dim=-1)
    assert torch.isfinite(values).all()
    return values


def differ(left: torch.Tensor, right: torch.Tensor) -> bool:
    return left.shape != right.shape or not torch.allclose(left, right, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_text(weights: Path, tmp_path: Path, name: str):
    first = generate(weights, tmp_path / "a.ply", "a red chair", "--model", name)
    again = generate(weights, tmp_path / "a.ply", "a red chair", "--model", name)
    other = generate(weights, tmp_path / "a.ply", "a wooden barrel", "--model", name)
    assert torch.equal(first, again)
    assert differ(first, other)


@pytest.mark.parametrize("name", NAMES)
def test_image_with_a_known_and_an_estimated_elevation(
    weights: Path, tmp_path: Path, picture: Path, name: str, capsys: pytest.CaptureFixture[str]
):
    words = ("--model", name, "--image", picture)
    known = generate(weights, tmp_path / "a.ply", *words, "--elevation", 20)
    assert "degrees above the horizon" not in capsys.readouterr().err
    generate(weights, tmp_path / "b.ply", *words)
    said = capsys.readouterr().err
    pipe = DiffSplatPipeline.from_pretrained(name, weights=weights, image=True)
    shown = pipe.prepare(image=picture)
    assert isinstance(pipe.elevation_estimator, ElevationEstimator)
    assert shown.image is not None
    degrees = float(pipe.elevation_estimator.degrees_above_horizon(shown.image[None])[0])
    assert f"{degrees:.1f} degrees above the horizon" in said
    described = generate(weights, tmp_path / "c.ply", "a red chair", *words, "--elevation", 20)
    assert differ(known, described)


def test_the_elevation_command_prints_what_the_network_estimates(
    weights: Path, tmp_path: Path, picture: Path, capsys: pytest.CaptureFixture[str]
):
    words = ("elevation", picture, "--model", "sd15", "--weights", weights)
    assert run(*words) == 0
    printed = capsys.readouterr().out.split(maxsplit=1)
    pipe = DiffSplatPipeline.from_pretrained("sd15", weights=weights, image=True)
    shown = pipe.prepare(image=picture).image
    assert shown is not None
    degrees = float(pipe.elevation_estimator.degrees_above_horizon(shown[None])[0])
    assert printed == [f"{degrees:.1f}", f"{picture}\n"]
    assert run("elevation", tmp_path / "none.png", "--model", "sd15", "--weights", weights) == 2


def test_several_images_and_folders(
    weights: Path, tmp_path: Path, picture: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "photos"
    folder.mkdir()
    image = read_image(picture)
    write_image(image[[1, 0, 2, 3]], folder / "b.png")
    write_image(image, folder / "a.webp")
    (folder / "notes.txt").write_text("no image")
    alone = generate(
        weights, tmp_path / "alone.ply", "--model", "sd15", "--image", picture, "--elevation", 20
    )
    words = ["generate", "--model", "sd15", "--weights", str(weights), "--steps", "2", "--elevation", "20"]
    capsys.readouterr()
    assert main([*words, "-o", str(tmp_path / "out"), "--image", str(folder), str(picture)]) == 0
    written = capsys.readouterr().out.split()
    assert [Path(name).name for name in written] == ["a.ply", "b.ply", f"{picture.stem}.ply"]
    made = [values_of(Path(name)) for name in written]
    assert torch.equal(made[0], alone)
    assert torch.equal(made[2], alone)
    assert differ(made[1], alone)


def test_options_of_an_image(weights: Path, tmp_path: Path, picture: Path):
    words = ("--model", "sd15", "--image", picture, "--elevation", 20)
    made = [
        generate(weights, tmp_path / "a.ply", *words, *options)
        for options in ((), ("--border", 0.2), ("--border", 0.5), ("--keep-framing",))
    ]
    assert torch.equal(made[0], made[1])
    assert differ(made[0], made[2])
    assert differ(made[0], made[3])


def test_the_first_camera_is_at_the_elevation_and_the_shift_of_sd3_matters(weights: Path, picture: Path):
    pipe = DiffSplatPipeline.from_pretrained("sd35m", weights=weights, image=True)
    out = pipe(image=picture, steps=2, elevation=25.0)
    center = out.cameras.centers[0, 0]
    assert math.degrees(math.asin(float(center[1]) / 1.4)) == pytest.approx(25.0, abs=1e-3)
    unshifted = pipe(image=picture, steps=2, elevation=25.0, unshifted=True)
    assert differ(out.splats.colors, unshifted.splats.colors)


def test_control_from_an_image_a_photo_and_splats(weights: Path, tmp_path: Path, picture: Path):
    splats = tmp_path / "plain.ply"
    sd15 = ("a red chair", "--model", "sd15")
    plain = generate(weights, splats, *sd15)
    results = [
        generate(weights, tmp_path / "a.ply", *sd15, *words)
        for words in (
            ("--control", "depth", "--control-image", picture),
            ("--control", "depth", "--control-image", picture, "--guess-mode"),
            ("--control", "normal", "--control-from", splats),
            ("--control", "canny", "--control-photo", picture),
        )
    ]
    for number, values in enumerate(results):
        assert all(differ(values, other) for other in (plain, *results[:number]))
    unheard = generate(
        weights,
        tmp_path / "a.ply",
        *sd15,
        "--control",
        "depth",
        "--control-image",
        picture,
        "--control-scale",
        0,
    )
    assert not differ(unheard, plain)


def test_two_controls_from_one_object_or_a_file_for_each(weights: Path, tmp_path: Path, picture: Path):
    splats, sd15 = tmp_path / "plain.ply", ("a red chair", "--model", "sd15")
    generate(weights, splats, *sd15)
    both = ("--control", "depth", "--control", "canny")
    together = generate(weights, tmp_path / "a.ply", *sd15, *both, "--control-from", splats)
    pipe = DiffSplatPipeline.from_pretrained("sd15", weights=weights, control=["depth", "canny"])
    maps = [control_maps_from(splats, kind) for kind in ("depth", "canny")]
    expected = pipe("a red chair", control=maps, steps=2).objects()[0].splats
    assert not differ(together, torch.cat([expected.means, expected.colors], dim=-1))
    turned = ("--control", "canny", "--control", "depth")
    each = generate(
        weights, tmp_path / "a.ply", *sd15, *turned, "--control-photo", picture, "--control-from", splats
    )
    assert differ(each, together)
    depth = generate(weights, tmp_path / "a.ply", *sd15, "--control", "depth", "--control-from", splats)
    assert differ(each, depth)


def test_an_image_and_a_control_map(weights: Path, tmp_path: Path, picture: Path):
    """The ControlNet gets the noisy views with the channels of the text model, and adds nothing to the image's view."""
    pipe = DiffSplatPipeline.from_pretrained("sd15", weights=weights, image=True, control="depth")
    image_only = DiffSplatPipeline.from_pretrained("sd15", weights=weights, image=True)
    control = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0))
    residuals, added = [], []

    def keep(_module: Any, args: Any, _kwargs: Any, output: Any) -> None:
        residuals.append((args[0], *output))

    hooks = [
        pipe.controlnet.register_forward_hook(keep, with_kwargs=True),
        pipe.denoiser.register_forward_pre_hook(
            lambda _m, _a, kwargs: added.append(kwargs), with_kwargs=True
        ),
    ]
    options: dict[str, Any] = {"steps": 1, "elevation": 10.0, "image": picture}
    steered = pipe("a red chair", control=control, **options).latents
    for hook in hooks:
        hook.remove()
    (inputs, down, middle), unet = residuals[0], added[0]
    assert inputs.shape == (8, 10, 32, 32)
    for own, whole in zip(
        [*down, middle],
        [*unet["down_block_additional_residuals"], unet["mid_block_additional_residual"]],
        strict=True,
    ):
        views = whole.unflatten(0, (2, 5))
        assert not views[:, 0].any()
        assert torch.equal(views[:, 1:].flatten(0, 1), own)
    plain = image_only("a red chair", **options).latents
    assert differ(steered, plain)
    assert torch.equal(pipe("a red chair", control=control, control_scale=0.0, **options).latents, plain)
    words = ("a red chair", "--model", "sd15", "--image", picture, "--control", "depth")
    splats = tmp_path / "map.ply"
    generate(weights, splats, "a red chair", "--model", "sd15")
    found = generate(weights, tmp_path / "a.ply", *words, "--control-from", splats)
    degrees = pipe.resolve(Generation(), image_only.prepare(picture)).elevation_deg
    expected = pipe(
        "a red chair",
        image=picture,
        control=control_maps_from(splats, "depth", elevation_deg=degrees),
        steps=2,
    ).objects()[0]
    assert not differ(found, torch.cat([expected.splats.means, expected.splats.colors], dim=-1))


@pytest.mark.parametrize("name", NAMES)
def test_low_memory_is_the_same_but_for_bfloat16(weights: Path, tmp_path: Path, name: str):
    words = ("a red chair", "--model", name)
    full = generate(weights, tmp_path / "a.ply", *words)
    low = generate(weights, tmp_path / "a.ply", *words, "--low-memory")
    assert abs(len(low) - len(full)) < 0.05 * len(full)
    assert (low.mean(dim=0) - full.mean(dim=0)).abs().max() < 0.02


@pytest.mark.parametrize("name", NAMES)
def test_prompts_encoded_ahead_give_the_same_without_the_text_encoder(
    weights: Path, tmp_path: Path, name: str
):
    file = tmp_path / "prompts.safetensors"
    assert run("encode", "a red chair", "--model", name, "--weights", weights, "-o", file) == 0
    words = ("a red chair", "--model", name)
    ahead = generate(weights, tmp_path / "a.ply", *words, "--embeddings", file)
    assert torch.equal(ahead, generate(weights, tmp_path / "a.ply", *words))


def test_clip_skip_of_encoded_prompts(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file, words = tmp_path / "prompts.safetensors", ("a red chair", "--model", "sd15")
    skipped = (*words, "--clip-skip", 1)
    assert run("encode", *skipped, "--weights", weights, "-o", file) == 0
    ahead = generate(weights, tmp_path / "a.ply", *skipped, "--embeddings", file)
    assert torch.equal(ahead, generate(weights, tmp_path / "a.ply", *skipped))
    plain = ("generate", *words, "--weights", weights, "--embeddings", file, "-o", tmp_path / "b.ply")
    assert run(*plain) == 2
    assert "clip_skip is None and the prompts were encoded with 1" in capsys.readouterr().err


@pytest.mark.parametrize("sampler", ["dpm++", "dpm++-sde", "ddim", "euler", "unipc", "lcm"])
@pytest.mark.parametrize("name", NAMES)
def test_every_sampler_serves_every_backbone(weights: Path, name: str, sampler: str):
    pipe = DiffSplatPipeline.from_pretrained(name, weights=weights)
    noise_levels = []
    hook = pipe.denoiser.register_forward_pre_hook(
        lambda module, args, kwargs: noise_levels.append(float(kwargs["timestep"][0])), with_kwargs=True
    )
    out = pipe("a red chair", steps=4, sampler=sampler)  # type: ignore[arg-type]
    hook.remove()
    assert torch.isfinite(out.splats.means).all()
    assert noise_levels[0] >= 998
    assert noise_levels == sorted(noise_levels, reverse=True)
    assert len(noise_levels) == 4


def test_the_text_encoder_of_stable_diffusion_is_clip_padded_to_77_tokens(weights: Path):
    from transformers import CLIPTextModel, CLIPTokenizer

    base = weights / "stable-diffusion-v1-5"
    tokens = CLIPTokenizer.from_pretrained(base / "tokenizer")(
        ["a red chair"], padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected = CLIPTextModel.from_pretrained(base / "text_encoder")(tokens.input_ids).last_hidden_state
    pipe = DiffSplatPipeline.from_pretrained("sd15", weights=weights)
    assert torch.allclose(pipe.text_encoder(["a red chair"]).tokens, expected, atol=1e-6)


def test_offload_computes_the_same_and_leaves_everything_on_the_cpu(weights: Path):
    pipe = DiffSplatPipeline.from_pretrained("sd15", weights=weights)
    plain = pipe("a red chair", steps=2).splats.means
    pipe.enable_model_cpu_offload("cpu")
    assert torch.equal(pipe("a red chair", steps=2).splats.means, plain)
    pipe = DiffSplatPipeline.from_pretrained("sd15", weights=weights)
    pipe.enable_sequential_cpu_offload("cpu")
    assert torch.equal(pipe("a red chair", steps=2).splats.means, plain)


REFUSED = [
    (("a chair", "--model", "sd15", "--control", "depth"), "was given with 0 images"),
    (("a chair", "--model", "sd35m", "--control", "depth", "--control-image", "{picture}"), "no ControlNet"),
    (("--model", "sd15"), "no prompt was given"),
    (
        (
            "a chair",
            "--model",
            "sd15",
            *("--control", "depth", "--control", "canny"),
            "--control-image",
            "a.png",
        ),
        "was given with 1 images, expected each kind once",
    ),
    (
        ("a chair", "--model", "sd15", *("--control", "depth") * 2, *("--control-from", "{picture}") * 2),
        "depth depth was given with 2 images, expected each kind once",
    ),
    (("a chair", "--model", "sd15", "--control-from", "{picture}"), "given without --control"),
    (("--model", "sd15", "--image", "{picture}", "a red chair"), "put prompts before it"),
    (("--model", "sd15", "--image", "{picture}", "none.png"), "no such file"),
    (("--model", "sd15", "--image", "{empty}"), "holds no images"),
    (("--model", "sd15", "--image", "{picture}", "--border", "1"), "the border is 1.0, expected 0 to 0.9"),
    (("a chair", "--model", "sd15", "--border", "0.1"), "given without --image"),
    (("a chair", "--model", "sd15", "--weights", "{empty}"), "diffsplat models download"),
    (("a chair", "--model", "sd15", "--embeddings", "{picture}"), "holds no encoded prompts"),
    (("a chair", "--model", "sd15", "--lora", "{picture}"), "not a safetensors file"),
    (("a chair", "--model", "mini", "--lora", "{picture}"), "takes no LoRA files"),
    (("a chair", "--model", "sd15", "--no-t5"), "--no-t5 was given for the model 'sd15', expected sd35m"),
    (
        (
            "a chair",
            "--model",
            "sd16",
        ),
        "unknown model 'sd16'",
    ),
]


@pytest.mark.parametrize(("words", "reason"), REFUSED)
def test_refusals_are_one_sentence_and_leave_nothing(
    weights: Path, tmp_path: Path, picture: Path, words, reason, capsys: pytest.CaptureFixture[str]
):
    empty = tmp_path / "empty"
    empty.mkdir()
    filled = [str(word).format(picture=picture, empty=empty) for word in words]
    if "--weights" not in filled and "mini" not in filled and "sd16" not in filled:
        filled += ["--weights", str(weights)]
    output = tmp_path / "a.ply"
    assert run("generate", *filled, "-o", output) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert reason in lines[-1]
    assert not output.exists()


def test_a_file_of_encoded_prompts_keeps_them(tmp_path: Path, weights: Path):
    pipe = DiffSplatPipeline.from_pretrained("sd35m", weights=weights)
    stored = StoredPrompts.encode(pipe.text_encoder, ["a chair", "", "a chair"], "sd35m")
    stored.save(tmp_path / "p.safetensors")
    again = StoredPrompts.load(tmp_path / "p.safetensors")
    assert list(again.conditions) == ["a chair", ""]
    assert again.model == "sd35m"
    for text, condition in stored.conditions.items():
        assert torch.equal(again.conditions[text].tokens, condition.tokens)
        assert torch.equal(again.conditions[text].pooled, condition.pooled)


def test_damaged_weights_are_named(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    copied = build_release(tmp_path, "sd15")
    file = next(copied.glob("gsdiff_gobj83k_sd15__render/checkpoints/*/unet_ema/*.safetensors"))
    whole = file.read_bytes()
    for damage in (whole[: len(whole) // 2], b""):
        file.write_bytes(damage)
        assert (
            run("generate", "a chair", "--model", "sd15", "--weights", copied, "-o", tmp_path / "a.ply") == 2
        )
        assert file.name in capsys.readouterr().err
    state = load_file(next(weights.glob("gsdiff_gobj83k_sd15__render/checkpoints/*/unet_ema/*.safetensors")))
    state["conv_in.weight"] = torch.zeros(3, 3)
    save_file(state, file)
    assert run("generate", "a chair", "--model", "sd15", "--weights", copied, "-o", tmp_path / "a.ply") == 2
    assert "conv_in.weight" in capsys.readouterr().err
