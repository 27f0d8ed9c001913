"""Recorded training steps of the denoisers, from text and from an image, without and with rendering loss."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffsplat.core import Views
from diffsplat.models.multiview_attention import set_multiview_attention
from diffsplat.models.rays_and_noise_levels import denoiser_rays
from diffsplat.models.splat_vae import SplatVAE
from diffsplat.models.text.text_condition import TextCondition
from diffsplat.pipelines.guidance import Conditions, attended_views, denoiser_inputs
from diffsplat.pipelines.image_and_control_conditions import control_views, image_latents
from diffsplat.pretrained.release_catalogue import Prediction
from diffsplat.pretrained.released_networks import load_controlnet
from diffsplat.training.condition_dropout import DroppedConditions
from diffsplat.training.denoiser_loss import (
    ConditionedDenoiser,
    DenoiserLoss,
    LatentRendering,
    Predictor,
)
from diffsplat.training.diffusion_objective import (
    MinSnrWeight,
    NoiseLevels,
    Objective,
    ShiftedFlowSteps,
    UniformTimesteps,
)
from diffsplat.training.network_initialisation import controlnet_from_unet
from diffsplat.training.rendered_view_loss import ObjectLosses, RenderedViewLoss, RenderedViewWeights
from support.training_recordings import (
    INPUT_VIEWS,
    RecordedStep,
    TrainingRecordings,
    box_distance,
    check_gradients,
    check_number,
    check_numbers,
    check_tensor,
    gradients_of,
    posterior_noise,
)

SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PIXART_BETAS = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
AUTOENCODERS = {"sd": "sd", "pas": "sdxl", "sd3": "sd3"}
RENDERED = ("", "+render", "+render_only")
CASES = [
    *((family, f"{kind}{end}") for family in AUTOENCODERS for kind in ("text", "image") for end in RENDERED),
    ("sd", "text+render_snr1"),
    ("sd", "text+render_full_decoder"),
    ("sd", "text+render_coord_normal"),
    ("sd", "text+min_snr5_one_object"),
    ("sd", "image+min_snr5_one_object"),
    ("pas", "text+render_snr1"),
    ("pas", "image+render_snr1"),
    ("pas", "text+min_snr5_one_object"),
    ("pas", "image+min_snr5_one_object"),
    ("sd3", "text+precondition_outputs"),
]
CONTROL_CASES = ("depth", "depth+render", "depth+render_only")


@dataclass(frozen=True)
class Prepared:
    """Objects as the denoisers of one family see them."""

    views: Views
    autoencoder: SplatVAE
    latents: Tensor


class Families:
    """Objects encoded once by the autoencoder of each family."""

    def __init__(self, training: TrainingRecordings, factory: pytest.TempPathFactory) -> None:
        self.training, self.factory = training, factory
        self._ready: dict[str, Prepared] = {}

    def __getitem__(self, family: str) -> Prepared:
        if family not in self._ready:
            views = self.training.views()
            inputs = views.take(slice(INPUT_VIEWS))
            reconstructor = self.training.reconstructor(self.factory.mktemp("reconstructor"))
            vae = self.training.splat_vae(AUTOENCODERS[family], self.factory.mktemp("vae"))
            with torch.no_grad():
                latents = vae.encode(reconstructor(inputs))
            self._ready[family] = Prepared(views, vae, latents)
        return self._ready[family]


@pytest.fixture(scope="module")
def families(training: TrainingRecordings, tmp_path_factory: pytest.TempPathFactory) -> Families:
    return Families(training, tmp_path_factory)


def objective_of(family: str, step: RecordedStep) -> Objective:
    options = step.facts["options"]
    if family == "sd3":
        precondition = step.name.endswith("precondition_outputs")
        return Objective("flow", ShiftedFlowSteps(), compare_latents=precondition)
    prediction: Prediction = options["prediction_type"] or "epsilon"
    source = UniformTimesteps.from_scheduler(SD_BETAS if family == "sd" else PIXART_BETAS)
    return Objective(prediction, source, MinSnrWeight(options["snr_gamma"]) if options["snr_gamma"] else None)


def levels_of(objective: Objective, step: RecordedStep, views: int) -> NoiseLevels:
    """The recorded draws as noise levels of objects."""
    source = objective.levels
    if isinstance(source, ShiftedFlowSteps):
        levels = source.at(step.tensor("u_before_sigmoid"))
        check_tensor("sigmas", levels.noise.repeat_interleave(INPUT_VIEWS), step.tensor("sigmas"), 1e-6)
        check_tensor("timesteps", levels.timestep, step.tensor("model_timestep"), 1e-6)
        return levels
    assert isinstance(source, UniformTimesteps)
    return source.at(step.tensor("model_timestep")[::views])


def rendering_of(step: RecordedStep, autoencoder: SplatVAE) -> LatentRendering | None:
    options = step.facts["options"]
    if not options["rendering_loss_prob"]:
        return None
    weights = RenderedViewWeights(
        perceptual=options["lpips_weight"], coord=options["coord_weight"], normal=options["normal_weight"]
    )
    return LatentRendering(
        autoencoder,
        RenderedViewLoss(weights, box_distance, "legacy"),
        weight=options["render_weight"],
        decoder="tiny" if options["use_tiny_decoder"] else "full",
        snr_gamma=options["snr_gamma_rendering"] or None,
    )


def image_condition(training: TrainingRecordings, family: str, step: RecordedStep, views: Views) -> Tensor:
    vae = training.image_vae(AUTOENCODERS[family])
    with posterior_noise(step.tensor("image_vae_noise")[: views.batch_size]), torch.no_grad():
        return image_latents(vae, views.image[:, 0], sample=True)


def conditions_of(
    training: TrainingRecordings, family: str, step: RecordedStep, prepared: Prepared
) -> Conditions:
    facts, views = step.facts, prepared.views.objects(slice(step.facts["objects"]))
    dropped = DroppedConditions.at(torch.tensor(facts["random_p"]), facts["options"]["cfg_dropout_prob"])
    assert dropped.text.tolist() == facts["text_replaced_by_negative"]
    image = None
    if facts["options"]["view_concat_condition"]:
        assert dropped.image.tolist() == facts["image_latent_zeroed"]
        image = dropped.apply_to_image(image_condition(training, family, step, views))
    text, empty = training.text(family)
    text = dropped.apply_to_text(text.take(slice(facts["objects"])), empty)
    rays = denoiser_rays(views.cameras[:, :INPUT_VIEWS], prepared.latents.shape[-1], "legacy")
    return Conditions(rays, text, image_latent=image)


def check_text(step: RecordedStep, text: TextCondition) -> None:
    """Every view has its object's text; SD3 has one text stream an object."""
    recorded = step.tensor("model_prompt")
    every = 1 if f"{step.name.split('+')[0]}.model_pooled" in step.tensors else len(recorded) // 4
    count = text.tokens.shape[0]
    check_tensor("prompt", text.tokens, recorded[::every][:count], 1e-6)
    if text.mask is not None:
        assert torch.equal(text.mask, step.tensor("model_prompt_mask")[::every][:count] > 0.5)
    if text.pooled is not None:
        check_tensor("pooled", text.pooled, step.tensor("model_pooled")[:count], 1e-6)


