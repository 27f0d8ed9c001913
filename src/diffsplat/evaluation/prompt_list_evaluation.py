"""Measuring text generation on a list of prompts by CLIP, at the generated views and between them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from diffsplat.core import Splats
from diffsplat.evaluation.clip_scores import ClipScorer, clip_similarity, r_precision
from diffsplat.evaluation.evaluation_result import SHEET_OBJECTS, Evaluation
from diffsplat.evaluation.image_reward import Reward
from diffsplat.geometry import BETWEEN_AZIMUTHS_DEG, orbit_cameras, ring_cameras
from diffsplat.io.image_files import tile_images
from diffsplat.render import render

GenerateAt = Callable[[str], tuple[Splats, float]]
"""A prompt to splats ``[N]`` and the elevation in degrees that they were generated at."""


@torch.no_grad()
def evaluate_prompts(
    generate: GenerateAt, prompts: Sequence[str], scorer: ClipScorer, size: int, reward: Reward | None = None
) -> Evaluation:
    """CLIP similarity (cosine times 100), R-precision and, where it is given, reward of an object of each prompt.

    The pool of R-precision is the distinct prompts of the list; images have ``size`` pixels per side.
    """
    pool = list(dict.fromkeys(prompts))
    texts = torch.cat([scorer.texts([text]) for text in pool])
    features: dict[str, list[Tensor]] = {"generated": [], "between": []}
    rewards: dict[str, list[Tensor]] = {"generated": [], "between": []}
    rows: list[Tensor] = []
    for prompt in tqdm(prompts, unit="prompt", desc="evaluate"):
        splats, elevation = generate(prompt)
        for name, cameras in (
            ("generated", ring_cameras(elevation, size=size)),
            ("between", orbit_cameras(BETWEEN_AZIMUTHS_DEG, elevation, width=size, height=size)),
        ):
            images = render(splats, cameras.to(splats.device), normals=False).rgb.clamp(0, 1).cpu()
            features[name].append(scorer.images(images))
            if reward is not None:
                rewards[name].append(reward(prompt, images).mean())
            if name == "generated" and len(rows) < SHEET_OBJECTS:
                rows.append(images)
    own = [pool.index(prompt) for prompt in prompts]
    figures: dict[str, float] = {"pool": len(pool)}
    objects = [{"prompt": prompt} for prompt in prompts]
    for name, found in features.items():
        views = torch.stack(found)
        measured = {
            "clip_similarity": clip_similarity(views, texts[own]),
            "r_precision": r_precision(views, texts, own),
        }
        if reward is not None:
            measured["image_reward"] = torch.stack(rewards[name])
        for kind, values in measured.items():
            figures[f"{name}_{kind}"] = float(values.mean())
            for entry, value in zip(objects, values.tolist(), strict=True):
                entry[f"{name}_{kind}"] = value
    return Evaluation(figures, objects, tile_images(torch.cat(rows), columns=len(rows[0]), gap=2))
