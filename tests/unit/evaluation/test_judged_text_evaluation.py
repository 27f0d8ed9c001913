import pytest
import torch

from diffsplat.core import Splats
from diffsplat.evaluation.evaluation_prompts import JudgedPrompt
from diffsplat.evaluation.judged_text_evaluation import evaluate_text, judged_cameras
from diffsplat.evaluation.noun_judge import NounJudge


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