def check_losses(step: RecordedStep, losses: ObjectLosses) -> None:
    facts = step.facts
    tolerance = 1e-4 if "render_terms" in facts else 1e-5
    check_number(f"{step.name} loss", losses.total.mean(), facts["loss"], tolerance)
    check_numbers(
        f"{step.name} loss of each object",
        losses.total,
        facts["loss_of_each_object"][: facts["objects"]],
        tolerance,
    )
    if "diffusion_loss_of_each_object" in facts:
        check_numbers("diffusion", losses.terms["diffusion"], facts["diffusion_loss_of_each_object"], 1e-5)
    if "render_terms" not in facts:
        return
    check_numbers("rendering", losses.terms["rendering"], facts["render_loss_of_each_object"], 1e-4)
    terms = {**facts["render_terms"]}
    normal = terms.pop("normal_cosim", None)
    names = {"rgb": "image_mse", "mask": "mask_mse", "perceptual": "lpips", "coord": "coord_mse"}
    assert {names[name] for name in losses.terms if name in names} == terms.keys()
    for ours, recorded in names.items():
        if ours in losses.terms:
            check_number(f"{step.name} {ours}", losses.terms[ours].mean(), terms[recorded], 1e-4)
    if normal is not None:
        check_number(f"{step.name} normal", 1 - losses.terms["normal"].mean(), normal, 1e-4)


