import math

import pytest
import torch

from diffsplat.core import SplatGrid, Views
from diffsplat.evaluation.held_out_view_evaluation import evaluate_grids
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


def test_a_perfect_model_is_perfect_and_an_empty_one_is_white():
    grid = plain_grid(1.0)
    views = rendered_views(grid)
    grids = {"empty": plain_grid(-1.0), "perfect": grid}
    result = evaluate_grids(lambda _: grids, [("a", views), ("b", views)])
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

    def model(views: Views) -> dict[str, SplatGrid]:
        seen.append(views.count)
        return {"model": plain_grid(-1.0)}

    evaluate_grids(model, [("a", rendered_views(plain_grid(1.0)))])
    assert seen == [4]


def test_grids_need_objects_and_novel_views():
    with pytest.raises(ValueError, match="no objects"):
        evaluate_grids(lambda _: {"model": plain_grid(1.0)}, [])
    with pytest.raises(ValueError, match="has 4 views"):
        evaluate_grids(
            lambda _: {"model": plain_grid(1.0)}, [("a", views_of(torch.ones(1, 4, 3, SIZE, SIZE)))]
        )
