"""``diffsplat evaluate``: figures of a model, and of the judges that measure it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from diffsplat.core import PixelGrid, SplatGrid, Splats, Views
from diffsplat.errors import InvalidInputError, require
from diffsplat.evaluation.clip_scores import ClipScorer
from diffsplat.evaluation.control_agreement import control_images
from diffsplat.evaluation.evaluation_objects import (
    evenly_spread,
    held_out_views,
    objects_of_nouns,
    objects_of_prompts,
    open_objects,
)
from diffsplat.evaluation.evaluation_prompts import (
    PROMPT_NOUNS,
    JudgedPrompt,
    PromptSet,
    build_prompts,
    stored_prompts,
    write_prompts,
)
from diffsplat.evaluation.evaluation_result import Evaluation
from diffsplat.evaluation.held_out_view_evaluation import (
    Make,
    NearestObject,
    Predict,
    evaluate_controls,
    evaluate_grids,
    evaluate_images,
)
from diffsplat.evaluation.image_benchmark import ImageBenchmark
from diffsplat.evaluation.image_feature_store import FeatureStore
from diffsplat.evaluation.image_reward import load_image_reward
from diffsplat.evaluation.judged_text_evaluation import evaluate_text
from diffsplat.evaluation.noun_judge import NounJudge
from diffsplat.evaluation.noun_judge_fitting import load_or_fit
from diffsplat.evaluation.perceptual_distance import DistanceKind, load_perceptual_distance
from diffsplat.evaluation.prompt_list_evaluation import evaluate_prompts
from diffsplat.evaluation.shape_evaluation import evaluate_shapes
from diffsplat.geometry import elevation_deg
from diffsplat.io.file_access import require_suffix, require_writable
from diffsplat.io.image_files import write_image
from diffsplat.io.json_files import read_json, write_json
from diffsplat.io.prompt_lists import read_prompts
from diffsplat.io.user_cache import user_cache
from diffsplat.models.efficientnet import load_efficientnet
from diffsplat.models.rays_and_noise_levels import denoised_channels
from diffsplat.pipelines.generation_options import Generation
from diffsplat.pipelines.model_opening import ModelChoice, OpeningOptions
from diffsplat.pipelines.splat_pipeline import DiffSplatPipeline
from diffsplat.pipelines.surface_smoothing import clean_surfaces
from diffsplat.pretrained.model_folders import ModelFolder, find_model
from diffsplat.pretrained.reconstructor_and_autoencoder import (
    component_config,
    model_autoencoder,
    model_reconstructor,
)
from diffsplat.pretrained.release_catalogue import BACKBONES, ControlKind

_FEATURES = "features.safetensors"
_ANYTHING = "an object"
"""Words that tell a model nothing, for one that takes no empty prompt."""


@dataclass(frozen=True)
class ReportArguments:
    """Options shared by the subcommands that write a report."""

    data: Path
    """Folder that `diffsplat data` wrote, or one that holds several of them."""
    out: Path | None = None
    """JSON file for the figures and all single results; the contact sheet is written next to it as .png."""
    limit: int | None = None
    """Only so many objects or prompts, spread evenly."""
    force: bool = False
    """Replace existing files."""

    def check(self) -> None:
        """Refuse what cannot work before anything is loaded."""
        require(self.limit is None or self.limit >= 1, "--limit", self.limit, "at least 1")
        if self.out is not None:
            require_suffix(self.out, (".json",))
            for path in (self.out, self.out.with_suffix(".png")):
                require_writable(path, force=self.force)


@dataclass(frozen=True)
class ViewArguments(ReportArguments):
    """Options shared by the subcommands that compare renderings with real views."""

    perceptual: DistanceKind = "none"
    """Perceptual distance to measure besides PSNR and SSIM: LPIPS or its shift-tolerant variant."""
    perceptual_weights: Path | None = None
    """Folder or file of its network's weights; downloaded, or those of an installed package, when not given."""


@dataclass(frozen=True)
class JudgedArguments(ReportArguments):
    """Options shared by the subcommands that use the noun judge."""

    prompts: PromptSet = "mini"
    """Which prompts: of furniture and props, or of what games are made of. The judge learns their nouns."""
    cache: Path | None = None
    """Folder where the fitted judge is kept; ~/.cache/diffsplat/judge when not given."""


