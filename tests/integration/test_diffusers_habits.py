"""What users of diffusers type, on the pipelines of tiny real networks."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers

from diffsplat.models.multiview_pixart import MultiViewPixArt
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pipelines.denoising_loop import object_generators, object_noise
from diffsplat.pipelines.model_opening import ModelChoice, OpeningOptions
from diffsplat.pretrained.release_catalogue import BACKBONES

NAMES = list(BACKBONES)
SAMPLERS = ("dpm++", "dpm++-sde", "ddim", "euler", "unipc", "lcm", "tcd")


@pytest.fixture(scope="module")
def pipelines(weights: Path) -> dict[str, DiffSplatPipeline]:
    return {name: opened(weights, name) for name in NAMES}


def opened(weights: Path, name: str, **options: Any) -> DiffSplatPipeline:
    """A released model for views of 64 pixels, which are computed sixteen times as fast as those of 256."""
    pipe: Any = DiffSplatPipeline.from_pretrained(name, weights=weights, **options)
    pipe.autoencoder.image_size, pipe.autoencoder.latent_size = 64, 8
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe(pipelines: dict[str, DiffSplatPipeline]):
    """The one of Stable Diffusion 1.5, put back as it was."""
    chosen = pipelines["sd15"]
    kept = chosen.components
    yield chosen
    for name, component in kept.items():
        setattr(chosen, name, component)
    chosen.set_progress_bar_config()


def made(pipe: DiffSplatPipeline, prompt: Any = "a red chair", **options: Any) -> torch.Tensor:
    """Positions and colours of two steps."""
    placed = options.keys() & {"steps", "timesteps", "sigmas"}
    out = pipe(prompt, **({} if placed else {"steps": 2}), **options)
    return torch.cat([out.splats.means, out.splats.colors], dim=-1)


# Devices and types


@pytest.mark.parametrize(
    ("args", "kwargs", "dtype"),
    [
        ((torch.bfloat16,), {}, torch.bfloat16),
        (("cpu", torch.float16), {}, torch.float16),
        ((torch.float16, "cpu"), {}, torch.float16),
        (("cpu",), {"dtype": torch.bfloat16}, torch.bfloat16),
        ((), {"device": torch.device("cpu"), "dtype": torch.float64}, torch.float64),
        ((torch.device("cpu"),), {}, torch.float32),
    ],
)
def test_to_moves_and_casts(weights: Path, args: tuple, kwargs: dict, dtype: torch.dtype):
    pipe = opened(weights, "sd15")
    assert pipe.to(*args, **kwargs) is pipe
    assert pipe.dtype == dtype
    assert pipe.device == torch.device("cpu")
    assert next(pipe.text_encoder.parameters()).dtype == dtype
    assert torch.isfinite(made(pipe)).all()


@pytest.mark.parametrize("name", ["pixart-sigma", "sd35m"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_is_close(pipelines, weights: Path, name: str, dtype: torch.dtype):
    low = opened(weights, name).to(dtype)
    assert (made(low) - made(pipelines[name])).abs().mean() < 0.02


def test_the_own_denoiser_in_bfloat16_is_close(small_pipeline: DiffSplatPipeline):
    low = DiffSplatPipeline(**small_pipeline.components)
    low.denoiser = copy.deepcopy(small_pipeline.denoiser)
    low.to(torch.bfloat16)
    assert low.dtype == torch.bfloat16
    assert next(low.text_encoder.parameters()).dtype == torch.float32
    assert (low("a chair").splats.means - small_pipeline("a chair").splats.means).abs().mean() < 0.05


def test_a_failing_to_changes_nothing(pipe: DiffSplatPipeline):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ValueError, match="no device 'cuda': torch sees 0 CUDA devices"):
        pipe.to("cuda", torch.float16)
    with pytest.raises(ValueError, match=r"the type is torch\.int8, expected a floating-point one"):
        pipe.to(torch.int8)
    with pytest.raises(TypeError, match="two devices"):
        pipe.to("cpu", device="cpu")
    with pytest.raises(TypeError, match="expected a device"):
        pipe.to(None)
    assert pipe.dtype == torch.float32


def test_types_of_the_weights_by_default_and_as_asked(weights: Path):
    """The same in Python and on the command line."""
    for options, expected in (
        (OpeningOptions(), torch.float32),
        (OpeningOptions(dtype="bf16"), torch.bfloat16),
        (OpeningOptions(dtype="fp16"), torch.float16),
        (OpeningOptions(low_memory=True), torch.bfloat16),
    ):
        choice = ModelChoice("sd15", options=replace(options, weights=weights, device="cpu"))
        assert choice.open().dtype == expected
    assert opened(weights, "sd15").dtype == torch.float32
    assert opened(weights, "sd15", dtype=torch.float16).dtype == torch.float16


def test_sd35_without_t5_has_zeros_in_its_place(weights: Path, tmp_path: Path):
    pipe = opened(weights, "sd35m", t5=False)
    assert len(pipe.text_encoder.encoders) == 2
    encoded = pipe.text_encoder(["a red chair"])
    with_t5 = DiffSplatPipeline.from_pretrained("sd35m", weights=weights).text_encoder(["a red chair"])
    assert encoded.tokens.shape == with_t5.tokens.shape
    assert torch.equal(encoded.tokens[:, :77], with_t5.tokens[:, :77])
    assert not encoded.tokens[:, 77:].any()
    assert with_t5.tokens[:, 77:].any()
    assert torch.equal(encoded.pooled, with_t5.pooled)
    assert torch.isfinite(made(pipe)).all()
    pipe.save_pretrained(tmp_path)
    again = DiffSplatPipeline.from_pretrained(tmp_path).text_encoder(["a red chair"])
    assert torch.equal(again.tokens, encoded.tokens)
    with pytest.raises(ValueError, match="T5 was left out of sd15, expected sd35m"):
        opened(weights, "sd15", t5=False)


# Components


@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_denoiser_is_assigned(pipelines, name: str, tmp_path: Path):
    """Compiled once, called twice: the views are not set anew in every call."""
    pipe = DiffSplatPipeline(**pipelines[name].components)
    plain = made(pipe)
    graphs = []

    def backend(module: torch.fx.GraphModule, _inputs: Any) -> Any:
        graphs.append(module)
        return module.forward

    torch._dynamo.reset()
    pipe.denoiser = torch.compile(pipe.denoiser, backend=backend)
    assert torch.allclose(made(pipe), plain, atol=1e-4)
    compiled = len(graphs)
    assert compiled
    assert torch.allclose(made(pipe, seed=0), plain, atol=1e-4)
    assert len(graphs) == compiled
    assert "(compiled)" in repr(pipe)
    pipe.save_pretrained(tmp_path)
    again = DiffSplatPipeline.from_pretrained(tmp_path)
    assert set(again.denoiser.state_dict()) == set(pipelines[name].denoiser.state_dict())


def test_components_make_another_pipeline(pipe: DiffSplatPipeline):
    assert torch.equal(made(DiffSplatPipeline(**pipe.components)), made(pipe))
    assert pipe.components["denoiser"] is pipe.denoiser


def test_the_bar_can_be_configured(pipe: DiffSplatPipeline, capsys: pytest.CaptureFixture[str]):
    pipe.set_progress_bar_config(desc="chairs", leave=True)
    made(pipe)
    assert "chairs" in capsys.readouterr().err
    pipe.set_progress_bar_config(disable=True)
    made(pipe)
    assert capsys.readouterr().err == ""


def test_repr_is_readable(pipe: DiffSplatPipeline):
    count = sum(parameter.numel() for parameter in pipe.denoiser.parameters())
    lines = repr(pipe).splitlines()
    assert lines[0] == "DiffSplatPipeline on cpu"
    assert f"  denoiser: UNet2DConditionModel, {count:,} weights, float32, cpu" in lines
    assert "  scheduler: DPMSolverMultistepScheduler, epsilon" in lines
    assert not any("refiner" in line for line in lines)


# Tensors


def test_a_generator_draws_what_its_seed_draws(pipe: DiffSplatPipeline):
    out = pipe("a red chair", steps=2, generator=torch.Generator().manual_seed(7))
    assert out.seeds == (7,)
    assert torch.equal(out.splats.means, pipe("a red chair", steps=2, seed=7).splats.means)
    several = pipe(
        ["a chair", "a table"], steps=2, generator=[torch.Generator().manual_seed(seed) for seed in (7, 3)]
    )
    assert several.seeds == (7, 3)
    assert torch.equal(several.splats.means[1], pipe("a table", steps=2, seed=3).splats.means[0])
    with pytest.raises(ValueError, match="got 1 generators for 2 objects"):
        pipe("a chair", count=2, generator=[torch.Generator()])


def test_one_generator_draws_for_all_objects(pipe: DiffSplatPipeline):
    first = made(pipe, count=2, generator=torch.Generator().manual_seed(7))
    assert not torch.equal(first[0], first[1])
    assert torch.equal(first, made(pipe, count=2, generator=torch.Generator().manual_seed(7)))


def test_latents_go_in_and_come_out(pipe: DiffSplatPipeline):
    noise = object_noise(pipe.latent_shape, object_generators((5, 6)))
    out = pipe("a red chair", steps=2, count=2, latents=noise, sampler="ddim")
    seeded = pipe("a red chair", steps=2, count=2, seed=5, sampler="ddim")
    assert torch.equal(out.splats.means, seeded.splats.means)
    assert out.latents is not None
    assert out.latents.shape == noise.shape
    decoded = pipe.autoencoder.decode(out.latents).to_splats(out.cameras, pipe.autoencoder.pixel_grid)
    assert torch.allclose(decoded.means, out.splats.means, atol=1e-6)
    with pytest.raises(ValueError, match=r"the latents have shape \(1, 4, 4, 8, 8\), expected \(2, 4"):
        pipe("a red chair", count=2, latents=noise[:1])


@pytest.mark.parametrize("name", NAMES)
def test_prompt_embeds_take_the_place_of_the_text_encoder(pipelines, name: str):
    pipe = DiffSplatPipeline(**pipelines[name].components)
    expected = made(pipe, ["a red chair", "a wooden barrel"], negative_prompt="blue")
    encoded, negative = pipe.text_encoder(["a red chair", "a wooden barrel"]), pipe.text_encoder(["blue"])
    pipe.text_encoder = None
    given: dict[str, Any] = {
        "prompt_embeds": encoded.tokens,
        "prompt_attention_mask": encoded.mask,
        "pooled_prompt_embeds": encoded.pooled,
    }
    negatives = {
        "negative_prompt_embeds": negative.tokens,
        "negative_prompt_attention_mask": negative.mask,
        "negative_pooled_prompt_embeds": negative.pooled,
    }
    assert torch.allclose(made(pipe, "", **given, **negatives), expected, atol=1e-4)
    with pytest.raises(ValueError, match="no text encoder for '', expected prompt_embeds and negative"):
        made(pipe, "", **given)
    with pytest.raises(ValueError, match="both given"):
        made(pipe, "a chair", **given)


def test_the_callback_changes_latents(pipe: DiffSplatPipeline):
    seen: list[tuple[int, float]] = []

    def watch(pipeline: Any, step: int, timestep: torch.Tensor, tensors: dict[str, torch.Tensor]) -> dict:
        assert pipeline is pipe
        seen.append((step, float(timestep)))
        return {"latents": tensors["latents"] * 0} if step == 1 else {}

    out = pipe("a red chair", steps=2, callback_on_step_end=watch)
    assert seen == [(0, 999.0), (1, 499.0)]
    assert out.latents is not None
    assert not out.latents.any()
    assert torch.equal(made(pipe, callback_on_step_end=lambda *_: None), made(pipe))


# Options


def test_eta_makes_ddim_stochastic_as_in_its_formula(pipe: DiffSplatPipeline):
    """Two steps by hand (Song et al. 2021, equations 12 and 16), with noise of the same generator."""
    calls: list[torch.Tensor] = []
    hook = pipe.denoiser.register_forward_hook(lambda _m, _i, output: calls.append(output[0].detach()))
    options: dict[str, Any] = {"steps": 2, "sampler": "ddim", "guidance": 1.0, "seed": 3}
    out = pipe("a red chair", **options, eta=1.0)
    hook.remove()
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(pipe.latent_shape, generator=generator)
    alphas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    alphas = torch.cumprod(1 - alphas, dim=0)
    for noise, (time, after) in zip([call.float() for call in calls], [(999, 499), (499, 0)], strict=True):
        now, then = float(alphas[time]), float(alphas[after])
        clean = (latents - (1 - now) ** 0.5 * noise) / now**0.5
        spread = ((1 - then) / (1 - now) * (1 - now / then)) ** 0.5
        latents = then**0.5 * clean + (1 - then - spread**2) ** 0.5 * noise
        latents = latents + spread * torch.randn((1, *pipe.latent_shape), generator=generator)[0]
    assert out.latents is not None
    assert torch.allclose(out.latents[0], latents.float(), rtol=1e-3, atol=1e-3)
    plain = pipe("a red chair", **options).latents
    assert plain is not None
    assert not torch.allclose(out.latents, plain, atol=0.1)
    with pytest.raises(ValueError, match="eta is 1 and the scheduler DPMSolverMultistepScheduler takes none"):
        pipe("a red chair", eta=1.0)


def test_guidance_rescale_is_that_of_diffusers():
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    from diffsplat.pipelines.guidance import rescaled_guidance

    guided, conditional = torch.randn(2, 4, 3, 8, 8) * 3, torch.randn(2, 4, 3, 8, 8)
    expected = rescale_noise_cfg(guided.flatten(0, 1), conditional.flatten(0, 1), 0.7)
    assert torch.allclose(rescaled_guidance(guided, conditional, 0.7).flatten(0, 1), expected, atol=1e-6)


def test_guidance_rescale_changes_the_object(pipe: DiffSplatPipeline):
    assert not torch.allclose(made(pipe, guidance_rescale=0.7), made(pipe), atol=1e-5)


def test_clip_skip_is_the_layer_before(pipelines, weights: Path):
    from transformers import CLIPTextModel, CLIPTokenizer

    base = weights / "stable-diffusion-v1-5"
    ids = CLIPTokenizer.from_pretrained(base / "tokenizer")(
        ["a red chair"], padding="max_length", max_length=77, return_tensors="pt"
    ).input_ids
    clip: Any = CLIPTextModel.from_pretrained(base / "text_encoder")
    with torch.no_grad():
        hidden = clip(ids, output_hidden_states=True).hidden_states[-2]
        norm = next(module for name, module in clip.named_modules() if name.endswith("final_layer_norm"))
        expected = norm(hidden)
    encoder = pipelines["sd15"].text_encoder
    assert torch.allclose(encoder(["a red chair"], clip_skip=1).tokens, expected, atol=1e-6)
    for name in ("sd15", "sd35m"):
        plain = made(pipelines[name])
        assert not torch.allclose(made(pipelines[name], clip_skip=1), plain, atol=1e-5)
        with pytest.raises(ValueError, match="clip_skip is 2, expected at most 1"):
            made(pipelines[name], clip_skip=2)
    with pytest.raises(ValueError, match="expected none: the text encoder is not CLIP"):
        made(pipelines["pixart-sigma"], clip_skip=1)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("sd15", {"timesteps": [900, 400, 100]}, [900, 400, 100]),
        ("sd15", {"sampler": "euler", "timesteps": torch.tensor([999, 500])}, [999, 500]),
        ("sd15", {"sampler": "lcm", "timesteps": [999, 499]}, [999, 499]),
        ("sd35m", {"timesteps": [900, 300]}, [900, 300]),
        ("sd35m", {"sigmas": [1.0, 0.5]}, [1000, 750]),  # shifted by 3: 3 s / (1 + 2 s)
    ],
)
def test_timesteps_and_sigmas(pipelines, name: str, options: dict, expected: list[int]):
    pipe, seen = pipelines[name], []
    hook = pipe.denoiser.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.append(float(kwargs["timestep"][0])), with_kwargs=True
    )
    made(pipe, **options)
    hook.remove()
    assert seen == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "ddim", "timesteps": [900, 100]}, "DDIMScheduler takes no timesteps, expected another"),
        ({"timesteps": [100, 900]}, "expected every one below the one before"),
        ({"timesteps": [1900, 900]}, "1900 is among the timesteps"),
        ({"timesteps": [900, 100], "steps": 3}, "steps is 3 and 2 were placed"),
        ({"timesteps": [900], "sigmas": [1.0]}, "both given"),
        ({"sampler": "lcm", "steps": 60}, "LCMScheduler cannot take these 60 steps"),
        ({"seed": [1, 2, 3], "count": 2}, "3 seeds were given for 1 prompts and a count of 2"),
        ({"negative_prompt": ["a", "b"]}, "2 negative prompts were given for 1 prompts"),
        ({"noise_device": "mps"}, "the noise device is 'mps', expected one of: cpu, cuda"),
        ({"seed": [1.5]}, "the seed is 1.5, expected a whole number"),
    ],
)
def test_options_that_contradict_are_refused(pipe: DiffSplatPipeline, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        pipe("a red chair", **options)


def test_lists_of_seeds_and_negative_prompts(pipe: DiffSplatPipeline):
    out = pipe("a red chair", steps=2, seed=[9, 4])
    assert out.seeds == (9, 4)
    assert torch.equal(out.splats.means[1], pipe("a red chair", steps=2, seed=4).splats.means[0])
    pair = pipe(["a chair", "a table"], steps=2, seed=[9, 4], negative_prompt=["blue", "red"])
    alone = pipe("a table", steps=2, seed=4, negative_prompt="red")
    assert torch.equal(pair.splats.means[1], alone.splats.means[0])
    assert not torch.equal(alone.splats.means, pipe("a table", steps=2, seed=4).splats.means)
    assert torch.equal(made(pipe, seed=torch.tensor([9, 4]))[0], made(pipe, seed=9)[0])


def test_a_list_of_images(weights: Path, picture: Path):
    pipe = opened(weights, "sd15", image=True)
    turned = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    out = pipe(["a chair", "a table"], image=[str(picture), turned], steps=2, seed=3)
    alone = pipe("a table", image=turned, steps=2, seed=3)
    assert torch.equal(out.splats.means[1], alone.splats.means[0])
    assert out.prompts == ("a chair", "a table")
    assert out.seeds == (3, 3)
    first, second = out.objects()
    assert second.elevation_deg == alone.generation.elevation_deg
    assert first.elevation_deg != second.elevation_deg
    shared = pipe(image=[turned, turned], steps=2, count=2, elevation=10.0)
    assert len(shared) == 4
    assert shared.generation.elevation == 10.0
    with pytest.raises(ValueError, match="the list of images is empty"):
        pipe(image=[])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("num_inference_steps", "num_inference_steps is called steps here"),
        ("guidance_scale", "guidance_scale is called guidance here"),
        ("num_images_per_prompt", "is called count here"),
        ("output_type", "there is no option output_type: a call returns splats and latents"),
        ("colour", "there is no option 'colour', expected one of: .*steps"),
    ],
)
def test_names_of_diffusers_get_a_sentence(pipe: DiffSplatPipeline, name: str, message: str):
    with pytest.raises(TypeError, match=message):
        pipe("a red chair", **{name: 3})


# Schedulers

SCHEDULERS = dict.fromkeys(
    [
        *(entry.name for entry in KarrasDiffusionSchedulers),
        *("LCMScheduler", "TCDScheduler", "SASolverScheduler", "IPNDMScheduler", "DDIMParallelScheduler"),
        "CogVideoXDDIMScheduler",
        *("DDPMParallelScheduler", "EDMDPMSolverMultistepScheduler", "CMStochasticIterativeScheduler"),
    ]
)
FLOW_SCHEDULERS = {
    "FlowMatchEulerDiscreteScheduler": {},
    "FlowMatchHeunDiscreteScheduler": {},
    "FlowMatchLCMScheduler": {},
    "LTXEulerAncestralRFScheduler": {},
    "DPMSolverMultistepScheduler": {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    "UniPCMultistepScheduler": {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    "DEISMultistepScheduler": {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    "SASolverScheduler": {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
}


def assert_seeded(pipe: DiffSplatPipeline) -> None:
    """The same seed twice gives the same object, another seed another, and whole batches too."""
    first = pipe("a red chair", seed=[1, 2], steps=4)
    assert torch.isfinite(first.splats.means).all()
    torch.manual_seed(5)
    again = pipe("a red chair", seed=[1, 2], steps=4)
    assert torch.equal(first.latents, again.latents)
    assert not torch.equal(first.latents[0], first.latents[1])
    alone = pipe("a red chair", seed=2, steps=4)
    assert torch.equal(alone.latents[0], first.latents[1])


@pytest.mark.parametrize("name", ["sd15", "pixart-sigma"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_of_diffusers_repeats_its_seed(pipelines, name: str, scheduler: str):
    pipe = DiffSplatPipeline(**pipelines[name].components)
    kind = getattr(diffusers, scheduler)
    # The configuration of a stochastic DPM-Solver, which these two of diffusers refuse themselves.
    own = {
        "DEISMultistepScheduler": {"algorithm_type": "deis"},
        "SASolverScheduler": {"algorithm_type": "data_prediction"},
    }
    if scheduler == "DPMSolverSDEScheduler":
        pytest.importorskip("torchsde")
    pipe.scheduler = kind.from_config(pipe.scheduler.config, **own.get(scheduler, {}))
    assert_seeded(pipe)


@pytest.mark.parametrize("scheduler", FLOW_SCHEDULERS)
def test_every_flow_scheduler_repeats_its_seed(pipelines, scheduler: str):
    pipe = DiffSplatPipeline(**pipelines["sd35m"].components)
    kind = getattr(diffusers, scheduler)
    pipe.scheduler = kind.from_config(pipe.scheduler.config, **FLOW_SCHEDULERS[scheduler])
    assert_seeded(pipe)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (
            "CogVideoXDPMScheduler",
            "needs model_output, old_pred_original_sample, .*expected three values as in DPMSolver",
        ),
        ("DDIMInverseScheduler", "goes from clean latents to noise, expected one that denoises"),
        ("DPMSolverMultistepInverseScheduler", "goes from clean latents to noise"),
    ],
)
def test_the_rest_of_the_compatible_schedulers_is_refused(pipelines, scheduler: str, message: str):
    pipe = DiffSplatPipeline(**pipelines["sd15"].components)
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    with pytest.raises(ValueError, match=message):
        pipe("a red chair", steps=2)


def test_steps_that_add_noise_differ_by_seed_from_the_same_start(pipe: DiffSplatPipeline):
    """Fresh schedulers too: the noise on the way comes from the object's seed, not only that of the start."""
    noise = object_noise(pipe.latent_shape, object_generators((0,)))
    for kind in (diffusers.EulerAncestralDiscreteScheduler, diffusers.LCMScheduler, diffusers.DDPMScheduler):
        pipe.scheduler = kind(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
        one, other = (made(pipe, latents=noise, seed=seed) for seed in (1, 2))
        assert not torch.equal(one, other)
        assert torch.equal(one, made(pipe, latents=noise, seed=1))


def test_a_scheduler_for_another_prediction_is_refused(pipelines, pipe: DiffSplatPipeline):
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    with pytest.raises(
        ValueError, match="FlowMatchEulerDiscreteScheduler is not made for a model that predicts epsilon"
    ):
        pipe("a red chair")
    flow = DiffSplatPipeline(**pipelines["sd35m"].components)
    flow.scheduler = diffusers.EulerDiscreteScheduler()
    with pytest.raises(ValueError, match="is not made for a model that predicts flow"):
        flow("a red chair")


def test_progress_counts_evaluations(pipe: DiffSplatPipeline):
    """Heun's method takes two in every step but the last."""
    pipe.scheduler = diffusers.HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    calls: list[tuple[int, int]] = []
    pipe("a red chair", steps=3, callback=lambda done, total: calls.append((done, total)))
    assert calls == [(number, 5) for number in range(1, 6)]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", NAMES)
def test_samplers_by_name(pipelines, name: str, sampler: str):
    pipe = pipelines[name]
    if (name, sampler) == ("sd35m", "tcd"):
        with pytest.raises(ValueError, match="the sampler is 'tcd' and the model predicts a flow"):
            pipe("a red chair", sampler=sampler)
        return
    one = pipe("a red chair", steps=4, sampler=sampler, seed=3)
    assert torch.isfinite(one.splats.means).all()
    assert torch.equal(one.latents, pipe("a red chair", steps=4, sampler=sampler, seed=3).latents)


def test_noise_of_a_device_that_is_not_there_is_refused(pipe: DiffSplatPipeline):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ValueError, match="the noise device is 'cuda', but torch sees none"):
        pipe("a red chair", noise_device="cuda")


