"""The text-to-splats pipeline, put together from small untrained networks."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from diffsplat.models.autocast import faster_in_bf16
from diffsplat.models.denoiser_forward_pass import network_output
from diffsplat.models.multiview_pixart import make_denoiser
from diffsplat.models.principal_component_autoencoder import ComponentAutoencoder
from diffsplat.models.rays_and_noise_levels import TIMESTEPS, denoiser_rays
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pipelines.denoising_loop import denoise, object_generators
from diffsplat.pipelines.denoising_loop import object_noise as noise_of_generators
from diffsplat.pretrained.model_folders import SamplingDefaults
from diffsplat.pretrained.schedulers import make_scheduler


@pytest.fixture
def pipe(small_pipeline: DiffSplatPipeline) -> DiffSplatPipeline:
    return small_pipeline


def object_noise(shape: tuple[int, ...], seeds: tuple[int, ...]) -> torch.Tensor:
    return noise_of_generators(shape, object_generators(seeds))


def same(left, right) -> bool:
    fields = ("means", "scales", "quats", "opacities", "colors")
    return all(torch.equal(getattr(left, name), getattr(right, name)) for name in fields)


def test_shapes_and_labels(pipe):
    out = pipe(["a red chair", "a taxi"], seed=5, count=2)
    assert out.splats.batch_shape == (4,)
    assert out.splats.count == 4 * 16 * 16
    assert out.cameras.batch_shape == (4, 4)
    assert out.prompts == ("a red chair", "a red chair", "a taxi", "a taxi")
    assert out.seeds == (5, 6, 5, 6)
    elevation = torch.rad2deg(torch.asin(out.cameras.centers[..., 1] / 1.4))
    assert torch.allclose(elevation, torch.full((4, 4), 12.0), atol=1e-3)


def test_same_seed_repeats_bitwise_and_other_seeds_differ(pipe):
    first = pipe("a red chair", seed=3)
    assert same(first.splats, pipe("a red chair", seed=3).splats)
    assert not same(first.splats, pipe("a red chair", seed=4).splats)


def test_global_random_state_plays_no_part(pipe):
    torch.manual_seed(1)
    first = pipe("a red chair")
    state = torch.get_rng_state()
    assert same(first.splats, pipe("a red chair").splats)
    assert torch.equal(state, torch.get_rng_state())


def test_object_is_independent_of_its_batch(pipe):
    together = pipe(["a blue barrel", "a red chair", "a taxi"], seed=1, count=2)
    alone = pipe("a red chair", seed=2)
    assert same(together.splats[3:4], alone.splats)


def test_several_objects_in_a_pass_agree_up_to_rounding(pipe):
    apart = pipe(["a blue barrel", "a taxi"], seed=1)
    pipe.objects_per_pass = 2
    try:
        together = pipe(["a blue barrel", "a taxi"], seed=1)
    finally:
        pipe.objects_per_pass = 1
    assert torch.allclose(together.splats.means, apart.splats.means, atol=1e-4)


def test_prompt_negative_prompt_guidance_steps_and_elevation_matter(pipe):
    plain = pipe("a red chair")
    assert not same(plain.splats, pipe("a blue taxi").splats)
    assert not same(plain.splats, pipe("a red chair", negative_prompt="a barrel").splats)
    assert not same(plain.splats, pipe("a red chair", guidance=7.0).splats)
    assert not same(plain.splats, pipe("a red chair", steps=4).splats)
    assert not same(plain.splats, pipe("a red chair", elevation=20.0).splats)


def test_guidance_of_one_skips_the_unconditional_half(pipe):
    batches = []
    hook = pipe.denoiser.register_forward_pre_hook(
        lambda _network, inputs: batches.append(inputs[0].flatten(0, 1).shape[0])
    )
    try:
        pipe("a red chair", guidance=1.0, steps=2)
        pipe("a red chair", guidance=1.5, steps=2)
    finally:
        hook.remove()
    assert batches == [4, 4, 8, 8]


def refined(pipe: DiffSplatPipeline, refiner, below: float, **defaults) -> DiffSplatPipeline:
    return DiffSplatPipeline(
        pipe.denoiser,
        pipe.autoencoder,
        pipe.text_encoder,
        pipe.scheduler,
        replace(pipe.defaults, refined_below=below, **defaults),
        refiner=refiner,
    )


def test_a_refiner_equal_to_the_unguided_denoiser_changes_nothing(pipe):
    alone = pipe("a red chair", seed=3, steps=6, guidance=1.0)
    both = refined(pipe, copy.deepcopy(pipe.denoiser), 0.8)("a red chair", seed=3, steps=6, guidance=1.0)
    assert same(alone.splats, both.splats)


def test_a_refiner_with_the_denoisers_weights_and_guidance_changes_nothing(pipe):
    alone = pipe("a red chair", seed=3, steps=6, guidance=2.5, negative_prompt="a taxi")
    both = refined(pipe, copy.deepcopy(pipe.denoiser), 0.8, refiner_guidance=2.5)
    again = both("a red chair", seed=3, steps=6, guidance=2.5, negative_prompt="a taxi")
    assert same(alone.splats, again.splats)


def test_the_refiners_scale_is_not_the_callers(pipe):
    alone = pipe("a red chair", seed=3, steps=6, guidance=4.0)
    both = refined(pipe, copy.deepcopy(pipe.denoiser), 0.8, refiner_guidance=2.0)
    assert not same(alone.splats, both("a red chair", seed=3, steps=6, guidance=4.0).splats)


@pytest.mark.parametrize(
    ("guidance", "of_refiner", "seen"), [(3.0, 1.0, 4), (3.0, 0.0, 4), (1.0, 2.0, 4), (3.0, 2.0, 8)]
)
def test_the_refiner_works_at_low_levels_with_its_own_guidance(pipe, guidance, of_refiner, seen):
    """Both halves of four views where it is guided, and the conditional one where it or the caller is not."""
    # Four even levels from 1 to 0.0015, shifted by 1.5 s / (1 + 0.5 s): 1, 0.7503, 0.4297, 0.0022; of 4 views.
    refiner, calls = copy.deepcopy(pipe.denoiser), []
    refiner.register_forward_pre_hook(
        lambda _network, inputs: calls.append((float(inputs[1][0]), inputs[0].flatten(0, 1).shape[0]))
    )
    guided = refined(pipe, refiner, 0.7, refiner_guidance=of_refiner)
    guided("a red chair", seed=3, steps=4, guidance=guidance)
    assert calls == [(pytest.approx(429.7, abs=0.1), seen), (pytest.approx(2.2, abs=0.1), seen)]


def guided_below(pipe: DiffSplatPipeline, level: float) -> DiffSplatPipeline:
    defaults = replace(pipe.defaults, guided_below=level)
    return DiffSplatPipeline(pipe.denoiser, pipe.autoencoder, pipe.text_encoder, pipe.scheduler, defaults)


@pytest.mark.parametrize(("level", "unguided"), [(0.0, 4), (0.6, 2), (0.9, 1), (1.0, 0)])
def test_only_levels_below_the_models_are_guided(pipe, level, unguided):
    """One half of four views above it, two below, of the levels 1, 0.7503, 0.4297 and 0.0022."""
    seen: list[int] = []
    hook = pipe.denoiser.register_forward_pre_hook(
        lambda _, inputs: seen.append(len(inputs[0].flatten(0, 1)))
    )
    guided_below(pipe, level)("a red chair", seed=3, steps=4, guidance=3.0)
    hook.remove()
    assert seen == [4] * unguided + [8] * (4 - unguided)


def test_a_model_that_is_guided_at_no_level_makes_what_guidance_1_makes(pipe):
    never = guided_below(pipe, 0.0)("a red chair", seed=3, steps=4, guidance=3.0)
    assert same(never.splats, pipe("a red chair", seed=3, steps=4, guidance=1.0).splats)


def test_a_model_without_noise_levels_cannot_be_guided_below_one():
    with pytest.raises(ValueError, match=r"guided_below is 0\.5, expected 1 for the prediction 'epsilon'"):
        SamplingDefaults(guided_below=0.5, prediction="epsilon")


def test_a_refiner_of_other_weights_changes_the_object_and_is_stored_with_the_model(pipe, tmp_path):
    refiner = copy.deepcopy(pipe.denoiser)
    for parameter in refiner.parameters():
        parameter.data.mul_(0.5)
    both = refined(pipe, refiner, 0.7, refiner_guidance=2.0)
    changed = both("a red chair", seed=3, steps=4).splats
    assert not same(changed, pipe("a red chair", seed=3, steps=4).splats)
    both.save_pretrained(tmp_path)
    loaded = DiffSplatPipeline.from_pretrained(tmp_path)
    assert loaded.defaults == both.defaults
    assert (loaded.defaults.refined_below, loaded.defaults.refiner_guidance) == (0.7, 2.0)
    again = loaded("a red chair", seed=3, steps=4).splats
    assert torch.allclose(again.means, changed.means, atol=0.02)
    unrefined = DiffSplatPipeline.from_pretrained(tmp_path, refiner=None)
    plain = unrefined("a red chair", seed=3, steps=4).splats
    assert not torch.allclose(changed.means, plain.means, atol=0.05)
    assert torch.allclose(plain.means, pipe("a red chair", seed=3, steps=4).splats.means, atol=0.02)
    (tmp_path / "refiner" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks its file refiner/config.json"):
        DiffSplatPipeline.from_pretrained(tmp_path)


def test_a_denoiser_of_the_first_channels_leaves_the_others_at_their_mean(pipe):
    torch.manual_seed(0)
    autoencoder = ComponentAutoencoder(image_size=16, patch=4, latent_channels=6)
    wide = DiffSplatPipeline(pipe.denoiser, autoencoder, pipe.text_encoder, pipe.scheduler, pipe.defaults)
    narrow = ComponentAutoencoder(image_size=16, patch=4, latent_channels=4)
    narrow.components.copy_(autoencoder.components[:4])
    same_four = DiffSplatPipeline(pipe.denoiser, narrow, pipe.text_encoder, pipe.scheduler, pipe.defaults)
    assert same(wide("a red chair").splats, same_four("a red chair").splats)
    latents, detail = torch.randn(2, 4, 4, 4, 4), torch.zeros(2, 4, 2, 4, 4)
    whole = autoencoder.decode(torch.cat([latents, detail], dim=2)).values
    assert torch.equal(autoencoder.decode(latents).values, whole)
    assert not torch.equal(autoencoder.decode(torch.cat([latents, detail + 1], dim=2)).values, whole)
    with pytest.raises(ValueError, match="or fewer channels"):
        autoencoder.decode(torch.randn(2, 4, 7, 4, 4))


def test_a_refiner_of_other_latents_is_refused(pipe):
    other = make_denoiser(latent_channels=3, latent_size=4, width=64, layers=1, text_channels=32, patch=1)
    with pytest.raises(ValueError, match="the refiner has 3 out_channels, expected the 4"):
        refined(pipe, other, 0.9)


@pytest.mark.parametrize(
    ("below", "prediction", "message"),
    [
        (0.0, "latents", "refined_below is 0.0, expected a noise level above 0"),
        (1.5, "flow", "refined_below is 1.5, expected a noise level above 0, at most 1"),
        (0.9, "epsilon", "the prediction is 'epsilon', expected 'latents' or 'flow'"),
    ],
)
def test_a_refiner_without_a_level_is_refused(pipe, below, prediction, message):
    with pytest.raises(ValueError, match=message):
        refined(pipe, pipe.denoiser, below, prediction=prediction)


@pytest.mark.parametrize("scale", [-1.0, float("inf"), float("nan")])
def test_a_refiner_with_a_guidance_out_of_range_is_refused(pipe, scale):
    with pytest.raises(ValueError, match=f"refiner_guidance is {scale}, expected a finite number"):
        refined(pipe, pipe.denoiser, 0.5, refiner_guidance=scale)


@pytest.mark.parametrize(
    ("name", "value"), [("refiner_guidance", "3"), ("refined_below", None), ("steps", True)]
)
def test_an_index_with_anything_but_a_number_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value!r}, expected a number"):
        SamplingDefaults.from_index({name: value})


@pytest.mark.parametrize("level", [-0.1, 1.1, float("nan")])
def test_an_index_that_guides_below_an_impossible_level_is_refused(level):
    with pytest.raises(ValueError, match=f"guided_below is {level}, expected a noise level from 0 to 1"):
        SamplingDefaults.from_index({"guided_below": level})


def test_views_of_an_object_see_each_other(pipe):
    """Noise in one view changes what is predicted for the others."""
    cameras = pipe("a red chair", steps=1).cameras  # the call sets the attention processors
    rays = denoiser_rays(cameras, pipe.autoencoder.latent_size)
    text = pipe.text_encoder(["a red chair"])
    noise = object_noise(pipe.autoencoder.latent_shape, (0,))
    moved = noise.clone()
    moved[:, 0] += 1
    pure_noise = torch.full((1,), float(TIMESTEPS))
    with torch.no_grad():
        before, after = (
            network_output(pipe.denoiser, torch.cat([latents, rays], dim=2), pure_noise, text)
            for latents in (noise, moved)
        )
    assert (after - before)[:, 1:].abs().max() > 1e-3


def test_callback_sees_every_step(pipe):
    calls = []
    pipe(["a chair", "a taxi"], steps=3, count=2, callback=lambda step, total: calls.append((step, total)))
    assert calls == [(number, 12) for number in range(1, 13)]


def test_callback_may_stop(pipe):
    def stop(step: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipe("a chair", callback=stop)
    assert same(pipe("a chair").splats, pipe("a chair").splats)


def test_round_trip_through_a_folder(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "model")
    first = DiffSplatPipeline.from_pretrained(tmp_path / "model")
    assert first.defaults == pipe.defaults
    first.save_pretrained(tmp_path / "again")
    second = DiffSplatPipeline.from_pretrained(tmp_path / "again")
    assert same(first("a red chair").splats, second("a red chair").splats)
    close = (first("a red chair").splats.means - pipe("a red chair").splats.means).abs().mean()
    assert close < 0.02  # fp16 networks and an 8-bit text encoder


@pytest.mark.parametrize(
    ("sampler", "other", "kind"),
    [
        ("dpm++", "euler", "DPMSolverMultistepScheduler"),
        ("euler", "dpm++", "FlowMatchEulerDiscreteScheduler"),
    ],
)
def test_a_folder_keeps_how_its_model_is_sampled(pipe, tmp_path, sampler, other, kind):
    pipe.scheduler = make_scheduler(sampler, {"shift": 2.0}, "latents")
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", kind]
    loaded = DiffSplatPipeline.from_pretrained(tmp_path)
    own = loaded("a chair", steps=4).splats
    assert same(own, loaded("a chair", steps=4, sampler=sampler).splats)
    assert not same(own, loaded("a chair", steps=4, sampler=other).splats)


def test_a_scheduler_of_another_class_is_refused(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": "DDPMScheduler"}))
    with pytest.raises(
        ValueError, match=r"scheduler in .* its class is 'DDPMScheduler', expected one of: FlowMatch"
    ):
        DiffSplatPipeline.from_pretrained(tmp_path)


def test_component_given_by_the_caller_is_used(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    other = FlowMatchEulerDiscreteScheduler(shift=3.0)
    (tmp_path / "scheduler" / "scheduler_config.json").unlink()
    loaded = DiffSplatPipeline.from_pretrained(tmp_path, scheduler=other)
    assert loaded.scheduler is other
    with pytest.raises(ValueError, match="unknown component 'unet'"):
        DiffSplatPipeline.from_pretrained(tmp_path, unet=other)


def test_render_of_the_output(pipe):
    out = pipe(["a chair", "a taxi"])
    rendering = out.render(size=24)
    assert rendering.rgb.shape == (2, 4, 3, 24, 24)
    assert out.render(out.cameras[0, :1]).rgb.shape == (2, 1, 3, 16, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": "  \n"}, "the prompt is empty"),
        ({"prompt": []}, "no prompt was given"),
        ({"prompt": "x" * 10_000}, "the prompt has 10000 characters, expected at most 1000"),
        ({"prompt": ["a chair", 3]}, "the prompt is 3"),
        ({"negative_prompt": "x" * 1001}, "negative prompt has 1001 characters"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": -3}, "steps is -3"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"count": 0}, "count is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "the seed is 9223372036854775808"),
        ({"guidance": -1.0}, "guidance is -1.0"),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"guidance": float("inf")}, "guidance is inf"),
        ({"elevation": 91.0}, "elevation is 91.0"),
    ],
)
def test_bad_requests_are_refused(pipe, options, message):
    with pytest.raises(ValueError, match=message):
        pipe(**{"prompt": "a chair", **options})


def test_unknown_model_names_the_known():
    with pytest.raises(ValueError, match="unknown model 'maxi', expected one of: mini"):
        DiffSplatPipeline.from_pretrained("maxi")


def test_missing_and_foreign_files_are_named(pipe, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model_index\.json is missing"):
        DiffSplatPipeline.from_pretrained(tmp_path)
    pipe.save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    stored = index.read_text()
    index.write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        DiffSplatPipeline.from_pretrained(tmp_path)
    index.write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(ValueError, match="describes 'StableDiffusionPipeline'"):
        DiffSplatPipeline.from_pretrained(tmp_path)
    index.write_text(stored)
    Path(tmp_path / "denoiser" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks its file denoiser/diffusion_pytorch_model"):
        DiffSplatPipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("component", "file"),
    [
        ("autoencoder", "diffusion_pytorch_model.safetensors"),
        ("denoiser", "config.json"),
        ("text_encoder", "model.safetensors"),
        ("text_encoder", "config.json"),
        ("scheduler", "scheduler_config.json"),
    ],
)
def test_broken_files_are_named(pipe, tmp_path, component, file):
    pipe.save_pretrained(tmp_path)
    path = tmp_path / component / file
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match=f"the model's {component} in .* cannot be read"):
        DiffSplatPipeline.from_pretrained(tmp_path)


def test_weights_of_another_network_are_refused(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    path = tmp_path / "denoiser" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "num_layers": config["num_layers"] + 1}))
    with pytest.raises(
        ValueError, match=r"denoiser in .* cannot be read: \d+ weights are missing and 0 unknown"
    ):
        DiffSplatPipeline.from_pretrained(tmp_path)
    path.write_text(json.dumps({**config, "out_channels": 5}))
    with pytest.raises(ValueError, match=r"denoiser in .* cannot be read: the weight .* has the shape"):
        DiffSplatPipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize("steps", [1, 4, 20])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_straight_paths_end_exactly_at_the_data(steps, shift):
    """For one data point the optimal velocity is (x - x0) / level: every Euler path ends at x0."""
    noise = object_noise((2, 3, 4, 4), (0, 1))
    clean = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(9))
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    levels = []

    def velocity(latents, timestep):
        levels.append(float(timestep[0]) / 1000)
        return (latents - clean) / (timestep / 1000)[:, None, None, None, None]

    landed = denoise(velocity, noise, scheduler, steps)
    assert torch.allclose(landed, clean, atol=1e-5)

    def shifted(level):
        return shift * level / (1 + (shift - 1) * level)

    # Diffusers spaces the levels evenly from 1 to the shifted lowest training level, then shifts them.
    even = np.linspace(1.0, shifted(0.001), steps)
    assert levels == pytest.approx(shifted(even).tolist(), abs=1e-5)


def test_gaussian_data_reach_their_deviation():
    """For data N(0, s^2) the optimal velocity is linear in x, and the exact flow maps noise to s * noise."""
    deviation = 0.3
    noise = object_noise((1, 1, 8, 8), (0,)).double()

    def velocity(latents, timestep):
        level = timestep.double()[:, None, None, None, None] / 1000
        variance = (1 - level) ** 2 * deviation**2 + level**2
        return latents * (level - (1 - level) * deviation**2) / variance

    coarse, fine = (
        denoise(velocity, noise, FlowMatchEulerDiscreteScheduler(), steps).float() for steps in (50, 400)
    )
    expected = (deviation * noise).float()
    assert torch.allclose(fine, expected, rtol=0.02, atol=1e-4)
    assert (fine - expected).abs().max() < (coarse - expected).abs().max()


def test_noise_of_an_object_depends_on_its_seed_only():
    batch = object_noise((4, 4), (7, 8, 7))
    assert torch.equal(batch[0], batch[2])
    assert torch.equal(batch[1], object_noise((4, 4), (8,))[0])
    assert not torch.equal(batch[0], batch[1])


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        pytest.param({"amx_bf16", "avx512_bf16", "avx512_fp16"}, True, id="xeon"),
        pytest.param({"avx512_bf16", "avx512_fp16"}, False, id="xeon whose amx is hidden"),
        pytest.param({"avx512_bf16"}, True, id="zen 4"),
        pytest.param({"avx2"}, False, id="zen 3"),
    ],
)
def test_bf16_is_chosen_on_cpus_that_were_measured_to_be_faster_in_it(
    instructions: set[str], expected: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(instructions, True))
    assert faster_in_bf16(torch.device("cpu")) is expected
    assert faster_in_bf16(torch.device("meta")) is False