def reconstruction(
    arguments: tyro.conf.OmitArgPrefixes[ViewArguments], *, model: str = "mini", weights: Path | None = None
) -> None:
    """Measure the reconstructor: PSNR and SSIM of held-out objects, in input views and novel views.

    Args:
        arguments: What to measure on and where to write.
        model: Name of a model, or a model folder with a reconstructor. The released ones share theirs.
        weights: Folder of the released weights.
    """
    arguments.check()
    reconstruct = model_reconstructor(model, weights)

    def predict(views: Views) -> dict[str, SplatGrid]:
        return {"reconstruction": reconstruct(views)}

    _report_grids("reconstruction", arguments, model, predict, reconstruct.pixel_grid)


def autoencoder(
    arguments: tyro.conf.OmitArgPrefixes[ViewArguments], *, model: str = "mini", weights: Path | None = None
) -> None:
    """Measure the autoencoder: the same through its latents, next to the reconstruction itself.

    Of a model with a denoiser of its own also what a perfect one could reach: only those channels of the latents that
    it makes, with surfaces smoothed as the model smooths them.

    Args:
        arguments: What to measure on and where to write.
        model: Name of a model, or a model folder with a reconstructor and an autoencoder.
        weights: Folder of the released weights.
    """
    arguments.check()
    reconstruct = model_reconstructor(model, weights)
    passes = {"autoencoder": _through_latents(model, weights=weights)}
    if model not in BACKBONES and (find_model(model) / "denoiser").is_dir():
        passes["denoised"] = _through_latents(model, "denoised")

    def predict(views: Views) -> dict[str, SplatGrid]:
        grid = reconstruct(views)
        return {"reconstruction": grid} | {name: through(grid, views) for name, through in passes.items()}

    _report_grids("autoencoder", arguments, model, predict, reconstruct.pixel_grid)


def text(
    arguments: tyro.conf.OmitArgPrefixes[JudgedArguments],
    *,
    model: str = "mini",
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    sentences: bool = False,
    control: ControlKind | None = None,
) -> None:
    """Measure text generation: a hundred prompts, judged by a network that never trained with the generator.

    The noun judge is first fitted on real renders of the training objects in --data, which takes minutes.

    Args:
        arguments: What the judge is fitted on and where to write.
        model: Name of a model, or a model folder.
        seed: Seed of every prompt.
        steps: Denoising steps; the model's default when not given.
        guidance: Guidance scale; the model's default when not given.
        sentences: Ask for the same objects in free sentences instead of plain prompts.
        control: Generate each with a control map of this kind too, that of a real object of its noun in --data.
    """
    arguments.check()
    pipe = _opened(replace(_choice(model), controls=(control,) if control else ()))
    asked = _spread(stored_prompts(arguments.prompts, sentences=sentences), arguments.limit)
    real = objects_of_prompts(open_objects(arguments.data, split="train"), asked) if control else {}
    fitted, figures, store = _judge(arguments)

    def generate(prompt: str) -> Splats:
        given: dict[str, Any] = {}
        if control:
            views = real[prompt]
            given = {"control": control_images(views, control)[0], "elevation": _elevation(views)}
        return pipe(prompt, seed=seed, steps=steps, guidance=guidance, **given).splats[0]

    evaluation = evaluate_text(generate, asked, fitted, store.features)
    sampling = {
        "seed": seed,
        "steps": steps,
        "guidance": guidance,
        "sentences": sentences,
        "control": control,
    }
    settings = {"model": model, **sampling, "judge": figures}
    _finish("text", evaluation, arguments, settings)
    print(_table("judge on real renders", figures))


