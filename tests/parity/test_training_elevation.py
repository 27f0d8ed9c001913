"""The recorded training step of the elevation network."""

import copy

import pytest
import torch
from torch import Tensor

from diffsplat.models.elevation_network import ElevationConfig, ElevationEstimator
from diffsplat.training.stages.elevation_stage import elevation_losses
from diffsplat.training.trainer_config import OptimConfig
from support.training_recordings import (
    RecordedStep,
    TrainingRecordings,
    check_gradients,
    check_number,
    check_tensor,
)


@pytest.fixture
def step(training: TrainingRecordings) -> RecordedStep:
    facts, tensors = training.json("elevest_step.json"), training.tensors("elevest_step")
    named = {f"elevation.{name}": tensor for name, tensor in tensors.items()}
    return RecordedStep("elevation", facts, named, facts["parameters"][0])


@pytest.fixture
def estimator(training: TrainingRecordings, step: RecordedStep) -> ElevationEstimator:
    weights = {name: tensor.float() for name, tensor in training.tensors("elevest_weights").items()}
    config = ElevationConfig.of_state_dict(weights, heads=step.facts["backbone"]["heads"])
    return ElevationEstimator.from_state_dict(weights, config)


def released_gradients(estimator: ElevationEstimator) -> dict[str, Tensor | None]:
    """Gradients under the released names, some of which are several of our tensors."""
    holder = copy.deepcopy(estimator)
    without = [name for name, parameter in estimator.named_parameters() if parameter.grad is None]
    assert without == ["backbone.embeddings.mask_token"]
    for own, held in zip(estimator.parameters(), holder.parameters(), strict=True):
        held.data = torch.zeros_like(own) if own.grad is None else own.grad
    return {**holder.released_state_dict(), "backbone.mask_token": None}


def test_losses_and_gradients(step: RecordedStep, estimator: ElevationEstimator):
    images = step.tensor("image").flatten(0, 1) / 255
    degrees = torch.rad2deg(step.tensor("cam_pose")[..., 0]).flatten()
    logits, offsets = estimator.classify(images)
    check_tensor("logits", logits, step.tensor("logits"), 1e-4)
    check_tensor("offsets", offsets, step.tensor("offset_before_clamp"), 1e-4)
    weight = step.facts["options"]["elevest_reg_weight"]
    losses = elevation_losses(logits, offsets, degrees, estimator.lower_bounds, weight)
    losses.total.mean().backward()
    terms = step.facts["terms"]
    check_number("loss", losses.total.mean(), terms["loss"], 1e-5)
    check_number("interval", losses.terms["interval"].mean(), terms["loss_cls"], 1e-5)
    check_number("offset", losses.terms["offset"].mean(), terms["loss_offset"], 1e-5)
    check_gradients(step, released_gradients(estimator), 1e-4)


def test_learning_rates(step: RecordedStep):
    config = OptimConfig(
        lr_factors=((step.facts["options"]["name_lr_mult"], step.facts["options"]["lr_mult"]),)
    )
    for group, factor in (("lr_1x", 1.0), ("lr_0.1x", 0.1)):
        assert {config.lr_factor(name) for name in step.facts["groups"][group]} == {factor}


def test_our_names_have_the_same_learning_rates(estimator: ElevationEstimator):
    """The factors go by a part of the name, which released and own names share."""
    assert all(
        name.startswith("backbone.") != name.startswith(("cls_head.", "offset_head."))
        for name, _ in estimator.named_parameters()
    )
