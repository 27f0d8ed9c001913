"""Learning-rate schedules at steps whose value is known."""

import pytest

from diffsplat.training.trainer_config import OptimConfig


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (40, 0.75), (55, 0.5), (70, 0.25), (100, 0.0), (130, 0.0)],
)
def test_cosine_schedule_has_its_known_values(step: int, expected: float) -> None:
    config = OptimConfig(lr=2e-3, warmup_steps=10, schedule="cosine")
    assert config.learning_rate(step, 100) == pytest.approx(2e-3 * expected, abs=1e-12)


def test_cosine_schedule_ends_at_its_floor_and_the_constant_one_stays() -> None:
    floor = OptimConfig(lr=1.0, warmup_steps=0, final_lr=0.1)
    assert floor.learning_rate(50, 100) == pytest.approx(0.55)
    assert floor.learning_rate(100, 100) == pytest.approx(0.1)
    constant = OptimConfig(lr=1.0, warmup_steps=4, schedule="constant")
    assert [constant.learning_rate(step, 100) for step in (0, 3, 4, 99)] == [0.25, 1.0, 1.0, 1.0]


def test_warm_up_from_zero_is_one_step_behind() -> None:
    ours = OptimConfig(lr=1.0, warmup_steps=4)
    original = OptimConfig(lr=1.0, warmup_steps=4, warmup_from_zero=True)
    assert [original.learning_rate(step, 100) for step in range(4)] == [0.0, 0.25, 0.5, 0.75]
    assert [ours.learning_rate(step, 100) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_negative_factors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"optim\.lr_factors"):
        OptimConfig(lr_factors=(("backbone", -1.0),))
