import math

import pytest
import torch

from diffsplat.core import SplatGrid, Splats, Views
from diffsplat.evaluation.evaluation_prompts import JudgedPrompt
from diffsplat.evaluation.noun_judge import NounJudge
from diffsplat.evaluation.reconstruction_and_text_evaluation import (
    evaluate_grids,
    evaluate_text,
    judged_cameras,
)
from diffsplat.geometry import orbit_cameras
from diffsplat.render import render

SIZE = 16


def plain_grid(opacity: float) -> SplatGrid:
    """Grids of four views whose splats lie in the planes through the origin."""
    values = torch.zeros(1, 4, 12, SIZE, SIZE)
    values[:, :, 0:3] = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    values[:, :, 3:6] = -1  # the largest sigma
    values[:, :, 6] = 1
    values[:, :, 10] = opacity
    return SplatGrid(values)


def views_of(image: torch.Tensor) -> Views:
    azimuths = [0.0, 90.0, 180.0, 270.0, 30.0, 200.0][: image.shape[1]]
    cameras = orbit_cameras(azimuths, 10.0, width=SIZE, height=SIZE)
    white = torch.ones_like(image)
    mask = torch.zeros_like(image[:, :, :1])
    batched = cameras.map(lambda tensor: tensor[None])
    return Views(image=image, mask=mask, normal=white, coord=white, depth=mask, cameras=batched)


def rendered_views(grid: SplatGrid) -> Views:
    cameras = views_of(torch.ones(1, 6, 3, SIZE, SIZE)).cameras
    splats = grid.to_splats(cameras[:, :4])
    return views_of(render(splats, cameras, normals=False, backend="reference").rgb.clamp(0, 1))


def ball(color: tuple[float, float, float], *, count: int = 400) -> Splats:
    points = torch.randn(count, 3, generator=torch.Generator().manual_seed(1))
    points = 0.3 * points / points.norm(dim=-1, keepdim=True)
    return Splats(
        means=points,
        scales=torch.full((count, 3), 0.03),
        quats=torch.tensor([1.0, 0, 0, 0]).expand(count, 4),
        opacities=torch.full((count,), 0.95),
        colors=torch.tensor(color).expand(count, 3),
    )


def test_a_perfect_model_is_perfect_and_an_empty_one_is_white():
    grid = plain_grid(1.0)
    views = rendered_views(grid)
    models = {"empty": lambda _: plain_grid(-1.0), "perfect": lambda _: grid}
    result = evaluate_grids(models, [("a", views), ("b", views)])
    for part in ("input", "novel"):
        assert result.figures[f"perfect_{part}_psnr"] > 60
        assert result.figures[f"perfect_{part}_ssim"] == pytest.approx(1, abs=1e-3)
    errors = (1 - views.image[0].double()).square().mean(dim=(1, 2, 3))
    decibels = [-10 * math.log10(float(error)) for error in errors]
    assert result.figures["empty_input_psnr"] == pytest.approx(sum(decibels[:4]) / 4, abs=1e-3)
    assert result.figures["empty_novel_psnr"] == pytest.approx(sum(decibels[4:]) / 2, abs=1e-3)
    assert [entry["object"] for entry in result.objects] == ["a", "b"]
    # Two rows (truth and rendering) of six views for each object, with gaps of two pixels.
    assert result.sheet.shape == (3, 4 * SIZE + 3 * 2, 6 * SIZE + 5 * 2)


def test_the_model_sees_only_the_input_views():
    seen = []

    def model(views: Views) -> SplatGrid:
        seen.append(views.count)
        return plain_grid(-1.0)

    evaluate_grids({"model": model}, [("a", rendered_views(plain_grid(1.0)))])
    assert seen == [4]


def test_grids_need_objects_and_novel_views():
    with pytest.raises(ValueError, match="no objects"):
        evaluate_grids({"model": lambda _: plain_grid(1.0)}, [])
    with pytest.raises(ValueError, match="has 4 views"):
        evaluate_grids(
            {"model": lambda _: plain_grid(1.0)}, [("a", views_of(torch.ones(1, 4, 3, SIZE, SIZE)))]
        )


# A judge whose features are the mean colour of the middle of the picture: "tomato" is red, "sky" is blue.
JUDGE = NounJudge(
    ("sky", "tomato"),
    torch.zeros(3),
    torch.ones(3),
    torch.tensor([[-9.0, 9.0], [0, 0], [9.0, -9.0]]),
    torch.zeros(2),
)
PROMPTS = [
    JudgedPrompt("a red tomato", "tomato", "red", True),
    JudgedPrompt("a blue tomato", "tomato", "blue", False),
    JudgedPrompt("a blue sky", "sky", "blue", True),
    JudgedPrompt("a yellow sky", "sky", "yellow", False),
]


def middle_color(images: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([image[:, 56:72, 56:72].mean(dim=(1, 2)) for image in images])


def painted(prompt: str) -> Splats:
    """What a model makes that paints every word right but knows no yellow."""
    return ball((0.85, 0.1, 0.1) if "red" in prompt else (0.1, 0.2, 0.85))


def test_text_figures_of_a_model_with_known_faults():
    result = evaluate_text(painted, PROMPTS, JUDGE, middle_color)
    expected = {
        "noun_rank1": 0.75,
        "color": 0.75,
        "both": 0.5,
        "noun_rank5": 1.0,
        "noun_rank1_per_view": 0.75,
    }
    assert {name: result.figures[name] for name in expected} == expected
    assert result.figures["noun_rank1_trained"] == result.figures["color_trained"] == 1
    assert result.figures["noun_rank1_untrained"] == 0.5
    assert result.figures["color_untrained"] == 0.5
    assert result.figures["both_untrained"] == 0
    assert [entry["seen_color"] for entry in result.objects] == ["red", "blue", "blue", "blue"]
    assert [entry["seen_noun"] for entry in result.objects] == ["tomato", "sky", "sky", "sky"]
    assert result.sheet.shape == (3, 128, 4 * 128)


def test_nothing_generated_has_no_color():
    empty = ball((1.0, 0.0, 0.0))
    invisible = Splats(empty.means, empty.scales, empty.quats, torch.zeros(400), empty.colors)
    result = evaluate_text(lambda _: invisible, PROMPTS[:1], JUDGE, middle_color)
    assert result.objects[0]["seen_color"] is None
    assert result.figures["color"] == 0


def test_text_refuses_what_it_cannot_judge():
    with pytest.raises(ValueError, match="'lamp'"):
        evaluate_text(painted, [JudgedPrompt("a red lamp", "lamp", "red", True)], JUDGE, middle_color)
    with pytest.raises(ValueError, match="no prompts"):
        evaluate_text(painted, [], JUDGE, middle_color)


def test_judged_cameras_stand_between_the_generated_views():
    cameras = judged_cameras()
    torch.testing.assert_close(cameras.centers.norm(dim=-1), torch.full((4,), 1.4))
    azimuths = torch.rad2deg(torch.atan2(cameras.centers[:, 0], cameras.centers[:, 2])) % 90
    torch.testing.assert_close(azimuths, torch.full((4,), 30.0), atol=1e-3, rtol=0)
