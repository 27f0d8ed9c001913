"""Text, an image or a control map to 3D Gaussian splats: encode, denoise the latents of four views, decode."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count as counter
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn
from tqdm import tqdm

from diffsplat.core import Cameras, Splats
from diffsplat.data.training_vocabulary import TrainingVocabulary
from diffsplat.errors import InvalidInputError, require
from diffsplat.geometry import ring_cameras
from diffsplat.geometry.unnormalized_quaternions import with_original_rotations
from diffsplat.images.image_framing_options import ImageFraming
from diffsplat.models.autocast import autocast
from diffsplat.models.denoiser_families import uncompiled
from diffsplat.models.few_step_solver import FewStepScheduler, FewStepSolver
from diffsplat.models.multiview_attention import set_multiview_attention
from diffsplat.models.principal_component_autoencoder import ComponentAutoencoder
from diffsplat.models.rays_and_noise_levels import PLUCKER_CHANNELS, denoised_channels, denoiser_rays
from diffsplat.models.text.clip_skip import with_clip_skip
from diffsplat.models.text.quantized_sentence_encoder import TextEncoder as SentenceTextEncoder
from diffsplat.models.text.stored_prompts import StoredPrompts
from diffsplat.pipelines.denoising_loop import Field, NoiseLevels, StepHook, denoise, step_options
from diffsplat.pipelines.first_view_projection import KnownView, ProjectedFlow
from diffsplat.pipelines.generation_options import Generation, ResolvedGeneration
from diffsplat.pipelines.guidance import (
    Conditions,
    ControlOptions,
    GuidedDenoiser,
    Handover,
    attended_views,
    check_refiner,
    constant_guidance,
    triangle_guidance,
)
from diffsplat.pipelines.image_and_control_conditions import (
    ConditionImages,
    ImageSource,
    condition_image,
    control_views,
    image_latents,
    outline_of_edges,
)
from diffsplat.pipelines.pipeline_components import COMPONENTS, PipelineComponents
from diffsplat.pipelines.pipeline_folders import load_components, save_components
from diffsplat.pipelines.pipeline_interfaces import Denoiser, Scheduler
from diffsplat.pipelines.pipeline_keyword_arguments import split_keyword_arguments
from diffsplat.pipelines.pipeline_output import SplatOutput
from diffsplat.pipelines.surface_smoothing import clean_surfaces
from diffsplat.pipelines.tensor_inputs import TensorInputs
from diffsplat.pipelines.unfamiliar_prompts import KnownWords
from diffsplat.pretrained.model_folders import TEXT_DENOISER, SamplingDefaults, find_model
from diffsplat.pretrained.release_catalogue import BACKBONES, ControlKind, Sampler
from diffsplat.pretrained.schedulers import FlowEulerScheduler, make_scheduler, predicts

StepCallback = Callable[[int, int], object]
"""``(steps done, total steps)``; raising from it stops the generation."""


class DiffSplatPipeline(PipelineComponents):
    """Turns a prompt, an image or a control map into splats; its components may be replaced by assignment.

    Arguments are those of :class:`~diffsplat.pipelines.pipeline_components.PipelineComponents`.

    Attributes:
        known_words: what the model was trained on, where its folder says.
        objects_per_pass: how many objects are denoised at once. With 1 an object is bitwise the same whatever
            it is generated together with; more is faster on a GPU and differs by rounding.
    """

    known_words: KnownWords | None = None
    objects_per_pass: int = 1
    _progress_bar: Mapping[str, Any] = MappingProxyType({})

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "mini",
        *,
        weights: str | Path | None = None,
        image: bool = False,
        control: ControlKind | Sequence[ControlKind] | None = None,
        dtype: torch.dtype | None = None,
        t5: bool = True,
        **components: Any,
    ) -> Self:
        """Load the embedded model, a model folder, or a released model, on the CPU.

        Args:
            model: ``mini``, path of a model folder, or name of a released backbone (``sd15``, ``pixart-sigma``,
                ``sd35m``).
            weights: folder of the released weights; where ``diffsplat models download`` puts them by default.
            image: load the denoiser that is conditioned on an image. A folder without another loads it anyway.
            control: load the ControlNet of this kind, or those of several; with ``image`` too.
            dtype: of the networks of diffusers; by default text encoders are as stored, the others in float32.
            t5: load the T5 text encoder of ``sd35m``, which takes most of its memory.
            components: objects to use instead of stored ones, by the names of the constructor.

        Raises:
            ValueError: for an unknown model, variant or component, or damaged weights.
            FileNotFoundError: when a file of the model is missing; the message says how to get it.
        """
        for name in components:
            if name not in COMPONENTS:
                known = ", ".join(COMPONENTS)
                raise InvalidInputError(f"unknown component {name!r}, expected one of: {known}")
        controls = (control,) if isinstance(control, str) else tuple(control or ())
        if isinstance(model, str) and model in BACKBONES:
            from diffsplat.pretrained.released_model_opening import ReleasedModel, load_released

            chosen = ReleasedModel(
                BACKBONES[model], image=image, controls=controls, weights=weights, dtype=dtype, t5=t5
            )
            return cls(**load_released(chosen, components))
        if not t5:
            raise InvalidInputError(f"T5 was left out of {str(model)!r}, expected sd35m")
        pipe = cls(**load_components(model, components, image=image, controls=controls, dtype=dtype))
        folder = find_model(model)
        words, of_text = map(TrainingVocabulary.from_folder, (folder, folder / TEXT_DENOISER))
        if words is not None and isinstance(pipe.text_encoder, SentenceTextEncoder):
            pipe.known_words = KnownWords(words, pipe.text_encoder, of_text)
        return pipe

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a model folder that :meth:`from_pretrained` reads, its networks in half precision.

        A component that could not be read again, such as a denoiser with LoRA files, is refused.
        """
        components = {name: uncompiled(getattr(self, name)) for name in COMPONENTS}
        text = None if self.needs_image else self.defaults
        image = self.defaults_for(conditioned=True) if self.takes_image else None
        control = None if self.controlnet is None else self.control_kind
        save_components(Path(folder), components, text, image, control=control)
        if self.known_words is not None:
            self.known_words.words.save(Path(folder))
            if self.known_words.of_text is not None and self.text_denoiser is not None:
                self.known_words.of_text.save(Path(folder) / TEXT_DENOISER)

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Shape ``(V, C, h, w)`` of what is denoised: all channels of the autoencoder's latents or its first."""
        views, channels, height, width = self.autoencoder.latent_shape
        return (views, min(channels, denoised_channels(self.denoiser.config)), height, width)

    @property
    def needs_image(self) -> bool:
        """Whether it generates from an image only."""
        _, channels, _, _ = self.latent_shape
        return int(self.denoiser.config["in_channels"]) == channels + PLUCKER_CHANNELS + 1

    @property
    def takes_image(self) -> bool:
        """Whether it generates from an image."""
        return self.needs_image or self.condition_encoder is not None

    @property
    def takes_control(self) -> bool:
        """Whether it follows a control map."""
        own = self.condition_encoder is not None and self.control_kind is not None
        return own or self.controlnet is not None

    def set_progress_bar_config(self, **options: Any) -> None:
        """Options of ``tqdm`` for the bar of a call, such as ``disable=True``."""
        self._progress_bar = options

    def __call__(
        self,
        prompt: str | Sequence[str] = "",
        *,
        image: ImageSource | list[ImageSource] | None = None,
        control: ImageSource | list[ImageSource] | None = None,
        framing: ImageFraming | None = None,
        ip_adapter_image: ImageSource | None = None,
        callback: StepCallback | None = None,
        **options: Any,
    ) -> SplatOutput:
        """Generate splats.

        Args:
            prompt: a description of an object, or several; may be empty with an image.
            image: photo or drawing of the object: a file, a PIL image, or ``[3, H, W]`` or ``[4, H, W]`` 0..1.
                Without transparency its background is removed. Or a list of them: each gives objects of its own,
                of its own prompt where there are as many prompts, of all prompts otherwise.
            control: control map of the first view, likewise, composited on white; a list for several ControlNets.
            framing: how the object is cut out of its image and framed.
            ip_adapter_image: with an IP-Adapter, the image that is a prompt as well; it is made square with white.
            callback: called after every denoising step; may raise to stop.
            options: any other field of :class:`~diffsplat.pipelines.generation_options.Generation`, such as ``seed``,
                ``steps``, ``guidance`` or ``count``, and of
                :class:`~diffsplat.pipelines.tensor_inputs.TensorInputs`, such as ``generator``, ``latents`` or
                ``prompt_embeds``. ``seed`` and ``negative_prompt`` may be lists.

        Returns:
            ``len(prompts) * count`` objects, those of one prompt next to each other. The same prompt, seed
            and options give bitwise the same splats on the same machine.

        Raises:
            ValueError: for an empty or overlong prompt, an option outside its range, or an image that the model
                has no use for.
            TypeError: for an option that there is none.
        """
        prompts = (prompt,) if isinstance(prompt, str) else tuple(prompt)
        generation, tensors = split_keyword_arguments(prompts, options)
        if not isinstance(image, list):
            prepared = self.prepare(image, control, framing, ip_adapter_image)
            return self._with_bar(generation, prepared, callback, tensors)
        if not image:
            raise InvalidInputError("the list of images is empty, expected at least one")
        all_prepared = [self.prepare(each, control, framing, ip_adapter_image) for each in image]
        each_its_own = len(prompts) == len(image)
        return SplatOutput.joined(
            [
                self._with_bar(
                    replace(generation, prompts=(prompts[number],)) if each_its_own else generation,
                    prepared,
                    callback,
                    tensors,
                )
                for number, prepared in enumerate(all_prepared)
            ]
        )

    def _with_bar(
        self,
        generation: Generation,
        images: ConditionImages,
        callback: StepCallback | None,
        tensors: TensorInputs,
    ) -> SplatOutput:
        """:meth:`generate`, with a bar on stderr."""
        with tqdm(**{"unit": "step", "leave": False, **self._progress_bar}) as bar:

            def advance(done: int, total: int) -> None:
                bar.total = total
                bar.update()
                if callback is not None:
                    callback(done, total)

            return self.generate(generation, images, advance, tensors)

    def prepare(
        self,
        image: ImageSource | None = None,
        control: ImageSource | list[ImageSource] | None = None,
        framing: ImageFraming | None = None,
        ip_adapter_image: ImageSource | None = None,
    ) -> ConditionImages:
        """Bring images to the model's size: the object cut out and centred on white, the others resized.

        Raises:
            ValueError: when the model has no use for an image, or lacks one.
        """
        self._check_uses(image is not None, control is not None, ip_adapter_image is not None)
        size = self.autoencoder.image_size
        prepared = ConditionImages()
        if control is not None:
            maps = [condition_image(each, size, cut_out=False) for each in self._control_maps(control)]
            of_edges = self.control_kind == "canny"
            outline = outline_of_edges(maps[0].image) if of_edges else maps[0].outline
            prepared = replace(prepared, control=torch.cat([each.image for each in maps]), outline=outline)
        if image is not None:
            first_view = condition_image(image, size, cut_out=True, framing=framing)
            prepared = replace(prepared, image=first_view.image, outline=first_view.outline)
        if ip_adapter_image is not None:
            prompt_size = self.image_prompt_encoder.config.image_size
            prompt = condition_image(ip_adapter_image, prompt_size, cut_out=False)
            prepared = replace(prepared, prompt=prompt.image)
        return prepared

    def _check_uses(self, image: bool, control: bool, image_prompt: bool) -> None:
        """Refuse an image of a kind that the model has no use for, and the lack of one that it needs."""
        adapter = self.image_prompt_encoder is not None
        refusals = {
            "takes no image, expected none, or one opened with image=True": image and not self.takes_image,
            "generates from an image, expected an image": self.needs_image and not image,
            "follows no control map, expected none, or one opened with control='depth'": (
                control and not self.takes_control
            ),
            "has a ControlNet, expected a control map": self.controlnet is not None and not control,
            "takes an image or a control map, expected one of them": (
                image and control and self.condition_encoder is not None
            ),
            "has an IP-Adapter, expected an ip_adapter_image": adapter and not image_prompt,
            "has no IP-Adapter, expected no ip_adapter_image, or load_ip_adapter": image_prompt
            and not adapter,
        }
        for sentence, refused in refusals.items():
            if refused:
                raise InvalidInputError(f"this model {sentence}")

    def _control_maps(self, control: ImageSource | list[ImageSource]) -> list[ImageSource]:
        """Control maps as a list, as many as there are ControlNets."""
        maps = control if isinstance(control, list) else [control]
        wanted = len(self.controlnet) if isinstance(self.controlnet, nn.ModuleList) else 1
        require(len(maps) == wanted, "the number of control maps", len(maps), f"{wanted}")
        return maps

    @torch.no_grad()
    def resolve(self, generation: Generation, images: ConditionImages | None = None) -> ResolvedGeneration:
        """Fill in the model's defaults, and estimate the elevation of an image unless it is given."""
        image = images.image if images else None
        defaults = self.defaults_for(conditioned=images is not None and images.given)
        resolved = generation.resolved(defaults, from_image=image is not None)
        if image is None or resolved.elevation is not None or self.elevation_estimator is None:
            return resolved
        with self._placement.on_device(self.elevation_estimator):
            degrees = self.elevation_estimator.degrees_above_horizon(image[None].to(self.device))
        return replace(resolved, elevation=float(degrees[0]))

    @torch.no_grad()
    def generate(
        self,
        generation: Generation,
        images: ConditionImages | None = None,
        callback: StepCallback | None = None,
        tensors: TensorInputs | None = None,
    ) -> SplatOutput:
        """Generate splats; see :meth:`__call__`. Images come from :meth:`prepare`; the callback may raise to stop."""
        tensors = tensors or TensorInputs()
        resolved = self.resolve(tensors.named(generation), images)
        conditioned = images is not None and images.given
        solver = self._solver_of(resolved, conditioned=conditioned)
        sampling = self._sampling(resolved, tensors, solver)
        cameras = ring_cameras(resolved.elevation_deg, size=self.autoencoder.image_size).to(self.device)
        count = len(resolved.objects)
        tensors.check_latents((count, *self.latent_shape))
        passes = self._passes(resolved, conditioned=conditioned)
        shared = self._shared_conditions(resolved, images or ConditionImages(), cameras, tensors.encoded())
        done, total = counter(1), len(passes) * sampling.evaluations

        def after_step(step: int, timestep: Tensor, latents: Tensor) -> Tensor:
            latents = tensors.after_step(self, step, timestep, latents)
            if callback is not None:
                callback(next(done), total)
            return latents

        with self.adapters_scaled(resolved.lora_scales):
            latents = torch.cat(
                [self._latents(resolved, chunk, shared, sampling, after_step) for chunk in passes]
            )
        splats = Splats.concatenate(
            [self._splats(resolved, latents[chunk.objects], cameras, shared) for chunk in passes]
        )
        notices = {} if images and images.image is not None else self.notices(resolved)
        return SplatOutput(splats, cameras.for_objects(count), resolved, notices, latents=latents)

    def _passes(self, generation: ResolvedGeneration, *, conditioned: bool) -> list["_Pass"]:
        """The objects that are denoised together: by one denoiser, and not more than :attr:`objects_per_pass`."""
        size, passes = max(1, self.objects_per_pass), list[_Pass]()
        chosen = self._denoisers_of_prompts(generation, conditioned=conditioned)
        numbered = enumerate(prompt for prompt, _ in generation.objects)
        for denoiser, members in groupby(numbered, lambda each: chosen[each[1]]):
            places = [place for place, _ in members]
            parts = (places[start : start + size] for start in range(0, len(places), size))
            passes += [_Pass(slice(part[0], part[-1] + 1), denoiser) for part in parts]
        return passes

    def _denoisers_of_prompts(
        self, generation: ResolvedGeneration, *, conditioned: bool
    ) -> dict[str, Denoiser]:
        """That of text alone for prompts that it knows, without an image or a map; the general one for others."""
        of_text, known = self.text_denoiser, self.known_words
        if of_text is None or known is None or conditioned or self.lora_scales:
            return dict.fromkeys(generation.prompts, self.denoiser)
        read = {prompt: prompt for prompt in generation.prompts} | self._captions(generation)
        return {
            prompt: of_text if known.are_of_text(caption) else self.denoiser
            for prompt, caption in read.items()
        }

    def notices(self, generation: Generation) -> dict[str, str]:
        """By prompt, one sentence for each that ``known_words`` reads as another or finds nothing of."""
        if self.known_words is None or self.text_encoder is None:
            return {}
        captions = self._captions(generation)
        found = {prompt: f"the model reads {prompt!r} as {caption!r}" for prompt, caption in captions.items()}
        with self._placement.on_device(self.text_encoder):
            for prompt in generation.prompts:
                if prompt not in captions and (unknown := self.known_words.notice(prompt)):
                    found[prompt] = unknown
        return found

    def _captions(self, generation: Generation) -> dict[str, str]:
        """By prompt, the short caption of each that ``known_words`` reads as another."""
        if self.known_words is None or generation.literal:
            return {}
        read = {prompt: self.known_words.caption(prompt) for prompt in generation.prompts}
        return {prompt: caption for prompt, caption in read.items() if caption != prompt}

    def _sampling(
        self, generation: ResolvedGeneration, tensors: TensorInputs, solver: FewStepSolver | None
    ) -> "_Sampling":
        """Scheduler, steps and noise of the objects, checked before anything is computed."""
        levels = NoiseLevels(generation.steps, generation.timesteps, generation.sigmas)
        seeds = tuple(seed for _, seed in generation.objects)
        scheduler = FewStepScheduler(solver) if solver else self._scheduler(generation.sampler)
        prediction = self.defaults.prediction
        if not predicts(scheduler, prediction):
            raise InvalidInputError(
                f"the scheduler {type(scheduler).__name__} is not made for a model that predicts "
                f"{prediction}, expected one with another prediction_type"
            )
        step_options(scheduler, None, generation.eta)
        evaluations = levels.place(scheduler)
        generators = tensors.generators(seeds, generation.noise_device)
        return _Sampling(scheduler, levels, evaluations, generators, tensors)

    def _shared_conditions(
        self,
        generation: ResolvedGeneration,
        images: ConditionImages,
        cameras: Cameras,
        encoded: StoredPrompts,
    ) -> "_SharedConditions":
        """Conditions of all objects; every network but the denoisers and the decoder is done after this."""
        prompts = self._encoded(generation, encoded).to(self.device)
        features = (None, None)
        if images.prompt is not None:
            with self._placement.on_device(self.image_prompt_encoder):
                features = self._image_features(images.prompt[None].to(self.device))
        views, control = self.autoencoder.views, None
        if images.control is not None and self.controlnet is not None:
            control = control_views(images.control[None].to(self.device), views)
        rays = denoiser_rays(
            cameras.for_objects(1), self.autoencoder.latent_size, self.autoencoder.pixel_grid
        )
        least, most = generation.least_guidance, generation.guidance
        from_image = images.image is not None
        defaults = self.defaults_for(conditioned=images.given)
        projected = defaults.projection and not generation.unprojected
        return _SharedConditions(
            prompts,
            rays,
            self._condition_view(images, shifted=not generation.unshifted),
            control,
            triangle_guidance(least, most, views) if from_image else constant_guidance(most, views),
            defaults,
            features,
            KnownView.of(images, self.control_kind, cameras[0]) if projected else None,
        )

    def _condition_view(self, images: ConditionImages, *, shifted: bool) -> Tensor | None:
        """``[1, C, h, w]`` latents of the image, or of the control map of a denoiser that takes both."""
        if self.condition_encoder is not None:
            kind = "image" if images.image is not None else self.control_kind
            image = images.control if images.image is None else images.image
            if image is None or kind is None:
                return None
            with self._placement.on_device(self.condition_encoder):
                return self.condition_encoder.encode(image[None].to(self.device), kind)
        if images.image is None:
            return None
        if self.image_encoder is None:
            raise InvalidInputError("the pipeline has no image encoder, expected one for an image")
        with self._placement.on_device(self.image_encoder):
            return image_latents(self.image_encoder, images.image[None].to(self.device), shifted=shifted)

    def defaults_for(self, *, conditioned: bool) -> SamplingDefaults:
        """How the model is sampled with, or without, an image or a control map."""
        return (self.image_defaults if conditioned else None) or self.defaults

    def _solver_of(self, generation: ResolvedGeneration, *, conditioned: bool) -> FewStepSolver | None:
        """The few-step solver for text alone in as many steps as it has, guided as it was fitted; else None.

        A scheduler of another kind in the place of the model's own is used instead.
        """
        solver = self.few_step_solver
        own = isinstance(self.scheduler, FlowEulerScheduler)
        if solver is None or conditioned or not own or not generation.sampled_by_default:
            return None
        fits = (generation.steps, generation.guidance) == (solver.steps, self.defaults.guidance)
        return solver if fits else None

    def _encoded(self, generation: ResolvedGeneration, given: StoredPrompts) -> StoredPrompts:
        """Every text of a generation, encoded; some may be given."""
        texts = [text for text in generation.texts if text not in given.conditions]
        if not texts:
            return given
        if self.text_encoder is None:
            raise InvalidInputError(
                f"the pipeline has no text encoder for {texts[0]!r}, expected prompt_embeds and "
                "negative_prompt_embeds"
            )
        with self._placement.on_device(self.text_encoder):
            encoder = with_clip_skip(self.text_encoder, generation.clip_skip)
            read = {text: text for text in texts} | self._captions(generation)
            encoded = StoredPrompts.encode(encoder, read.values()).conditions
        return StoredPrompts({**given.conditions, **{text: encoded[read[text]] for text in texts}})

    def _latents(
        self,
        generation: ResolvedGeneration,
        part: "_Pass",
        shared: "_SharedConditions",
        sampling: "_Sampling",
        after_step: StepHook,
    ) -> Tensor:
        """Clean latents ``[B, V, C, h, w]`` of the objects that are denoised together."""
        objects = part.objects
        generators = sampling.generators[objects]
        noise = sampling.tensors.noise(self.latent_shape, sampling.generators, objects).to(self.device)
        few = isinstance(sampling.scheduler, FewStepScheduler)
        guided = _GuidedPass(part.denoiser, generation, shared.for_objects(generation, objects), shared, few)
        field, known = self._field(guided), shared.known_view
        if known is not None and isinstance(self.autoencoder, ComponentAutoencoder):
            field = ProjectedFlow(field, known, self.autoencoder)
        networks, kind = self._denoisers_of(part.denoiser), self.dtype
        with self._placement.on_device(*networks), autocast(self.device, self.precision, kind):
            return denoise(
                field,
                noise,
                copy.deepcopy(sampling.scheduler),  # they keep state
                sampling.levels,
                generators=generators,
                eta=generation.eta,
                on_step=after_step,
            )

    def _splats(
        self, generation: ResolvedGeneration, latents: Tensor, cameras: Cameras, shared: "_SharedConditions"
    ) -> Splats:
        """Splats ``[B, N]`` of latents ``[B, V, C, h, w]`` of views from these cameras ``[V]``."""
        with self._placement.on_device(self.autoencoder):
            grid = self.autoencoder.decode(latents)
        views, pixel_grid = cameras.for_objects(len(latents)), self.autoencoder.pixel_grid
        known, smoothing = shared.known_view, shared.defaults.smoothing
        whole = known.filled(grid) if known else grid
        grid = clean_surfaces(whole, views, smoothing, pixel_grid) if smoothing else whole
        if known:
            grid = known.painted(known.restored(grid, whole, views, pixel_grid) if smoothing else grid)
        splats = grid.to_splats(views, pixel_grid)
        if generation.original_rotations:
            splats = with_original_rotations(splats, grid)
        return known.carved(splats, grid) if known else splats

    def _field(self, part: "_GuidedPass") -> Field:
        """The prediction that the sampler follows: the guided denoiser, and below the model's level the refiner.

        Of the few-step solver it is what they predict without the text and with it.
        """
        conditions, shared = part.conditions, part.shared
        defaults, views = shared.defaults, self.autoencoder.views
        for network in self._denoisers_of(part.denoiser):
            image = conditions.image_latent is not None and network is not self.controlnet
            set_multiview_attention(network, attended_views(views, image=image))
        field = self._denoiser_field(part)
        if self.refiner is None or not self._refines(conditions, shared):
            return field
        check_refiner(self.denoiser, self.refiner, defaults)
        of_text = self._refiner_reads_text_alone
        guides = defaults.refiner_guidance > 1 and not (of_text and part.generation.says_nothing)
        followed = conditions if part.few or guides else replace(conditions, negative=None)
        if of_text:
            followed = replace(followed, image_latent=None)
        scales = constant_guidance(defaults.refiner_guidance, views).to(self.device)
        refiner = GuidedDenoiser(self.refiner, followed, scales, defaults.prediction)
        return Handover(field, refiner.predictions if part.few else refiner, defaults.refined_below)

    def _denoiser_field(self, part: "_GuidedPass") -> Field:
        """The denoiser's part of :meth:`_field`: unguided above the noise level that the model is guided below."""
        conditions, generation = part.conditions, part.generation
        defaults = part.shared.defaults

        def denoiser(followed: Conditions) -> GuidedDenoiser:
            return GuidedDenoiser(
                part.denoiser,
                followed,
                part.shared.guidance.to(self.device),
                defaults.prediction,
                controlnet=self.controlnet,
                control=ControlOptions(generation.control_scale, generation.guess_mode),
                rescale=generation.guidance_rescale,
            )

        guided = denoiser(conditions)
        if part.few:
            return guided.predictions
        if not guided.guided or defaults.guided_below == 1:
            return guided
        return Handover(denoiser(replace(conditions, negative=None)), guided, defaults.guided_below)

    @property
    def _refiner_reads_text_alone(self) -> bool:
        """Whether the refiner lacks the denoiser's channels for images and control maps."""
        name = "in_channels"
        return self.refiner is not None and self.refiner.config[name] < self.denoiser.config[name]

    def _refines(self, conditions: Conditions, shared: "_SharedConditions") -> bool:
        """Whether the refiner takes part: one that would lose the condition does where the first view is held to it."""
        if conditions.image_latent is None:
            return True
        kept = shared.known_view is not None or not self._refiner_reads_text_alone
        return bool(shared.defaults.refined_below) and kept

    def _scheduler(self, sampler: Sampler | None) -> Scheduler:
        """The pipeline's own, or one of another sampling method."""
        if sampler is None:
            return copy.deepcopy(self.scheduler)
        return make_scheduler(sampler, self.scheduler.config, self.defaults.prediction)


