"""The own Euler steps along a flow against diffusers'."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from diffsplat.pretrained.schedulers import FlowEulerScheduler, load_scheduler, make_scheduler


def path_of(scheduler: Any, steps: int) -> list[Tensor]:
    """Latents after every step, the prediction depending on them and on the timestep."""
    scheduler.set_timesteps(steps, device="cpu")
    latents = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    visited = []
    for timestep in scheduler.timesteps:
        prediction = torch.sin(3 * latents + timestep / 100)
        latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
        visited.append(latents)
    return visited


@pytest.mark.parametrize("steps", [1, 2, 20, 77])
@pytest.mark.parametrize("shift", [1.0, 3.0, 6.0])
def test_steps_are_those_of_diffusers(shift: float, steps: int):
    own, stock = FlowEulerScheduler(shift), FlowMatchEulerDiscreteScheduler(shift=shift)
    found, expected = path_of(own, steps), path_of(stock, steps)
    torch.testing.assert_close(own.timesteps, stock.timesteps, rtol=0, atol=1e-4)
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=0, atol=1e-6)


def test_it_starts_again_for_another_generation():
    scheduler = FlowEulerScheduler(3.0)
    first = path_of(scheduler, 4)
    assert torch.equal(torch.stack(first), torch.stack(path_of(scheduler, 4)))
    assert torch.equal(torch.stack(first), torch.stack(path_of(copy.deepcopy(scheduler), 4)))


def test_a_bf16_prediction_is_added_in_float32():
    own, stock = FlowEulerScheduler(), FlowMatchEulerDiscreteScheduler()
    steps = []
    for scheduler in (own, stock):
        scheduler.set_timesteps(7, device="cpu")
        latents, prediction = torch.full((3,), 1.01), torch.full((3,), 0.3, dtype=torch.bfloat16)
        steps.append(scheduler.step(prediction, scheduler.timesteps[0], latents, return_dict=False)[0])
    assert steps[0].dtype == steps[1].dtype
    assert torch.equal(*steps)


def test_both_read_the_same_file(tmp_path: Path):
    FlowMatchEulerDiscreteScheduler(shift=5.0).save_pretrained(tmp_path / "stock")
    own = load_scheduler(tmp_path / "stock")
    assert isinstance(own, FlowEulerScheduler)
    assert own.config["shift"] == 5.0
    own.save_pretrained(tmp_path / "own")
    kind: Any = FlowMatchEulerDiscreteScheduler
    assert kind.from_pretrained(tmp_path / "own").config.shift == 5.0


@pytest.mark.parametrize(
    ("option", "value"),
    [("use_dynamic_shifting", True), ("shift_terminal", 0.1), ("num_train_timesteps", 10)],
)
def test_an_option_that_it_lacks_is_refused(tmp_path: Path, option: str, value: Any):
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, option: value}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"its {option} is {value}, expected a plain flow"):
        load_scheduler(tmp_path)


def test_shift_of_another_solver_is_taken_over():
    solver = make_scheduler("dpm++", {"shift": 2.5}, "flow")
    assert make_scheduler("euler", solver.config, "flow").config["shift"] == 2.5