def image(
    arguments: tyro.conf.OmitArgPrefixes[ViewArguments],
    *,
    model: str = "mini",
    protocol: str | None = None,
    seed: int = 0,
    estimate_elevation: bool = False,
    baselines: bool = False,
) -> None:
    """Measure generation from an image: PSNR and SSIM of the view that is given and of the others.

    Args:
        arguments: What to measure on and where to write. With a protocol, --data is a folder of renderings.
        model: Name of a model, or a model folder.
        protocol: gso30 or a JSON file: which renderings of which objects, and their cameras. Without one the held-out
            objects of shards in --data are measured.
        seed: Seed of every object.
        estimate_elevation: Let the model estimate the elevation of the image instead of telling it.
        baselines: Measure next to it what the model makes without the image, if it can, and the training object in
            --data that looks most like the image, by the features of the noun judge's network.
    """
    arguments.check()
    if baselines and protocol is not None:
        raise InvalidInputError(
            "--baselines was given with --protocol, expected it with shards, whose training objects it takes"
        )
    chosen = None if protocol is None else ImageBenchmark.open(protocol)
    perceptual = load_perceptual_distance(arguments.perceptual, arguments.perceptual_weights)
    choice = _choice(model)
    pipe = _opened(replace(choice, image=True))

    def generate(views: Views) -> Splats:
        elevation = None if estimate_elevation else _elevation(views)
        return pipe(image=views.image[0, 0], elevation=elevation, seed=seed).splats

    makers: dict[str, Make] = {"image": generate}
    if baselines:
        makers |= _image_baselines(pipe, arguments.data, choice.model, seed)
    objects = _held_out(arguments) if chosen is None else chosen.read(arguments.data, arguments.limit)
    evaluation = evaluate_images(makers, objects, perceptual)
    settings = {"model": model, "seed": seed, "estimate_elevation": estimate_elevation}
    settings["protocol"] = None if chosen is None else asdict(chosen)
    _finish("image", evaluation, arguments, settings)


def control(
    arguments: tyro.conf.OmitArgPrefixes[ReportArguments],
    *,
    kind: ControlKind,
    model: str = "mini",
    seed: int = 0,
) -> None:
    """Measure how well results agree with a control map, next to results of the same words without the map.

    Args:
        arguments: What to measure on and where to write.
        kind: Kind of control map.
        model: Name of a model, or a model folder.
        seed: Seed of every object.
    """
    arguments.check()
    choice = _choice(model)
    steered, free = _opened(replace(choice, controls=(kind,))), _opened(choice)

    def follow(views: Views) -> Splats:
        control = control_images(views, kind)[0]
        return steered(views.prompt[0], control=control, elevation=_elevation(views), seed=seed).splats

    def ignore(views: Views) -> Splats:
        return free(views.prompt[0], elevation=_elevation(views), seed=seed).splats

    evaluation = evaluate_controls({"with_map": follow, "without": ignore}, kind, _held_out(arguments))
    _finish("control", evaluation, arguments, {"model": model, "kind": kind, "seed": seed})


def shapes(
    arguments: tyro.conf.OmitArgPrefixes[ReportArguments],
    *,
    model: str = "mini",
    prompts: PromptSet = "mini",
    seeds: int = 4,
) -> None:
    """Measure loose bits of generated objects, and how much their shapes differ from seed to seed.

    Args:
        arguments: Real objects to compare with, and where to write.
        model: Name of a model, or a model folder.
        prompts: Which prompts.
        seeds: How many objects of each prompt.
    """
    arguments.check()
    pipe = _opened(_choice(model))
    asked = _spread(stored_prompts(prompts), arguments.limit)
    real = objects_of_nouns(
        open_objects(arguments.data, split="train", variants=False), {prompt.noun for prompt in asked}
    )
    evaluation = evaluate_shapes(
        lambda prompt, seed: pipe(prompt, seed=seed).splats[0], asked, range(seeds), real
    )
    _finish("shapes", evaluation, arguments, {"model": model, "prompts": prompts, "seeds": seeds})


def ceiling(
    arguments: tyro.conf.OmitArgPrefixes[JudgedArguments],
    *,
    model: str = "mini",
    part: Literal["reconstructor", "autoencoder", "denoised"] = "denoised",
) -> None:
    """Measure the upper bound of `text`: real training objects passed through the model's networks.

    Nothing is generated: this is what a perfect denoiser could reach.

    Args:
        arguments: What the judge is fitted on and where to write.
        model: Name of an embedded model, or a model folder with a reconstructor and an autoencoder.
        part: Up to where the objects go: through the reconstructor, then the autoencoder, then only those
            channels of the latents that the denoiser makes, with surfaces smoothed as the model smooths them.
    """
    arguments.check()
    reconstruct = model_reconstructor(model)
    through = None if part == "reconstructor" else _through_latents(model, part)
    asked = _spread(stored_prompts(arguments.prompts), arguments.limit)
    fitted, figures, store = _judge(arguments)
    real = objects_of_prompts(open_objects(arguments.data, split="train"), asked)

    def show(prompt: str) -> Splats:
        views = real[prompt]
        grid = reconstruct(views)
        return (through(grid, views) if through else grid).to_splats(views.cameras)[0]

    evaluation = evaluate_text(show, asked, fitted, store.features)
    settings = {"model": model, "part": part, "judge": figures}
    _finish("ceiling", evaluation, arguments, settings)