@dataclass(frozen=True)
class _Sampling:
    """Scheduler, where it takes its steps and how many evaluations they are, and the noise of all objects."""

    scheduler: Scheduler
    levels: NoiseLevels
    evaluations: int
    generators: list[torch.Generator]
    tensors: TensorInputs


@dataclass(frozen=True)
class _Pass:
    """Objects that are denoised together, by their places among all, and their denoiser."""

    objects: slice
    denoiser: Denoiser


@dataclass(frozen=True)
class _GuidedPass:
    """What the prediction for objects that are denoised together is made of.

    Args:
        denoiser: of their prompts.
        generation: what was asked for.
        conditions: of these objects.
        shared: by all objects.
        few: for the few-step solver, which guides by itself.
    """

    denoiser: Denoiser
    generation: ResolvedGeneration
    conditions: Conditions
    shared: "_SharedConditions"
    few: bool


@dataclass(frozen=True)
class _SharedConditions:
    """Encoded prompts, the conditions of one object without its text, and how it is sampled.

    Args:
        guidance: ``[V]`` scale of each view.
        defaults: of the model, with or without an image.
        features: of an image that is a prompt as well, and of none.
        known_view: what the objects take over of the image or the control map; None for nothing.
    """

    prompts: StoredPrompts
    rays: Tensor
    image_latent: Tensor | None
    control: Tensor | None
    guidance: Tensor
    defaults: SamplingDefaults
    features: tuple[Tensor | None, Tensor | None] = (None, None)
    known_view: KnownView | None = None

    def for_objects(self, generation: ResolvedGeneration, objects: slice) -> Conditions:
        """Conditions of some of the objects."""
        texts = [prompt for prompt, _ in generation.objects[objects]]
        number = len(texts)

        def repeated(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.expand(number, *tensor.shape[1:])

        features, without = map(repeated, self.features)
        negatives = list(generation.negatives[objects])
        return Conditions(
            rays=self.rays.expand(number, *self.rays.shape[1:]),
            text=replace(self.prompts(texts), image=features),
            negative=replace(self.prompts(negatives), image=without) if generation.guided else None,
            image_latent=repeated(self.image_latent),
            control=repeated(self.control),
        )
