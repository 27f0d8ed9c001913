"""Figures of silhouettes, on drawings that can be counted."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffsplat.core import Splats, Views
from diffsplat.evaluation.evaluation_prompts import JudgedPrompt
from diffsplat.evaluation.shape_evaluation import (
    connected_parts,
    evaluate_shapes,
    loose_share,
    mean_distance,
)
from diffsplat.geometry import ring_cameras
from diffsplat.render import render


def drawing(*rows: str) -> torch.Tensor:
    return torch.tensor([[letter == "#" for letter in row] for row in rows])


@pytest.mark.parametrize(
    ("rows", "share"),
    [
        (("####", "#..#", "####"), 0.0),
        (("##..", "##..", "...#"), 1 / 5),
        (("##..", "##..", "..##"), 0.0),  # a corner holds
        (("#.#.", "....", "#.#."), 3 / 4),
        (("....", "...."), 0.0),
    ],
)
def test_loose_bits_are_what_lies_outside_the_largest_part(rows, share):
    assert loose_share(drawing(*rows)) == pytest.approx(share)


def test_parts_are_those_of_a_flood_fill():
    """Against a search with a stack, on random drawings."""
    random = np.random.default_rng(0)
    for density in (0.2, 0.35, 0.5):
        inside = torch.from_numpy(random.random((40, 40)) < density)
        parts = connected_parts(inside)
        assert torch.equal(parts > 0, inside)
        left = {(int(y), int(x)) for y, x in inside.nonzero()}
        count = 0
        while left:
            stack, found = [left.pop()], set()
            while stack:
                y, x = stack.pop()
                found.add((y, x))
                near = {(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
                left -= near
                stack += near
            assert len({float(parts[place]) for place in found}) == 1
            count += 1
        assert len(parts[inside].unique()) == count


def test_a_distance_is_one_minus_the_overlap():
    square, half, nothing = drawing("####", "####"), drawing("##..", "##.."), drawing("....", "....")
    assert mean_distance(torch.stack([square, half])[:, None]) == pytest.approx(0.5)
    assert mean_distance(torch.stack([square, square, half])[:, None]) == pytest.approx(1 / 3)
    assert mean_distance(torch.stack([square, nothing])[:, None]) == 1
    assert mean_distance(torch.stack([nothing, nothing])[:, None]) == 0
    with pytest.raises(ValueError, match="got 1 objects"):
        mean_distance(square[None, None])


def ball(radius: float, *, satellite: bool = False) -> Splats:
    """A ball around the origin, and a smaller one far above it."""
    points = torch.randn(2000, 3, generator=torch.Generator().manual_seed(1))
    points = radius * points / points.norm(dim=-1, keepdim=True)
    if satellite:
        points[:500] = points[:500] * 0.25 + torch.tensor([0.0, 0.42, 0.0])
    return Splats(
        means=points,
        scales=torch.full((2000, 3), 0.012),
        quats=torch.tensor([1.0, 0, 0, 0]).expand(2000, 4),
        opacities=torch.full((2000,), 0.95),
        colors=torch.full((2000, 3), 0.4),
    )


def views_of(splats: Splats) -> Views:
    cameras = ring_cameras(10.0, size=128)
    shown = render(splats, cameras)
    mask, normal = (shown.alpha > 0.5).float()[None], torch.ones(1, 4, 3, 128, 128)
    batched = cameras.map(lambda tensor: tensor[None])
    return Views(shown.rgb[None].clamp(0, 1), mask, normal, normal, mask, batched)


CHAIR = JudgedPrompt("a red chair", "chair", "red", trained=True)


def test_generated_shapes_stand_next_to_real_ones():
    sizes = {0: 0.15, 1: 0.3}
    real = {"chair": [views_of(ball(0.15)), views_of(ball(0.3))], "lamp": [views_of(ball(0.2))]}
    figures = evaluate_shapes(lambda _, seed: ball(sizes[seed]), [CHAIR], (0, 1), real).figures
    assert figures["loose"] == figures["real_loose"] == 0
    # Discs of radius 1 : 2, nearly: Gaussians at the rim add the same width to both.
    assert figures["seed_distance"] == pytest.approx(0.72, abs=0.03)
    assert figures["real_distance"] == pytest.approx(figures["seed_distance"], abs=1e-6)
    loose = evaluate_shapes(lambda _, seed: ball(0.15, satellite=seed == 1), [CHAIR], (0, 1), real).figures
    # One of two objects has a second disc of about a quarter of the radius.
    assert 0.5 * 0.05 < loose["loose"] < 0.5 * 0.2
    assert loose["real_loose"] == 0


def test_shapes_need_two_seeds_and_real_objects_of_every_noun():
    real = {"chair": [views_of(ball(0.15)), views_of(ball(0.3))]}
    with pytest.raises(ValueError, match="got 1 seeds"):
        evaluate_shapes(lambda *_: ball(0.2), [CHAIR], (0,), real)
    with pytest.raises(ValueError, match="no real objects of 'frog'"):
        evaluate_shapes(lambda *_: ball(0.2), [replace(CHAIR, noun="frog")], (0, 1), real)