class Recorder:
    """A denoiser that keeps its last prediction."""

    def __init__(self, inner: Predictor) -> None:
        self.inner = inner
        self.prediction = torch.empty(0)

    def __call__(self, noisy: Tensor, timestep: Tensor, conditions: Conditions) -> Tensor:
        self.prediction = self.inner(noisy, timestep, conditions)
        return self.prediction


def noise_of(step: RecordedStep) -> Tensor:
    """The noise of the objects, ``[B, V, C, h, w]``.

    With an image, the original draws its posterior's noise first, from the same stream. The stored tensors are those
    of all four objects, so the noise of a step with one object begins within what is stored of the image's.
    """
    noise, count = step.per_object("noise", INPUT_VIEWS), step.facts["objects"]
    if count == len(noise) or not step.facts["options"]["view_concat_condition"]:
        return noise[:count]
    image = step.tensor("image_vae_noise")
    stream = torch.cat([image.flatten(), noise.flatten()])[image[:count].numel() :]
    return stream[: noise[:count].numel()].view_as(noise[:count])


def check_inputs(step: RecordedStep, latents: Tensor, noisy: Tensor, conditions: Conditions) -> None:
    """What the denoiser sees."""
    count = len(latents)
    attended = attended_views(INPUT_VIEWS, image=conditions.image_latent is not None)
    check_tensor("noisy latents", noisy, step.per_object("noisy_latents", INPUT_VIEWS)[:count], 1e-4)
    inputs = denoiser_inputs(noisy, conditions)
    check_tensor("model input", inputs, step.per_object("model_input", attended)[:count], 1e-4)


def check_predictions(step: RecordedStep, prepared: Prepared, predicted: Tensor, clean: Tensor) -> None:
    """What the denoiser says, and the latents that follow from it."""
    recorded = step.per_object("model_pred", INPUT_VIEWS)[: len(predicted)]
    check_tensor(f"{step.name} prediction", predicted, recorded, 1e-4)
    if "render_terms" in step.facts:
        vae = prepared.autoencoder
        unscaled = clean / vae.scaling_factor + vae.shift_factor
        check_tensor("clean latents", unscaled, step.per_object("pred_x0_unscaled", INPUT_VIEWS), 1e-4)


def check_step(step: RecordedStep, prepared: Prepared, run: DenoiserLoss, conditions: Conditions) -> None:
    """Inputs, prediction and losses of a step at the recorded noise; gradients are left in the networks."""
    count = step.facts["objects"]
    latents, views = prepared.latents[:count], prepared.views.objects(slice(count))
    attended = attended_views(INPUT_VIEWS, image=conditions.image_latent is not None)
    levels = levels_of(run.objective, step, attended)
    levels = NoiseLevels(levels.signal[:count], levels.noise[:count], levels.timestep[:count])
    noise = noise_of(step)
    noisy = levels.noisy(latents, noise)
    check_tensor("latents", latents, step.per_object("latents", INPUT_VIEWS)[:count], 1e-4)
    check_text(step, conditions.text)
    recorder = Recorder(run.denoiser)
    run = DenoiserLoss(recorder, run.objective, run.rendering, run.diffusion_weight)
    losses = run.at(latents, noise, levels, conditions, views)
    losses.total.mean().backward()
    if torch.equal(noise, step.per_object("noise", INPUT_VIEWS)[:count]):
        check_inputs(step, latents, noisy, conditions)
        predicted = recorder.prediction
        check_predictions(step, prepared, predicted, run.objective.clean_latents(predicted, noisy, levels))
    check_losses(step, losses)


