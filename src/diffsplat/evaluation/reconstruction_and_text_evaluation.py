"""Measuring a model: reconstruction and autoencoder against held-out objects, text by judges."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from diffsplat.core import Cameras, PixelGrid, SplatGrid, Splats, Views
from diffsplat.core.stable_hash import stable_hash
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.errors import InvalidInputError
from diffsplat.evaluation.dominant_color import dominant_color
from diffsplat.evaluation.evaluation_prompts import JudgedPrompt
from diffsplat.evaluation.image_metrics import ImageMetric, image_metrics
from diffsplat.evaluation.noun_judge import NounJudge
from diffsplat.evaluation.perceptual_distance import VggDistance
from diffsplat.geometry import orbit_cameras
from diffsplat.io.image_files import tile_images
from diffsplat.render import render

INPUT_VIEWS = 4
"""The first views of a batch are what a reconstructor sees; the others are novel."""

JUDGED_AZIMUTHS_DEG = (30.0, 120.0, 210.0, 300.0)
JUDGED_ELEVATION_DEG = 15.0
JUDGED_SIZE = 128

_SHEET_OBJECTS = 12
_FRAME = 4
_RIGHT, _HALF, _WRONG = (0.2, 0.7, 0.2), (0.95, 0.7, 0.1), (0.85, 0.15, 0.15)

Predict = Callable[[Views], SplatGrid]
"""``[B, 4]`` input views to their splat grid."""

Generate = Callable[[str], Splats]
"""A prompt to splats ``[N]``."""

Features = Callable[[Sequence[Tensor]], Tensor]
"""``[3, H, W]`` images to features ``[N, F]``."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Args:
        figures: numbers by name.
        objects: one entry an object or prompt.
        sheet: ``[3, H, W]`` contact sheet.
    """

    figures: dict[str, float]
    objects: list[dict[str, Any]]
    sheet: Tensor = field(repr=False)


@torch.no_grad()
def evaluate_grids(
    predictors: dict[str, Predict],
    objects: Iterable[tuple[str, Views]],
    pixel_grid: PixelGrid = "center",
    perceptual: VggDistance | None = None,
) -> Evaluation:
    """PSNR (dB), SSIM and perceptual distance of splat grids, rendered in their input views and in novel ones.

    Every figure is the mean over all views of all objects.

    Args:
        predictors: by the name that their figures begin with; the last one is pictured.
        objects: identity and ``[1, 4 + novel]`` views, the inputs first.
        pixel_grid: that the grids are unprojected with.
        perceptual: measured where it is given.

    Raises:
        ValueError: there is no object, or one has no novel view.
    """
    metrics = image_metrics(perceptual)
    entries: list[dict[str, Any]] = []
    rows: list[Tensor] = []
    for identity, views in tqdm(objects, unit="object", desc="evaluate"):
        if views.count <= INPUT_VIEWS:
            raise InvalidInputError(f"{identity} has {views.count} views, expected more than {INPUT_VIEWS}")
        inputs = views.take(slice(0, INPUT_VIEWS))
        entry: dict[str, Any] = {"object": identity}
        for name, predict in predictors.items():
            splats = predict(inputs).to_splats(inputs.cameras, pixel_grid)
            images = render(splats, views.cameras, normals=False).rgb.clamp(0, 1)
            entry |= _grid_figures(name, metrics, images, views.image)
            if len(entries) < _SHEET_OBJECTS and name == list(predictors)[-1]:
                rows += [views.image[0], images[0]]
        entries.append(entry)
    if not entries:
        raise InvalidInputError("got no objects to evaluate, expected at least one")
    figures = {name: _mean(entry[name] for entry in entries) for name in entries[0] if name != "object"}
    sheet = tile_images(torch.cat(rows), columns=rows[0].shape[0], gap=2)
    return Evaluation(figures, entries, sheet)


def _grid_figures(
    name: str, metrics: Mapping[str, ImageMetric], images: Tensor, truth: Tensor
) -> dict[str, float]:
    figures = {}
    for metric, function in metrics.items():
        quality = function(images, truth)
        figures[f"{name}_input_{metric}"] = float(quality[:, :INPUT_VIEWS].mean())
        figures[f"{name}_novel_{metric}"] = float(quality[:, INPUT_VIEWS:].mean())
    return figures


def evenly_spread(total: int, limit: int | None = None) -> list[int]:
    """At most ``limit`` of the numbers below ``total``, spread evenly from 0 on; all of them without a limit."""
    count = total if limit is None else min(limit, total)
    return [place * total // count for place in range(count)]


def held_out_views(dataset: ObjectDataset, limit: int | None = None) -> Iterable[tuple[str, Views]]:
    """Four ring views and four novel views of the objects, at most ``limit`` of them spread evenly; repeatable."""
    for index in evenly_spread(len(dataset), limit):
        yield dataset.rows[index].object_id, dataset.sample(index, 0, novel_views=4)


def asked_objects(dataset: ObjectDataset, prompts: Sequence[JudgedPrompt]) -> dict[str, Views]:
    """For each prompt the views of a real object that it describes, from the front, chosen by a hash.

    An object of the noun in the prompt's colour, or in another where there is none in that.

    Raises:
        ValueError: the data set has no object of a noun.
    """
    found = {}
    for prompt in prompts:
        named = [index for index, row in enumerate(dataset.rows) if row.noun == prompt.noun]
        if not named:
            raise InvalidInputError(f"no training object is a {prompt.noun!r}, expected some of every noun")
        colored = [index for index in named if dataset.rows[index].colors == (prompt.color,)]
        rank = {index: stable_hash(dataset.rows[index].object_id) for index in colored or named}
        found[prompt.prompt] = dataset.canonical(min(rank, key=rank.__getitem__))
    return found


def objects_of_nouns(
    dataset: ObjectDataset, nouns: Collection[str], limit: int = 6
) -> dict[str, list[Views]]:
    """For each noun views of at most ``limit`` real objects, chosen by a hash, the first four from the front."""
    found: dict[str, list[int]] = {noun: [] for noun in nouns}
    for index in sorted(range(len(dataset)), key=lambda index: stable_hash(dataset.rows[index].object_id)):
        found.get(dataset.rows[index].noun, []).append(index)
    return {
        noun: [dataset.canonical(index) for index in indices[:limit]]
        for noun, indices in found.items()
        if indices
    }


def judged_cameras() -> Cameras:
    """``[4]`` cameras that generated objects are judged from, between the views that they are generated in."""
    return orbit_cameras(JUDGED_AZIMUTHS_DEG, JUDGED_ELEVATION_DEG, width=JUDGED_SIZE, height=JUDGED_SIZE)


@torch.no_grad()
def evaluate_text(
    generate: Generate, prompts: Sequence[JudgedPrompt], judge: NounJudge, features: Features
) -> Evaluation:
    """How often the judges find the noun and the colour of a prompt in what was generated.

    Figures are shares of the prompts: ``noun_rank1`` and ``noun_rank5`` (the four views judged together),
    ``noun_rank1_per_view`` (every view alone), ``color``, ``both``; each for all prompts and, with the suffixes
    ``_trained`` and ``_untrained``, for the pairs of noun and colour that training captions say and do not say.

    Args:
        generate: the model.
        prompts: what to ask for.
        judge: of nouns.
        features: of the judge's network.

    Raises:
        ValueError: there is no prompt, or the judge does not know a noun.
    """
    unknown = sorted({prompt.noun for prompt in prompts} - set(judge.nouns))
    if unknown or not prompts:
        raise InvalidInputError(
            f"the judge does not know {unknown[0]!r}" if unknown else "got no prompts to evaluate"
        )
    cameras = judged_cameras()
    entries: list[dict[str, Any]] = []
    tiles: list[Tensor] = []
    for prompt in tqdm(prompts, unit="prompt", desc="evaluate"):
        splats = generate(prompt.prompt)
        rendering = render(splats, cameras.to(splats.device), normals=False)
        images, alpha = rendering.rgb.clamp(0, 1).cpu(), rendering.alpha.clamp(0, 1).cpu()
        entry = _judged(prompt, images, alpha, judge, features(list(images)))
        entries.append(entry)
        tiles.append(_framed(images[0], entry["noun_rank"] == 1, entry["seen_color"] == prompt.color))
    sheet = tile_images(torch.stack(tiles), columns=min(10, len(tiles)))
    return Evaluation(_text_figures(entries), entries, sheet)


def _judged(
    prompt: JudgedPrompt, images: Tensor, alpha: Tensor, judge: NounJudge, features: Tensor
) -> dict[str, Any]:
    scores = judge.log_probabilities(features)
    visible = bool((alpha > 0.5).any())
    return {
        "prompt": prompt.prompt,
        "noun": prompt.noun,
        "color": prompt.color,
        "trained": prompt.trained,
        "noun_rank": judge.rank(features, prompt.noun),
        "views_right": sum(judge.rank(view[None], prompt.noun) == 1 for view in features),
        "seen_noun": judge.nouns[int(scores.mean(dim=0).argmax())],
        "seen_color": dominant_color(images, alpha) if visible else None,
    }


def _text_figures(entries: Sequence[dict[str, Any]]) -> dict[str, float]:
    parts = {
        "": list(entries),
        "_trained": [entry for entry in entries if entry["trained"]],
        "_untrained": [entry for entry in entries if not entry["trained"]],
    }
    figures = {}
    for suffix, part in parts.items():
        if part:
            noun = [entry["noun_rank"] == 1 for entry in part]
            color = [entry["seen_color"] == entry["color"] for entry in part]
            figures[f"noun_rank1{suffix}"] = _mean(noun)
            figures[f"noun_rank5{suffix}"] = _mean(entry["noun_rank"] <= 5 for entry in part)
            views = len(JUDGED_AZIMUTHS_DEG)
            figures[f"noun_rank1_per_view{suffix}"] = _mean(entry["views_right"] / views for entry in part)
            figures[f"color{suffix}"] = _mean(color)
            figures[f"both{suffix}"] = _mean(a and b for a, b in zip(noun, color, strict=True))
    return figures


def _framed(image: Tensor, noun: bool, color: bool) -> Tensor:
    """A frame: green when noun and colour are right, amber for one of them, red for none."""
    paint = _RIGHT if noun and color else _HALF if noun or color else _WRONG
    inner = image.shape[-1] - 2 * _FRAME
    small = F.interpolate(image[None], (inner, inner), mode="bilinear", antialias=True)[0]
    framed = torch.tensor(paint)[:, None, None].expand_as(image).clone()
    framed[:, _FRAME:-_FRAME, _FRAME:-_FRAME] = small
    return framed


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values)