def judge(arguments: tyro.conf.OmitArgPrefixes[JudgedArguments]) -> None:
    """Measure the noun judge on real objects that it was not fitted on.

    Args:
        arguments: What it is fitted and measured on, and where to write.
    """
    arguments.check()
    _, figures, _ = _judge(arguments)
    print(_table("judge on real renders", figures))
    if arguments.out is not None:
        write_json({"subcommand": "judge", "figures": figures}, arguments.out, force=arguments.force)


def prompts(data: Path, out: Path, *, nouns: PromptSet = "mini", force: bool = False) -> None:
    """Build a set of prompts again from the captions of training objects.

    Args:
        data: Folder that `diffsplat data` wrote, or one that holds several of them.
        out: JSON file.
        nouns: Which set.
        force: Replace an existing file.
    """
    require_writable(out, force=force)
    built = build_prompts(open_objects(data, split="train").rows, PROMPT_NOUNS[nouns])
    write_prompts(built, out, force=force)
    print(f"{len(built)} prompts, {sum(prompt.trained for prompt in built)} of them of trained pairs: {out}")


def clip_scores(
    prompt_file: tyro.conf.Positional[Path],
    *,
    clip: str,
    model: str = "mini",
    seed: int = 0,
    steps: int | None = None,
    image_reward: bool = False,
    out: Path | None = None,
    force: bool = False,
) -> None:
    """Measure text generation by CLIP similarity and R-precision on a list of prompts, as papers do.

    Images are rendered at the generated views, as by the original, and between them. The pool of R-precision is
    the list itself; its size is in the report.

    Args:
        prompt_file: Text file with one prompt in every line, such as a list of T3Bench.
        clip: Folder of a CLIP model, or its name on the hub, such as openai/clip-vit-base-patch32.
        model: Name of a model with a variant, or a model folder.
        seed: Seed of every prompt.
        steps: Denoising steps; the model's default when not given.
        image_reward: Measure ImageReward too, with the package image-reward.
        out: JSON file for the figures and all single results; the contact sheet is written next to it as .png.
        force: Replace existing files.
    """
    arguments = ReportArguments(prompt_file, out, force=force)
    arguments.check()
    asked = read_prompts(prompt_file)
    reward = load_image_reward() if image_reward else None
    scorer = ClipScorer.from_pretrained(clip)
    pipe = _choice(model).open(None if model == "mini" else [*asked, ""])

    def generate(prompt: str) -> tuple[Splats, float]:
        (made,) = pipe.generate(Generation(prompts=(prompt,), seed=seed, steps=steps)).objects()
        return made.splats, made.elevation_deg

    evaluation = evaluate_prompts(generate, asked, scorer, pipe.autoencoder.image_size, reward)
    settings = {"prompts": str(prompt_file), "clip": clip, "model": model, "seed": seed, "steps": steps}
    _finish("clip", evaluation, arguments, settings)


def compare(first: tyro.conf.Positional[Path], second: tyro.conf.Positional[Path]) -> None:
    """Compare the figures of two reports.

    Args:
        first: JSON file that an evaluation wrote.
        second: Another, of the same subcommand.
    """
    one, other = (read_json(path, "expected a report of 'diffsplat evaluate'") for path in (first, second))
    if one.get("subcommand") != other.get("subcommand") or not isinstance(one.get("figures"), dict):
        raise InvalidInputError(
            f"{str(first)!r} is a report of {one.get('subcommand')!r} and {str(second)!r} of "
            f"{other.get('subcommand')!r}, expected two of one subcommand"
        )
    print(_comparison(one["figures"], other["figures"]))


COMMANDS: dict[str, Callable[..., None]] = {
    "reconstruction": reconstruction,
    "autoencoder": autoencoder,
    "text": text,
    "image": image,
    "control": control,
    "shapes": shapes,
    "ceiling": ceiling,
    "judge": judge,
    "prompts": prompts,
    "clip": clip_scores,
    "compare": compare,
}
"""Subcommands of ``diffsplat evaluate``."""


def _report_grids(
    subcommand: str,
    arguments: ViewArguments,
    model: str,
    predict: Predict,
    pixel_grid: PixelGrid,
) -> None:
    perceptual = load_perceptual_distance(arguments.perceptual, arguments.perceptual_weights)
    evaluation = evaluate_grids(predict, _held_out(arguments), pixel_grid, perceptual)
    _finish(subcommand, evaluation, arguments, {"model": model})