@pytest.mark.parametrize(("family", "name"), CASES, ids=lambda part: part)
def test_denoiser(training: TrainingRecordings, families: Families, tmp_path: Path, family: str, name: str):
    step = training.step(f"diffusion_{family}_step", name)
    prepared = families[family]
    conditions = conditions_of(training, family, step, prepared)
    conditioning = name.split("+", maxsplit=1)[0]
    network: Any = training.denoiser(family, conditioning, tmp_path)
    set_multiview_attention(network, attended_views(INPUT_VIEWS, image=conditioning == "image"))
    run = DenoiserLoss(
        ConditionedDenoiser(network),
        objective_of(family, step),
        rendering_of(step, prepared.autoencoder),
        step.facts["options"]["diffusion_weight"],
    )
    check_step(step, prepared, run, conditions)
    check_gradients(step, gradients_of(network), 1e-2 if run.rendering else 1e-4)


def controlled_conditions(training: TrainingRecordings, step: RecordedStep, prepared: Prepared) -> Conditions:
    conditions = conditions_of(training, "sd", step, prepared)
    control = control_views(prepared.views.depth[:, 0].expand(-1, 3, -1, -1), INPUT_VIEWS)
    recorded = step.tensors["depth.control_image"].unflatten(0, (-1, INPUT_VIEWS))
    check_tensor("control image", control, recorded, 1e-6)
    return Conditions(conditions.rays, conditions.text, control=control)


@pytest.fixture
def unet(training: TrainingRecordings, tmp_path: Path) -> Any:
    return training.denoiser("sd", "text", tmp_path).requires_grad_(False)


@pytest.mark.parametrize("name", CONTROL_CASES)
def test_controlnet(training: TrainingRecordings, families: Families, unet: Any, tmp_path: Path, name: str):
    step = training.step("controlnet_step", name)
    weights = training.path("controlnet_weights.safetensors").resolve()
    folder = tmp_path / "controlnet"
    folder.mkdir()
    (folder / "diffusion_pytorch_model.safetensors").symlink_to(weights)
    controlnet = load_controlnet(folder, unet, dtype=torch.float32)
    prepared = families["sd"]
    run = DenoiserLoss(
        ConditionedDenoiser(spanning(unet), spanning(controlnet)),
        objective_of("sd", step),
        rendering_of(step, prepared.autoencoder),
        step.facts["options"]["diffusion_weight"],
    )
    check_step(step, prepared, run, controlled_conditions(training, step, prepared))
    assert all(gradient is None for gradient in gradients_of(unet).values())
    check_gradients(step, gradients_of(controlnet), 1e-2 if run.rendering else 1e-4)


def spanning(network: Any) -> Any:
    set_multiview_attention(network, INPUT_VIEWS)
    return network


def test_fresh_controlnet(training: TrainingRecordings, families: Families, unet: Any):
    step = training.step("controlnet_step", "depth_fresh")
    controlnet = controlnet_from_unet(unet)
    check_fresh_weights(step, controlnet.state_dict(), unet.state_dict())
    forward = training.step("controlnet_step", "depth")
    prepared = families["sd"]
    run = DenoiserLoss(ConditionedDenoiser(spanning(unet), spanning(controlnet)), objective_of("sd", step))
    conditions = controlled_conditions(training, forward, prepared)
    noise = forward.per_object("noise", INPUT_VIEWS)
    levels = levels_of(run.objective, forward, INPUT_VIEWS)
    losses = run.at(prepared.latents, noise, levels, conditions)
    check_number("loss", losses.total.mean(), step.facts["loss"], 1e-5)
    losses.total.mean().backward()
    found = [
        name for name, gradient in gradients_of(controlnet).items() if gradient is not None and gradient.any()
    ]
    assert sorted(found) == sorted(step.facts["nonzero_gradients_only_in"])


def check_fresh_weights(step: RecordedStep, made: dict[str, Tensor], unet: dict[str, Tensor]) -> None:
    recorded = step.facts["initialisation"]
    copied = [name for name in made if name.startswith(tuple(recorded["equal_to_unet"]))]
    assert all(torch.equal(made[name], unet[name]) for name in copied)
    assert sorted(name for name in made if not made[name].any()) == sorted(
        {*recorded["zero"], *(name for name in copied if not unet[name].any())}
    )
    assert {*copied, *recorded["zero"], *recorded["random"]} == made.keys()