def test_the_own_denoiser_is_compiled_too(small_pipeline: DiffSplatPipeline):
    pipe = DiffSplatPipeline(**small_pipeline.components)
    assert isinstance(pipe.denoiser, MultiViewPixArt)
    plain = pipe("a chair").splats.means
    torch._dynamo.reset()
    pipe.denoiser = torch.compile(pipe.denoiser, backend="eager")
    assert torch.allclose(pipe("a chair").splats.means, plain, atol=1e-4)


def test_two_controlnets_add_their_residuals(weights: Path, tmp_path: Path):
    both = [opened(weights, "sd15", control=kind) for kind in ("depth", "canny")]
    maps = [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    nets = [one.controlnet for one in both]
    pipe = DiffSplatPipeline(**{**both[0].components, "controlnet": torch.nn.ModuleList(nets)})
    alone = [made(one, control=image) for one, image in zip(both, maps, strict=True)]
    together = made(pipe, control=list(maps))
    assert all(not torch.allclose(together, one, atol=1e-4) for one in alone)
    assert torch.allclose(
        made(pipe, control=list(maps), control_scale=0.0),
        made(both[0], control=maps[0], control_scale=0.0),
        atol=1e-5,
    )

    def added(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        """The other network's residuals, added by hand."""
        extra = nets[1](*args, **{**kwargs, "controlnet_cond": second})
        return [one + other for one, other in zip(output[0], extra[0], strict=True)], output[1] + extra[1]

    seen: list[Any] = []
    hook = nets[1].register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(kwargs["controlnet_cond"]), with_kwargs=True
    )
    made(both[1], control=maps[1])
    hook.remove()
    second = seen[0]
    hook = nets[0].register_forward_hook(added, with_kwargs=True)
    by_hand = made(both[0], control=maps[0])
    hook.remove()
    assert torch.allclose(together, by_hand, atol=1e-4)
    with pytest.raises(ValueError, match="the number of control maps is 1, expected 2"):
        made(pipe, control=maps[0])
    with pytest.raises(ValueError, match="several ControlNets"):
        pipe.save_pretrained(tmp_path)