def _held_out(arguments: ReportArguments) -> Iterable[tuple[str, Views]]:
    dataset = open_objects(arguments.data, split="test", variants=False)
    return held_out_views(dataset, arguments.limit)


def _choice(model: str) -> ModelChoice:
    return ModelChoice.parse(model, OpeningOptions())


def _opened(choice: ModelChoice) -> DiffSplatPipeline:
    """A model whose calls show no bar below that of the evaluation."""
    pipe = choice.open()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _elevation(views: Views) -> float:
    """Degrees above the horizon of the first view."""
    return float(elevation_deg(views.cameras)[0, 0])


def _judge(arguments: JudgedArguments) -> tuple[NounJudge, dict[str, float], FeatureStore]:
    folder = arguments.cache or user_cache() / "judge"
    store = FeatureStore(load_efficientnet(), folder / _FEATURES)
    nouns = sorted({prompt.noun for prompt in stored_prompts(arguments.prompts)})
    fitted, figures = load_or_fit(arguments.data, nouns, store, folder)
    return fitted, asdict(figures), store


def _image_baselines(pipe: DiffSplatPipeline, data: Path, model: str, seed: int) -> dict[str, Make]:
    """What generation from an image is compared with: objects that do not depend on it, and real ones like it."""
    nearest = _nearest_object(data, model)
    if pipe.needs_image:
        return {"nearest": nearest}

    def unconditioned(views: Views) -> Splats:
        return pipe(_ANYTHING, elevation=_elevation(views), seed=seed, guidance=1.0).splats

    return {"unconditioned": unconditioned, "nearest": nearest}


def _nearest_object(data: Path, model: str) -> NearestObject:
    """The training object that looks most like an image, through the reconstructor of a model."""
    reconstruct = model_reconstructor(model)
    return NearestObject.of(
        open_objects(data, split="train", variants=False),
        FeatureStore(load_efficientnet(), user_cache() / "judge" / _FEATURES).features,
        lambda views: reconstruct(views).to_splats(views.cameras, reconstruct.pixel_grid),
    )


def _through_latents(
    model: str, part: Literal["autoencoder", "denoised"] = "autoencoder", weights: Path | None = None
) -> Callable[[SplatGrid, Views], SplatGrid]:
    network: Any = model_autoencoder(model, weights)
    channels, smoothing = network.latent_channels, 0.0
    if part == "denoised":
        channels = denoised_channels(read_json(component_config(model, "denoiser")))
        smoothing = ModelFolder.find(model).defaults().smoothing

    def through(grid: SplatGrid, views: Views) -> SplatGrid:
        decoded = network.decode(network.encode(grid)[:, :, :channels])
        if not smoothing:
            return decoded
        return clean_surfaces(decoded, views.cameras, smoothing, network.pixel_grid)

    return through


def _spread(asked: list[JudgedPrompt], limit: int | None) -> list[JudgedPrompt]:
    return [asked[place] for place in evenly_spread(len(asked), limit)]


def _finish(
    subcommand: str, evaluation: Evaluation, arguments: ReportArguments, settings: dict[str, Any]
) -> None:
    print(_table(f"{subcommand}, {len(evaluation.objects)} objects", evaluation.figures))
    if arguments.out is not None:
        content = {
            "subcommand": subcommand,
            "settings": settings,
            "figures": evaluation.figures,
            "objects": evaluation.objects,
        }
        write_image(evaluation.sheet, arguments.out.with_suffix(".png"), force=arguments.force)
        write_json(content, arguments.out, force=arguments.force)


def _table(title: str, figures: dict[str, float]) -> str:
    width = max(len(name) for name in figures)
    lines = [title, "-" * max(len(title), width + 9)]
    for name, value in figures.items():
        shown = f"{value:9d}" if isinstance(value, int) else f"{value:9.3f}"
        lines.append(f"{name:{width}}{shown}")
    return "\n".join(lines)


def _comparison(first: dict[str, float], second: dict[str, float]) -> str:
    """A table of the figures that both reports have, with their differences."""
    shared = [name for name in first if name in second]
    width = max((len(name) for name in shared), default=0)
    lines = [f"{'':{width}}{'first':>11}{'second':>11}{'difference':>12}"]
    for name in shared:
        one, other = float(first[name]), float(second[name])
        lines.append(f"{name:{width}}{one:11.4f}{other:11.4f}{other - one:+12.4f}")
    return "\n".join(lines)
