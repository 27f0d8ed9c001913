"""Measuring text generation by judges of nouns and colours."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from diffsplat.core import Cameras, Splats
from diffsplat.errors import InvalidInputError
from diffsplat.evaluation.dominant_color import dominant_color
from diffsplat.evaluation.evaluation_prompts import JudgedPrompt
from diffsplat.evaluation.evaluation_result import Evaluation
from diffsplat.evaluation.noun_judge import NounJudge
from diffsplat.geometry import orbit_cameras
from diffsplat.io.image_files import tile_images
from diffsplat.render import render

JUDGED_AZIMUTHS_DEG = (30.0, 120.0, 210.0, 300.0)
JUDGED_ELEVATION_DEG = 15.0
JUDGED_SIZE = 128

_FRAME = 4
_RIGHT, _HALF, _WRONG = (0.2, 0.7, 0.2), (0.95, 0.7, 0.1), (0.85, 0.15, 0.15)

Generate = Callable[[str], Splats]
"""A prompt to splats ``[N]``."""

Features = Callable[[Sequence[Tensor]], Tensor]
"""``[3, H, W]`` images to features ``[N, F]``."""


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
            figures[f"noun_rank1{suffix}"] = fmean(noun)
            figures[f"noun_rank5{suffix}"] = fmean(entry["noun_rank"] <= 5 for entry in part)
            views = len(JUDGED_AZIMUTHS_DEG)
            figures[f"noun_rank1_per_view{suffix}"] = fmean(entry["views_right"] / views for entry in part)
            figures[f"color{suffix}"] = fmean(color)
            figures[f"both{suffix}"] = fmean(a and b for a, b in zip(noun, color, strict=True))
    return figures


def _framed(image: Tensor, noun: bool, color: bool) -> Tensor:
    """A frame: green when noun and colour are right, amber for one of them, red for none."""
    paint = _RIGHT if noun and color else _HALF if noun or color else _WRONG
    inner = image.shape[-1] - 2 * _FRAME
    small = F.interpolate(image[None], (inner, inner), mode="bilinear", antialias=True)[0]
    framed = torch.tensor(paint)[:, None, None].expand_as(image).clone()
    framed[:, _FRAME:-_FRAME, _FRAME:-_FRAME] = small
    return framed
